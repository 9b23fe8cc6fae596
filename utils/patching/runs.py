"""The two runs of a patching experiment: the one that is patched, and the one that the patches are taken from."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.transformer import Activations, Transformer


@dataclass(frozen=True)
class Runs:
    """Both runs, on the positions that can matter.

    Attributes:
        base: The run that is patched.
        source: The run that the patches are taken from.
        end: The answering position of each prompt.
        first: The first position at which the two runs differ in any prompt; the number of positions if they do not.
    """

    plain: Transformer
    base: Activations
    source: Activations
    end: Int[Tensor, "prompt"]
    first: int

    @classmethod
    def of(
        cls,
        plain: Transformer,
        base: Int[Tensor, "prompt seq"],
        source: Int[Tensor, "prompt seq"],
        end: Int[Tensor, "prompt"],
    ) -> "Runs":
        """Run the model on both batches of tokens, up to the last answering position."""
        base, source = base[:, : int(end.max()) + 1], source[:, : int(end.max()) + 1]
        differ = (base != source).any(0).nonzero()
        first = int(differ[0]) if len(differ) else base.shape[1]
        return cls(plain, *_run_both(plain, base, source, first), end, first)

    @property
    def length(self) -> int:
        """How many positions are computed."""
        return self.base.post.shape[1]

    def before(self, run: Activations, layer: int) -> Float[Tensor, "prompt seq d_model"]:
        """The residual stream of a run before a layer; before ``n_layers`` is after the last."""
        return run.pre[layer] if layer < self.plain.n_layers else run.post

    def unpatched(self) -> Float[Tensor, "prompt d_model"]:
        """The final residual stream of the base run where each prompt answers."""
        return self.base.post[torch.arange(len(self.end), device=self.end.device), self.end]

    def at_end(self, x: Float[Tensor, "*row prompt seq d_model"], start: int) -> Float[Tensor, "*row prompt d_model"]:
        """The answering position of each prompt, out of streams that begin at position ``start``.

        A prompt that has answered before ``start`` gets some position, and the caller discards it.
        """
        return x[..., torch.arange(len(self.end), device=self.end.device), (self.end - start).clamp(min=0), :]


def _run_both(
    plain: Transformer, base: Int[Tensor, "prompt seq"], source: Int[Tensor, "prompt seq"], first: int
) -> tuple[Activations, Activations]:
    """Run two batches of tokens that are equal before position ``first``, and compute what is equal once.

    All matrix products are those of both runs' positions together, [prompt, seq + seq - first].
    """
    length, runs = base.shape[1], (defaultdict(list), defaultdict(list))

    def of_each(joint: Tensor) -> tuple[Tensor, Tensor]:
        """Values of both runs at all positions."""
        return joint[:, :length], torch.cat([joint[:, :first], joint[:, length:]], dim=1)

    x = torch.cat([plain.embed(base), plain.embed(source)[:, first:]], dim=1)
    for layer in range(plain.n_layers):
        qkv = plain.qkv(layer, x)
        of_base, of_source = of_each(qkv)
        z = [plain.attend(layer, *of_base.unbind(2))]
        if first < length:
            z.append(plain.attend(layer, of_source[:, first:, 0], *of_source[:, :, 1:].unbind(2)))
        z = torch.cat(z, dim=1)
        mid = x + plain.attention_out(layer, z)
        of_layer = {"pre": of_each(x), "qkv": (of_base, of_source), "z": of_each(z), "mid": of_each(mid)}
        for name, values in of_layer.items():
            for run, own in zip(runs, values, strict=True):
                run[name].append(own)
        x = mid + plain.mlp(layer, mid)
    return tuple(Activations(**run, post=post) for run, post in zip(runs, of_each(x), strict=True))
