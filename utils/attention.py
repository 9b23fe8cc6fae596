"""What an attention head looks at, and how far its pattern can be trusted as a map of the information flow.

Every function takes patterns as ``run_with_cache`` gives them: row = query (the position that looks), column = key
(the position that is looked at), and each row sums to one. Notebook 1.4 builds them one by one.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

NO_CLASS = "none of these"


def attention_patterns(
    model: "TransformerBridge", tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "layer batch head query key"]:
    """The attention pattern of every head of a model."""
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    return torch.stack([cache["pattern", layer] for layer in range(model.cfg.n_layers)])


def largest_attention_to_the_future(pattern: Float[Tensor, "*rest query key"]) -> Float[Tensor, "*rest"]:
    """The largest weight that any position gives to a later one: zero wherever a causal mask was applied."""
    return pattern.triu(1).amax((-2, -1))


def previous_token_score(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "head"]:
    """Mean attention from each position to the one before it. Position 0 has none and is left out."""
    return pattern.diagonal(-1, -2, -1).mean((0, -1))


def current_token_score(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "head"]:
    """Mean attention from each position to itself. Position 0 sees nothing else and is left out."""
    return pattern.diagonal(0, -2, -1)[..., 1:].mean((0, -1))


def first_token_score(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "head"]:
    """Mean attention from each position but the first to position 0."""
    return pattern[:, :, 1:, 0].mean((0, -1))


def duplicate_token_score(
    pattern: Float[Tensor, "batch head query key"], tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "head"]:
    """Mean attention from each token that occurred before to all its earlier copies together.

    Args:
        pattern: attention on ``tokens``, of which at least one must repeat an earlier one.

    Returns:
        One score per head; tokens that occur for the first time are left out.
    """
    copies = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)  # [batch, query, key]
    given = (pattern * copies[:, None]).sum(-1)  # [batch, head, query]
    return given.sum((0, -1)) / copies.any(-1).sum()


def induction_score(
    pattern: Float[Tensor, "batch head query key"], tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "head"]:
    """Mean attention from each token that occurred before to the tokens that followed its earlier copies, together.

    Raises:
        ValueError: if no token occurs twice.

    Source: Olsson et al. 2022, https://arxiv.org/abs/2209.11895
    """
    earlier = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)  # [batch, query, key]
    if not earlier.any():
        raise ValueError("induction_score needs a token that occurs twice; in these tokens none does.")
    after = earlier.roll(1, -1).tril()  # a copy at the position before leaves nothing but the query itself
    repeated = earlier.any(-1)
    to_after = (pattern * after[:, None]).sum(-1).transpose(0, 1)  # [head, batch, query]
    return to_after[:, repeated].mean(-1)


def uniform_attention(n: int, window: int | None = None) -> Float[Tensor, "query key"]:
    """The pattern of a head without preferences: equal weight on everything that it can see.

    Args:
        n: number of positions.
        window: how many positions a query sees, its own included; by default all up to its own.
    """
    visible = torch.ones(n, n).tril()
    if window is not None:
        visible = visible.triu(1 - window)
    return visible / visible.sum(-1, keepdim=True)


def classify_heads(scores: Mapping[str, Float[Tensor, "layer head"]], threshold: float) -> list[list[str]]:
    """Name every head by its highest score, or "none of these" where no score reaches the threshold.

    Returns:
        Names as ``result[layer][head]``. Of equal scores the first in ``scores`` names the head.
    """
    names, stacked = list(scores), torch.stack(list(scores.values()))  # [kind, layer, head]
    best, kind = stacked.max(0)
    return [
        [names[k] if score >= threshold else NO_CLASS for score, k in zip(*row, strict=True)]
        for row in zip(best.tolist(), kind.tolist(), strict=True)
    ]


def attention_entropy(pattern: Float[Tensor, "*rest query key"]) -> Float[Tensor, "*rest query"]:
    """Entropy of each row in nats: 0 where all attention is on one key, log(k) where it is spread evenly over k."""
    return -torch.special.xlogy(pattern, pattern).sum(-1)


def mean_attention_distance(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "head"]:
    """How many positions back each head looks on average. Position 0 has no choice and is left out.

    Source: Vig & Belinkov 2019, https://arxiv.org/abs/1906.04284
    """
    position = torch.arange(pattern.shape[-1], device=pattern.device)
    distance = position[:, None] - position  # [query, key]
    return (pattern * distance).sum(-1)[..., 1:].mean((0, -1))


def attention_rollout(mixing: Float[Tensor, "layer query key"], residual: float = 0.5) -> Float[Tensor, "query key"]:
    """Follow information through all layers: multiply their mixing matrices, each blended with the identity.

    Args:
        mixing: for each layer, from the lowest up, how much each position takes from each; rows sum to one.
        residual: share of each position's content that the residual stream carries past the layer.

    Returns:
        How much of each final position comes from each input position. Rows sum to one.

    Source: Abnar & Zuidema 2020, https://arxiv.org/abs/2005.00928
    """
    identity = torch.eye(mixing.shape[-1], dtype=mixing.dtype, device=mixing.device)
    rollout = identity
    for layer in mixing:
        rollout = ((1 - residual) * layer + residual * identity) @ rollout
    return rollout


def value_weighted_norms(
    pattern: Float[Tensor, "batch head query key"],
    value: Float[Tensor, "batch key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
) -> Float[Tensor, "batch query key"]:
    """Length of the vector that each key adds to each query's residual stream, over all heads of one layer together.

    Source: Kobayashi et al. 2020, https://arxiv.org/abs/2004.10102
    """
    written = torch.einsum("bkhd,hdm->bhkm", value, W_O)
    return torch.einsum("bhqk,bhkm->bqkm", pattern, written).norm(dim=-1)


def value_zeroing(model: "TransformerBridge", tokens: Int[Tensor, "1 position"]) -> Float[Tensor, "layer query key"]:
    """How much each position's layer output turns when another's value vectors are silenced, in that layer only.

    Args:
        model: a TransformerBridge.
        tokens: one prompt.

    Returns:
        1 - cosine similarity of the layer's output with and without the values of ``key``, rows scaled to sum to one.

    Source: Mohebbi et al. 2023, https://arxiv.org/abs/2301.12971
    """
    place = torch.arange(tokens.shape[1], device=tokens.device)
    copies = tokens.repeat(len(place), 1)  # copy number k is run without the values of position k

    def silence(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        value[place, place] = 0  # all heads at once
        return value

    _, intact = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_resid_post"))
    mixing = []
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.hook_resid_post"
        with model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_v", silence)]):
            _, changed = model.run_with_cache(copies, names_filter=name)
        # in double precision: the angles can be small enough to drown in the rounding of 1 - cosine
        cosine = torch.cosine_similarity(changed[name].double(), intact[name].double(), dim=-1)  # [key, query]
        distance = (1 - cosine).clamp(min=0).T.to(intact[name].dtype)
        mixing.append(distance / distance.sum(-1, keepdim=True))
    return torch.stack(mixing)
