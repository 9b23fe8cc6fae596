"""One student's week into nbgrader: scores, comments, late penalties, the autograded notebooks and the feedback.

nbgrader does all of it, with its own steps but one: instead of executing the notebook, marks that are known are put in
(`course.autograde.fill`). It reads a copy of the submission that is safe to show (`course.autograde.staging`). Manual
marks and comments stay. `record` runs in one process at a time, which a lock sees to. `write_feedback`, which takes
most of the time, runs beside it in several: each reads a copy of the gradebook.
"""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import nbformat
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import parse_utc
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader
from traitlets.log import get_logger

from course.autograde import staging
from course.autograde.backup import copy_database
from course.autograde.fill import FillChecks, SaveRemarks
from course.autograde.marks import NotebookMarks
from course.autograde.outcome import remark
from course.autograde.tasks import Changed, Task, timestamp

STAGED, COPIES = ".staged", ".copies"  # in nbgrader's course folder
SQLITE = "sqlite:///"
EXECUTES = ("course.nbgrader_config.RunSubmission", "nbgrader.preprocessors.Execute")
NOT_SHOWN = "The cells that were handed in cannot be shown here. The file is in the folder of submissions."


@dataclass(frozen=True)
class Job:
    """Everything of one student's week: the tasks and their marks, in the same order."""

    folder: Path  # nbgrader's course folder
    student: str
    week: str
    tasks: tuple[Task, ...]
    marks: tuple[NotebookMarks, ...]
    feedback: bool = True
    was_untrusted: bool = False  # the gradebook has marks that were made without a sandbox
    without_cells: bool = False  # show nothing of what was handed in: nbgrader could not stand it


@dataclass(frozen=True)
class Recorded:
    """How it went."""

    seconds: float
    notes: tuple[str, ...]  # what was mended in the notebooks, for the instructor
    gradebook: str  # the address of one that nobody writes into, for `write_feedback`


def record(job: Job) -> Recorded:
    """Write a job into the gradebook and `autograded/`. Doing it again changes nothing.

    Raises:
        Changed: if a file is not what it was when it was marked.
        Exception: nbgrader's, if even the released notebooks with the marks do not pass.
    """
    began = time.perf_counter()
    hold_the_lock(job.folder)
    with _notes() as notes:
        try:
            _record(job)
        except Changed:
            raise
        except Exception:
            if job.without_cells:
                raise
            notes.append(f"The cells of {job.student} could not be shown; the marks are kept.")
            _record(replace(job, without_cells=True))
        gradebook = _copy_of_the_gradebook(job) if job.feedback else ""
    return Recorded(time.perf_counter() - began, tuple(notes), gradebook)


