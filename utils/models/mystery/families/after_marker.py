"""Report the token a fixed number of places from a marker."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, at, mark, pick, with_last

OFFSETS = (-4, -3, -2, 2, 3, 4)


@dataclass(frozen=True)
class AfterMarker(Task):
    """The marker occurs once; a decoy that means nothing occurs once too."""

    marker: int
    decoy: int
    symbols: tuple[int, ...]
    offset: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        size = deck.random.randint(12, 16)
        return cls(deck.one(), deck.one(), deck.alike(size), deck.random.choice(OFFSETS), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        body = pick(self.symbols, (n, BODY), generator)
        first, end = max(0, -self.offset), BODY - max(0, self.offset)
        marker = torch.randint(first, end, (n, 1), generator=generator)
        free = torch.rand(n, BODY, generator=generator)
        free.scatter_(1, torch.cat([marker, marker + self.offset], 1), -1)
        body.scatter_(1, free.argmax(1, keepdim=True), self.decoy).scatter_(1, marker, self.marker)
        return with_last(body, self.last)

    def _marker(self, tokens: Tensor) -> Tensor:
        return (tokens == self.marker).int().argmax(1)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return at(tokens, self._marker(tokens) + self.offset)

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        marker = self._marker(tokens)
        return {"marker": mark(marker), "answer": mark(marker + self.offset), "decoy": tokens == self.decoy}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        side = "after" if self.offset > 0 else "before"
        places = f"{abs(self.offset)} places {side} token {self.marker}"
        return f"Report the token {places}; token {self.decoy} means nothing."
