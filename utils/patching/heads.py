"""Patches of a head's queries, keys, values, pattern or output: what the head then reads, in closed form."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.patching.fast import Runs, finish_from_mid

KINDS = ("z", "q", "k", "v", "pattern")


def head_patches(
    runs: Runs, kinds: Sequence[str], tokens_at_once: int
) -> Iterator[tuple[tuple[Tensor, int, Tensor], Float[Tensor, "row prompt d_model"]]]:
    """Every patch of a head at all positions.

    Yields:
        Kind, layer and head of every row, and the final residual streams.
    """
    start = runs.first
    if start == runs.length:
        return
    for layer in range(runs.plain.n_layers):
        read = torch.stack([_read_everywhere(runs, layer, kind) for kind in kinds])
        change = read - runs.base.z[layer][:, start:]
        for kind, head in _rows(len(kinds), runs, start, tokens_at_once):
            yield (kind, layer, head), _finish_heads(runs, layer, change[kind, :, :, head], head, start)


def head_patches_by_position(
    runs: Runs, kinds: Sequence[str], tokens_at_once: int
) -> Iterator[tuple[tuple[Tensor, int, Tensor, int], Float[Tensor, "row prompt d_model"]]]:
    """Every patch of a head at one position; in a pattern this is the query.

    Yields:
        Kind, layer, head and position of every row, and the final residual streams.
    """
    for layer in range(runs.plain.n_layers):
        for position in range(runs.first, runs.length):
            read = torch.stack([_read_at(runs, layer, kind, position) for kind in kinds])
            change = read - runs.base.z[layer][:, position:]
            for kind, head in _rows(len(kinds), runs, position, tokens_at_once):
                final = _finish_heads(runs, layer, change[kind, :, :, head], head, position)
                yield (kind, layer, head, position), final


def _read_everywhere(runs: Runs, layer: int, kind: str) -> Float[Tensor, "prompt seq head d_head"]:
    """What every head of a layer reads, from ``runs.first`` on, if one kind of activation is the source run's."""
    if kind == "z":
        return runs.source.z[layer][:, runs.first :]
    q, k, v = _mixed(runs, layer, kind)
    return runs.plain.attend(layer, q[:, runs.first :], k, v)


def _read_at(runs: Runs, layer: int, kind: str, position: int) -> Float[Tensor, "prompt seq head d_head"]:
    """What every head reads, from ``position`` on, if one kind of activation of that position is the source run's."""
    if kind in ("k", "v"):
        qkv, part = runs.base.qkv[layer].clone(), "qkv".index(kind)
        qkv[:, position, part] = runs.source.qkv[layer][:, position, part]
        q, k, v = qkv.unbind(2)
        return runs.plain.attend(layer, q[:, position:], k, v)
    changed = runs.source.z[layer][:, position : position + 1]
    if kind != "z":
        q, k, v = _mixed(runs, layer, kind)
        seen = slice(position + 1)
        changed = runs.plain.attend(layer, q[:, position : position + 1], k[:, seen], v[:, seen])
    return torch.cat([changed, runs.base.z[layer][:, position + 1 :]], dim=1)


def _mixed(runs: Runs, layer: int, kind: str) -> list[Float[Tensor, "prompt seq head d_head"]]:
    """Queries, keys and values of the base run, but for those that make up one kind, which are the source run's."""
    from_source = "qk" if kind == "pattern" else kind
    base, source = (run.qkv[layer].unbind(2) for run in (runs.base, runs.source))
    return [source[i] if part in from_source else base[i] for i, part in enumerate("qkv")]


def _rows(
    n_kinds: int, runs: Runs, start: int, tokens_at_once: int
) -> Iterator[tuple[Int[Tensor, "row"], Int[Tensor, "row"]]]:
    """Kind and head of every row of every batch."""
    pairs = torch.cartesian_prod(torch.arange(n_kinds), torch.arange(runs.plain.n_heads)).to(runs.end.device)
    size = max(1, tokens_at_once // (len(runs.end) * (runs.length - start)))
    for rows in pairs.split(size):
        yield rows[:, 0], rows[:, 1]


def _finish_heads(
    runs: Runs, layer: int, change: Float[Tensor, "row prompt seq d_head"], head: Int[Tensor, "row"], start: int
) -> Float[Tensor, "row prompt d_model"]:
    """The final streams if one head of a layer reads something else in every row."""
    W_O = runs.plain.layers[layer].W_O.unflatten(0, (runs.plain.n_heads, -1))[head]  # [row, d_head, d_model]
    mid = runs.base.mid[layer][:, start:] + (change.flatten(1, 2) @ W_O).unflatten(1, change.shape[1:3])
    return finish_from_mid(runs, layer, mid, start)
