"""Say whether a token of one kind is followed by a token of another kind."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import (
    BODY,
    Deck,
    Task,
    choose,
    levelled,
    one_of,
    pick,
    spell,
    subset,
    with_last,
)


@dataclass(frozen=True)
class AdjacentPair(Task):
    """Every body holds tokens of both kinds, often in the wrong order or at the wrong distance."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    others: tuple[int, ...]
    gap: int
    yes: int
    no: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        left, right = deck.alike(deck.random.randint(1, 3)), deck.alike(deck.random.randint(1, 3))
        others, gap = deck.alike(deck.random.randint(6, 12)), deck.random.choice((1, 2, 3))
        return cls(left, right, others, gap, deck.one(), deck.one(), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        many = 3 * n
        body = pick(self.others, (many, BODY), generator)
        kinds = torch.randint(2, 6, (many,), generator=generator)  # tokens of the two kinds together
        body = torch.where(subset(kinds, generator), pick(self.left + self.right, (many, BODY), generator), body)
        both = one_of(body, self.left).any(1) & one_of(body, self.right).any(1)
        tokens = with_last(body, self.last)[both]
        return levelled(tokens, self.answer(tokens), n, generator)

    def _found(self, tokens: Tensor) -> Tensor:
        """Where a left token has a right one behind it [n, BODY - gap]."""
        body = tokens[:, :BODY]
        return one_of(body[:, : -self.gap], self.left) & one_of(body[:, self.gap :], self.right)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return choose(self._found(tokens).any(1), self.yes, self.no)

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        return {"left": one_of(tokens, self.left), "right": one_of(tokens, self.right)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        return (
            f"Answer {self.yes} if one of {spell(self.left)} stands exactly {self.gap} before one of "
            f"{spell(self.right)}, else {self.no}."
        )
