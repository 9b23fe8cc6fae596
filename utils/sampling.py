"""Choose a model's next tokens: temperature, top-k, top-p, and the loop that writes a text.

The functions take logits or probabilities of any leading shape, the vocabulary last. Notebook 1.2 builds them
one by one.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def temperature_probs(logits: Float[Tensor, "*rest vocab"], temperature: float) -> Float[Tensor, "*rest vocab"]:
    """Probabilities of the next token: at 1 the model's own, sharper below, flatter above, and at 0 greedy.

    Raises:
        ValueError: if the temperature is negative.
    """
    if temperature < 0:
        raise ValueError(f"Expected a temperature of 0 or more, got {temperature}.")
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    return (logits / temperature).softmax(dim=-1)


def keep_top_k(logits: Float[Tensor, "*rest vocab"], k: int) -> Float[Tensor, "*rest vocab"]:
    """The logits with all but the ``k`` largest set to minus infinity.

    Source: Fan et al. 2018, https://arxiv.org/abs/1805.04833

    Raises:
        ValueError: if ``k`` is less than 1.
    """
    if k < 1:
        raise ValueError(f"Expected k of 1 or more, got {k}: at least one token must be left.")
    likeliest = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, likeliest.indices, likeliest.values)


def keep_top_p(logits: Float[Tensor, "*rest vocab"], p: float) -> Float[Tensor, "*rest vocab"]:
    """The logits of the fewest tokens that together have probability ``p``, the others set to minus infinity.

    Source: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751

    Raises:
        ValueError: if ``p`` is not above 0 and at most 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"Expected p above 0 and at most 1, got {p}.")
    probs, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    before = probs.cumsum(dim=-1) - probs  # what the likelier tokens have together
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, -torch.inf)


def draw_tokens(probs: Float[Tensor, "row vocab"], generator: torch.Generator | None = None) -> Int[Tensor, "row"]:
    """One token for each row, drawn with the row's probabilities."""
    return torch.multinomial(probs, 1, generator=generator)[:, 0]


def generate_tokens(
    model: Callable[[Tensor], Tensor],
    tokens: Int[Tensor, "batch seq"],
    n_new: int,
    choose: Callable[[Tensor], Tensor],
    n_ctx: int,
) -> Int[Tensor, "batch seq+n_new"]:
    """Continue texts, one token at a time.

    Args:
        model: Maps tokens [batch, seq] to logits [batch, seq, vocab].
        tokens: The beginnings.
        n_new: How many tokens to add.
        choose: Maps the last position's logits [batch, vocab] to a token for each row.
        n_ctx: How many tokens the model reads; of a longer text it gets the last ones.

    Returns:
        The beginnings and what was added to them.
    """
    for _ in range(n_new):
        chosen = choose(model(tokens[:, -n_ctx:])[:, -1])
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
    return tokens
