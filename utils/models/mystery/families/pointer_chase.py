"""Follow two pointers."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, at, mark, pick, places, spell, with_last


@dataclass(frozen=True)
class PointerChase(Task):
    """``pointers[p]`` is the token that points at position p. The last token is a pointer at a pointer at a letter."""

    pointers: tuple[int, ...]
    letters: tuple[int, ...]

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        return cls(deck.some(BODY), deck.alike(deck.random.randint(10, 18)))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        pointer = torch.rand(n, BODY, generator=generator) < 0.4
        body = torch.where(pointer, pick(self.pointers, (n, BODY), generator), pick(self.letters, (n, BODY), generator))
        first, second = places(n, 2, generator).split(1, 1)
        tokens = torch.tensor(self.pointers)
        body.scatter_(1, first, tokens[second]).scatter_(1, second, pick(self.letters, (n, 1), generator))
        return with_last(body, tokens[first[:, 0]])

    def _places(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The positions [n] of the second pointer and of the letter."""
        position = torch.zeros(max(*self.pointers, *self.letters) + 1, dtype=torch.long)
        position[list(self.pointers)] = torch.arange(BODY)
        first = position[tokens[:, -1]]
        return first, position[at(tokens, first)]

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return at(tokens, self._places(tokens)[1])

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        pointer, letter = self._places(tokens)
        return {"pointer": mark(pointer), "letter": mark(letter)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        return (
            "The last token names a position, the token there names another; report the token there. "
            f"The names of positions 0 to {BODY - 1}: {spell(self.pointers)}."
        )
