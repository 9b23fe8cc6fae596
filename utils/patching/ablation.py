"""Take components away and see what the model does without them: zero, mean and resample ablation.

The three answer different questions. *Zero* also takes away what a component writes on every prompt, which the layers
above rely on. *Mean* keeps that, and takes away what is particular to a prompt. *Resample* puts another prompt's output
in its place, which the layers above have seen before; it can also say something wrong.

Source: Chan et al. 2022, https://www.alignmentforum.org/posts/JvZhhzycHu2Yd57RN (resampling);
Wang et al. 2022, https://arxiv.org/abs/2211.00593 (means).
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.metrics import at_end
from utils.patching.answers import answer
from utils.patching.fast import Entry, finish
from utils.patching.inputs import check_heads, check_mlp, check_tokens, checked_end, sender_grid
from utils.patching.measuring import Metrics, Results, each, joined, measure
from utils.patching.prompt_batches import GIBIBYTE, prompt_batches
from utils.patching.replacement import How, Replacement
from utils.patching.runs import Runs
from utils.transformer import Activations, NotCovered, Transformer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Component = tuple[int, int | Literal["mlp"]]
"""A head as (layer, head), or a layer's MLP as (layer, "mlp")."""


@contextmanager
def ablate(
    model: "TransformerBridge",
    components: Sequence[Component],
    how: How = "zero",
    *,
    reference: Int[Tensor, "reference seq"] | None = None,
    reference_end: Int[Tensor, "reference"] | None = None,
    per_position: bool = True,
    seed: int = 0,
) -> Iterator["TransformerBridge"]:
    """Inside ``with ablate(...)`` the model runs without some components, all at once and at all positions.

    Args:
        components: Heads as (layer, head), MLPs as (layer, "mlp").
        how, reference, reference_end, per_position, seed: As in :class:`utils.patching.replacement.Replacement`.

    Yields:
        The model. Its hooks are gone when the block ends, also when it ends with an error; other hooks stay.

    Raises:
        ValueError: if a component does not exist, or what replaces it is not known.
    """
    replacement = Replacement(how, reference, reference_end, per_position, seed)
    heads_of = _hook_points(model, components)
    on_reference = dict.fromkeys(heads_of)
    if how != "zero":
        check_tokens(model, reference, "reference")
        with torch.no_grad():
            on_reference = model.run_with_cache(reference, names_filter=lambda name: name in heads_of)[1]
    hooks = [(name, _write(replacement, on_reference[name], heads)) for name, heads in heads_of.items()]
    with model.hooks(fwd_hooks=hooks):
        yield model


def _hook_points(model: "TransformerBridge", components: Sequence[Component]) -> dict[str, list[int] | None]:
    """The hook points to change, and which heads there; None stands for all that is written."""
    points: dict[str, list[int] | None] = {}
    for layer, part in components:
        if part == "mlp":
            check_mlp(model, layer)
            points[f"blocks.{layer}.hook_mlp_out"] = None
        elif not isinstance(part, int):
            raise ValueError(f"A component is (layer, head) or (layer, 'mlp'), not {(layer, part)}")
        else:
            check_heads(model, [(layer, part)])
            points.setdefault(f"blocks.{layer}.attn.hook_z", []).append(part)
    return points


def _write(replacement: Replacement, on_reference: Tensor | None, heads: list[int] | None) -> Callable:
    def write(activation: Tensor, hook: object) -> Tensor:
        instead = replacement.of(activation, on_reference, replacement.drawn_rows(len(activation)))
        if heads is None:
            return instead
        changed = activation.clone()
        changed[:, :, heads] = instead[:, :, heads]
        return changed

    return write


