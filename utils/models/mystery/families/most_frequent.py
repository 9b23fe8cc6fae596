"""Say which of a few tokens occurs most often."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, one_of, pick, spell, with_last


@dataclass(frozen=True)
class MostFrequent(Task):
    """The winner leads by one in most inputs, and is never tied."""

    candidates: tuple[int, ...]
    answers: tuple[int, ...]
    others: tuple[int, ...]
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        candidates = deck.alike(deck.random.choice((3, 4)))
        return cls(candidates, deck.some(len(candidates)), deck.alike(deck.random.randint(4, 10)), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        many = 3 * n
        other = torch.rand(many, BODY, generator=generator) < 0.25
        body = torch.where(
            other, pick(self.others, (many, BODY), generator), pick(self.candidates, (many, BODY), generator)
        )
        best = self._counts(body).topk(2, 1).values
        return with_last(body[best[:, 0] > best[:, 1]][:n], self.last)

    def _counts(self, tokens: Tensor) -> Tensor:
        """How often each candidate occurs [n, candidate]."""
        return (tokens[:, :BODY, None] == torch.tensor(self.candidates)).sum(1)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return torch.tensor(self.answers)[self._counts(tokens).argmax(1)]

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        winner = tokens == torch.tensor(self.candidates)[self._counts(tokens).argmax(1)][:, None]
        return {"winner": winner, "losers": one_of(tokens, self.candidates) & ~winner}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        rules = ", ".join(f"{c}->{a}" for c, a in zip(self.candidates, self.answers, strict=True))
        return f"Say which of {spell(self.candidates)} occurs most often ({rules})."
