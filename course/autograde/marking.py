"""Marks one submitted notebook: the course's graders here, the student's functions in sandboxes."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

from course.autograde import library, sandbox
from course.autograde.marks import ExerciseMark, NotebookMarks
from course.autograde.namespaces import Limits
from course.autograde.remote import RemoteFunction
from course.autograde.tasks import LARGEST
from course.build import clear_solution
from course.catalog import find_grader, sources
from course.extract import CannotExtract, Code
from course.grading import GraderBroken, grade, not_run
from course.report import Report
from course.solutions import grader_class
from course.source import Exercise, NotebookSource

TRIES_OF_A_SANDBOX = 3
FOLDER = "course-autograde-"  # in the folder for temporary files


def mark_notebook(
    code: bytes, notebook: str, sandbox_kind: str = "auto", seconds: float | None = None
) -> NotebookMarks:
    """Mark the file that a student handed in as `notebook`, for example "1_4_attention_detective".

    Nothing that the file holds makes this fail: what cannot be marked gets no points and a reason.

    Args:
        seconds: the longest that one call of a student's function may take; each grader's own limit if None.

    Raises:
        NoSandbox: if the sandbox that was asked for cannot be had.
        SandboxBroken: if it worked, and does no more.
        LookupError: if the course has no such notebook.
    """
    kind = sandbox.choose(sandbox_kind)
    started, cpu = time.monotonic(), time.process_time()
    source = _source(notebook)
    try:
        handed_in, problem = read(code, f"{notebook}.ipynb"), ""
    except CannotExtract as error:
        handed_in, problem = Code(notebook, ()), str(error)
    marks, used = [], 0.0
    for exercise in source.exercises:
        if problem:
            report, spent = not_run(exercise.name, problem), 0.0
        else:
            report, spent = mark_exercise(handed_in, exercise, kind, seconds)
        report.next_hint = bool(exercise.hints)
        marks.append(ExerciseMark(exercise.name, report.points, report.maximum, report.text(), report._repr_html_()))
        used += spent
    elapsed, cpu = time.monotonic() - started, time.process_time() - cpu
    return NotebookMarks(notebook, tuple(marks), kind, elapsed, cpu + used, problem)


def read(code: bytes, name: str) -> Code:
    """The code cells of a submitted file.

    Raises:
        CannotExtract: if it is no notebook, or too large; the message says which.
    """
    if len(code) > LARGEST:
        raise CannotExtract(f"{name} has {len(code) / 1e6:.0f} MB; at most {LARGEST / 1e6:.0f} MB are read.")
    if not code.strip():
        raise CannotExtract(f"{name} is empty.")
    try:
        return Code.of_notebook(name, code.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise CannotExtract(f"{name} is not a UTF-8 text file.") from None


def mark_exercise(code: Code, exercise: Exercise, kind: str, seconds: float | None = None) -> tuple[Report, float]:
    """The report on one exercise, and the processor's seconds that its sandbox took."""
    if not any(exercise.name in cell for cell in code.cells):
        return not_run(exercise.name, f"`{exercise.name}` is not defined in this notebook."), 0.0
    if _untouched(code, exercise):
        return not_run(exercise.name, "Not written yet: it still raises NotImplementedError."), 0.0
    load = {"name": code.name, "cells": code.cells, "exercise": exercise.name}
    return mark_function(exercise.name, ("load", load), kind, seconds)


def mark_function(name: str, load: tuple[str, dict], kind: str, seconds: float | None = None) -> tuple[Report, float]:
    """Grade exercise `name` on the function that the request `load` puts into a sandbox."""
    seconds = seconds or grader_class(find_grader(name)).seconds
    action, arguments = load
    request = (action, {**arguments, "forbids": library.forbids_of(name)})
    function = RemoteFunction(lambda: _start(kind), request, seconds)
    try:
        problem = function.open()
        report = not_run(name, problem) if problem else grade(name, function)
    except GraderBroken as problem:
        report = not_run(name, str(problem))
    finally:
        function.close()
    return report, function.cpu_seconds


def _start(kind: str) -> sandbox.Session:
    for _ in range(TRIES_OF_A_SANDBOX - 1):
        with contextlib.suppress(sandbox.SandboxBroken, OSError):
            return _server(kind).start(Limits())
        time.sleep(0.5)
    return _server(kind).start(Limits())


@cache
def _server(kind: str) -> sandbox.ForkServer:
    """This process's fork server, started at the first check and stopped at the end."""
    for left in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):  # by processes that were killed
        owner = left.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = library.write_library(folder, library.all_forbids())
    server = sandbox.ForkServer(kind, library.modules_used(), copy)
    atexit.register(server.stop)
    return server


def _source(notebook: str) -> NotebookSource:
    for source in sources():
        if source.name == notebook:
            return source
    raise LookupError(f"The course has no notebook {notebook!r}. It has: {', '.join(s.name for s in sources())}.")


def _untouched(code: Code, exercise: Exercise) -> bool:
    """Whether all that defines the exercise's function is the stub that the student was given.

    Told by the text alone: a hostile cell is never parsed on this side.
    """
    stub = clear_solution(exercise.code).strip()
    defining = [
        cell
        for cell in code.cells
        if exercise.name in cell and re.search(rf"(def|class)\s+{exercise.name}\b|{exercise.name}\s*=", cell)
    ]
    return bool(defining) and all(cell.strip() == stub for cell in defining)
