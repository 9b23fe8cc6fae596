"""`python -m course autograde week1_foundations`: marks of all submissions, which the submitted code cannot change.

Submissions are read from build/nbgrader/submitted/STUDENT/WEEK/. Scores, comments and feedback are where nbgrader
keeps them: formgrader, `nbgrader export` and the students' feedback work as ever. Manual marks stay. What is marked
already is not marked again, so a run that was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from course import release
from course.autograde import sandbox
from course.autograde.cluster import Cluster, NoCluster
from course.autograde.marks import NotebookMarks
from course.autograde.outcome import UNTRUSTED
from course.autograde.pool import Pool
from course.autograde.round import Markers, Round, mark_task
from course.autograde.store import Busy, Results
from course.autograde.tasks import Mark, find_tasks
from course.catalog import forget, near
from course.paths import relative

if TYPE_CHECKING:
    from course.autograde.gradebook import Standing

RESULTS = "results.sqlite"


class CannotAutograde(Exception):
    """Why nothing can be marked, in a sentence with the remedy."""


def main(argv: list[str], mark: Mark | None = None, choose: Callable[[str], str] | None = None) -> int:
    """Mark, write everything down, and show a table.

    Args:
        argv: the command's arguments.
        mark: marks one notebook; `course.autograde.marking.mark_notebook` if not given.
        choose: names the sandbox that is used; `course.autograde.sandbox.choose` if not given.

    Returns:
        0 if every submission has its marks, 1 otherwise.
    """
    options = _parser().parse_args(argv)
    forget()
    try:
        return _autograde(options, mark or _mark(), choose or sandbox.choose)
    except (CannotAutograde, release.CannotRelease, NoCluster, sandbox.NoSandbox) as problem:
        print(problem, file=sys.stderr)
        return 1


def _mark() -> Mark:
    from course.autograde.marking import mark_notebook  # not needed where the tests bring their own

    return mark_notebook


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m course autograde", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("week", help="for example week1_foundations, or week1 for short")
    parser.add_argument(
        "--student", nargs="+", action="extend", metavar="NAME", help="only these, instead of all who handed in"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_positive, metavar="N", help="processes here (default: one for each core)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="use this Dask cluster, for example tcp://host:8786")
    parser.add_argument(
        "--sandbox", choices=("auto", "bubblewrap", "none"), default="auto", help="none: marks not to be trusted"
    )
    parser.add_argument("--force", action="store_true", help="mark again what is marked already")
    parser.add_argument("--no-feedback", action="store_true", help="write no feedback pages (faster)")
    return parser


def _autograde(options: argparse.Namespace, mark: Mark, choose: Callable[[str], str]) -> int:
    if importlib.util.find_spec("nbgrader") is None:
        raise CannotAutograde("nbgrader is not installed in this environment. `python -m course start` installs it.")
    folder, week = release.FOLDER, release.notebooks_of(options.week)[0].week
    notebooks = sorted(path.stem for path in (folder / "release" / week).glob("*.ipynb"))
    if not notebooks or not (folder / "gradebook.db").exists():
        raise CannotAutograde(f"{week} is not released yet. Release it: python -m course release {week}")
    students = _students(folder, week, options.student)
    processes = options.workers or _cores()
    markers, kind = _markers(options, mark, choose, processes)
    try:
        if kind == "none":
            print(f"WITHOUT A SANDBOX. {UNTRUSTED} It can also read and change your files.", file=sys.stderr)
        tasks = {student: find_tasks(folder, week, notebooks, student, kind) for student in students}
        with Results(folder / RESULTS) as results:
            if options.force:
                results.forget(task for found in tasks.values() for task in found)
            printers = max(1, processes // 2)  # a student's pages take half as long as the marking
            this_round = Round(folder, week, tasks, results, kind, feedback=not options.no_feedback, printers=printers)
            try:
                return _go_round(this_round, markers)
            finally:
                this_round.close()
    except Busy:
        raise CannotAutograde("Another run of autograde is at work. Wait for its end, then run this again.") from None
    finally:
        markers.close()


def _students(folder: Path, week: str, wanted: list[str] | None) -> list[str]:
    """Who handed in, or those of them who are asked for.

    Raises:
        CannotAutograde: if that is nobody.
    """
    there = sorted(path.parent.name for path in (folder / "submitted").glob(f"[!.]*/{week}") if path.is_dir())
    place = f"{relative(folder)}/submitted/STUDENT/{week}/"
    if not there:
        raise CannotAutograde(f"Nothing was handed in for {week}. Put the notebooks into {place}")
    unknown = [name for name in wanted or () if name not in there]
    if unknown:
        hint = near(unknown[0], there)
        raise CannotAutograde(f"{', '.join(unknown)} handed in nothing for {week}, see {place}{hint}")
    return list(dict.fromkeys(wanted)) if wanted else there


def _markers(
    options: argparse.Namespace, mark: Mark, choose: Callable[[str], str], processes: int
) -> tuple[Markers, str]:
    """Who marks, and in which sandbox."""
    if options.scheduler:
        cluster = Cluster(options.scheduler, mark, choose, options.sandbox)
        return cluster, cluster.sandbox
    kind = choose(options.sandbox)
    return Pool(partial(mark_task, mark, kind), processes), kind


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _go_round(this_round: Round, markers: Markers) -> int:
    from tqdm import tqdm

    left = this_round.recall()
    if not this_round.look():
        remedy = f"python -m course release {this_round.week} --force"
        raise CannotAutograde(f"The gradebook does not know {this_round.week}. Release it again: {remedy}")
    known = len(this_round.marks)
    unfinished = {task.student for task in left} | set(this_round.unwritten())
    print(_beginning(len(left), known, len(unfinished)))
    with tqdm(total=len(left) + len(unfinished), desc="marked and written", unit="step", disable=not unfinished) as bar:
        this_round.tell = lambda marked, written: bar.update(marked + written)
        try:
            this_round.go(markers, left)
        except KeyboardInterrupt:
            bar.close()
            print(f"\n{len(this_round.marks) - known} of {len(left)} notebooks were marked, and all of them are kept.")
            print("To go on, run the same command again.")
            raise
    if this_round.written:
        this_round.look()
    print(_ending(this_round))
    return 1 if this_round.problems else 0


def _beginning(left: int, known: int, students: int) -> str:
    if not students:
        return "Nothing has changed since everything was marked."
    return f"{_count(left, 'notebook')} to mark, {known} known already; {_count(students, 'student')} to write down."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _ending(this_round: Round) -> str:
    """The table, and where everything is."""
    rows = [("student", "points", "of", "")]
    for student, tasks in this_round.tasks.items():
        standing = this_round.standings.get(student)
        marks = [this_round.marks[task] for task in tasks if task in this_round.marks]
        rows.append((student, *_points(standing), _remarks(marks, len(tasks))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
    place = relative(this_round.folder)
    feedback = f", {place}/feedback/STUDENT/{this_round.week}/ for the students" if this_round.feedback else ""
    return "\n".join(
        [
            "",
            *lines,
            "",
            *(f"Mended: {note}" for note in this_round.notes),
            *(f"NOT DONE: {problem}" for problem in this_round.problems),
            f"The marks are in {place}/gradebook.db{feedback}.",
        ]
    )


def _points(standing: Standing | None) -> tuple[str, str]:
    return (f"{standing.points:g}", f"{standing.maximum:g}") if standing else ("-", "-")


def _remarks(marks: list[NotebookMarks], wanted: int) -> str:
    """What the instructor should look at, in a line."""
    remarks = [f"{mark.notebook}: {mark.problem}" for mark in marks if mark.problem]
    if any(mark.sandbox == "none" for mark in marks):
        remarks.insert(0, "NOT TRUSTED (no sandbox)")
    if len(marks) < wanted:
        remarks.insert(0, f"{_count(wanted - len(marks), 'notebook')} not marked yet")
    return "; ".join(remarks)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of processes; 1 is the least")
    return number
