"""The last token asks for a class; report its most recent member."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import (
    BODY,
    LENGTH,
    Deck,
    Task,
    at,
    mark,
    one_of,
    pick,
    places,
    spell,
    with_last,
)


@dataclass(frozen=True)
class AskedClass(Task):
    """``first`` asks for the earliest member instead of the latest."""

    questions: tuple[int, ...]
    classes: tuple[tuple[int, ...], ...]
    first: bool

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        questions = deck.alike(deck.random.choice((2, 3)))
        size = deck.random.randint(5, 8)
        return cls(questions, tuple(deck.alike(size) for _ in questions), deck.random.random() < 0.5)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        body = pick(sum(self.classes, ()), (n, BODY), generator)
        for place, members in zip(places(n, len(self.classes), generator).T, self.classes, strict=True):
            body.scatter_(1, place[:, None], pick(members, (n, 1), generator))  # no class is absent
        return with_last(body, pick(self.questions, (n,), generator))

    def _place(self, tokens: Tensor) -> Tensor:
        asked = torch.zeros_like(tokens, dtype=torch.bool)
        for question, members in zip(self.questions, self.classes, strict=True):
            asked |= one_of(tokens, members) & (tokens[:, -1:] == question)
        if self.first:
            return asked.int().argmax(1)
        return LENGTH - 1 - asked.flip(1).int().argmax(1)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return at(tokens, self._place(tokens))

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        return {"answer": mark(self._place(tokens))}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        rules = "; ".join(f"{q}: {spell(m)}" for q, m in zip(self.questions, self.classes, strict=True))
        which = "first" if self.first else "last"
        return f"Report the {which} token of the class that the last token asks for ({rules})."
