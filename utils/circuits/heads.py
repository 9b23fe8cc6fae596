"""A layer's attention in parts: every input of every head may read a stream of its own."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from utils.transformer import Transformer


def input_weights(
    model: Transformer, layer: int
) -> tuple[Float[Tensor, "3*head d_model d_head"], Float[Tensor, "3*head 1 d_head"]]:
    """The matrix and the bias of each input of a layer's heads, in the order of ``Graph.head_inputs``."""
    weights, shape = model.layers[layer], (3 * model.n_heads, model.d_head)
    return weights.W_QKV.unflatten(1, shape).movedim(1, 0), weights.b_QKV.unflatten(0, shape)[:, None]


def output_weights(model: Transformer, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """The matrix with which each head of a layer writes."""
    return model.layers[layer].W_O.unflatten(0, (model.n_heads, model.d_head))


def qkv_of_streams(
    model: Transformer, layer: int, streams: Float[Tensor, "3*head *batch d_model"]
) -> Float[Tensor, "*batch 3 head d_head"]:
    """As ``model.qkv``, where each input of each head reads a stream of its own."""
    W, b = input_weights(model, layer)
    normed = model.norm(streams, model.layers[layer].ln1)
    made = torch.baddbmm(b, normed.flatten(1, -2), W).unflatten(1, streams.shape[1:-1])
    return made.movedim(0, -2).unflatten(-2, (3, model.n_heads))


def head_outputs(
    model: Transformer, layer: int, z: Float[Tensor, "*batch head d_head"]
) -> Float[Tensor, "head *batch d_model"]:
    """What each head of a layer writes, the layer's bias left out."""
    return torch.bmm(z.movedim(-2, 0).flatten(1, -2), output_weights(model, layer)).unflatten(1, z.shape[:-2])


def attend_alone(
    model: Transformer,
    layer: int,
    q: Float[Tensor, "*batch seq d_head"],
    k: Float[Tensor, "*batch seq d_head"],
    v: Float[Tensor, "*batch seq d_head"],
) -> Float[Tensor, "*batch seq d_head"]:
    """What one head of a layer reads. Batch dimensions of size 1 stand for all of the others' size."""
    if model.layers[layer].window is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    positions = torch.arange(q.shape[-2], device=q.device)
    return F.scaled_dot_product_attention(q, k, v, model.mask(layer, positions, positions), scale=1.0)
