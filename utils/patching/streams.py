"""Patches of the residual stream, and of what attention and MLPs add to it, at one position."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from utils.patching.fast import Entry
from utils.patching.runs import Runs

STREAMS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


def residual_patches(runs: Runs, stream: str) -> Iterator[Entry]:
    """Every patch that can change an answer; its index in the grid is the layer and the position.

    Args:
        stream: One of ``STREAMS``.
    """
    for layer in range(runs.plain.n_layers):
        before_layer = layer if stream == "resid_pre" else layer + 1
        patched, base = _stream_after_patch(runs, stream, layer), runs.before(runs.base, before_layer)
        for position in range(runs.first, runs.length):
            yield Entry(
                torch.tensor([[layer, position]]),
                before_layer,
                position,
                _at(position, patched, base)[None],
                one_position=True,
            )


def _at(position: int, values: Tensor, base: Tensor) -> Float[Tensor, "prompt seq d_model"]:
    """``values`` at one position and the base run's stream after it."""
    return torch.cat([values[:, position : position + 1], base[:, position + 1 :]], dim=1)


def _stream_after_patch(runs: Runs, stream: str, layer: int) -> Float[Tensor, "prompt seq d_model"]:
    """What a patch at a position makes of the residual stream there: before the layer for "resid_pre", else after it.

    A patch between attention and MLP reaches other positions only in the next layer, so that the stream after this
    layer, too, differs at one position alone.
    """
    base, source, plain = runs.base, runs.source, runs.plain
    after = runs.before(source, layer + 1)
    if stream == "resid_pre":
        return source.pre[layer]
    if stream == "resid_post":
        return after
    if stream == "mlp_out":
        return base.mid[layer] + (after - source.mid[layer])
    mid = source.mid[layer]
    if stream == "attn_out":
        mid = base.pre[layer] + (mid - source.pre[layer])
    return mid + plain.mlp(layer, mid)
