"""Patches of a head's queries, keys, values, pattern or output: what the head then reads, in closed form."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from utils.patching.fast import Entry
from utils.patching.runs import Runs

KINDS = ("z", "q", "k", "v", "pattern")


def head_patches(runs: Runs, kinds: Sequence[str], tokens_at_once: int) -> Iterator[Entry]:
    """Every patch of a head at all positions; its index in the grid is the kind, the layer and the head."""
    if runs.first == runs.length:
        return
    for layer in range(runs.plain.n_layers):
        read = torch.stack([_read_everywhere(runs, layer, kind) for kind in kinds])
        for cells, stream in _mid(runs, layer, read, runs.first, tokens_at_once):
            yield Entry(cells, layer, runs.first, stream, after_attention=True)


def head_patches_by_position(runs: Runs, kinds: Sequence[str], tokens_at_once: int) -> Iterator[Entry]:
    """Every patch of a head at one position, last in the index of the grid; in a pattern this is the query."""
    for layer in range(runs.plain.n_layers):
        for position in range(runs.first, runs.length):
            read = torch.stack([_read_at(runs, layer, kind, position) for kind in kinds])
            for cells, stream in _mid(runs, layer, read, position, tokens_at_once):
                cells = F.pad(cells, (0, 1), value=position)
                yield Entry(cells, layer, position, stream, after_attention=True)


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


def _mid(
    runs: Runs, layer: int, read: Float[Tensor, "kind prompt seq head d_head"], start: int, tokens_at_once: int
) -> Iterator[tuple[Int[Tensor, "row axis"], Float[Tensor, "row prompt seq d_model"]]]:
    """The streams after attention if one head of a layer reads something else, from ``start`` on.

    Yields:
        Kind, layer and head of every row, and the streams.
    """
    W_O = runs.plain.layers[layer].W_O.unflatten(0, (runs.plain.n_heads, -1))
    change, base = read - runs.base.z[layer][:, start:], runs.base.mid[layer][:, start:]
    rows = torch.cartesian_prod(*(torch.arange(n, device=base.device) for n in (len(read), 1, runs.plain.n_heads)))
    for cells in rows.split(max(1, tokens_at_once // base.shape[:2].numel())):
        kind, _, head = cells.unbind(1)
        written = change[kind, :, :, head].flatten(1, 2) @ W_O[head]
        yield cells + cells.new_tensor([0, layer, 0]), base + written.unflatten(1, base.shape[:2])
