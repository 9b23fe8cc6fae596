"""Activation steering: add a direction to a model's activations, or take one away, and measure what it does.

A direction that changes the answer is only interesting if a random one of the same length does not, and if other text
is left alone. :func:`dose_response` measures all three. Everything that changes a model is a context manager: after
the ``with`` block the model is what it was, and hooks that were there before are still there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.metrics import Metric, at_end, kl_divergence
from utils.patching.inputs import check_tokens, checked_end

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BATCH = 256


@torch.no_grad()
def read_at(
    model: "TransformerBridge", tokens: Int[Tensor, "prompt seq"], hook: str, at: Int[Tensor, "prompt"] | None = None
) -> Float[Tensor, "prompt d_model"]:
    """An activation at one position of every prompt.

    Args:
        hook: The name of the activation, such as "blocks.2.hook_resid_post".
        at: The position in each prompt, by default the last.
    """
    check_tokens(model, tokens)
    at = checked_end(tokens, at)
    kept: list[Tensor] = []
    with _changed(model, hook, lambda x: kept.append(x) or x):
        for rows in tokens.split(BATCH):
            model(rows)
    activations = torch.cat(kept)
    return activations[torch.arange(len(tokens), device=activations.device), at]


def mean_difference(
    having: Float[Tensor, "prompt d_model"], without: Float[Tensor, "other d_model"]
) -> Float[Tensor, "d_model"]:
    """From the mean activation of one kind of prompt to that of another: add it, and strength 1 is the whole way.

    Raises:
        ValueError: if the two have different widths.

    Source: Turner et al. 2023, https://arxiv.org/abs/2308.10248; Rimsky et al. 2023, https://arxiv.org/abs/2312.06681
    """
    if having.ndim != 2 or without.ndim != 2 or having.shape[1] != without.shape[1]:
        raise ValueError(
            f"mean_difference wants two sets of activations [prompt, d_model] of one width, "
            f"got {list(having.shape)} and {list(without.shape)}."
        )
    return having.mean(0) - without.mean(0)


def random_directions(like: Float[Tensor, "d_model"], n: int, seed: int = 0) -> Float[Tensor, "n d_model"]:
    """Directions drawn evenly from all, each as long as ``like``: what any push of this size would do."""
    drawn = torch.randn(n, len(like), generator=torch.Generator().manual_seed(seed)).to(like)
    return drawn * (like.norm() / drawn.norm(dim=-1, keepdim=True))


@contextmanager
def steered(
    model: "TransformerBridge",
    hook: str,
    direction: Float[Tensor, "d_model"],
    strength: float = 1.0,
    at: Int[Tensor, "prompt"] | None = None,
) -> Iterator["TransformerBridge"]:
    """Add ``strength * direction`` to an activation inside a ``with`` block.

    Args:
        hook: The name of the activation, such as "blocks.2.hook_resid_post".
        direction: What to add, of the activation's width.
        strength: How many times; negative values push the other way.
        at: One position for each prompt; by default all positions.

    Raises:
        ValueError: if there is no such hook, or the direction has another width than the activation.
    """

    def add(activation: Tensor) -> Tensor:
        push = strength * _fitting(direction, activation, hook)
        if at is None:
            return activation + push
        pushed = activation.clone()
        pushed[torch.arange(len(at), device=activation.device), at] += push
        return pushed

    with _changed(model, hook, add):
        yield model


@contextmanager
def ablated(
    model: "TransformerBridge", hooks: str | Sequence[str], direction: Float[Tensor, "d_model"]
) -> Iterator["TransformerBridge"]:
    """Take a direction out of activations inside a ``with`` block: what is left is orthogonal to it.

    To keep a model from writing it at all, name every place that writes: "hook_embed", "hook_pos_embed" and each
    layer's "hook_attn_out" and "hook_mlp_out"; or take it out of every layer's "hook_resid_post".

    Raises:
        ValueError: if there is no such hook, the direction has another width, or no length.

    Source: Arditi et al. 2024, https://arxiv.org/abs/2406.11717
    """
    if not direction.norm() > 0:
        raise ValueError("A direction of length zero cannot be taken away.")
    unit = direction / direction.norm()

    def project(hook: str) -> Callable[[Tensor], Tensor]:
        def remove(activation: Tensor) -> Tensor:
            along = _fitting(unit, activation, hook)
            return activation - (activation @ along)[..., None] * along

        return remove

    with ExitStack() as stack:
        for hook in [hooks] if isinstance(hooks, str) else hooks:
            stack.enter_context(_changed(model, hook, project(hook)))
        yield model


@dataclass(frozen=True)
class DoseResponse:
    """What a direction does at several strengths.

    Attributes:
        strengths: How many times the direction was added.
        metric: The metric on each prompt.
        side_effect: KL(unsteered || steered) on each unrelated text, in nats per token; None without such texts.
    """

    strengths: Float[Tensor, "strength"]
    metric: Float[Tensor, "strength prompt"]
    side_effect: Float[Tensor, "strength text"] | None


@torch.no_grad()
def dose_response(
    model: "TransformerBridge",
    tokens: Int[Tensor, "prompt seq"],
    metric: Metric,
    hook: str,
    direction: Float[Tensor, "d_model"],
    strengths: Sequence[float],
    end: Int[Tensor, "prompt"] | None = None,
    unrelated: Int[Tensor, "text seq"] | None = None,
) -> DoseResponse:
    """Measure a metric while a direction is added at all positions, at each strength, and the harm to other text.

    Args:
        metric: From the logits [prompt, vocab] at ``end`` to one number per prompt.
        hook: Where to add the direction.
        direction: What to add.
        strengths: How many times; take 0 among them, for a line through the unsteered model.
        end: The answering position of each prompt, by default the last.
        unrelated: Text on which nothing should change. All rows are read to their end.
    """
    check_tokens(model, tokens)
    end = checked_end(tokens, end)
    if unrelated is not None:
        check_tokens(model, unrelated, "unrelated")
        before = model(unrelated)
    values, harm = [], []
    for strength in strengths:
        with steered(model, hook, direction, strength):
            values.append(metric(at_end(model(tokens), end)))
            if unrelated is not None:
                after = model(unrelated)
                kl = kl_divergence(after.flatten(0, 1), before.flatten(0, 1))
                harm.append(kl.view(unrelated.shape).mean(-1))
    return DoseResponse(
        torch.tensor(strengths, dtype=torch.float32), torch.stack(values), torch.stack(harm) if harm else None
    )


@contextmanager
def _changed(model: "TransformerBridge", hook: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace what passes through a hook point by ``change`` of it."""
    points = model.hook_dict
    if hook not in points:
        raise ValueError(
            f"This model has no hook {hook!r}. Names look like 'blocks.2.hook_resid_post' with layers "
            f"0 to {model.cfg.n_layers - 1}; list(model.hook_dict) has them all."
        )
    handle = points[hook].register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def _fitting(direction: Tensor, activation: Tensor, hook: str) -> Tensor:
    if direction.shape != activation.shape[-1:]:
        raise ValueError(
            f"The direction has shape {list(direction.shape)}, and {hook} is {list(activation.shape)}: "
            f"a direction needs the length of the last dimension, {activation.shape[-1]}."
        )
    return direction.to(activation)
