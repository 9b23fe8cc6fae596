"""Patching without hooks and without repeating what a patch cannot change.

The result of a patch is the residual stream at the answering position, after the last layer. What makes it cheap:

* A patch at position p changes nothing before p. Only positions from p on are computed again; queries there look at the
  keys and values before p that the unpatched run left.
* Where both runs have seen the same tokens so far, they are equal: a patch there changes nothing at all, and the
  second run begins where they differ (:mod:`utils.patching.runs`).
* Whatever is patched, from some layer on it is nothing but another residual stream. So patches of all layers and
  positions ride upwards together, in one batch that grows at every layer (:func:`finish`): matrix products are those of
  all their tokens, and attention alone goes through them by the position at which they begin.
* The last layer is computed for the query that answers, and for no other (:func:`_through_last`).
* A head's new output follows from the keys, queries, values of the two runs in closed form (``heads.py``).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.patching.runs import Runs


@dataclass(frozen=True)
class Entry:
    """Patched residual streams that join the batch.

    Attributes:
        cells: The index in the grid of every row.
        layer: Before which layer; ``n_layers`` is after the last.
        start: The position at which the streams begin.
        stream: From ``start`` on.
        one_position: Whether only the first of its positions differs from the base run.
        after_attention: Whether these are streams between the layer's attention and its MLP.
    """

    cells: Int[Tensor, "row axis"]
    layer: int
    start: int
    stream: Float[Tensor, "row prompt seq d_model"]
    one_position: bool = False
    after_attention: bool = False


@dataclass(frozen=True)
class Streams:
    """Residual streams that begin at different positions, in one tensor, those of the same beginning side by side.

    Attributes:
        tokens: All positions of all streams.
        shapes: Rows, prompts and positions of the streams that begin at each position.
        cells: The index in the grid of every row.
    """

    tokens: Float[Tensor, "token d_model"]
    shapes: dict[int, tuple[int, int, int]]
    cells: dict[int, Int[Tensor, "row axis"]]

    def parts(self, values: Float[Tensor, "token *width"]) -> dict[int, Float[Tensor, "row prompt seq *width"]]:
        """Values of all tokens, by the position at which their streams begin."""
        shapes = self.shapes.values()
        pieces = values.split([rows * prompts * positions for rows, prompts, positions in shapes])
        return {start: piece.unflatten(0, self.shapes[start]) for start, piece in zip(self.shapes, pieces, strict=True)}

    def merged(
        self, values: Float[Tensor, "token *width"], entries: Sequence[Entry], theirs: Sequence[Tensor]
    ) -> Float[Tensor, "more_tokens *width"]:
        """Values of all tokens and those of entries that join, in the order that :meth:`joined` gives the tokens."""
        pieces = {start: [part] for start, part in self.parts(values).items()} if self.shapes else {}
        for entry, more in zip(entries, theirs, strict=True):
            pieces.setdefault(entry.start, []).append(more)
        return torch.cat([piece.flatten(0, 2) for of_start in pieces.values() for piece in of_start])

    def joined(self, entries: Sequence[Entry]) -> "Streams":
        """These streams and those of the entries."""
        if not entries:
            return self
        shapes, cells = dict(self.shapes), dict(self.cells)
        for entry in entries:
            rows, *rest = entry.stream.shape[:3]
            shapes[entry.start] = (shapes.get(entry.start, (0,))[0] + rows, *rest)
            before = [cells[entry.start]] if entry.start in cells else []
            cells[entry.start] = torch.cat([*before, entry.cells])
        return Streams(self.merged(self.tokens, entries, [entry.stream for entry in entries]), shapes, cells)


def finish_all(
    runs: Runs, entries: Iterable[Entry], tokens_at_once: int
) -> Iterator[tuple[tuple[Tensor, ...], Float[Tensor, "row prompt d_model"]]]:
    """As :func:`finish`, in batches that hold no more tokens than given, or one entry."""
    batch, tokens = [], 0
    for entry in entries:
        more = entry.stream.shape[:3].numel()
        if batch and tokens + more > tokens_at_once:
            yield finish(runs, batch)
            batch, tokens = [], 0
        batch.append(entry)
        tokens += more
    if batch:
        yield finish(runs, batch)


def finish(
    runs: Runs, entries: Sequence[Entry]
) -> tuple[tuple[Int[Tensor, "row"], ...], Float[Tensor, "row prompt d_model"]]:
    """Take patched streams up to the end of the model.

    Args:
        entries: In ascending order of their layers.

    Returns:
        Where in the grid every row belongs, one tensor per axis; and its final residual streams where prompts answer.
    """
    last, streams = runs.plain.n_layers - 1, Streams(entries[0].stream[:0].flatten(0, 2), {}, {})
    for layer in range(entries[0].layer, last):
        before, after_attention = _that_join(entries, layer)
        streams = _through_attention(runs, layer, streams, before).joined(after_attention)
        after = runs.plain.mlp(layer, streams.tokens)
        after += streams.tokens
        streams = replace(streams, tokens=after)
    return _through_last(runs, streams, entries)


def _that_join(entries: Sequence[Entry], layer: int) -> tuple[list[Entry], list[Entry]]:
    """The entries that join before a layer, and between its attention and its MLP."""
    of_layer = [entry for entry in entries if entry.layer == layer]
    return [e for e in of_layer if not e.after_attention], [e for e in of_layer if e.after_attention]


def _through_last(
    runs: Runs, streams: Streams, entries: Sequence[Entry]
) -> tuple[tuple[Int[Tensor, "row"], ...], Float[Tensor, "row prompt d_model"]]:
    """The last layer, for the answering position of each prompt alone."""
    last = runs.plain.n_layers - 1
    before, after_attention = _that_join(entries, last)
    at_the_top, _ = _that_join(entries, last + 1)
    streams = streams.joined(before)
    x = torch.cat([_through_last_attention(runs, streams), *(runs.at_end(e.stream, e.start) for e in after_attention)])
    x = torch.cat([x + runs.plain.mlp(last, x), *(runs.at_end(e.stream, e.start) for e in at_the_top)])
    late = after_attention + at_the_top
    cells = [*streams.cells.values(), *(entry.cells for entry in late)]
    starts = zip([*streams.shapes, *(entry.start for entry in late)], cells, strict=True)
    start = torch.cat([runs.end.new_full((len(rows), 1), start) for start, rows in starts])
    return torch.cat(cells).unbind(1), torch.where((runs.end < start)[..., None], runs.unpatched(), x)


def _through_attention(runs: Runs, layer: int, streams: Streams, entering: Sequence[Entry]) -> Streams:
    """Let entries join, and all streams through a layer's attention, at all their positions."""
    qkv = _qkv(runs, layer, streams, entering)
    streams = streams.joined(entering)
    if not streams.shapes:
        return streams
    z = [_attend(runs, layer, start, part).flatten(0, 2) for start, part in streams.parts(qkv).items()]
    mid = runs.plain.attention_out(layer, z[0] if len(z) == 1 else torch.cat(z))
    mid += streams.tokens
    return replace(streams, tokens=mid)


