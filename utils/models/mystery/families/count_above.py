"""Say whether some tokens occur more often than a threshold."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, choose, one_of, pick, spell, subset, with_last


@dataclass(frozen=True)
class CountAbove(Task):
    """Half of the inputs miss or pass the threshold by one."""

    counted: tuple[int, ...]
    others: tuple[int, ...]
    threshold: int
    yes: int
    no: int
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        counted, others = deck.alike(deck.random.randint(1, 3)), deck.alike(deck.random.randint(6, 12))
        return cls(counted, others, deck.random.randint(2, 6), deck.one(), deck.one(), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        above = torch.rand(n, generator=generator) < 0.5
        margin = torch.empty(n).geometric_(0.5, generator=generator).long()  # 1, 2, 3 ...
        count = torch.where(above, self.threshold + margin, self.threshold + 1 - margin).clamp(0, BODY)
        body = torch.where(
            subset(count, generator), pick(self.counted, (n, BODY), generator), pick(self.others, (n, BODY), generator)
        )
        return with_last(body, self.last)

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return choose(one_of(tokens[:, :BODY], self.counted).sum(1) > self.threshold, self.yes, self.no)

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        return {"counted": one_of(tokens, self.counted), "uncounted": one_of(tokens, self.others)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        many = f"more than {self.threshold} tokens are one of {spell(self.counted)}"
        return f"Answer {self.yes} if {many}, else {self.no}."
