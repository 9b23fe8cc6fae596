"""A made-up language of bigrams and repeats, the smallest in which a model has reason to grow an induction head.

Token 0 (``BOS``) opens a document, tokens 1 to 127 are its words. Every word has eight successors, the likeliest eight
times as likely as the rarest. Half of the documents are a walk along these bigrams. In the other half the walk stops
somewhere, and a segment of random words is said over and over until the document ends: the first time it cannot be
predicted, after that it can, but only from the document itself.
"""

from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BOS = 0
VOCABULARY = 128
CONTEXT = 64
SUCCESSORS_EACH = 8
SHORTEST, LONGEST = 8, 31
"""How many words a repeated segment has; of the longest, two copies fill a document."""


def _draw_successors() -> Int[Tensor, "word rank"]:
    rng = Random("successors of the repeat language")
    return torch.tensor([rng.sample(range(1, VOCABULARY), SUCCESSORS_EACH) for _ in range(VOCABULARY)])


SUCCESSORS = _draw_successors()
"""The words that may follow each word, the likeliest first. The row of ``BOS`` is not used: any word may open."""

_WEIGHTS = 1 / torch.arange(1, SUCCESSORS_EACH + 1)
RANK_PROBABILITIES = _WEIGHTS / _WEIGHTS.sum()
"""How likely a word's first, second, ... successor is (Zipf's law)."""


@dataclass(frozen=True)
class Documents:
    """A batch of the language.

    Attributes:
        tokens: Token ids, [batch, position]; position 0 is ``BOS``.
        starts: Where the repeated segment starts, [batch]; 0 in a document without one.
        lengths: How many words it has, [batch]; 0 in a document without one.
    """

    tokens: Int[Tensor, "batch position"]
    starts: Int[Tensor, "batch"]
    lengths: Int[Tensor, "batch"]

    @property
    def repeated(self) -> Bool[Tensor, "batch position"]:
        """Whether a token lies in the second copy of a segment or a later one."""
        position = torch.arange(self.tokens.shape[1])
        return (self.lengths[:, None] > 0) & (position >= (self.starts + self.lengths)[:, None])


def documents(n: int, seed: int | str, share_of_repeats: float = 0.5) -> Documents:
    """Fresh documents of ``CONTEXT`` tokens, those with repeats first.

    Args:
        n: How many.
        seed: The same seed gives the same documents. Training draws from strings, so that every number is new text.
        share_of_repeats: The share of documents with a repeated segment.

    Raises:
        ValueError: if ``share_of_repeats`` is not between 0 and 1.
    """
    if not 0 <= share_of_repeats <= 1:
        raise ValueError(f"share_of_repeats must be between 0 and 1, not {share_of_repeats}")
    generator = _generator(f"documents {seed}")
    tokens = _walk(n, generator)
    k = round(n * share_of_repeats)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (k,), generator=generator)
    room = CONTEXT - 2 * lengths  # so that at least two copies fit
    starts = 1 + (torch.rand(k, generator=generator) * room).long()
    since = torch.arange(CONTEXT) - starts[:, None]
    said = _random_words(k, LONGEST, True, generator).gather(1, since.clamp(min=0) % lengths[:, None])
    tokens[:k] = torch.where(since >= 0, said, tokens[:k])
    none = torch.zeros(n - k, dtype=torch.long)
    return Documents(tokens, torch.cat([starts, none]), torch.cat([lengths, none]))


def repeated_tokens(n: int, length: int = 30, seed: int = 0, distinct: bool = True) -> Int[Tensor, "batch position"]:
    """``BOS`` and a segment of random words, twice.

    Args:
        n: How many rows.
        length: Words in the segment.
        seed: The same seed gives the same tokens.
        distinct: Whether a segment holds no word twice. If it may, what follows a word is no longer certain from
            that word alone, and a reader who looks at one word must sometimes guess.

    Returns:
        Token ids [n, 1 + 2 * length]; the second copy starts at position ``1 + length``.

    Raises:
        ValueError: if two copies do not fit into ``CONTEXT``.
    """
    longest = (CONTEXT - 1) // 2
    if not 1 <= length <= longest:
        raise ValueError(f"length must be from 1 to {longest}, so that two copies fit into the context, not {length}")
    segment = _random_words(n, length, distinct, _generator(f"repeated tokens {seed}"))
    return torch.cat([torch.full((n, 1), BOS), segment, segment], dim=1)


def bigram_probabilities() -> Float[Tensor, "word following"]:
    """How likely each token is after each word, by the bigrams alone. After ``BOS`` every word is equally likely."""
    table = torch.zeros(VOCABULARY, VOCABULARY).scatter(1, SUCCESSORS, RANK_PROBABILITIES.expand(VOCABULARY, -1))
    table[BOS] = 1 / (VOCABULARY - 1)
    table[BOS, BOS] = 0
    return table


def bigram_entropy() -> float:
    """The lowest mean loss, in nats, that a reader of the bigrams can reach: the same after every word."""
    return torch.special.entr(RANK_PROBABILITIES).sum().item()


def _generator(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(Random(text).getrandbits(63))


def _walk(n: int, generator: torch.Generator) -> Int[Tensor, "batch position"]:
    """Documents without repeats."""
    ranks = torch.multinomial(RANK_PROBABILITIES, n * CONTEXT, replacement=True, generator=generator).view(n, CONTEXT)
    columns = [torch.full((n,), BOS), torch.randint(1, VOCABULARY, (n,), generator=generator)]
    for position in range(2, CONTEXT):
        columns.append(SUCCESSORS[columns[-1], ranks[:, position]])
    return torch.stack(columns, dim=1)


def _random_words(n: int, length: int, distinct: bool, generator: torch.Generator) -> Int[Tensor, "batch length"]:
    if distinct:
        return 1 + torch.rand(n, VOCABULARY - 1, generator=generator).argsort(dim=1)[:, :length]
    return torch.randint(1, VOCABULARY, (n, length), generator=generator)