def _qkv(runs: Runs, layer: int, streams: Streams, entering: Sequence[Entry]) -> Float[Tensor, "token 3 head d_head"]:
    """Queries, keys and values of all streams and of those that join; what is the base run's is not computed."""
    if not entering:
        return runs.plain.qkv(layer, streams.tokens)
    changed = [entry.stream[:, :, :1] if entry.one_position else entry.stream for entry in entering]
    tokens = [streams.tokens, *(part.flatten(0, 2) for part in changed)]
    present, *computed = runs.plain.qkv(layer, torch.cat(tokens)).split([len(part) for part in tokens])
    theirs = []
    for entry, part, new in zip(entering, changed, computed, strict=True):
        unchanged = runs.base.qkv[layer][:, entry.start + part.shape[2] :].expand(len(part), *[-1] * 5)
        theirs.append(torch.cat([new.unflatten(0, part.shape[:3]), unchanged], dim=2))
    return streams.merged(present, entering, theirs)


def _attend(
    runs: Runs, layer: int, start: int, qkv: Float[Tensor, "row prompt seq 3 head d_head"]
) -> Float[Tensor, "row prompt seq head d_head"]:
    """What heads read at positions from ``start`` on, where keys and values before ``start`` are the base run's."""
    q, k_and_v = qkv[..., 0, :, :], qkv[..., 1:, :, :]
    if start:
        before = runs.base.qkv[layer][:, :start, 1:]
        k_and_v = torch.cat([before.expand(len(qkv), *before.shape), k_and_v], dim=2)
    return runs.plain.attend(layer, q, *k_and_v.unbind(-3))


def _through_last_attention(runs: Runs, streams: Streams) -> Float[Tensor, "row prompt d_model"]:
    """The stream after the last layer's attention, for the answering query of each prompt alone.

    One query does not need the keys and values of all positions. Its products with the keys are those of ``W_K q`` with
    the normalised stream (the bias adds the same to all of them), and the stream is averaged before ``W_V`` is applied.
    """
    plain, layer = runs.plain, runs.plain.n_layers - 1
    if not streams.shapes:
        return runs.unpatched()[None][:0]
    weights, parts = plain.layers[layer], streams.parts(streams.tokens)
    W_Q, W_K, W_V = weights.W_QKV.unflatten(1, (3, plain.n_heads, plain.d_head)).unbind(1)  # [d_model, head, d_head]
    b_Q, _, b_V = weights.b_QKV.unflatten(0, (3, plain.n_heads, plain.d_head))
    x = torch.cat([runs.at_end(part, start) for start, part in parts.items()])
    q = torch.einsum("rpd,dhe->rphe", plain.norm(x, weights.ln1), W_Q) + b_Q
    q = torch.einsum("rphe,dhe->rphd", q, W_K).split([len(part) for part in parts.values()])
    averaged = [_average(runs, *item, rows) for item, rows in zip(parts.items(), q, strict=True)]
    return x + plain.attention_out(layer, torch.einsum("rphd,dhe->rphe", torch.cat(averaged), W_V) + b_V)


def _average(
    runs: Runs, start: int, x: Float[Tensor, "row prompt seq d_model"], q: Float[Tensor, "row prompt head d_model"]
) -> Float[Tensor, "row prompt head d_model"]:
    """The last layer's normalised streams, averaged with the patterns of answering queries ``W_K q``."""
    plain, layer, end = runs.plain, runs.plain.n_layers - 1, runs.end.clamp(min=start)
    ln1 = plain.layers[layer].ln1
    before = plain.norm(runs.base.pre[layer][:, :start], ln1)
    stream = torch.cat([before.expand(len(x), *before.shape), plain.norm(x, ln1)], dim=2)
    mask = plain.mask(layer, end[:, None], torch.arange(runs.length, device=end.device))  # [prompt, 1, key]
    return (q @ stream.mT).masked_fill(~mask, -torch.inf).softmax(-1) @ stream
