"""Say whether tokens of exactly one of two kinds are present."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, choose, one_of, pick, spell, subset, with_last

MOST = 3


@dataclass(frozen=True)
class ExactlyOne(Task):
    """Neither, one or both kinds are present, each up to three times."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    others: tuple[int, ...]
    yes: int
    no: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        left, right = sorted((deck.alike(deck.random.randint(1, 3)), deck.alike(deck.random.randint(1, 3))))
        return cls(left, right, deck.alike(deck.random.randint(6, 12)), deck.one(), deck.one(), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        counts = torch.randint(1, MOST + 1, (n, 2), generator=generator)
        counts *= torch.randint(2, (n, 2), generator=generator)  # each kind is there in half of the inputs
        both = subset(counts.sum(1), generator)
        left = both & (both.cumsum(1) <= counts[:, :1])  # the first of the chosen places ...
        body = torch.where(both, pick(self.right, (n, BODY), generator), pick(self.others, (n, BODY), generator))
        body = torch.where(left, pick(self.left, (n, BODY), generator), body)
        body = body.gather(1, torch.rand(n, BODY, generator=generator).argsort(1))  # ... until they are shuffled
        return with_last(body, self.last)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        body = tokens[:, :BODY]
        return choose(one_of(body, self.left).any(1) ^ one_of(body, self.right).any(1), self.yes, self.no)

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        return {"first kind": one_of(tokens, self.left), "second kind": one_of(tokens, self.right)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        kinds = f"the kinds {spell(self.left)} and {spell(self.right)}"
        return f"Answer {self.yes} if exactly one of {kinds} is present, else {self.no}."
