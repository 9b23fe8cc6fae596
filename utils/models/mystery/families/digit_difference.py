"""Subtract the digits at two positions, modulo a small number."""

from dataclasses import dataclass
from math import gcd
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, LENGTH, Deck, Task, pick, spell, with_last


def first_scaling(digits: tuple[int, ...]) -> tuple[int, ...]:
    """One order of the digits for all that subtract alike: those that differ by a factor with an inverse."""
    n = len(digits)
    factors = (factor for factor in range(1, n) if gcd(factor, n) == 1)
    return min(tuple(digits[factor * digit % n] for digit in range(n)) for factor in factors)


@dataclass(frozen=True)
class DigitDifference(Task):
    """``digits[d]`` is the token for d. All positions hold digits; two count."""

    digits: tuple[int, ...]
    first: int
    second: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        first, second = deck.random.sample(range(BODY), 2)
        return cls(first_scaling(deck.some(deck.random.randint(5, 8))), first, second, deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        return with_last(pick(self.digits, (n, BODY), generator), self.last)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        value = torch.zeros(max(self.digits) + 1, dtype=torch.long)
        value[list(self.digits)] = torch.arange(len(self.digits))
        difference = value[tokens[:, self.first]] - value[tokens[:, self.second]]
        return torch.tensor(self.digits)[difference % len(self.digits)]

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        place = torch.arange(LENGTH).expand(tokens.shape)
        return {"minuend": place == self.first, "subtrahend": place == self.second}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        return (
            f"Report the digit at position {self.first} minus the digit at position {self.second}, modulo "
            f"{len(self.digits)}. The digits 0, 1 and so on: {spell(self.digits)}."
        )
