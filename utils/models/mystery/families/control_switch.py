"""A control token says which position to report."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, at, mark, one_of, pick, with_last


@dataclass(frozen=True)
class ControlSwitch(Task):
    """One control token stands anywhere but on a position that can be asked for."""

    controls: tuple[int, ...]
    targets: tuple[int, ...]
    symbols: tuple[int, ...]
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        controls = deck.alike(deck.random.randint(3, 5))
        targets = tuple(deck.random.sample(range(BODY), len(controls)))
        return cls(controls, targets, deck.alike(deck.random.randint(12, 18)), deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        body = pick(self.symbols, (n, BODY), generator)
        free = [place for place in range(BODY) if place not in self.targets]
        body.scatter_(1, pick(free, (n, 1), generator), pick(self.controls, (n, 1), generator))
        return with_last(body, self.last)

    def _places(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The positions [n] of the control and of what it asks for."""
        control = one_of(tokens, self.controls).int().argmax(1)
        which = torch.searchsorted(torch.tensor(self.controls), at(tokens, control))
        return control, torch.tensor(self.targets)[which]

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return at(tokens, self._places(tokens)[1])

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        control, answer = self._places(tokens)
        return {"control": mark(control), "answer": mark(answer)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        rules = ", ".join(f"{control}: position {t}" for control, t in zip(self.controls, self.targets, strict=True))
        return f"A control token somewhere in the body says which position to report ({rules})."
