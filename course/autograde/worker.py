"""The untrusted side: runs a student's code and answers requests with plain data. No test is known here.

Requests come pickled, from the trusted side: `load` takes one function out of a notebook, `call` calls it, `drive` runs
a larger piece of work that needs it; `use` and `read` call or look into something that an earlier answer gave back.
Replies go through `wire` and are believed by nobody.
"""

from __future__ import annotations

import builtins
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from course.autograde import wire
from course.autograde.changes import Change, Watch
from course.autograde.randomness import random_states
from course.autograde.travel import unpack
from course.compare import Mistake
from course.extract import CannotExtract, Code, extract
from course.grader_plugin import seed_everything
from course.graders import forbid


def serve(connection: socket.socket) -> None:
    """Answer requests until the other side hangs up."""
    while (request := receive(connection)) is not None:
        connection.sendall(WORKER.reply(request))


def receive(connection: socket.socket) -> bytes | None:
    """The next request, or None when there will be no more."""
    header = _read(connection, 8)
    return None if header is None else _read(connection, int.from_bytes(header, "big"))


def _read(connection: socket.socket, count: int) -> bytes | None:
    parts, left = [], count
    while left:
        part = connection.recv(min(left, 2**20))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class Worker:
    """One exercise of one student, and the functions that it gave back."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.requests = {name: getattr(self, name) for name in ("load", "define", "call", "use", "read", "drive")}

    def reply(self, request: bytes) -> bytes:
        """The message that answers a request: ("done", value, changes) or ("failed", error, changes)."""
        self.changes: list[tuple] = []
        try:
            action, arguments = unpack(request)
            return wire.encode(("done", self.requests[action](**arguments), self.changes), self._keep)
        except wire.WireError as problem:
            return wire.encode(("failed", ("Mistake", str(problem), None), self.changes))
        except BaseException as error:
            return wire.encode(("failed", _failure(error), self.changes))

    def load(self, name: str, cells: tuple[str, ...], exercise: str, forbids: tuple[str, ...]) -> str:
        """Take a student's function out of a notebook; returns why it cannot be done, or an empty string."""
        forbid(forbids)  # and forget what they were: nothing in this process holds it any more
        _be_like_a_notebook()
        try:
            self.function = extract(Code(name, cells), exercise)
        except CannotExtract as problem:
            return f"{problem}"
        return "" if callable(self.function) else f"`{exercise}` is not a function."

    def define(self, function: Callable, forbids: tuple[str, ...]) -> str:
        """Take a function as it is: for the proof that graders judge here as they do in a notebook."""
        forbid(forbids)
        self.function = function
        return ""

    def call(self, inputs: tuple[tuple, dict], seed: int) -> Any:
        """Call the function; what it did to its inputs goes along with the result."""
        return self._run(self.function, inputs, seed)

    def use(self, number: int, inputs: tuple[tuple, dict], seed: int) -> Any:
        """Call a function that was given back before."""
        return self._run(self.kept[number], inputs, seed)

    def read(self, number: int, name: str) -> Any:
        """An attribute of something that was given back before."""
        return getattr(self.kept[number], name)

    def drive(self, driver: Callable, inputs: tuple[tuple, dict], seed: int) -> Any:
        """Call `driver(function, ...)`: a larger run that needs the function inside it."""
        return self._run(partial(driver, self.function), inputs, seed)

    def _run(self, function: Callable, inputs: tuple[tuple, dict], seed: int) -> Any:
        seed_everything(seed)
        watch, before = Watch(inputs), random_states()
        args, kwargs = inputs
        try:
            return function(*args, **kwargs)
        finally:
            drawn = [Change("drawn", (name,), None) for name, state in random_states().items() if state != before[name]]
            self.changes = [tuple(change) for change in [*watch.changes(), *drawn]]

    def _keep(self, value: Any) -> wire.Handle:
        """A number for what is not plain data: a function, or an object of the student's own class."""
        self.kept.append(value)
        return wire.Handle(len(self.kept) - 1, type(value).__name__)


def _failure(error: BaseException) -> tuple:
    """What went wrong and in which line of the student's code."""
    kind = next(cls.__name__ for cls in type(error).__mro__ if cls is Mistake or cls.__module__ == "builtins")
    try:
        message = str(error)
    except Exception:
        message = ""
    if kind in ("Exception", "BaseException"):
        message = f"{type(error).__name__}: {message}"
    return kind, message[:2000], _line(error)


def _line(error: BaseException) -> tuple[int, str, str] | None:
    """(number, text, function) of the innermost line that stands in a notebook."""
    import linecache

    found, trace = None, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.startswith("<") and linecache.cache.get(code.co_filename):
            text = linecache.getline(code.co_filename, trace.tb_lineno).strip()
            found = (trace.tb_lineno, text[:300], code.co_name)
        trace = trace.tb_next
    return found


def _be_like_a_notebook() -> None:
    """What IPython puts into every notebook's names, without effect."""
    vars(builtins).update(display=lambda *args, **kwargs: None, get_ipython=lambda: None)


def kept(number: int) -> Any:
    """Something that was given back before and now comes in again, as a hook of a model perhaps."""
    return WORKER.kept[number]


WORKER = Worker()
