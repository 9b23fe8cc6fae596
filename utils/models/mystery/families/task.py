"""What a family of tasks has to provide, and what its samplers share.

An input is ``BODY`` tokens and one last token, all plain integers below ``VOCABULARY``. The answer is one token, which
the model gives at the last position. A family is a frozen dataclass: its fields are the task's parameters and hold the
token ids themselves, drawn at random for each instance. Ids that play the same part are kept in order, so that two
tasks are equal exactly if they ask for the same behaviour on the same inputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Self

import torch
from torch import Tensor

BODY = 12
LENGTH = BODY + 1
VOCABULARY = 32


class Deck:
    """The token ids in random order, dealt without repetition."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.ids = random.sample(range(VOCABULARY), VOCABULARY)

    def one(self) -> int:
        """The next id."""
        return self.ids.pop()

    def some(self, n: int) -> tuple[int, ...]:
        """The next ``n`` ids, in random order: they play different parts."""
        return tuple(self.ids.pop() for _ in range(n))

    def alike(self, n: int) -> tuple[int, ...]:
        """The next ``n`` ids, in ascending order: they play the same part."""
        return tuple(sorted(self.some(n)))


class Task(ABC):
    """One task of a family."""

    @classmethod
    @abstractmethod
    def draw(cls, deck: Deck) -> Self:
        """Draw the parameters of one task."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` inputs [n, LENGTH] with balanced answers and near misses."""

    @abstractmethod
    def answer(self, tokens: Tensor) -> Tensor:
        """The right answer [n] to each input [n, LENGTH]."""

    @abstractmethod
    def roles(self, tokens: Tensor) -> dict[str, Tensor]:
        """Which positions play which part: name -> boolean [n, LENGTH]. The last position is no part of it."""

    @property
    @abstractmethod
    def truth(self) -> str:
        """The task in one sentence."""


def pick(ids: Sequence[int], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw ids of a list with repetition."""
    return torch.tensor(ids)[torch.randint(len(ids), shape, generator=generator)]


def pick_distinct(ids: Sequence[int], n: int, k: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` rows [n, k] of ids without repetition within a row."""
    return torch.tensor(ids)[torch.rand(n, len(ids), generator=generator).argsort(1)[:, :k]]


def places(n: int, k: int, generator: torch.Generator, size: int = BODY) -> Tensor:
    """Draw ``k`` different positions below ``size`` for each of ``n`` inputs: [n, k]."""
    return pick_distinct(range(size), n, k, generator)


def subset(sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a set of positions of the body for each input: boolean [n, BODY] with ``sizes`` [n] true entries a row."""
    return torch.rand(len(sizes), BODY, generator=generator).argsort(1).argsort(1) < sizes[:, None]


def with_last(body: Tensor, last: Tensor | int) -> Tensor:
    """Put the last token, one for all or one for each, behind the bodies [n, BODY]."""
    if not isinstance(last, Tensor):
        last = torch.full((len(body),), last)
    return torch.cat([body, last[:, None]], 1)


def levelled(tokens: Tensor, answers: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Choose ``n`` of the inputs so that their answers are as evenly spread as they can be, in random order."""
    order = answers.argsort(stable=True)
    ordered = answers[order]
    rank = torch.empty_like(answers)
    rank[order] = torch.arange(len(answers)) - torch.searchsorted(ordered, ordered)  # how many came before, of its kind
    chosen = rank.argsort(stable=True)[:n]
    return tokens[chosen[torch.randperm(len(chosen), generator=generator)]]


def one_of(tokens: Tensor, ids: Sequence[int]) -> Tensor:
    """Which tokens are in a list: boolean, shaped as ``tokens``."""
    return torch.isin(tokens, torch.tensor(ids))


def at(tokens: Tensor, place: Tensor) -> Tensor:
    """The token at one position [n] of each input."""
    return tokens.gather(1, place[:, None])[:, 0]


def mark(place: Tensor) -> Tensor:
    """One position [n] of each input as a mask [n, LENGTH]."""
    return place[:, None] == torch.arange(LENGTH)


def choose(condition: Tensor, yes: int, no: int) -> Tensor:
    """One of two answers for each input."""
    return torch.where(condition, yes, no)


def spell(ids: Sequence[int]) -> str:
    """A list of ids in words."""
    return ", ".join(map(str, ids))
