"""An instance of the generator: one task, drawn from a number or a secret, and its written record."""

from collections.abc import Mapping
from dataclasses import asdict
from random import Random
from typing import Any

from utils.models.mystery.families import FAMILIES, Deck, Task


def draw_task(number: int | str) -> Task:
    """Draw family, parameters and token ids from a number. Different numbers give different tasks (tested)."""
    random = Random(f"mystery {number}")
    return random.choice(FAMILIES).draw(Deck(random))


def draw_pool(secret: str, count: int) -> list[Task]:
    """Draw different tasks from a secret, the families as evenly spread as they can be, in random order.

    Args:
        secret: Who knows it can draw the same tasks.
        count: How many.
    """
    random = Random(f"pool {secret}")
    rounds = -(-count // len(FAMILIES))
    families = [family for _ in range(rounds) for family in random.sample(FAMILIES, len(FAMILIES))][:count]
    random.shuffle(families)
    return [family.draw(Deck(random)) for family in families]


def task_record(task: Task) -> dict[str, Any]:
    """A task as plain JSON values."""
    return {"family": type(task).__name__, "parameters": asdict(task)}


def task_of(record: Mapping[str, Any]) -> Task:
    """The task of a record.

    Raises:
        ValueError: if there is no such family.
    """
    families = {family.__name__: family for family in FAMILIES}
    if record["family"] not in families:
        raise ValueError(f"There is no family {record['family']!r}; there are {', '.join(families)}.")
    return families[record["family"]](**{name: _frozen(value) for name, value in record["parameters"].items()})


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples, at every depth."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
