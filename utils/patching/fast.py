"""Patching without hooks and without repeating what a patch cannot change.

The result of a patch is the residual stream at the answering position, after the last layer. What makes it cheap:

* A patch at position p changes nothing before p. Only positions from p on are computed again; queries there look at the
  keys and values before p that the unpatched run left.
* Where both runs have seen the same tokens so far, they are equal: a patch there changes nothing at all.
* Whatever is patched, from some layer on it is nothing but another residual stream. So patches that enter at different
  layers ride upwards together, in one batch that grows at every layer (:func:`finish`).
* The last layer is computed for the query that answers, and for no other (:func:`_through_last`).
* A head's new output follows from the keys, queries, values of the two runs in closed form (``head_outputs``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.transformer import Activations, Transformer


@dataclass(frozen=True)
class Runs:
    """The two runs of a patching experiment, on the positions that can matter.

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
        return cls(plain, plain.run(base), plain.run(source), end, first)

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

        A prompt that has answered before ``start`` gets some position; :func:`finish` discards it.
        """
        return x[..., torch.arange(len(self.end), device=self.end.device), (self.end - start).clamp(min=0), :]


@dataclass(frozen=True)
class Entry:
    """Patched residual streams that join the batch before a layer.

    Attributes:
        layer: Before which layer; ``n_layers`` is after the last.
        stream: From the position on at which the batch begins.
        one_position: Whether only the first of its positions differs from the base run.
    """

    layer: int
    stream: Float[Tensor, "row prompt seq d_model"]
    one_position: bool = False


def finish(runs: Runs, entries: Sequence[Entry], start: int) -> Float[Tensor, "row prompt d_model"]:
    """Take patched streams up to the end of the model.

    Args:
        entries: In ascending order of their layers; all begin at position ``start``.

    Returns:
        The final residual stream where each prompt answers, rows in the order of the entries.
    """
    last, joined, x = runs.plain.n_layers - 1, 0, None
    for layer in range(entries[0].layer, last + 1):
        entering = [entry for entry in entries[joined:] if entry.layer == layer]
        joined += len(entering)
        before, x = x, _joined(x, [entry.stream for entry in entering])
        if layer == last:
            x = _through_last(runs, x, start)
        else:
            qkv = None if before is None else runs.plain.qkv(layer, before)
            x = _through(runs, layer, x, _joined(qkv, [_qkv_of(runs, entry, start) for entry in entering]), start)
    final = _joined(x, [runs.at_end(entry.stream, start) for entry in entries[joined:]])
    return torch.where((runs.end < start)[:, None], runs.unpatched(), final)


def _joined(batch: Tensor | None, more: list[Tensor]) -> Tensor:
    """A batch and the rows that join it; without any, the batch itself and no copy."""
    parts = more if batch is None else [batch, *more]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _qkv_of(runs: Runs, entry: Entry, start: int) -> Float[Tensor, "row prompt seq 3 head d_head"]:
    if not entry.one_position:
        return runs.plain.qkv(entry.layer, entry.stream)
    changed = runs.plain.qkv(entry.layer, entry.stream[:, :, :1])
    unchanged = runs.base.qkv[entry.layer][:, start + 1 :]
    return torch.cat([changed, unchanged.expand(len(changed), *unchanged.shape)], dim=2)


def _through(runs: Runs, layer: int, x: Tensor, qkv: Tensor, start: int) -> Tensor:
    """One whole layer, at all positions from ``start`` on."""
    k, v = _with_prefix(runs, layer, qkv, start)
    mid = runs.plain.attention_out(layer, runs.plain.attend(layer, qkv[..., 0, :, :], k, v))
    mid += x
    after = runs.plain.mlp(layer, mid)
    after += mid
    return after


def _through_last(runs: Runs, x: Tensor, start: int) -> Float[Tensor, "row prompt d_model"]:
    """The last layer, for the answering query of each prompt alone.

    One query does not need the keys and values of all positions. Its products with the keys are those of ``W_K q`` with
    the normalised stream (the bias adds the same to all of them), and the stream is averaged before ``W_V`` is applied.
    """
    plain, layer, end = runs.plain, runs.plain.n_layers - 1, runs.end.clamp(min=start)
    weights = plain.layers[layer]
    _, W_K, W_V = weights.W_QKV.unflatten(1, (3, plain.n_heads, plain.d_head)).unbind(1)  # [d_model, head, d_head]
    b_V = weights.b_QKV.unflatten(0, (3, plain.n_heads, plain.d_head))[2]
    before = plain.norm(runs.base.pre[layer][:, :start], weights.ln1)
    stream = torch.cat([before.expand(len(x), *before.shape), plain.norm(x, weights.ln1)], dim=2)
    x = runs.at_end(x, start)
    q = plain.qkv(layer, x)[..., 0, :, :]  # [row, prompt, head, d_head]
    scores = torch.einsum("rphe,dhe->rphd", q, W_K) @ stream.mT  # [row, prompt, head, key]
    mask = plain.mask(layer, end[:, None], torch.arange(runs.length, device=end.device))  # [prompt, 1, key]
    averaged = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ stream  # [row, prompt, head, d_model]
    x = x + plain.attention_out(layer, torch.einsum("rphd,dhe->rphe", averaged, W_V) + b_V)
    return x + plain.mlp(layer, x)


def _with_prefix(runs: Runs, layer: int, qkv: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Keys and values at all positions: the base run's before ``start``, the patched ones from there on."""
    if start == 0:
        return qkv[..., 1, :, :], qkv[..., 2, :, :]
    before = runs.base.qkv[layer][:, :start, 1:]
    return torch.cat([before.expand(len(qkv), *before.shape), qkv[..., 1:, :, :]], dim=2).unbind(-3)


def finish_from_mid(
    runs: Runs, layer: int, mid: Float[Tensor, "row prompt seq d_model"], start: int
) -> Float[Tensor, "row prompt d_model"]:
    """As :func:`finish`, from streams between the attention and the MLP of one layer."""
    if layer == runs.plain.n_layers - 1:
        mid = runs.at_end(mid, start)
        return torch.where((runs.end < start)[:, None], runs.unpatched(), mid + runs.plain.mlp(layer, mid))
    return finish(runs, [Entry(layer + 1, mid + runs.plain.mlp(layer, mid))], start)
