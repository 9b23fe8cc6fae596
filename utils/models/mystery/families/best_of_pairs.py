"""Report the item whose partner is the largest in a hidden order."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, at, mark, pick, pick_distinct, spell, with_last

PAIRS = BODY // 2


@dataclass(frozen=True)
class BestOfPairs(Task):
    """Six pairs of an item and a number.

    ``numbers`` are in ascending order of size, whatever their ids. No number occurs twice, so the smallest five cannot
    win, and their order means nothing.
    """

    items: tuple[int, ...]
    numbers: tuple[int, ...]
    item_first: bool
    last: int

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        items, losers = deck.alike(deck.random.randint(8, 14)), deck.alike(PAIRS - 1)
        return cls(items, losers + deck.some(deck.random.randint(5, 9)), deck.random.random() < 0.5, deck.one())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        items, numbers = pick(self.items, (n, PAIRS), generator), pick_distinct(self.numbers, n, PAIRS, generator)
        pairs = torch.stack([items, numbers] if self.item_first else [numbers, items], 2).flatten(1)
        return with_last(pairs, self.last)

    def _places(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The positions [n] of the largest number and of its item."""
        own = int(self.item_first)
        size = torch.full((max(self.numbers) + 1,), -1)
        size[list(self.numbers)] = torch.arange(len(self.numbers))
        pair = size[tokens[:, own:BODY:2]].argmax(1)
        return 2 * pair + own, 2 * pair + 1 - own

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        return at(tokens, self._places(tokens)[1])

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        number, item = self._places(tokens)
        return {"largest number": mark(number), "its item": mark(item)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        order = "item then number" if self.item_first else "number then item"
        return (
            f"The body is six pairs, {order}; report the item of the largest number. "
            f"The smallest numbers, alike: {spell(self.numbers[: PAIRS - 1])}; "
            f"the others in ascending order: {spell(self.numbers[PAIRS - 1 :])}."
        )
