"""Activations of a model for a dictionary to read, and a dictionary spliced into the model in their place."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from utils.sae.dictionary import Dictionary

BATCH = 250
SKIP = 1
"""The first position is left out: its activation is many times longer than the others, and the same in every text."""


@dataclass(frozen=True)
class Site:
    """Where in a model a dictionary reads, and where it writes: names of hooks.

    Attributes:
        reads: Such as "blocks.1.hook_resid_post".
        writes: None for an autoencoder, which writes where it reads.
    """

    reads: str
    writes: str | None = None

    @property
    def target(self) -> str:
        """The hook whose activation is reconstructed."""
        return self.writes or self.reads

    @classmethod
    def residual(cls, layer: int) -> "Site":
        """The residual stream after a layer."""
        return cls(f"blocks.{layer}.hook_resid_post")

    @classmethod
    def mlp_out(cls, layer: int) -> "Site":
        """What a layer's MLP adds to the residual stream."""
        return cls(f"blocks.{layer}.hook_mlp_out")

    @classmethod
    def attention(cls, layer: int) -> "Site":
        """The outputs of a layer's heads side by side, before they are mixed."""
        return cls(f"blocks.{layer}.attn.hook_z")

    @classmethod
    def through_mlp(cls, layer: int) -> "Site":
        """From the input of a layer's MLP to its output, for a transcoder."""
        return cls(f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out")


@torch.no_grad()
def collect_activations(
    model: "TransformerBridge", tokens: Int[Tensor, "batch position"], hooks: Sequence[str], *, skip: int = SKIP
) -> dict[str, Float[Tensor, "token width"]]:
    """Read activations of a model, token by token, row after row.

    Args:
        model: A TransformerBridge.
        tokens: What it reads.
        hooks: Names of hooks. Head outputs come side by side, as one vector.
        skip: How many first positions of each row to leave out.

    Raises:
        ValueError: if the model has no hook of a name; the message gives near names.
    """
    check_hooks(model, hooks)
    parts: dict[str, list[Tensor]] = {name: [] for name in hooks}
    for rows in tokens.split(BATCH):
        _, cache = model.run_with_cache(rows, names_filter=lambda name: name in parts)
        for name in hooks:
            parts[name].append(cache[name][:, skip:].flatten(2).flatten(0, 1))
    return {name: torch.cat(values) for name, values in parts.items()}


def check_hooks(model: "TransformerBridge", hooks: Sequence[str]) -> None:
    """Raise ValueError with near names if the model lacks a hook."""
    for name in hooks:
        if name not in model.hook_dict:
            near = difflib.get_close_matches(name, model.hook_dict, n=4) or list(model.hook_dict)[:4]
            raise ValueError(f"The model has no hook {name!r}. Near names: {', '.join(near)}.")


@contextmanager
def spliced(
    model: "TransformerBridge",
    dictionary: "Dictionary",
    site: Site | None = None,
    *,
    edit: Callable[[Float[Tensor, "batch position latent"]], Tensor] | None = None,
    keep_error: bool = False,
    skip: int = SKIP,
) -> Iterator[None]:
    """While the context is open, the model runs on the dictionary's reconstruction in place of its own activation.

    Args:
        model: A TransformerBridge.
        dictionary: In the activations' own units, as :func:`train_dictionary` returns it.
        site: By default the dictionary's own.
        edit: Changes the latents, to steer with them or to remove some.
        keep_error: Add what the unedited reconstruction misses, so that nothing but ``edit`` changes the model
            (Marks et al. 2024, https://arxiv.org/abs/2403.19647).
        skip: How many first positions keep the model's own activation.
    """
    site = site or dictionary.site
    check_hooks(model, (site.reads, site.target))
    read: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: object) -> None:
        read["x"] = activation

    def write(activation: Tensor, hook: object) -> Tensor:
        flat = activation.flatten(2)
        x = flat if site.writes is None else read.pop("x")
        latents = dictionary.encode(x)
        edited = latents if edit is None else edit(latents)
        output = dictionary.decode(edited) + dictionary.skipped(x)
        if keep_error:
            output = output + flat - dictionary(x)
        return torch.cat([flat[:, :skip], output[:, skip:]], 1).view_as(activation)

    hooks = [(site.target, write)] if site.writes is None else [(site.reads, keep), (site.writes, write)]
    with model.hooks(fwd_hooks=hooks):
        yield
