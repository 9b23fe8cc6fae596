"""A run of a model without some edges, kept up to date while more are removed: what makes ACDC fast.

Removing an edge changes what its destination reads. From there the change spreads along the edges that are still there,
and only these are followed. Towards the end of ACDC few are left, and a destination whose node has no way to the logits
costs nothing at all. Several removals are tried in one batch. Positions before the first corrupted token never change;
of them only keys and values are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.circuits.heads import input_weights, output_weights
from utils.circuits.patching import EdgePatcher, source_outputs


@dataclass(frozen=True)
class Update:
    """New values of some rows of a tensor of the run's state, one for each number of removed edges that was tried."""

    state: Float[Tensor, "row *rest"]
    rows: Int[Tensor, "changed"]
    values: Float[Tensor, "changed tried *rest"]


@dataclass
class _Spread:
    """How the change has spread so far: what was recomputed, and by how much sources write something else."""

    updates: list[Update]
    sources: list[int]
    room: Float[Tensor, "source tried prompt seq d_model"]

    @property
    def changes(self) -> Float[Tensor, "changed tried prompt seq d_model"]:
        """For each of ``sources`` what it writes less what it wrote."""
        return self.room[: len(self.sources)]


class PrunedRun:
    """The run on clean prompts without the edges that were removed so far.

    Attributes:
        clean_logits: The whole model's answering logits [prompt, vocab].
        kept: The edges that are still there [source, destination].

    Args:
        patcher: The model and the corrupted prompts.
        clean: The prompts that the patcher runs on.
    """

    def __init__(self, patcher: EdgePatcher, clean: Int[Tensor, "prompt seq"]) -> None:
        self.model, self.graph, end = patcher.model, patcher.graph, patcher.end
        run = self.model.run(clean)
        written = source_outputs(self.model, self.graph, run)
        differ = (patcher.embedded != patcher.corrupted[0]).any(-1).any(0).int()
        first = min(int(differ.argmax()), int(end.min()))
        positions = torch.arange(clean.shape[1], device=clean.device)
        self._first, self._end, self._prompts = first, end - first, torch.arange(len(end), device=clean.device)
        weights = [input_weights(self.model, layer) for layer in range(self.graph.n_layers)]
        self._input_weights = [(W.contiguous(), b) for W, b in weights]
        self._masks = [self.model.mask(layer, positions[first:], positions) for layer in range(self.graph.n_layers)]
        self._corrupted, self._written = patcher.corrupted[:, :, first:], written[:, :, first:].clone()
        self._read = run.post.new_empty(len(self.graph.destinations), *run.post[:, first:].shape)
        for layer in range(self.graph.n_layers):
            inputs = self.graph.head_inputs(layer)
            self._read[inputs] = run.pre[layer][:, first:]
            if self.graph.has_mlps:
                self._read[inputs.stop] = run.mid[layer][:, first:]
        self._read[-1] = run.post[:, first:]
        self._qkv = [qkv.flatten(2, 3).permute(2, 0, 1, 3).contiguous() for qkv in run.qkv]
        self.kept = self.graph.exists.to(clean.device)
        self.clean_logits = self._logits(self._read[-1])
        self._reaching: Tensor | None = None
        self._room: Tensor | None = None

    def bytes_of_a_run(self) -> int:
        """What trying one set of removals takes, where everything above has changed."""
        streams = len(self.graph.sources) + len(self.graph.destinations)
        return streams * self._read[0].numel() * self._read.element_size()

    def reaches_logits(self, destination: int) -> bool:
        """Whether what is read at a destination can still change the logits."""
        layer, head, _ = self.graph.reader(destination)
        if layer == self.graph.n_layers:
            return True
        heads = self.graph.head_sources(layer)
        return bool(self._reaching_sources()[heads.stop if head is None else heads.start + head])

    def without(
        self, destination: int, sources: Sequence[int]
    ) -> tuple[Float[Tensor, "tried prompt vocab"], list[Update]]:
        """Try to remove the edges from some sources to a destination: the first, the first two ... and all of them.

        Returns:
            The answering logits of each, and what :meth:`remove` needs.
        """
        stream = self._streams_without(destination, sources)
        layer, head, _ = self.graph.reader(destination)
        place = torch.tensor([destination], device=stream.device)
        spread = _Spread([], [], self._room_for(len(sources)))
        if layer == self.graph.n_layers:
            spread.updates.append(Update(self._read, place, stream[None]))
            return self._logits(stream), spread.updates
        if head is None:
            self._run_mlp(spread, layer, place, stream[None])
        else:
            self._run_heads(spread, layer, place, stream[None])
            self._spread_to_mlp(spread, layer)
        for above in range(layer + 1, self.graph.n_layers):
            self._spread_to_heads(spread, above)
            self._spread_to_mlp(spread, above)
        place, stream = self._streams(spread, slice(len(self.graph.destinations) - 1, len(self.graph.destinations)))
        spread.updates.append(Update(self._read, place, stream))
        return self._logits(stream[0]), spread.updates

    def remove(self, destination: int, sources: Sequence[int], updates: Sequence[Update] = ()) -> None:
        """Remove the edges from some sources to a destination: the first ones of a call of :meth:`without`."""
        if sources:
            self.kept[sources, destination] = False
            self._reaching = None
            for update in updates:
                update.state[update.rows] = update.values[:, len(sources) - 1]

    def _streams_without(self, destination: int, sources: Sequence[int]) -> Float[Tensor, "tried prompt seq d_model"]:
        """What a destination reads without the first source, without the first two, and so on."""
        streams = self._read.new_empty(len(sources), *self._read.shape[1:])
        before = self._read[destination]
        for stream, source in zip(streams, sources, strict=True):
            torch.add(before, self._corrupted[source], out=stream)
            before = stream.sub_(self._written[source])
        return streams

    def _room_for(self, tried: int) -> Float[Tensor, "source tried prompt seq d_model"]:
        """Memory for the changes of all sources, which is used again and again."""
        if self._room is None or self._room.shape[1] < tried:
            self._room = self._written.new_empty(len(self._written), tried, *self._written.shape[1:])
        return self._room.flatten(0, 1)[: len(self._written) * tried].unflatten(0, (-1, tried))

    def _logits(self, stream: Float[Tensor, "*tried prompt seq d_model"]) -> Float[Tensor, "*tried prompt vocab"]:
        return self.model.unembed(stream[..., self._prompts, self._end, :])

    def _reaching_sources(self) -> Bool[Tensor, "source"]:
        """Which sources still have a way to the logits."""
        if self._reaching is None:
            reaching = self.kept[:, -1].clone()
            for layer in reversed(range(self.graph.n_layers)):
                heads, inputs = self.graph.head_sources(layer), self.graph.head_inputs(layer)
                if self.graph.has_mlps:
                    reaching |= self.kept[:, inputs.stop] & reaching[heads.stop]
                reaching |= (self.kept[:, inputs] & reaching[heads].repeat(3)).any(1)
            self._reaching = reaching
        return self._reaching

    def _streams(
        self, spread: _Spread, places: slice
    ) -> tuple[Int[Tensor, "changed"], Float[Tensor, "changed tried prompt seq d_model"]]:
        """Those of some destinations that now read something else and reach the logits, and what they read."""
        heard = self.kept[spread.sources, places]
        layer, _, _ = self.graph.reader(places.start)
        reached = heard.any(0)
        if layer < self.graph.n_layers:
            heads = self.graph.head_sources(layer)
            wanted = self._reaching_sources()
            reached &= wanted[heads.stop] if places.stop - places.start == 1 else wanted[heads].repeat(3)
        chosen = reached.nonzero()[:, 0]
        added = heard[:, chosen].T.to(spread.changes) @ spread.changes.flatten(1)
        place = chosen + places.start
        return place, added.view(len(chosen), *spread.changes.shape[1:]).add_(self._read[place][:, None])

    def _spread_to_heads(self, spread: _Spread, layer: int) -> None:
        places, streams = self._streams(spread, self.graph.head_inputs(layer))
        if len(places):
            self._run_heads(spread, layer, places, streams)

    def _spread_to_mlp(self, spread: _Spread, layer: int) -> None:
        if self.graph.has_mlps:
            stop = self.graph.head_inputs(layer).stop
            places, streams = self._streams(spread, slice(stop, stop + 1))
            if len(places):
                self._run_mlp(spread, layer, places, streams)

    def _run_mlp(self, spread: _Spread, layer: int, place: Tensor, stream: Tensor) -> None:
        spread.updates.append(Update(self._read, place, stream))
        source = torch.tensor([self.graph.head_sources(layer).stop], device=place.device)
        if layer < self.graph.n_layers - 1:
            written = self.model.mlp(layer, stream)
        else:  # nothing but the answering logits reads the last MLP
            written = self._written[source][:, None].repeat(1, stream.shape[1], 1, 1, 1)
            at_end = stream[..., self._prompts, self._end, :]
            written[..., self._prompts, self._end, :] = self.model.mlp(layer, at_end)
        self._write(spread, source, written)

    def _run_heads(
        self,
        spread: _Spread,
        layer: int,
        places: Int[Tensor, "changed"],
        streams: Float[Tensor, "changed tried prompt seq d_model"],
    ) -> None:
        """Compute the heads of which some inputs read something else."""
        spread.updates.append(Update(self._read, places, streams))
        inputs = places - self.graph.head_inputs(layer).start
        W, b = self._input_weights[layer]
        normed = self.model.norm(streams, self.model.layers[layer].ln1)
        made = torch.baddbmm(b[inputs], normed.flatten(1, -2), W[inputs]).unflatten(1, streams.shape[1:-1])
        spread.updates.append(Update(self._qkv[layer][:, :, self._first :], inputs, made))
        heads = (inputs % self.graph.n_heads).unique()
        q, k, v = (self._with_new(layer, part, heads, inputs, made) for part in range(3))
        q = q[..., self._first :, :]
        z = F.scaled_dot_product_attention(
            *(part.flatten(0, 1) for part in (q, k, v)), attn_mask=self._masks[layer], scale=1.0
        )
        written = torch.bmm(z.reshape(len(heads), -1, self.model.d_head), output_weights(self.model, layer)[heads])
        self._write(spread, heads + self.graph.head_sources(layer).start, written.view(len(heads), *streams.shape[1:]))

    def _with_new(
        self,
        layer: int,
        part: int,
        heads: Int[Tensor, "head"],
        inputs: Int[Tensor, "changed"],
        made: Float[Tensor, "changed tried prompt seq d_head"],
    ) -> Float[Tensor, "head tried prompt all_seq d_head"]:
        """The queries, keys or values of some heads at all positions, with the new ones in place."""
        rows = heads + part * self.graph.n_heads
        old = self._qkv[layer][rows][:, None].expand(-1, made.shape[1], -1, -1, -1)
        new = (inputs[:, None] == rows).nonzero()
        if not len(new):
            return old
        old = old.clone()
        old[new[:, 1], ..., self._first :, :] = made[new[:, 0]]
        return old

    def _write(self, spread: _Spread, sources: Tensor, written: Tensor) -> None:
        """Note what some sources now write."""
        spread.updates.append(Update(self._written, sources, written))
        start = len(spread.sources)
        spread.sources += sources.tolist()
        torch.sub(written, self._written[sources][:, None], out=spread.room[start : len(spread.sources)])
