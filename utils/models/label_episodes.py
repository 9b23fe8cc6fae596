"""Episodes of in-context meta-learning: four labelled items of an unknown task, then an item to label.

    i07 C  i21 A  i30 C  i02 F  i11  ->  ?

There are three tasks. Each is a fixed table that gives every item a label, drawn once and never shown: a model has to
store the tables in its weights, and to find out from the context which of them is in use. The item that is asked for
never stands in the context, so there is nothing to copy.

Three readers say how far one gets with less than everything, and so mark the phases that a model goes through:

- :func:`bigram_reader` sees the query alone,
- :func:`label_reader` sees the query and the labels of the context, but not whose labels they are,
- :func:`pair_reader` sees all. It is the best possible answer.

The setting is that of Minegishi et al. 2025, https://arxiv.org/abs/2505.16694, with a token for every item in place of
a noisy vector.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

TASKS, ITEMS, LABELS, EXAMPLES = 3, 32, 8, 4
LENGTH = 2 * EXAMPLES + 1
VOCABULARY = (*(f"i{item:02}" for item in range(ITEMS)), *"ABCDEFGH")
LABEL_POSITIONS = tuple(range(1, LENGTH, 2))
ITEM_POSITIONS = tuple(range(0, LENGTH - 1, 2))
HELD_OUT_EVERY = 8
"""Episodes whose five item numbers add up to a multiple of this are never trained on."""
TABLE_SEED = 0


@cache
def task_tables() -> Int[Tensor, "task item"]:
    """The label that each task gives to each item, as a number from 0 to LABELS - 1."""
    return torch.randint(LABELS, (TASKS, ITEMS), generator=torch.Generator().manual_seed(TABLE_SEED))


@dataclass(frozen=True)
class Episodes:
    """A batch of episodes.

    Attributes:
        task: Which table the context follows [episode].
        items: Item numbers, all different; the last is the query [episode, EXAMPLES + 1].
        shown: Label numbers in the context [episode, EXAMPLES].
    """

    task: Int[Tensor, "episode"]
    items: Int[Tensor, "episode item"]
    shown: Int[Tensor, "episode example"]

    @property
    def query(self) -> Int[Tensor, "episode"]:
        """The number of the item that is asked for."""
        return self.items[:, -1]

    @property
    def tokens(self) -> Int[Tensor, "episode position"]:
        """What a model reads: item, label, item, label, ..., query. A label's token is ITEMS + its number."""
        tokens = torch.empty(len(self), LENGTH, dtype=torch.long)
        tokens[:, 0::2] = self.items
        tokens[:, 1::2] = ITEMS + self.shown
        return tokens

    @property
    def answers(self) -> Int[Tensor, "episode"]:
        """The token of the label that the task's table gives to the query."""
        return ITEMS + task_tables()[self.task, self.query]

    def where(self, chosen: Tensor) -> "Episodes":
        """The episodes that a mask or a tensor of indices chooses."""
        return Episodes(self.task[chosen], self.items[chosen], self.shown[chosen])

    def under(self, task: Int[Tensor, "episode"]) -> "Episodes":
        """The same items, labelled by other tasks [episode]."""
        return Episodes(task, self.items, task_tables()[task[:, None], self.items[:, :-1]])

    def __len__(self) -> int:
        return len(self.task)

    def __str__(self) -> str:
        lines = [
            f"{' '.join(VOCABULARY[token] for token in tokens)} -> {VOCABULARY[answer]}   (task {task})"
            for tokens, answer, task in zip(self.tokens[:8].tolist(), self.answers[:8], self.task[:8], strict=True)
        ]
        return "\n".join([f"{len(self)} episodes", *lines, *(["..."] if len(self) > 8 else [])])


