"""How a check's inputs travel into a sandbox: as they are, tensors, models, the little classes of a test file.

This direction is safe: what is read in the sandbox was written by us. What comes out goes through `wire`.
"""

from __future__ import annotations

import functools
import io
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import cloudpickle

from course.paths import ROOT

TESTS = ROOT / "tests"
CachedFunction = type(functools.cache(len))
TEST_MODULES = ("tests", "test_", "graders_of_")


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
