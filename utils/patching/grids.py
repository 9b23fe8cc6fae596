"""Activation patching everywhere at once: every layer and position of the residual stream, every head.

A cell of a grid is what :func:`utils.patching.plain.patch_activation` gives for one patch: the model runs on the
corrupted prompts with one activation of the clean run put in (denoising), or the other way round (noising). Models that
:class:`utils.transformer.Transformer` covers are patched without hooks, many times faster and equal to rounding.

Source: Heimersheim & Nanda 2024, https://arxiv.org/abs/2404.15255
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.metrics import at_end
from utils.patching.answers import answer
from utils.patching.fast import Entry, finish_all
from utils.patching.heads import KINDS, head_patches, head_patches_by_position
from utils.patching.inputs import check_tokens, checked_end
from utils.patching.measuring import Metrics, Results, each, measure
from utils.patching.plain import Direction, base_and_source, patched_logits, read
from utils.patching.runs import Runs
from utils.patching.streams import STREAMS, residual_patches
from utils.readout import activation_name
from utils.transformer import NotCovered, Transformer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

CPU_BYTES = 2**27
"""A larger batch is slower on a CPU, whose cache it leaves."""
Cell = tuple[Any, Results]
"""Where in a grid some results belong, and the results, [row, prompt] or [prompt]."""


@torch.no_grad()
def patch_residual(
    model: "TransformerBridge | Transformer",
    clean: Int[Tensor, "prompt seq"],
    corrupted: Int[Tensor, "prompt seq"],
    metric: Metrics,
    end: Int[Tensor, "prompt"] | None = None,
    stream: str = "resid_pre",
    *,
    direction: Direction = "denoising",
    max_bytes: int = 2**30,
) -> Results:
    """Patch the residual stream, or what attention or an MLP adds to it, at every layer and position.

    Args:
        model: A TransformerBridge; or a Transformer, if the weights shall be read once for several calls.
        clean: Prompts whose activations are taken.
        corrupted: Prompts that are run with them, row by row of the same length.
        metric: Takes logits [prompt, vocab], gives [prompt]; or several of them by name.
        end: The position of each prompt that answers, by default the last.
        stream: "resid_pre", "attn_out", "resid_mid", "mlp_out" or "resid_post".
        direction: "noising" exchanges the two runs: corrupted activations go into the clean run.
        max_bytes: Memory that a batch of patches may take, beside the two unpatched runs and the weights.

    Returns:
        The metric after every patch, [layer, position, prompt]; a dictionary if several metrics were given. After an
        interruption, what was not reached is NaN.

    Raises:
        ValueError: if the prompts do not fit the model or each other, or an argument is not one of those named.
    """
    _check_known(stream, STREAMS, "stream")
    base, source, end = _checked(model, clean, corrupted, end, direction)
    plain = _plain_or_none(model)
    if plain is None:
        layers, positions = range(model.cfg.n_layers), range(base.shape[1])
        where = (
            (activation_name(layer, stream), (layer, position), [position], None)
            for layer, position in product(layers, positions)
        )
        return _by_hooks(model, base, source, metric, end, where, (len(layers), len(positions)))
    runs = Runs.of(plain, base, source, end)
    cells = _cells(runs, residual_patches(runs, stream), metric, _tokens_at_once(plain, max_bytes))
    unpatched = answer(plain, runs.unpatched()[None], metric)
    return _fill((plain.n_layers, base.shape[1]), cells, unpatched, slice(runs.first, runs.length))


@torch.no_grad()
def patch_heads(
    model: "TransformerBridge | Transformer",
    clean: Int[Tensor, "prompt seq"],
    corrupted: Int[Tensor, "prompt seq"],
    metric: Metrics,
    end: Int[Tensor, "prompt"] | None = None,
    kinds: Sequence[str] = KINDS,
    per_position: bool = False,
    *,
    direction: Direction = "denoising",
    max_bytes: int = 2**30,
) -> Results:
    """Patch every head's output, queries, keys, values and attention pattern.

    Args:
        model: A TransformerBridge; or a Transformer, if the weights shall be read once for several calls.
        clean: Prompts whose activations are taken.
        corrupted: Prompts that are run with them, row by row of the same length.
        metric: Takes logits [prompt, vocab], gives [prompt]; or several of them by name.
        end: The position of each prompt that answers, by default the last.
        kinds: Which activations: "z" (a head's output), "q", "k", "v", "pattern".
        per_position: Whether one position is patched at a time, and not all together. In a pattern, the query's.
        direction: "noising" exchanges the two runs: corrupted activations go into the clean run.
        max_bytes: Memory that a batch of patches may take, beside the two unpatched runs and the weights.

    Returns:
        The metric after every patch, [kind, layer, head, prompt] or [kind, layer, head, position, prompt]; a
        dictionary if several metrics were given. After an interruption, what was not reached is NaN.

    Raises:
        ValueError: if the prompts do not fit the model or each other, or an argument is not one of those named.
    """
    for kind in kinds:
        _check_known(kind, KINDS, "kind")
    base, source, end = _checked(model, clean, corrupted, end, direction)
    plain = _plain_or_none(model)
    size = getattr(model, "cfg", model)
    shape = (len(kinds), size.n_layers, size.n_heads, *([base.shape[1]] if per_position else []))
    if plain is None:
        where = (
            (activation_name(layer, kinds[kind]), (kind, layer, head, *position), position or None, head)
            for kind, layer, head, *position in product(*map(range, shape))
        )
        return _by_hooks(model, base, source, metric, end, where, shape)
    runs = Runs.of(plain, base, source, end)
    patches = head_patches_by_position if per_position else head_patches
    tokens_at_once = _tokens_at_once(plain, max_bytes)
    cells = _cells(runs, patches(runs, kinds, tokens_at_once), metric, tokens_at_once)
    unpatched = answer(plain, runs.unpatched()[None], metric)
    heads = slice(None if runs.first < runs.length else 0)
    return _fill(shape, cells, unpatched, slice(runs.first, runs.length) if per_position else heads)


def _check_known(given: str, known: Sequence[str], what: str) -> None:
    if given not in known:
        raise ValueError(f"Unknown {what} {given!r}; known are: {', '.join(known)}.")


def _checked(
    model: "TransformerBridge | Transformer", clean: Tensor, corrupted: Tensor, end: Tensor | None, direction: Direction
) -> tuple[Tensor, Tensor, Tensor]:
    """Base and source tokens, and the answering positions."""
    check_tokens(model, clean, "clean")
    check_tokens(model, corrupted, "corrupted")
    base, source = base_and_source(clean, corrupted, direction)
    return base, source, checked_end(base, end)


def _plain_or_none(model: "TransformerBridge | Transformer") -> Transformer | None:
    try:
        return Transformer.from_model(model)
    except NotCovered as reason:
        warnings.warn(f"{reason} Patching runs with hooks instead, one forward pass a patch.", stacklevel=4)
        return None


def _tokens_at_once(plain: Transformer, max_bytes: int) -> int:
    """How many positions, over all rows and prompts, a batch may hold: each takes the MLP's units and more."""
    if plain.device.type == "cpu":
        max_bytes = min(max_bytes, CPU_BYTES)
    widths = [0 if layer.W_in is None else layer.W_in.shape[1] for layer in plain.layers]
    return max_bytes // (plain.W_E.element_size() * (2 * max(widths) + 16 * plain.d_model))


def _cells(runs: Runs, entries: Iterable[Entry], metric: Metrics, tokens_at_once: int) -> Iterator[Cell]:
    for index, final in finish_all(runs, entries, tokens_at_once):
        yield index, answer(runs.plain, final, metric)


def _by_hooks(
    model: "TransformerBridge",
    base: Tensor,
    source: Tensor,
    metric: Metrics,
    end: Tensor,
    where: Iterable[tuple[str, tuple[int, ...], list[int] | None, int | None]],
    shape: tuple[int, ...],
) -> Results:
    """A grid with one forward pass for each cell; ``where`` gives each cell's hook, index, position and head."""
    where = list(where)
    taken = read(model, source, list(dict.fromkeys(name for name, *_ in where)))

    def cells() -> Iterator[Cell]:
        for name, index, positions, head in where:
            logits = at_end(patched_logits(model, base, taken[name], name, positions, head), end)
            yield index, each(lambda values: values[0], measure(metric, logits[None]))

    unpatched = measure(metric, at_end(model(base), end)[None])
    return _fill(shape, cells(), unpatched, slice(None), total=len(where))


def _fill(
    shape: tuple[int, ...], cells: Iterable[Cell], unpatched: Results, computed: slice, total: int | None = None
) -> Results:
    """Put cells into a grid as they come.

    Args:
        unpatched: The metric without a patch, [1, prompt]: what the grid holds where nothing is computed.
        computed: Which part of the grid's last axis before the prompts is computed.
    """

    def empty(values: Tensor) -> Tensor:
        grid = values[0].expand(*shape, -1).clone()
        grid[..., computed, :] = torch.nan
        return grid

    grid = each(empty, unpatched)
    try:
        for index, results in tqdm(cells, total=total, desc="patching", leave=False, delay=1):
            _put(grid, index, results)
    except KeyboardInterrupt:
        warnings.warn("Interrupted: what was not reached is NaN.", stacklevel=3)
    return grid


def _put(grid: Results, index: Any, results: Results) -> None:
    if isinstance(grid, dict):
        for name, part in grid.items():
            _put(part, index, results[name])
    else:
        grid[index] = results
