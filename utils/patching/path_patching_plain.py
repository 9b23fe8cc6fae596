"""Path patching with hooks, one sender at a time: slow, short, and right for every model that has the hooks.

:mod:`utils.patching.path_patching` computes the same numbers faster, and says what they mean.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.metrics import at_end
from utils.patching.inputs import Head, check_pair, check_receivers, checked_end, sender_grid
from utils.patching.measuring import Metrics, Results, each, joined, measure

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Hooks = list[tuple[str, Callable]]


@torch.no_grad()
def path_patch_to_logits(
    model: "TransformerBridge",
    original: Int[Tensor, "prompt seq"],
    new: Int[Tensor, "prompt seq"],
    metric: Metrics,
    end: Int[Tensor, "prompt"] | None = None,
    *,
    senders: str = "heads",
) -> Results:
    """As :func:`utils.patching.path_patching.path_patch_to_logits`: one run of the model for each sender."""
    check_pair(model, original, new)
    grid, end, results = sender_grid(model, senders), checked_end(original, end), []
    for send in _each_sender(model, original, new, senders):
        logits = model.run_with_hooks(original, fwd_hooks=send)
        results.append(measure(metric, at_end(logits, end)[None]))
    return each(lambda r: r.view(*grid, -1), joined(results))


@torch.no_grad()
def path_patch_to_inputs(
    model: "TransformerBridge",
    original: Int[Tensor, "prompt seq"],
    new: Int[Tensor, "prompt seq"],
    receivers: Sequence[Head],
    metric: Metrics,
    receiver_input: str = "q",
    end: Int[Tensor, "prompt"] | None = None,
    *,
    senders: str = "heads",
) -> Results:
    """As :func:`utils.patching.path_patching.path_patch_to_inputs`: two runs of the model for each sender."""
    check_pair(model, original, new)
    check_receivers(model, receivers, receiver_input)
    grid, end, results = sender_grid(model, senders), checked_end(original, end), []
    heads_at = {f"blocks.{layer}.attn.hook_{receiver_input}": [] for layer, _ in receivers}
    for layer, head in receivers:
        heads_at[f"blocks.{layer}.attn.hook_{receiver_input}"].append(head)
    for send in _each_sender(model, original, new, senders):
        with model.hooks(fwd_hooks=send):
            received = _read(model, original, list(heads_at))
        receive = [(name, _replace_heads(received[name], heads)) for name, heads in heads_at.items()]
        logits = model.run_with_hooks(original, fwd_hooks=receive)
        results.append(measure(metric, at_end(logits, end)[None]))
    return each(lambda r: r.view(*grid, -1), joined(results))


def _each_sender(model: "TransformerBridge", original: Tensor, new: Tensor, senders: str) -> Iterator[Hooks]:
    """For each sender the hooks of a run on ``original`` with all attention frozen and that sender's output new."""
    layers = range(model.cfg.n_layers)
    z = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    frozen = _read(model, original, z)
    freeze = [(name, _replace(frozen[name])) for name in z]
    if senders == "heads":
        sent, places = z, range(model.cfg.n_heads)
    elif senders == "mlps":
        sent, places = [f"blocks.{layer}.hook_mlp_out" for layer in layers], [None]
    else:
        sent, places = ["blocks.0.hook_resid_pre"], [None]
    changed = _read(model, new, sent)
    for name in tqdm(sent, desc="path patching", leave=False):
        for head in places:
            send = _replace(changed[name]) if head is None else _replace_heads(changed[name], [head])
            yield [*freeze, (name, send)]


def _read(model: "TransformerBridge", tokens: Tensor, names: list[str]) -> dict[str, Tensor]:
    return model.run_with_cache(tokens, names_filter=lambda name: name in names)[1]


def _replace(value: Tensor) -> Callable:
    return lambda activation, hook: value


def _replace_heads(value: Tensor, heads: list[int]) -> Callable:
    """A hook that takes some heads of an activation [prompt, seq, head, d_head] from ``value``."""

    def replace(activation: Tensor, hook: object) -> Tensor:
        activation = activation.clone()
        activation[:, :, heads] = value[:, :, heads]
        return activation

    return replace
