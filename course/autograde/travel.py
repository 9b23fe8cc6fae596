"""How a check's inputs travel into a sandbox, and what is told of them when they have been used there.

Inwards everything goes as it is: tensors, models, the little classes of a test file. This direction is safe:
what is read in the sandbox was written by us. A model's copy in the sandbox may come to harm there (a hook left
behind, a weight changed); its original is then made unusable, with the reason, because a check that went on with
an unharmed original would overlook the fault, and one that believed the sandbox's copy could be deceived.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import cloudpickle

from course.paths import ROOT

TESTS = ROOT / "tests"
CachedFunction = type(functools.cache(len))
TEST_MODULES = ("tests", "test_", "graders_of_")
MOST_CHANGES, LONGEST_PLACE = 200, 12
OWN_HOOKS = "transformer_lens.model_bridge."


class Change(NamedTuple):
    """What became of one input: `place` leads to it, as in (0, "hooks", 2)."""

    kind: str  # "input" changed in place | "model" left changed | "count" | "list" that grew
    place: tuple
    value: Any  # of a count the new number, of a list all its items, else None


# ---------------------------------------------------------------------------------------------- inwards


def pack(value: Any) -> bytes:
    """Bytes from which `unpack` makes an equal value in a process that has no test files."""
    _send_tests_by_value(len(sys.modules), next(reversed(sys.modules)))
    stream = io.BytesIO()
    _Pickler(stream).dump(value)
    return stream.getvalue()


@functools.lru_cache(maxsize=1)
def _send_tests_by_value(modules: int, latest: str) -> None:
    """Tell cloudpickle of the modules below tests/, whatever name they were loaded under; anew after each import."""
    for name, module in list(sys.modules.items()):
        if name.startswith(TEST_MODULES) and Path(getattr(module, "__file__", None) or "/").is_relative_to(TESTS):
            cloudpickle.register_pickle_by_value(module)


def unpack(data: bytes) -> Any:
    """The value that was packed."""
    return cloudpickle.loads(data)


class _Pickler(cloudpickle.Pickler):
    """Adds what cloudpickle lacks: random generators, context variables, tests' cached functions, NNsight's wrapper.

    Tensors go as NumPy's arrays do, several times as fast as torch writes them.
    """

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if _is_plain_tensor(value):
            return _tensor, (value.detach().numpy(), value.requires_grad, kind)
        if kind.__name__ == "Generator" and kind.__module__ == "torch._C":
            return _generator, (str(value.device), value.get_state())
        if kind.__name__ == "NNsight" and kind.__module__.startswith("nnsight."):
            return kind, (value._module,)
        if kind is CachedFunction and value.__module__.startswith(TEST_MODULES):  # a cached function of a test file
            return functools.cache, (value.__wrapped__,)
        if kind is ContextVar:
            return _context_variable, (value.name, value.get(None))
        return super().reducer_override(value)


def _context_variable(name: str, default: Any) -> ContextVar:
    return ContextVar(name, default=default)


def _is_plain_tensor(value: Any) -> bool:
    """Whether a tensor or parameter is no more than its shape and numbers, which NumPy knows."""
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and value.dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool)
        and value.is_contiguous()
        and not (value.is_conj() or value.is_neg() or value._backward_hooks or vars(value))
    )


def _tensor(array: Any, requires_grad: bool, kind: type) -> Any:
    import torch

    tensor = torch.from_numpy(array)
    return (
        torch.nn.Parameter(tensor, requires_grad)
        if kind is torch.nn.Parameter
        else tensor.requires_grad_(requires_grad)
    )


def _generator(device: str, state: Any) -> Any:
    import torch

    generator = torch.Generator(device)
    generator.set_state(state)
    return generator


# ------------------------------------------------------------------------------------ seen in the sandbox


class Watch:
    """Remembers inputs as they were, to say afterwards what changed."""

    def __init__(self, inputs: Any):
        self.inputs = inputs
        self.before = {place: _state(kind, value) for kind, place, value in _walk(inputs)}

    def changes(self) -> list[Change]:
        """Every change, in no particular order."""
        after = {place: (kind, _state(kind, value)) for kind, place, value in _walk(self.inputs)}
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


def _walk(value: Any) -> Iterator[tuple[str, tuple, Any]]:
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


# ------------------------------------------------------------------------------------ believed outside


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
    places = {place: (kind, value) for kind, place, value in _walk(inputs)}
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
    from course.compare import Mistake

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
