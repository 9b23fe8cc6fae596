"""What became of a check's inputs, told from inside the sandbox."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any, NamedTuple

from course.autograde.travel import TEST_MODULES

OWN_HOOKS = "transformer_lens.model_bridge."


class Change(NamedTuple):
    """What became of one input: `place` leads to it, as in (0, "hooks", 2)."""

    kind: str  # "input" changed in place, "model" left changed, "count" or "list" that grew, "drawn" from a generator
    place: tuple
    value: Any  # of a count the new number, of a list all its items, else None


class Watch:
    """Remembers inputs as they were, to say afterwards what changed."""

    def __init__(self, inputs: Any):
        self.inputs = inputs
        self.before = {place: _state(kind, value) for kind, place, value in walk(inputs)}

    def changes(self) -> list[Change]:
        """Every change, in no particular order."""
        after = {place: (kind, _state(kind, value)) for kind, place, value in walk(self.inputs)}
        found = []
        for place, old in self.before.items():
            if place not in after:
                continue  # its container changed, and that is said of the container
            kind, new = after[place]
            if not _equal(old, new):
                found.append(Change(*_describe(kind, place, new)))
        return found


def _describe(kind: str, place: tuple, new: Any) -> tuple[str, tuple, Any]:
    if kind in ("count", "list"):
        return kind, place, new
    return ("model" if kind == "model" else "input"), place, None


def _state(kind: str, value: Any) -> Any:
    if kind == "data":
        return value.detach().clone() if hasattr(value, "detach") else value.copy()
    if kind == "items":
        return [len(value), *(list(value) if isinstance(value, dict) else ())]
    if kind == "list":
        return list(value)
    if kind == "model":
        return _fingerprint(value)
    return value


def _fingerprint(model: Any) -> list:
    """A model's hooks, own methods, mode and weights."""
    marks: list[Any] = [model.training]
    for module in model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        marks.append((*map(_count, hooks), "forward" in vars(module)))
    weights = [tensor for group in (model.parameters(), model.buffers()) for tensor in group]
    return [*marks, *(tensor.detach().clone() for tensor in weights)]


def _count(hooks: dict) -> int:
    """How many hooks there are, without those that a bridge puts in by itself at its first run."""
    return sum(not str(getattr(hook, "__module__", "")).startswith(OWN_HOOKS) for hook in hooks.values())


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(_equal, old, new))
    if hasattr(old, "shape"):
        same = type(old) is type(new) and old.shape == new.shape
        if not same:
            return False
        unequal = (old != new) & ~((old != old) & (new != new))  # NaN equals NaN here
        return not bool(unequal.any())
    return type(old) is type(new) and old == new


def walk(value: Any) -> Iterator[tuple[str, tuple, Any]]:
    """(kind, place, value) of all that can be changed in the inputs, each object once."""
    seen: set[int] = set()
    waiting: list[tuple[tuple, Any]] = [((), value)]
    while waiting:
        place, item = waiting.pop()
        if isinstance(item, int) and not isinstance(item, bool):
            if _is_counter(place):
                yield "count", place, item
            continue
        if id(item) in seen:
            continue
        seen.add(id(item))
        if _is_module(item):
            yield "model", place, item
            waiting += [((*place, "attribute", name), own) for name, own in _own_counters(item)]
        elif hasattr(item, "detach") or (type(item).__module__ == "numpy" and hasattr(item, "copy")):
            yield "data", place, item
        elif isinstance(item, list | tuple):
            if isinstance(item, list):
                yield ("list" if _is_counter(place) else "items"), place, item
            waiting += [((*place, number), part) for number, part in enumerate(item)]
        elif isinstance(item, dict):
            yield "items", place, item
            waiting += [((*place, key), part) for key, part in item.items() if isinstance(key, str | int)]
        elif isinstance(item, FunctionType) and item.__closure__:
            for name, cell in zip(item.__code__.co_freevars, item.__closure__, strict=True):
                with contextlib.suppress(ValueError):  # an empty cell
                    waiting.append(((*place, "closure", name), cell.cell_contents))
        elif _is_of_a_test(item):
            waiting += [((*place, "attribute", name), own) for name, own in vars(item).items()]


def _is_counter(place: tuple) -> bool:
    """Whether a place is an attribute or a closure's variable: where a test's own objects keep count."""
    return len(place) >= 2 and place[-2] in ("attribute", "closure")


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _is_of_a_test(value: Any) -> bool:
    """An object with attributes whose class is written in a test file, or a SimpleNamespace."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, type)
        and (type(value).__name__ == "SimpleNamespace" or type(value).__module__.startswith(TEST_MODULES))
    )


def _own_counters(module: Any) -> list[tuple[str, Any]]:
    """Numbers and lists that a test's own module keeps."""
    if not type(module).__module__.startswith(TEST_MODULES):
        return []
    return [(name, own) for name, own in vars(module).items() if isinstance(own, int | list) and name != "training"]
