"""Look up a key in a list of pairs."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from utils.models.mystery.families.task import BODY, Deck, Task, at, mark, pick, pick_distinct, with_last

PAIRS = BODY // 2


@dataclass(frozen=True)
class PairLookup(Task):
    """The last token repeats one of six keys. Keys and values share an alphabet; the answer may be in code."""

    symbols: tuple[int, ...]
    code: tuple[int, ...]
    value_first: bool

    @classmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""
        symbols = deck.alike(deck.random.randint(10, 14))
        code = deck.some(len(symbols)) if deck.random.random() < 0.5 else symbols
        return cls(symbols, code, deck.random.random() < 0.5)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw inputs [n, LENGTH]."""
        keys = pick_distinct(self.symbols, n, PAIRS, generator)
        values = pick(self.symbols, (n, PAIRS), generator)
        pairs = torch.stack([values, keys] if self.value_first else [keys, values], 2).flatten(1)
        return with_last(pairs, at(keys, torch.randint(PAIRS, (n,), generator=generator)))

    def _places(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The positions [n] of the key and of its value."""
        own = int(self.value_first)
        pair = (tokens[:, own:BODY:2] == tokens[:, -1:]).int().argmax(1)
        return 2 * pair + own, 2 * pair + 1 - own

    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input."""
        value = at(tokens, self._places(tokens)[1])
        return torch.tensor(self.code)[torch.searchsorted(torch.tensor(self.symbols), value)]

    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part."""
        key, value = self._places(tokens)
        return {"key": mark(key), "value": mark(value)}

    @property
    def truth(self) -> str:
        """The task in one sentence."""
        order = "value then key" if self.value_first else "key then value"
        coded = (
            ""
            if self.code == self.symbols
            else ", translated by "
            + ", ".join(f"{symbol}->{word}" for symbol, word in zip(self.symbols, self.code, strict=True))
        )
        return f"The body is six pairs, {order}; report the value whose key is the last token{coded}."
