"""The fast core of path patching: all senders in one batch that grows from layer to layer."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from utils.patching.inputs import Head
from utils.patching.runs import Runs
from utils.transformer import Transformer

Senders = Literal["heads", "mlps", "embedding"]
QKV = ("q", "k", "v")


@dataclass(frozen=True)
class ReceiverInputs:
    """The queries, keys or values of some heads of one layer, for every sender below it.

    Attributes:
        part: 0 for queries, 1 for keys, 2 for values.
        heads: The heads of the layer that receive.
    """

    part: int
    heads: list[int]
    values: Float[Tensor, "sender prompt seq head d_head"]


def streams_with_frozen_attention(
    runs: Runs,
    senders: Senders,
    select: Callable[[Tensor], Tensor],
) -> Iterator[Float[Tensor, "sender *place d_model"]]:
    """The residual stream before each layer, then after the last, once for every sender below it.

    Args:
        runs: On the original prompts (base) and on the new ones (source).
        select: Takes the places of interest out of an activation [prompt, seq, width]. Attention is frozen, so no place
            depends on another.
    """
    weights, original, new = runs.plain, runs.base, runs.source
    streams = select(new.pre[0] if senders == "embedding" else original.pre[0])[None]
    if senders != "embedding":
        streams = streams[:0]
    for layer in range(weights.n_layers):
        yield streams
        mid = select(original.mid[layer])
        streams = streams + (mid - select(original.pre[layer]))
        if senders == "heads":
            heads = (weights.n_heads, weights.d_head)
            change = select((new.z[layer] - original.z[layer]).flatten(-2)).unflatten(-1, heads)
            written = torch.einsum("...hd,hdm->h...m", change, weights.layers[layer].W_O.unflatten(0, heads))
            streams = torch.cat([streams, mid + written])
        streams = streams + weights.mlp(layer, streams)
        if senders == "mlps":
            streams = torch.cat([streams, (mid + weights.mlp(layer, select(new.mid[layer])))[None]])
    yield streams


def inputs_of_receivers(
    weights: Transformer,
    streams: Iterable[Float[Tensor, "sender prompt seq d_model"]],
    receivers: Sequence[Head],
    receiver_input: str,
) -> dict[int, ReceiverInputs]:
    """What the receivers of each layer get from the streams before it, in the order of the layers."""
    heads_at, part = defaultdict(list), QKV.index(receiver_input)
    for layer, head in sorted(receivers):
        heads_at[layer].append(head)
    inputs = {}
    for layer, stream in zip(range(max(heads_at) + 1), streams, strict=False):
        if layer in heads_at:
            qkv = weights.layers[layer]
            columns = torch.arange(qkv.W_QKV.shape[1], device=stream.device).view(3, weights.n_heads, weights.d_head)
            columns = columns[part, heads_at[layer]].flatten()
            values = F.linear(weights.norm(stream, qkv.ln1), qkv.W_QKV[:, columns].T, qkv.b_QKV[columns])
            inputs[layer] = ReceiverInputs(part, heads_at[layer], values.unflatten(-1, (-1, weights.d_head)))
    return inputs


def run_with_inputs(
    runs: Runs, inputs: dict[int, ReceiverInputs], start: int
) -> Float[Tensor, "sender prompt d_model"]:
    """The final residual stream at the answering position, once for every sender below the highest receivers.

    Args:
        inputs: By layer, for positions from ``start`` on. Senders that do not reach a layer leave it as it was.
        start: The first position at which anything can change.
    """
    weights, original = runs.plain, runs.base
    lowest, n_senders = min(inputs), len(inputs[max(inputs)].values)
    if not n_senders:
        return runs.unpatched()[None][:0]
    stream = original.pre[lowest][:, start:].expand(n_senders, -1, -1, -1)
    for layer in range(lowest, weights.n_layers):
        qkv = original.qkv[layer].expand(n_senders, -1, -1, -1, -1, -1).clone()
        if layer > lowest:
            qkv[:, :, start:] = weights.qkv(layer, stream)
        if layer in inputs:
            part, heads, values = inputs[layer].part, inputs[layer].heads, inputs[layer].values
            qkv[:, :, start:, part, heads] = original.qkv[layer][:, start:, part, heads]
            qkv[: len(values), :, start:, part, heads] = values
        q, k, v = qkv.unbind(-3)
        z = weights.attend(layer, q[:, :, start:], k, v)
        if layer == weights.n_layers - 1:
            z = runs.at_end(z.flatten(-2), start).unflatten(-1, z.shape[-2:])
            stream = runs.at_end(stream, start)
        stream = stream + weights.attention_out(layer, z)
        stream = stream + weights.mlp(layer, stream)
    return stream
