"""Say whether two positions hold the same token."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, LENGTH, Deck, Task, choose, pick, with_last


@dataclass(frozen=True)
class SamePlaces(Task):
    """Other positions agree and differ by chance."""

    first: int
    second: int
    symbols: tuple[int, ...]
    yes: int
    no: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        first, second = sorted(deck.random.sample(range(BODY), 2))
        return cls(first, second, deck.alike(deck.random.randint(6, 10)), deck.one(), deck.one(), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        body = pick(self.symbols, (n, BODY), generator)
        same = torch.rand(n, generator=generator) < 0.45  # and some more by chance
        body[:, self.second] = torch.where(same, body[:, self.first], body[:, self.second])
        return with_last(body, self.last)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return choose(tokens[:, self.first] == tokens[:, self.second], self.yes, self.no)

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        place = torch.arange(LENGTH).expand(tokens.shape)
        return {"first place": place == self.first, "second place": place == self.second}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        return f"Answer {self.yes} if positions {self.first} and {self.second} hold the same token, else {self.no}."
