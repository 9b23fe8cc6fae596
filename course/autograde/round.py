"""One round of marking: what is missing is marked, kept at once, and each finished student written into nbgrader."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from course.autograde.marks import NotebookMarks
from course.autograde.outcome import is_untrusted, outcome
from course.autograde.pool import Failed, Pool
from course.autograde.store import Results
from course.autograde.tasks import Mark, Task, timestamp

if TYPE_CHECKING:
    from course.autograde.gradebook import Standing

SECONDS_TO_WRITE = 300
"""The most for one student's week in nbgrader, and for the pages; a notebook made to hang it is then shown without its
cells."""


class Markers(Protocol):
    """Whoever marks: processes here or on a cluster."""

    @property
    def pending(self) -> int: ...
    def submit(self, task: Task) -> None: ...
    def poll(self, seconds: float) -> list[tuple[Task, NotebookMarks | Failed]]: ...
    def close(self) -> None: ...


@dataclass
class Round:
    """The tasks of a week by student, and what has become of them."""

    folder: Path  # nbgrader's course folder
    week: str
    tasks: dict[str, list[Task]]
    results: Results
    sandbox: str
    feedback: bool = True
    printers: int = 1  # processes that write the pages for the students
    marks: dict[Task, NotebookMarks] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # of the course or this machine: to be done again
    notes: list[str] = field(default_factory=list)  # what was mended in notebooks
    written: int = 0
    standings: dict[str, Standing] = field(default_factory=dict)
    tell: Callable[[int, int], None] = lambda marked, written: None  # progress

    def __post_init__(self) -> None:
        self._writer = Pool(_call, 1, tries=1, seconds=SECONDS_TO_WRITE)
        self._printer = Pool(_call, self.printers, tries=1, seconds=SECONDS_TO_WRITE)
        self._backed_up = False

    def recall(self) -> list[Task]:
        """Take up the marks that are known, and return the tasks that are left."""
        left = []
        for task in (task for tasks in self.tasks.values() for task in tasks):
            known = self.results.marks(task)
            if known is None and task.problem:
                known = task.unmarked(task.problem, self.sandbox)
                self.results.keep(task, known)
            if known is None:
                left.append(task)
            else:
                self.marks[task] = known
        return left

    def look(self) -> bool:
        """Ask for what the gradebook holds. False if it has no such week."""
        from course.autograde.gradebook import look

        found = self._ask(partial(look, self.folder, self.week))
        self.standings = found or {}
        return found is not None

    def unwritten(self) -> list[str]:
        """The students who are marked completely, and of whom nbgrader has not everything."""
        return [student for student in self.tasks if self._complete(student) and not self._is_written(student)]

    def go(self, markers: Markers, left: list[Task]) -> None:
        """Mark what is left and write what is complete, until all is done."""
        for task in left:
            markers.submit(task)
        for student in self.unwritten():
            self._write(student)
        while markers.pending or self._writer.pending or self._printer.pending:
            for task, result in markers.poll(0.2):
                self._take(task, result)
            for request, result in self._writer.poll(0 if markers.pending else 0.2):
                self._took(request, result)
            for request, result in self._printer.poll(0 if markers.pending or self._writer.pending else 0.2):
                self._printed(request, result)

    def close(self) -> None:
        self._writer.close()
        self._printer.close()

    def _take(self, task: Task, result: NotebookMarks | Failed) -> None:
        """Keep a result, and write the student if it was the last."""
        if isinstance(result, Failed) and not result.died:
            self.problems.append(f"{task.notebook} of {task.student} is not marked yet. {result.reason}")
        else:
            marks = task.unmarked(result.reason, self.sandbox) if isinstance(result, Failed) else result
            self.results.keep(task, marks)
            self.marks[task] = marks
            if self._complete(task.student):
                self._write(task.student)
        self.tell(1, 0)

    def _write(self, student: str, *, without_cells: bool = False) -> None:
        from course.autograde.gradebook import back_up_gradebook
        from course.autograde.record import COPIES, Job, record

        if not self._backed_up:
            self._backed_up = True
            self._ask(partial(back_up_gradebook, self.folder))
            shutil.rmtree(self.folder / COPIES, ignore_errors=True)  # of a run that was killed
        tasks = self.tasks[student]
        was = self.results.was_untrusted(student, self.week)
        self.results.recording(student, self.week, untrusted=was or self._untrusted(student))
        job = Job(self.folder, student, self.week, tuple(tasks), tuple(map(self.marks.get, tasks)), self.feedback, was)
        self._writer.submit(partial(record, replace(job, without_cells=without_cells)))

    def _took(self, request: partial, result: Any) -> None:
        """nbgrader has a student's week, or not."""
        from course.autograde.record import write_feedback

        (job,) = request.args
        if isinstance(result, Failed) and result.died and not job.without_cells:
            self._write_without_cells(job.student)
            return
        if isinstance(result, Failed):
            self.problems.append(f"nbgrader did not take the marks of {job.student}. {result.reason}")
            self.tell(0, 1)
            return
        self.notes += result.notes
        if job.feedback:
            self._printer.submit(partial(write_feedback, job, result.gradebook))
        else:
            self._done(job.student)

    def _printed(self, request: partial, result: Any) -> None:
        """The pages for a student are there, or not."""
        job, _ = request.args
        if not isinstance(result, Failed):
            self._done(job.student)
        elif not job.without_cells:
            self._write_without_cells(job.student)
        else:
            self.problems.append(f"The pages for {job.student} could not be written. {result.reason}")
            self.tell(0, 1)

    def _write_without_cells(self, student: str) -> None:
        self.notes.append(f"The cells of {student} could not be shown; the marks are kept.")
        self._write(student, without_cells=True)

    def _done(self, student: str) -> None:
        self.written += 1
        fingerprint, untrusted = self._fingerprint(student), self._untrusted(student)
        self.results.set_recorded(student, self.week, fingerprint, untrusted=untrusted)
        self.tell(0, 1)

    def _ask(self, request: partial) -> Any:
        """What the writing process answers. It does one thing after the other.

        Raises:
            RuntimeError: if it failed.
        """
        self._writer.submit(request)
        while True:
            for asked, result in self._writer.poll(1):
                if asked is not request:
                    self._took(asked, result)
                elif isinstance(result, Failed):
                    raise RuntimeError(f"The gradebook could not be read or copied. {result.reason}")
                else:
                    return result

    def _complete(self, student: str) -> bool:
        return all(task in self.marks for task in self.tasks[student])

    def _untrusted(self, student: str) -> bool:
        return any(is_untrusted(self.marks[task]) for task in self.tasks[student])

    def _fingerprint(self, student: str) -> str:
        """A hash of all that nbgrader is given."""
        texts = [task.key + self.marks[task].as_json() for task in self.tasks[student]]
        texts.append(timestamp(self.folder, student, self.week))
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def _is_written(self, student: str) -> bool:
        """Whether nbgrader has everything: also if the gradebook is an older one that was put back."""
        standing = self.standings.get(student)
        if standing is None or self.results.recorded(student, self.week) != self._fingerprint(student):
            return False
        marks = {task.notebook: self.marks[task] for task in self.tasks[student]}
        for (notebook, cell), given in standing.given.items():
            if notebook in marks and given != outcome(marks[notebook], cell, standing.maxima[notebook, cell])[0]:
                return False
        files = [self.folder / "autograded" / student / self.week / f"{notebook}.ipynb" for notebook in marks]
        if self.feedback:
            files += [self.folder / "feedback" / student / self.week / f"{notebook}.html" for notebook in marks]
        return all(file.exists() for file in files)


def mark_task(mark: Mark, sandbox: str, task: Task) -> NotebookMarks:
    """What a process of the pool does."""
    return mark(task.read(), task.notebook, sandbox)


def _call(request: Callable[[], Any]) -> Any:
    return request()