def label_episodes(n: int, seed: int = 0, split: str = "held_out") -> Episodes:
    """Draw episodes: a random task, and random items without repetition.

    Args:
        n: How many.
        seed: The same seed gives the same episodes.
        split: "train" or "held_out".

    Raises:
        ValueError: if there is no such split, or ``n`` is not positive.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"split must be 'train' or 'held_out', got {split!r}.")
    if n < 1:
        raise ValueError(f"Expected a positive number of episodes, got {n}.")
    generator = torch.Generator().manual_seed(seed)
    wanted = 1 / HELD_OUT_EVERY if split == "held_out" else 1 - 1 / HELD_OUT_EVERY
    kept = [torch.empty(0, EXAMPLES + 1, dtype=torch.long)]
    while sum(map(len, kept)) < n:
        drawn = torch.rand(int(1.2 * n / wanted) + 32, ITEMS, generator=generator).topk(EXAMPLES + 1).indices
        held_out = drawn.sum(1) % HELD_OUT_EVERY == 0
        kept.append(drawn[held_out if split == "held_out" else ~held_out])
    items = torch.cat(kept)[:n]
    task = torch.randint(TASKS, (n,), generator=generator)
    return Episodes(task, items, items[:, :-1]).under(task)


def with_shuffled_labels(episodes: Episodes, seed: int = 0) -> Episodes:
    """The labels of each context moved on by one, two or three examples: same items, same labels, other pairs."""
    return replace(episodes, shown=episodes.shown.gather(1, _shifted(episodes, seed)))


def with_shuffled_items(episodes: Episodes, seed: int = 0) -> Episodes:
    """The items of each context moved on by one, two or three examples: every label stays in its place."""
    context = episodes.items[:, :-1].gather(1, _shifted(episodes, seed))
    return replace(episodes, items=torch.cat([context, episodes.items[:, -1:]], dim=1))


def with_random_labels(episodes: Episodes, seed: int = 0) -> Episodes:
    """Contexts whose labels are drawn at random: they say nothing of the task."""
    shown = torch.randint(LABELS, episodes.shown.shape, generator=torch.Generator().manual_seed(seed))
    return replace(episodes, shown=shown)


def with_another_task(episodes: Episodes, seed: int = 0) -> Episodes:
    """The same items under one of the other tasks."""
    shift = torch.randint(1, TASKS, (len(episodes),), generator=torch.Generator().manual_seed(seed))
    return episodes.under((episodes.task + shift) % TASKS)


def with_query_in_context(episodes: Episodes, example: int) -> Episodes:
    """Episodes whose query stands in the context too, as the example of this number. Training has none like it.

    Raises:
        ValueError: if there is no such example.
    """
    if not 0 <= example < EXAMPLES:
        raise ValueError(f"example must be from 0 to {EXAMPLES - 1}, got {example}.")
    items = episodes.items.clone()
    items[:, example] = episodes.query
    return Episodes(episodes.task, items, items[:, :-1]).under(episodes.task)


def bigram_reader(episodes: Episodes) -> Float[Tensor, "episode label"]:
    """The probability of each label given the query alone: every task is as likely as the next."""
    return _answer_by(torch.ones(len(episodes), TASKS), episodes)


def label_reader(episodes: Episodes) -> Float[Tensor, "episode label"]:
    """The probability of each label given the query and the labels of the context, without the items they belong to.

    A task that gives a label to many items is likely to show it. Exact for items drawn without repetition; that the
    sum of their numbers is restricted is left out of account.
    """
    left = torch.stack([torch.bincount(table, minlength=LABELS) for table in task_tables()])  # [task, label]
    left = left.expand(len(episodes), -1, -1).clone()
    every = torch.arange(len(episodes))[:, None], torch.arange(TASKS)
    left[*every, task_tables()[:, episodes.query].T] -= 1  # the query is not in the context
    likelihood = torch.ones(len(episodes), TASKS)
    for label in episodes.shown.T:
        likelihood *= left[*every, label[:, None]].clamp(min=0)
        left[*every, label[:, None]] -= 1
    return _answer_by(likelihood, episodes)


def pair_reader(episodes: Episodes) -> Float[Tensor, "episode label"]:
    """The probability of each label given everything: only the tasks that gave all four labels are possible.

    Where no task did, as with shuffled labels, this is the bigram reader.
    """
    right = task_tables()[:, episodes.items[:, :-1]] == episodes.shown  # [task, episode, example]
    return _answer_by(right.all(-1).T.float(), episodes)


READERS: dict[str, Callable[[Episodes], Tensor]] = {
    "bigram": bigram_reader,
    "semi-context": label_reader,
    "full-context": pair_reader,
}
"""What a model of each phase knows, in the order in which the phases come."""


def _shifted(episodes: Episodes, seed: int) -> Int[Tensor, "episode example"]:
    """Example numbers, turned by a random amount that leaves none in its place."""
    shift = torch.randint(1, EXAMPLES, (len(episodes), 1), generator=torch.Generator().manual_seed(seed))
    return (torch.arange(EXAMPLES) + shift) % EXAMPLES


def _answer_by(weight: Float[Tensor, "episode task"], episodes: Episodes) -> Float[Tensor, "episode label"]:
    """The probability of each label when a task's probability is proportional to its weight."""
    possible = torch.where(weight.sum(1, keepdim=True) > 0, weight, torch.ones_like(weight))
    share = possible / possible.sum(1, keepdim=True)
    labels = task_tables()[:, episodes.query].T  # [episode, task]
    return torch.zeros(len(episodes), LABELS).scatter_add_(1, labels, share)
