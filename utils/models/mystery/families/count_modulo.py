"""Report a count modulo a small number."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, one_of, pick, spell, subset, with_last

MOST = 7


@dataclass(frozen=True)
class CountModulo(Task):
    """Counts run from 0 to 7."""

    counted: tuple[int, ...]
    others: tuple[int, ...]
    answers: tuple[int, ...]
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        counted, others = deck.alike(deck.random.randint(1, 3)), deck.alike(deck.random.randint(6, 12))
        return cls(counted, others, deck.some(deck.random.choice((2, 3, 4))), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        modulus = len(self.answers)
        rest = torch.randint(modulus, (n,), generator=generator)
        rounds = torch.rand(n, generator=generator) * ((MOST - rest) // modulus + 1)
        body = torch.where(
            subset(rest + modulus * rounds.long(), generator),
            pick(self.counted, (n, BODY), generator),
            pick(self.others, (n, BODY), generator),
        )
        return with_last(body, self.last)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return torch.tensor(self.answers)[one_of(tokens[:, :BODY], self.counted).sum(1) % len(self.answers)]

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        return {"counted": one_of(tokens, self.counted), "uncounted": one_of(tokens, self.others)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        return (
            f"Count the tokens that are one of {spell(self.counted)}, modulo {len(self.answers)}; "
            f"report {spell(self.answers)} for 0, 1 and so on."
        )
