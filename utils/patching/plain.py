"""Activation patching by its definition: one forward pass with one hook for every patch.

Slow, and right for every model and every activation. ``grids`` gives the same numbers many times faster; the tests hold
the two equal.
"""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.metrics import at_end
from utils.patching.inputs import check_tokens, checked_end
from utils.patching.measuring import Metrics, Results, each, measure

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Direction = Literal["denoising", "noising"]
WITH_HEADS = ("hook_q", "hook_k", "hook_v", "hook_z", "hook_pattern", "hook_attn_scores")


def patch_activation(
    model: "TransformerBridge",
    clean: Int[Tensor, "prompt seq"],
    corrupted: Int[Tensor, "prompt seq"],
    metric: Metrics,
    name: str,
    *,
    positions: Sequence[int] | None = None,
    head: int | None = None,
    end: Int[Tensor, "prompt"] | None = None,
    direction: Direction = "denoising",
) -> Results:
    """Put one activation of the clean run into the corrupted run, and measure the answer.

    Source: Zhang & Nanda 2023, https://arxiv.org/abs/2309.16042

    Args:
        model: A TransformerBridge.
        clean: Prompts whose activation is taken.
        corrupted: Prompts that are run with it, row by row of the same length.
        metric: Takes logits [prompt, vocab], gives [prompt]; or several of them by name.
        name: The activation's hook, such as "blocks.2.hook_resid_pre" or "blocks.0.attn.hook_z".
        positions: Where to patch, by default everywhere. In an attention pattern these are the queries.
        head: Which head to patch, by default all.
        end: The position of each prompt that answers, by default the last.
        direction: "noising" exchanges the two runs: a corrupted activation goes into the clean run.

    Returns:
        The metric of every prompt, [prompt]; a dictionary if several metrics were given.

    Raises:
        ValueError: if the prompts do not fit the model or each other, or the hook, head or position does not exist.
    """
    base, source = base_and_source(clean, corrupted, direction)
    check_tokens(model, base, "clean")
    check_tokens(model, source, "corrupted")
    end = checked_end(base, end)
    with torch.no_grad():
        taken = read(model, source, [name])[name]
        logits = patched_logits(model, base, taken, name, positions, head)
    return each(lambda values: values[0], measure(metric, at_end(logits, end)[None]))


def base_and_source(
    clean: Int[Tensor, "prompt seq"], corrupted: Int[Tensor, "prompt seq"], direction: Direction
) -> tuple[Int[Tensor, "prompt seq"], Int[Tensor, "prompt seq"]]:
    """Which tokens are run, and which give the activation: corrupted and clean, or when noising the other way round.

    Raises:
        ValueError: if the two differ in shape, or the direction is unknown.
    """
    if clean.shape != corrupted.shape:
        raise ValueError(
            f"clean is {tuple(clean.shape)} and corrupted {tuple(corrupted.shape)}: patching pairs them prompt "
            "by prompt and position by position. Use prompts of one template, padded on the right to the same length."
        )
    if direction not in ("denoising", "noising"):
        raise ValueError(f"direction must be 'denoising' or 'noising', not {direction!r}.")
    return (corrupted, clean) if direction == "denoising" else (clean, corrupted)


def read(model: "TransformerBridge", tokens: Int[Tensor, "prompt seq"], names: Sequence[str]) -> dict[str, Tensor]:
    """The activations of a run at some hooks.

    Raises:
        ValueError: if the model does not have a hook, with the nearest names that it has.
    """
    for name in names:
        if name not in model.hook_dict:
            near = difflib.get_close_matches(name, model.hook_dict, n=3) or list(model.hook_dict)[:3]
            raise ValueError(f"The model has no activation {name!r}. Near names: {', '.join(near)}.")
    _, cache = model.run_with_cache(tokens, names_filter=list(names))
    return {name: cache[name] for name in names}


def patched_logits(
    model: "TransformerBridge",
    tokens: Int[Tensor, "prompt seq"],
    taken: Tensor,
    name: str,
    positions: Sequence[int] | None = None,
    head: int | None = None,
) -> Float[Tensor, "prompt seq vocab"]:
    """The logits of a run in which one activation is replaced by ``taken``, at some positions and in one head."""
    place = _place(name, taken, positions, head)

    def replace(activation: Tensor, hook: object) -> Tensor:
        # In place: a bridge's hook_resid_mid is the MLP's input, and a copy would leave the stream itself as it was.
        activation[place] = taken[place]
        return activation

    return model.run_with_hooks(tokens, fwd_hooks=[(name, replace)])


def _place(name: str, taken: Tensor, positions: Sequence[int] | None, head: int | None) -> tuple:
    """The index of what is patched; raises a ValueError if it does not exist."""
    kind = name.rsplit(".", 1)[-1]
    pattern_like = kind in ("hook_pattern", "hook_attn_scores")  # [prompt, head, query, key]
    position_axis, head_axis = (2, 1) if pattern_like else (1, 2)
    if head is not None and kind not in WITH_HEADS:
        raise ValueError(f"{name!r} has no heads; these have: {', '.join(WITH_HEADS)}.")
    if head is not None and not 0 <= head < taken.shape[head_axis]:
        raise ValueError(f"There is no head {head} in {name!r}: its heads are 0 to {taken.shape[head_axis] - 1}.")
    length = taken.shape[position_axis]
    if positions is not None and not all(0 <= position < length for position in positions):
        raise ValueError(f"positions must be from 0 to {length - 1}, got {list(positions)}.")
    where = slice(None) if positions is None else list(positions)
    which = slice(None) if head is None else head
    return (slice(None), which, where) if pattern_like else (slice(None), where, which)[: 2 if head is None else 3]
