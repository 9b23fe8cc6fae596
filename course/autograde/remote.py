"""The trusted side's view of a student's function: called like one, it runs in a sandbox.

Graders are handed a `RemoteFunction` and do not know the difference. Whatever comes back has gone through `wire`.
"""

from __future__ import annotations

import builtins
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from course.autograde import believe, travel, wire
from course.autograde.randomness import move_on, random_states, seed_from
from course.autograde.sandbox import Session
from course.compare import Mistake

POLL = 0.1  # seconds; while waiting, the test's own time limit must be able to interrupt


class Unanswered(Mistake):
    """The process in the sandbox died, hung or broke the protocol: the answer's fault."""


class RemoteFunction:
    """A student's function. After a death or a time limit the next call gets a fresh process."""

    def __init__(self, start: Callable[[], Session], load: tuple[str, dict], seconds: float, lives: int = 2):
        """
        Args:
            start: makes a new process in a new sandbox.
            load: the request that puts the function there.
            seconds: the longest that one call may take.
            lives: how many processes may be used in all.
        """
        self._start, self._load, self._seconds, self._lives = start, load, seconds, lives
        self._left = 3 * seconds  # in all, waiting for answers
        self._session: Session | None = None
        self._repairs: list[Callable[[], None]] = []
        self.harm = ""  # what the last call did to its inputs
        self.cpu_seconds = 0.0

    def open(self) -> str:
        """Start the process and define the function in it.

        Returns:
            Why that cannot be done, in a sentence; empty if it went well.

        Raises:
            SandboxBroken: if the machine cannot start a sandbox.
        """
        if self._lives <= 0 or self._left <= 0:
            return "It was stopped too often; the remaining checks are not run."
        self._lives -= 1
        self._session = self._start()
        action, arguments = self._load
        try:
            return _exactly_text(self._ask(action, arguments))
        except Mistake as problem:
            return str(problem)
        except Exception as problem:
            return f"{type(problem).__name__}: {problem}"

    def close(self) -> None:
        """End the process and everything that it started, and repair what came to harm."""
        self.test_over()
        if self._session is not None:
            self.cpu_seconds += self._session.end().get("cpu", 0.0)
            self._session = None

    def test_over(self) -> None:
        """Make the models that came to harm usable for the next test."""
        while self._repairs:
            self._repairs.pop()()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run("call", {}, (args, kwargs))

    def within(self, driver: Callable) -> Callable:
        """A function that runs `driver(function, ...)` in the sandbox."""
        return lambda *args, **kwargs: self._run("drive", {"driver": driver}, (args, kwargs))

    def _run(self, action: str, which: dict, inputs: tuple[tuple, dict]) -> Any:
        if self._session is None:
            problem = self.open()
            if problem:
                raise Mistake(problem)
        value = self._ask(action, {**which, "inputs": inputs, "seed": seed_from(random_states())})
        _move_on_generators(inputs)
        return self._usable(value)

    def _ask(self, action: str, arguments: dict) -> Any:
        """Send a request and wait for its reply.

        Raises:
            Unanswered: if there is none, or none that can be read.
        """
        finished, began = False, time.monotonic()
        try:
            limit = min(self._seconds, self._left)
            _send(self._session, travel.pack((action, arguments)), limit)
            reply = _receive(self._session, limit)
            finished = True
        except (OSError, wire.WireError) as problem:
            raise Unanswered(self._why(problem)) from None
        finally:
            self._left -= time.monotonic() - began
            if not finished:  # also where the test's time limit strikes: the next reply would be the wrong one
                self.close()
        if not (type(reply) is tuple and len(reply) == 3):
            raise Unanswered("The reply breaks the protocol.")
        self._believe(reply[2], arguments.get("inputs"))
        if reply[0] == "done":
            return reply[1]
        raise _error(reply[1])

    def _believe(self, told: Any, inputs: Any) -> None:
        """Bring this side up to date with what a call did, as far as that is believed."""
        try:
            changes = believe.read_changes(told)
        except ValueError:
            raise Unanswered("The reply breaks the protocol.") from None
        move_on(change.place[0] for change in changes if change.kind == "drawn" and change.place)
        self.harm = believe.apply(changes, inputs, self._repairs)

    def _why(self, problem: Exception) -> str:
        if isinstance(problem, TimeoutError):
            if self._left <= 0:
                return f"Stopped: your function took more than {3 * self._seconds:g} seconds in all."
            return f"Stopped after {self._seconds:g} seconds without an answer."
        if isinstance(problem, EOFError | ConnectionError):
            return "The process ended while your function ran: out of memory, out of time, or by its own doing."
        return str(problem)

    def _usable(self, value: Any) -> Any:
        """The value with functions in the place of handles."""
        if isinstance(value, wire.Handle):
            kind = value.kind if value.kind.isidentifier() else "object"
            return type(kind, (_Kept,), {})(self, value.number)  # a class of that name, for the messages
        if type(value) in (list, tuple, set):
            return type(value)(self._usable(item) for item in value)
        if type(value) is dict:
            return {key: self._usable(item) for key, item in value.items()}
        return value


