"""Add up a hidden weight of every token and compare the sum with a threshold."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, choose, levelled, one_of, pick, with_last

WEIGHTS = (-3, -1, 1, 3)
THRESHOLD = 1


@dataclass(frozen=True)
class WeightedVote(Task):
    """Weights are odd and the body is even, so that the sum is never the threshold, which is odd."""

    symbols: tuple[int, ...]
    weights: tuple[int, ...]
    yes: int
    no: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        symbols = deck.alike(deck.random.choice((8, 10, 12)))
        weights = [WEIGHTS[i % len(WEIGHTS)] for i in range(len(symbols))]
        deck.random.shuffle(weights)
        return cls(symbols, tuple(weights), deck.one(), deck.one(), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        tokens = with_last(pick(self.symbols, (3 * n, BODY), generator), self.last)
        return levelled(tokens, self.answer(tokens), n, generator)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        body = torch.searchsorted(torch.tensor(self.symbols), tokens[:, :BODY].contiguous())
        return choose(torch.tensor(self.weights)[body].sum(1) > THRESHOLD, self.yes, self.no)

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        pairs = list(zip(self.symbols, self.weights, strict=True))
        return {f"weight {weight:+}": one_of(tokens, [s for s, w in pairs if w == weight]) for weight in WEIGHTS}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        weights = ", ".join(f"{s}: {w:+}" for s, w in zip(self.symbols, self.weights, strict=True))
        enough = f"the weights of the body add up to more than {THRESHOLD}"
        return f"Answer {self.yes} if {enough}, else {self.no} ({weights})."