@torch.no_grad()
def ablation_effects(
    model: "TransformerBridge | Transformer",
    tokens: Int[Tensor, "prompt seq"],
    metric: Metrics,
    how: How = "zero",
    *,
    reference: Int[Tensor, "reference seq"] | None = None,
    end: Int[Tensor, "prompt"] | None = None,
    components: Literal["heads", "mlps"] = "heads",
    reference_end: Int[Tensor, "reference"] | None = None,
    per_position: bool = True,
    seed: int = 0,
    max_bytes: int = GIBIBYTE,
) -> Results:
    """What each head, or each MLP, does for the metric: its change when that component alone is ablated.

    Args:
        tokens: Prompts. Rows may be padded on the right.
        metric: One metric, or several by name.
        end: The answering position of each prompt; the last one by default.
        components: "heads" or "mlps".
        how, reference, reference_end, per_position, seed: As in :class:`utils.patching.replacement.Replacement`.
        max_bytes: Memory that the ablated copies of the prompts may take. At least one prompt is worked on at a time.

    Returns:
        Metric with the component ablated minus metric of the intact model, [layer, head, prompt] or [layer, prompt]:
        negative where the component helps. A dictionary of these for several metrics.

    Raises:
        ValueError: if the prompts do not fit the model, or an argument is not one of those named.
    """
    replacement = Replacement(how, reference, reference_end, per_position, seed)
    if components not in ("heads", "mlps"):
        raise ValueError(f"components must be 'heads' or 'mlps', not {components!r}")
    check_tokens(model, tokens)
    if reference is not None:
        check_tokens(model, reference, "reference")
    grid, end = sender_grid(model, components), checked_end(tokens, end)
    try:
        weights = Transformer.from_model(model)
    except NotCovered as reason:
        warnings.warn(f"{reason} Ablation uses hooks instead, which is slower.", stacklevel=2)
        results = _effects_with_hooks(model, tokens, metric, end, components, replacement)
    else:
        results = _effects(weights, tokens, metric, end, components, replacement, max_bytes)
    return each(lambda r: (r[1:] - r[0]).view(*grid, -1), results)


def _effects_with_hooks(
    model: "TransformerBridge", tokens: Tensor, metric: Metrics, end: Tensor, kind: str, replacement: Replacement
) -> Results:
    """The metric [row, prompt] of the intact model, then with each component ablated: one run of the model for each."""
    parts = range(model.cfg.n_heads) if kind == "heads" else ["mlp"]
    components = [(layer, part) for layer in range(model.cfg.n_layers) for part in parts]
    results = [measure(metric, at_end(model(tokens), end)[None])]
    for component in tqdm(components, desc="ablation", leave=False):
        with ablate(model, [component], **vars(replacement)):
            results.append(measure(metric, at_end(model(tokens), end)[None]))
    return joined(results)


def _effects(
    weights: Transformer,
    tokens: Tensor,
    metric: Metrics,
    end: Tensor,
    kind: str,
    replacement: Replacement,
    max_bytes: int,
) -> Results:
    """As :func:`_effects_with_hooks`: all ablated copies in one batch, which grows from layer to layer."""
    on_reference = None if replacement.how == "zero" else weights.run(replacement.reference)
    drawn, length = replacement.drawn_rows(len(tokens)), int(end.max()) + 1
    final, copies = [], math.prod(sender_grid(weights, kind))
    for rows in prompt_batches(weights, tokens, copies, length, max_bytes, "ablation"):
        intact = weights.run(tokens[rows, :length])
        runs = Runs(weights, intact, intact, end[rows], first=0)
        entries = _ablated_streams(runs, on_reference, kind, replacement, drawn[rows])
        _, ablated = finish(runs, entries)
        final.append(torch.cat([runs.unpatched()[None], ablated]))
    return answer(weights, torch.cat(final, 1), metric)


def _ablated_streams(
    runs: Runs,
    on_reference: Activations | None,
    kind: str,
    replacement: Replacement,
    drawn: Int[Tensor, "prompt"],
) -> list[Entry]:
    """The residual streams after each layer in which one of its components is ablated."""
    weights, intact, entries = runs.plain, runs.base, []
    for layer in range(weights.n_layers):
        mid = intact.mid[layer]
        if kind == "heads":
            instead = replacement.of(intact.z[layer], on_reference and on_reference.z[layer], drawn)
            W_O = weights.layers[layer].W_O.unflatten(0, (weights.n_heads, weights.d_head))
            mid = mid + torch.einsum("pshd,hdm->hpsm", instead - intact.z[layer], W_O)
            after = mid + weights.mlp(layer, mid)
        else:
            written = weights.mlp(layer, mid)
            there = on_reference and weights.mlp(layer, on_reference.mid[layer])
            after = (mid + replacement.of(written, there, drawn))[None]
        cells = torch.tensor([(layer, component) for component in range(len(after))])
        entries.append(Entry(cells, layer + 1, 0, after))
    return entries
