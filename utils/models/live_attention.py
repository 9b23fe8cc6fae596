"""Attention whose scores and patterns can be changed by a hook, on every bridge that ``load_model`` opens.

A TransformerBridge leaves attention to the module that it wraps, and reports the pattern afterwards. On GPT-Neo, on
native models and on vision transformers (TransformerLens 3.9) a hook on ``hook_pattern`` or ``hook_attn_scores``
therefore sees the pattern and changes nothing, without a word; ``attn_scores`` in a cache even holds probabilities.
Here the wrapped attention calls the two hook points where HookedTransformer does: the masked scores before the softmax,
the pattern after it.
"""

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def make_attention_live(bridge: "TransformerBridge") -> None:
    """Let hooks on scores and patterns change a bridge's attention. Architectures where they do are left alone."""
    from transformer_lens.model_bridge.sources.native.model import NativeAttention
    from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention
    from transformers.models.vit.modeling_vit import ViTAttention

    for block in bridge.blocks:
        wrapped = block.attn.original_component
        if isinstance(wrapped, GPTNeoSelfAttention):
            wrapped._attn = partial(_neo_attention, block.attn, wrapped)
        elif isinstance(wrapped, NativeAttention):
            wrapped.forward = partial(_native_attention, block.attn, wrapped)
        elif isinstance(wrapped, ViTAttention):
            wrapped.forward = partial(_vit_attention, block.attn, wrapped)


def _mix(attention: nn.Module, scores: Tensor, seen: Tensor, values: Tensor) -> Tensor:
    """Mask, hook, softmax, hook and average: scores [batch, head, query, key], values [batch, head, key, d_head]."""
    scores = attention.hook_attn_scores(scores.masked_fill(~seen, -torch.inf))
    pattern = scores.softmax(-1).nan_to_num(0.0)  # a padded query that sees nothing has NaN
    return attention.hook_pattern(pattern).to(values.dtype) @ values


def _neo_attention(
    attention: nn.Module, wrapped: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask=None
) -> tuple[Tensor, None]:
    """In place of ``GPTNeoSelfAttention._attn``, which does not divide scores by the root of the head's width."""
    queries, keys = query.shape[-2], key.shape[-2]
    seen = wrapped.bias[:, :, keys - queries : keys, :keys]
    if attention_mask is not None:
        seen = seen & (attention_mask[..., :keys] if attention_mask.dtype == torch.bool else attention_mask >= 0)
    return _mix(attention, query.float() @ key.float().mT, seen, value), None


def _native_attention(
    attention: nn.Module, wrapped: nn.Module, hidden_states: Tensor, attention_mask=None, position_ids=None, **_
) -> tuple[Tensor, None]:
    """In place of ``NativeAttention.forward``."""
    batch, seq, _ = hidden_states.shape
    q, k, v = (
        project(hidden_states).view(batch, seq, -1, wrapped.d_head).transpose(1, 2)
        for project in (wrapped.q, wrapped.k, wrapped.v)
    )
    if wrapped.rotary is not None:
        q, k = wrapped.rotary.apply_rope(q, k, position_ids=position_ids)
    k, v = (x.repeat_interleave(wrapped.kv_repeats, dim=1) for x in (k, v))
    hidden = wrapped.causal_mask[:seq, :seq] if wrapped.causal else wrapped.causal_mask.new_zeros(seq, seq)
    if attention_mask is not None:
        hidden = wrapped._combine_attention_mask(hidden, attention_mask, batch=batch)
    z = _mix(attention, q @ k.mT / wrapped.scale, ~hidden, v)
    return wrapped.o(z.transpose(1, 2).reshape(batch, seq, -1)), None


def _vit_attention(
    attention: nn.Module, wrapped: nn.Module, hidden_states: Tensor, attention_mask=None, **_
) -> tuple[Tensor, None]:
    """In place of ``ViTAttention.forward``: every patch sees every patch."""
    batch, seq, _ = hidden_states.shape
    q, k, v = (
        project(hidden_states).view(batch, seq, -1, wrapped.head_dim).transpose(1, 2)
        for project in (wrapped.q_proj, wrapped.k_proj, wrapped.v_proj)
    )
    seen = torch.ones(seq, seq, dtype=torch.bool, device=q.device)
    z = _mix(attention, q @ k.mT * wrapped.scaling, seen, v)
    return wrapped.o_proj(z.transpose(1, 2).reshape(batch, seq, -1)), None