def write_feedback(job: Job, gradebook: str) -> None:
    """Write the pages for a student whose week is recorded.

    Args:
        gradebook: from `record`.
    """
    config = load_config(job.folder)
    course = _course(job, config)
    course.db_url = gradebook
    feedback = GenerateFeedback(coursedir=course, config=config)
    feedback.force = True
    with _notes():
        feedback.start()
    for page in (job.folder / course.feedback_directory / job.student / job.week).glob("*.html"):
        page.write_text(_with_names(page.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    if COPIES in Path(gradebook).parts:
        Path(gradebook.removeprefix(SQLITE)).unlink()


def _with_names(page: str) -> str:
    """A page whose table of contents calls each exercise by its name; nbgrader calls them all "Test cell"."""
    return re.sub(r'(<a href="#check_(\w+)">)Test cell</a>', r"\1\2</a>", page)


def _copy_of_the_gradebook(job: Job) -> str:
    """The address of a copy for one student; of the gradebook itself where it is on a database server."""
    address = _course(job, load_config(job.folder)).db_url
    if not address.startswith(SQLITE):
        return address
    copy = copy_database(Path(address.removeprefix(SQLITE)), job.folder / COPIES / f"{job.student}.db")
    return f"{SQLITE}{copy}"


def _record(job: Job) -> None:
    stage = job.folder / STAGED
    shutil.rmtree(stage, ignore_errors=True)
    _stage(job, stage / job.student / job.week)
    marks = {task.notebook: mark for task, mark in zip(job.tasks, job.marks, strict=True)}
    config = load_config(job.folder)
    _autograder(job, config, marks).start()
    shutil.rmtree(stage, ignore_errors=True)


def _stage(job: Job, folder: Path) -> None:
    """The copies that nbgrader reads, and the time of the submission."""
    folder.mkdir(parents=True)
    for task, marks in zip(job.tasks, job.marks, strict=True):
        released = nbformat.read(job.folder / "release" / job.week / f"{task.notebook}.ipynb", as_version=4)
        text = remark(marks)
        try:
            if task.path is None or job.without_cells:
                raise staging.Unreadable
            notebook = staging.shown(task.read(), released, text)
        except staging.Unreadable:
            notebook = staging.blank(released, text or NOT_SHOWN)
        (folder / f"{task.notebook}.ipynb").write_bytes(staging.as_bytes(notebook))
    stamp = timestamp(job.folder, job.student, job.week)
    if _is_time(stamp):  # nbgrader gives up on a student whose time it cannot read
        (folder / "timestamp.txt").write_text(stamp, encoding="utf-8")


def _is_time(stamp: str) -> bool:
    try:
        return bool(stamp) and parse_utc(stamp) is not None
    except (ValueError, OverflowError):
        return False


def _autograder(job: Job, config: Config, marks: dict[str, NotebookMarks]) -> Autograde:
    """nbgrader's autograding of one submission with the steps of the course's configuration, nothing executed."""
    course = _course(job, config)
    course.submitted_directory = STAGED
    autograde = Autograde(coursedir=course, config=config)
    autograde.force, autograde.create_student, autograde.pre_convert_hook = True, True, _nothing
    steps = [step for step in autograde.sanitize_preprocessors if not _named(step, "ClearOutput")]
    autograde.sanitize_preprocessors = steps  # the outputs are clean already
    steps = [step for step in autograde.autograde_preprocessors if not any(_named(step, name) for name in EXECUTES)]
    saves = next(number for number, step in enumerate(steps) if _named(step, "SaveAutoGrades"))
    steps.insert(saves + 1, SaveRemarks(marks, was_untrusted=job.was_untrusted))
    autograde.autograde_preprocessors = [FillChecks(marks), *steps]
    return autograde


def _named(step: str | type, name: str) -> bool:
    """Whether a step of the configuration, a class or its dotted name, is the one of this name."""
    own = step if isinstance(step, str) else getattr(step, "__name__", "")
    return own.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]


def _course(job: Job, config: Config) -> CourseDirectory:
    course = CourseDirectory(config=config)
    course.assignment_id, course.student_id, course.notebook_id = job.week, job.student, "*"
    return course


def _nothing(**_: object) -> None:
    """In the place of `adopt_names`: the staged copies have the right names."""


@lru_cache(maxsize=4)
def load_config(folder: Path) -> Config:
    """The course's nbgrader settings and the instructor's own. Sets what they set in this process's environment."""
    return PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()


@lru_cache(maxsize=4)
def hold_the_lock(folder: Path) -> sqlite3.Connection:
    """Be the one process that writes nbgrader's files, until this process ends, however it ends."""
    lock = sqlite3.connect(folder / "writer.lock", isolation_level=None, timeout=60)  # a dying run needs a moment
    lock.execute("BEGIN EXCLUSIVE")
    return lock


@contextmanager
def _notes() -> Iterator[list[str]]:
    """Keep nbgrader quiet, and collect what the course's own steps say."""
    notes: list[str] = []

    class Collect(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            if entry.module == "nbgrader_config":
                notes.append(entry.getMessage())

    logger, collect = get_logger(), Collect()
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [collect], False
    logger.setLevel(logging.INFO)
    try:
        yield notes
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
