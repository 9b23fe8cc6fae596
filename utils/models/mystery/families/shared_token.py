"""Find the one token that two lists have in common."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, at, mark, pick_distinct, places, with_last


@dataclass(frozen=True)
class SharedToken(Task):
    """The separator stands at ``cut``. Each list also repeats one token of its own, which does not count."""

    symbols: tuple[int, ...]
    separator: int
    cut: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        return cls(deck.alike(deck.random.randint(14, 20)), deck.one(), deck.random.randint(4, 7), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        body = pick_distinct(self.symbols, n, BODY, generator)
        left = places(n, 3, generator, self.cut)
        right = self.cut + 1 + places(n, 3, generator, BODY - self.cut - 1)
        copies = [(left[:, :1], right[:, :1]), (left[:, 1:2], left[:, 2:]), (right[:, 1:2], right[:, 2:])]
        for source, target in copies:
            body.scatter_(1, target, body.gather(1, source))
        body[:, self.cut] = self.separator
        return with_last(body, self.last)

    def _places(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The positions [n] of the shared token in both lists."""
        left, right = tokens[:, : self.cut], tokens[:, self.cut + 1 : BODY]
        same = left[:, :, None] == right[:, None, :]
        return same.any(2).int().argmax(1), self.cut + 1 + same.any(1).int().argmax(1)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return at(tokens, self._places(tokens)[0])

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        left, right = self._places(tokens)
        return {"in the first list": mark(left), "in the second list": mark(right)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        return f"Token {self.separator} at position {self.cut} parts two lists; report the token that is in both."
