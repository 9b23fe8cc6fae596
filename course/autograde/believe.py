"""What is believed of what a sandbox says became of a check's inputs.

A model's copy in the sandbox may come to harm there: a hook left behind, a weight changed. Its original is then made
unusable, with the reason, because a check that went on with an unharmed original would overlook the fault, and one that
believed the sandbox's copy could be deceived.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from course.autograde.changes import Change, walk
from course.compare import Mistake

MOST_CHANGES, LONGEST_PLACE = 200, 12


def read_changes(told: Any) -> list[Change]:
    """What a sandbox says of the inputs, if it says it in the right form.

    Raises:
        ValueError: otherwise.
    """
    if not (type(told) is list and len(told) <= MOST_CHANGES):
        raise ValueError("not a short list")
    changes = []
    for item in told:
        if not (type(item) is tuple and len(item) == 3 and type(item[0]) is str and type(item[1]) is tuple):
            raise ValueError("not a change")
        if len(item[1]) > LONGEST_PLACE or not all(type(step) in (str, int) for step in item[1]):
            raise ValueError("not a place")
        changes.append(Change(*item))
    if len({(change.kind, change.place) for change in changes}) < len(changes):
        raise ValueError("twice the same place")
    return changes


def apply(changes: list[Change], inputs: Any, repairs: list[Callable[[], None]]) -> str:
    """Bring the originals of a check's inputs up to date, as far as a sandbox is believed.

    Counters may only grow, and lists only at their end; a model that came to harm is made unusable.

    Args:
        changes: from `read_changes`.
        inputs: the originals.
        repairs: gets what to call when the test is over, so that the models can be used by the next one. It is there
            before a model is touched, so that nothing is left behind if this is interrupted.

    Returns:
        A sentence if a tensor, a list or a dictionary among the inputs was changed in place, else "".
    """
    places = {place: (kind, value) for kind, place, value in walk(inputs)}
    harm = ""
    for change in changes:
        kind, original = places.get(change.place, ("", None))
        if change.kind == "input" and kind in ("data", "items"):
            what = {"data": "a tensor or an array", "items": "a list or a dictionary"}[kind]
            harm = f"Your function changed its input in place ({what}). Work on a copy."
        elif change.kind == "model" and kind == "model":
            _spoil(original, repairs)
        elif change.kind == "list" and kind == "list" and isinstance(change.value, list):
            if change.value[: len(original)] == original:
                original.extend(change.value[len(original) :])
        elif change.kind == "count" and kind == "count" and type(change.value) is int and change.value > original:
            _set(change.place, inputs, change.value)
    return harm


def _spoil(model: Any, repairs: list[Callable[[], None]]) -> None:
    """Make every use of a model a `Mistake`, and put what takes that back into `repairs`."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise Mistake(
            "Your function did not leave the model as it found it: a hook was left in it, or its weights or its mode "
            "were changed."
        )

    def repair() -> None:
        for module in model.modules():
            for kept in (module._forward_pre_hooks, module._forward_hooks):
                for number in [number for number, hook in kept.items() if hook is refuse]:
                    del kept[number]

    repairs.append(repair)
    for module in model.modules():
        module.register_forward_pre_hook(refuse)
        module.register_forward_hook(refuse)


def _set(place: tuple, inputs: Any, value: int) -> None:
    """Put a number at a place that ends in an attribute or in a closure's variable."""
    *way, _, name = place
    owner, steps = inputs, iter(way)
    for step in steps:
        if step == "attribute":
            owner = vars(owner)[next(steps)]
        elif step == "closure":
            owner = owner.__closure__[owner.__code__.co_freevars.index(next(steps))].cell_contents
        else:
            owner = owner[step]
    if place[-2] == "attribute":
        setattr(owner, name, value)
    else:
        owner.__closure__[owner.__code__.co_freevars.index(name)].cell_contents = value
