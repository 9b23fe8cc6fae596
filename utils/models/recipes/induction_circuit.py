"""How the heads of a two-layer attention-only model are joined: circuits in the weights, and single paths cut.

Circuits and composition: Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html.
Paths: Wang et al. 2022, https://arxiv.org/abs/2211.00593.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def k_composition(model: "TransformerBridge") -> Float[Tensor, "sender receiver"]:
    """How much of what each head of layer 0 writes is read by the keys of each head of layer 1.

    The Frobenius norm of the product of the sender's OV matrix and the receiver's QK matrix, over the product of their
    norms: 0 where they share no direction, 1 at the most.
    """
    written = model.W_V[0] @ model.W_O[0]  # [sender, d_model, d_model]
    read = model.W_K[1] @ model.W_Q[1].mT  # [receiver, d_model, d_model]
    return _norm(written[:, None] @ read) / (_norm(written)[:, None] * _norm(read))


def finds_word_before(model: "TransformerBridge", sender: int) -> Bool[Tensor, "position"]:
    """Whether, by positions alone, a head of layer 0 prefers the position before, for each position but the first."""
    queries, keys = (model.pos_embed.weight @ weight[0, sender] for weight in (model.W_Q, model.W_K))
    scores = (queries @ keys.T).masked_fill(torch.ones(len(queries), len(queries)).triu(1).bool(), -torch.inf)
    return scores[1:].argmax(1) == torch.arange(len(queries) - 1)


def finds_own_word(model: "TransformerBridge", receiver: int, sender: int | None = None) -> Bool[Tensor, "word"]:
    """Whether each word, as the query of a head of layer 1, prefers itself to all other words as the key.

    Args:
        model: A two-layer attention-only model without layer norm, whose token 0 is no word.
        receiver: A head of layer 1.
        sender: The head of layer 0 through which the key word comes; without one it comes from the embedding.
    """
    words = model.W_E[1:]
    keys = words if sender is None else words @ model.W_V[0, sender] @ model.W_O[0, sender]
    return _diagonal_wins(words @ model.W_Q[1, receiver] @ (keys @ model.W_K[1, receiver]).T)


def copies_word(model: "TransformerBridge", receiver: int) -> Bool[Tensor, "word"]:
    """Whether each word, where a head of layer 1 attends to it, is the word whose logit that raises most."""
    return _diagonal_wins(model.W_E[1:] @ model.W_V[1, receiver] @ model.W_O[1, receiver] @ model.W_U[:, 1:])


def gaussian_baseline(d_model: int, d_head: int, draws: int, seed: int = 0) -> Float[Tensor, "draw"]:
    """Composition scores of pairs of random heads of the same shape: all entries of their matrices standard normal."""
    generator = torch.Generator().manual_seed(seed)
    v, o, k, q = (torch.randn(draws, d_model, d_head, generator=generator) for _ in range(4))
    written, read = v @ o.mT, k @ q.mT
    return _norm(written @ read) / (_norm(written) * _norm(read))


def rotated_baseline(
    model: "TransformerBridge", sender: int, receiver: int, draws: int, seed: int = 0
) -> Float[Tensor, "draw"]:
    """K-composition of one pair when the sender's output is turned by a random rotation.

    Both heads keep their singular values, which are more uneven than those of random matrices; what is lost is that
    the directions meet.
    """
    written = torch.linalg.svdvals(model.W_V[0, sender] @ model.W_O[0, sender])[: model.cfg.d_head]
    directions, read, _ = torch.linalg.svd(model.W_K[1, receiver] @ model.W_Q[1, receiver].T)
    kept = directions[:, : model.cfg.d_head] * read[: model.cfg.d_head]
    generator = torch.Generator().manual_seed(seed)
    frames, _ = torch.linalg.qr(torch.randn(draws, model.cfg.d_model, model.cfg.d_head, generator=generator))
    return _norm(written[:, None] * (frames.mT @ kept)) / (written.norm() * read.norm())


def deviations_above(score: Tensor, baseline: Float[Tensor, "draw"]) -> Tensor:
    """How many standard deviations of a baseline a score lies above its mean."""
    return (score - baseline.mean()) / baseline.std()


@torch.no_grad()
def logits_without_path(
    model: "TransformerBridge",
    tokens: Int[Tensor, "batch position"],
    other: Int[Tensor, "batch position"],
    senders: Sequence[int],
    receivers: Sequence[int],
    through: str,
) -> Float[Tensor, "batch position token"]:
    """The logits when one path carries what its senders compute on other tokens, and all else is as it was.

    The path runs from heads of layer 0 into one input of heads of layer 1. There is no layer norm on the way, so that
    the change of the input is the change of the senders' output times the receivers' weights.

    Args:
        model: A two-layer attention-only model without layer norm.
        tokens: What the model reads.
        other: What the senders read instead, in as many rows and positions.
        senders: Heads of layer 0.
        receivers: Heads of layer 1.
        through: Which input of the receivers: "q", "k" or "v".

    Raises:
        ValueError: if ``through`` is not one of the three.
    """
    reading = {"q": model.W_Q, "k": model.W_K, "v": model.W_V}
    if through not in reading:
        raise ValueError(f"through must be 'q', 'k' or 'v', not {through!r}")
    senders, receivers = list(senders), list(receivers)
    here, there = (_written(model, some, senders) for some in (tokens, other))
    change = torch.einsum("bpm,rmd->bprd", there - here, reading[through][1, receivers])

    def add(activation: Tensor, hook: object) -> Tensor:
        activation = activation.clone()
        activation[:, :, receivers] += change
        return activation

    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.1.attn.hook_{through}", add)])


def _written(
    model: "TransformerBridge", tokens: Int[Tensor, "batch position"], heads: list[int]
) -> Float[Tensor, "batch position d_model"]:
    """What some heads of layer 0 write, together."""
    name = "blocks.0.attn.hook_z"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return torch.einsum("bphd,hdm->bpm", cache[name][:, :, heads], model.W_O[0, heads])


def _diagonal_wins(table: Float[Tensor, "word word"]) -> Bool[Tensor, "word"]:
    return table.argmax(1) == torch.arange(len(table))


def _norm(matrices: Float[Tensor, "*rest row column"]) -> Float[Tensor, "*rest"]:
    return torch.linalg.matrix_norm(matrices)