class _Kept:
    """What an answer gave back that is not plain data, a hook or an object for example: it stays in the sandbox."""

    def __init__(self, owner: RemoteFunction, number: int):
        self._owner, self._session, self._number = owner, owner._session, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._require_alive()
        return self._owner._run("use", {"number": self._number}, (args, kwargs))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._require_alive()
        return self._owner._usable(self._owner._ask("read", {"number": self._number, "name": name}))

    def _require_alive(self) -> None:
        if self._owner._session is not self._session:
            raise Mistake("What your function gave back no longer exists: its process was stopped.")

    def __reduce__(self) -> tuple:
        from course.autograde.worker import kept

        return kept, (self._number,)  # in the sandbox it becomes what it was


def _send(session: Session, request: bytes, seconds: float) -> None:
    connection, deadline = session.connection, time.monotonic() + seconds
    connection.setblocking(False)
    left = memoryview(len(request).to_bytes(8, "big") + request)
    while left:
        _wait(connection, deadline, writing=True)
        left = left[connection.send(left[: 2**20]) :]


def _receive(session: Session, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    header = _read(session, wire.HEADER.size, deadline)
    text, raw = wire.sizes(header)
    return wire.decode(_read(session, text, deadline), _read(session, raw, deadline))


def _read(session: Session, count: int, deadline: float) -> bytes:
    parts, left = [], count
    while left:
        _wait(session.connection, deadline, writing=False)
        part = session.connection.recv(min(left, 2**20))
        if not part:
            raise ConnectionError("closed")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _wait(connection: Any, deadline: float, writing: bool) -> None:
    """Return when the connection is ready; short waits, so that an exception for this thread arrives."""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        lists = ([], [connection], []) if writing else ([connection], [], [])
        if any(select.select(*lists, min(POLL, left))):
            return


def _error(told: Any) -> BaseException:
    """The exception that a student's code raised, as one of Python's own types."""
    if not (type(told) is tuple and len(told) == 3 and type(told[0]) is str and type(told[1]) is str):
        return Unanswered("The reply breaks the protocol.")
    kind, message, line = told
    if kind == "Mistake":
        return Mistake(message)
    base = getattr(builtins, kind, None)
    if not (isinstance(base, type) and issubclass(base, Exception)):
        base, message = RuntimeError, f"{kind[:80]}: {message}"
    error = type(base.__name__, (base,), {"__str__": lambda self: message, "__init__": lambda self: None})()
    good = type(line) is tuple and [type(part) for part in line] == [int, str, str]
    error.learner_line = line if good else None
    return error


def _move_on_generators(inputs: tuple[tuple, dict]) -> None:
    """Advance the generators among the inputs, which were drawn from in the sandbox."""
    torch = sys.modules.get("torch")
    args, kwargs = inputs
    for value in [*args, *kwargs.values()]:
        if torch is not None and isinstance(value, torch.Generator):
            torch.rand(1, generator=value)


def _exactly_text(value: Any) -> str:
    return value if type(value) is str else "The reply breaks the protocol."
