"""Mark a simulated class: ``python -m benchmarks.a_class week3 --students 200 [--workers N] [--sample 3]``.

The students are made from the solutions, in known shares: right, partly done, noisy, hostile, broken. Every mark is
compared with the one that is due, and a sample of the same submissions goes through plain nbgrader in the same run.
Everything happens in a copy of the course; your own gradebook is not touched.
"""

import argparse
import copy
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from course.autograde.gradebook import look
from course.catalog import exercises, graders
from course.paths import ROOT
from course.release import notebooks_of

SHARES = {"right": 0.5, "partly": 0.25, "noisy": 0.1, "hostile": 0.1, "broken": 0.05}
COPIED = ("course", "utils", "tests", "solutions", "curriculum", "pyproject.toml", "requirements.txt", "README.md")
NOISE = "import sys, warnings\nwarnings.warn('careful')\nprint('loss 0.3', file=sys.stderr)"
ATTACKS = (
    "import course.graders as g; g.Answer.should_give = g.require = lambda *a, **k: None",
    "import gc; return next(t for t in gc.get_objects() if 'expected' in dir(t)).expected",
    "import pytest; pytest.skip('passed')",
    "import os; [os.kill(p, 9) for p in range(2, 9) if p != os.getpid() < 50]",
    "open('/tmp/x', 'wb').write(bytes(2**27))",
    "from course.solutions import solution_of; return solution_of({name!r})(*args, **kwargs)",
    "while True: args += (bytearray(2**26),)",
    "import sys; sys.exit(0)",
)


@dataclass
class Student:
    """Somebody who hands in, and the marks that are due."""

    name: str
    kind: str
    notebooks: dict[str, bytes] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)


def make_class(week: str, released: Path, number: int, seed: int = 0) -> list[Student]:
    """The students of a class, in shuffled order."""
    draw = random.Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * number))]
    kinds = (kinds + ["right"] * number)[:number]
    draw.shuffle(kinds)
    empty = {path.stem: nbformat.read(path, as_version=4) for path in sorted(released.glob("*.ipynb"))}
    return [_student(f"s{index:03d}", kind, empty, draw) for index, kind in enumerate(kinds)]


def _student(name: str, kind: str, empty: dict, draw: random.Random) -> Student:
    student = Student(name, kind)
    names = [exercise.name for exercise in exercises().values() if exercise.notebook in empty]
    done = set(draw.sample(names, draw.randint(1, len(names) - 1))) if kind == "partly" else set(names)
    bad = draw.choice(names)
    broken = exercises()[bad].notebook
    for notebook, released in empty.items():
        filled = copy.deepcopy(released)
        for cell in filled.cells:
            exercise = cell.metadata.get("nbgrader", {}).get("grade_id", "")
            if cell.cell_type == "code" and exercise in done:
                cell.source = _answer(exercise, kind, exercise == bad, draw)
                student.due[exercise] = graders()[exercise].points
        if kind == "noisy":
            filled.cells.insert(2, nbformat.v4.new_code_cell(NOISE))
        text = json.dumps(filled).encode()
        student.notebooks[notebook] = text[: len(text) // 2] if kind == "broken" and notebook == broken else text
    for exercise in names:
        lost = (kind == "hostile" and exercise == bad) or (
            kind == "broken" and exercises()[exercise].notebook == broken
        )
        student.due[exercise] = 0.0 if lost or exercise not in done else student.due[exercise]
    return student


def _answer(exercise: str, kind: str, bad: bool, draw: random.Random) -> str:
    if kind == "hostile" and bad:
        attack = draw.choice(ATTACKS).replace("{name!r}", repr(exercise))
        body = f"    try:\n        {attack}\n    except Exception:\n        pass\n    return 'x'"
        return f"def {exercise}(*args, **kwargs):\n{body}"
    return exercises()[exercise].solution


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of a command that must succeed, or fail only for some students."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def marks_of(folder: Path, week: str) -> dict[str, dict[str, float]]:
    """Every student's marks by exercise."""
    standings = look(folder, week) or {}
    return {
        student: {cell.removeprefix("check_"): given or 0.0 for (_, cell), given in standing.given.items()}
        for student, standing in standings.items()
    }


def wrong_marks(students: list[Student], marks: dict[str, dict[str, float]]) -> list[str]:
    """Each mark that is not the one that is due, in a line."""
    return [
        f"{student.name} ({student.kind}): {exercise} {marks.get(student.name, {}).get(exercise)} instead of {due}"
        for student in students
        for exercise, due in student.due.items()
        if abs(marks.get(student.name, {}).get(exercise, -1.0) - due) > 1e-6
    ]


def copy_of_the_course(folder: Path) -> Path:
    """The course in a folder of its own, without builds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def hand_in(folder: Path, week: str, students: list[Student]) -> None:
    """Write the submissions where they belong."""
    for student in students:
        target = folder / "submitted" / student.name / week
        target.mkdir(parents=True)
        for notebook, text in student.notebooks.items():
            (target / f"{notebook}.ipynb").write_bytes(text)


def main() -> None:
    """Make the class, mark it twice, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("week")
    parser.add_argument("--students", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--sample", type=int, default=3, help="students for plain nbgrader, all of them right")
    options = parser.parse_args()
    week, python = notebooks_of(options.week)[0].week, sys.executable
    with tempfile.TemporaryDirectory() as temporary:
        course = copy_of_the_course(Path(temporary, "course").resolve())
        folder = course / "build" / "nbgrader"
        run([python, "-m", "course", "release", week], course)
        students = make_class(week, folder / "release" / week, options.students)
        sample = [student for student in students if student.kind == "right"][: options.sample]
        plain = copy_of_the_course(Path(temporary, "plain").resolve()) / "build" / "nbgrader"
        run([python, "-m", "course", "release", week], plain.parents[1])
        hand_in(folder, week, students)

        wall, own = run([python, "-m", "course", "autograde", week, "--workers", str(options.workers)], course)
        with sqlite3.connect(folder / "results.sqlite") as results:
            rows = [json.loads(text) for (text,) in results.execute("select marks from results")]
        inside = sum(row["cpu_seconds"] for row in rows)
        wrong = wrong_marks(students, marks_of(folder, week))
        total = sum(len(student.due) for student in students)
        print(f"{len(students)} students, {len(rows)} notebooks, {total} marks, {len(wrong)} of them wrong")
        print("\n".join(wrong[:20]))
        print(f"{wall:.0f} s by the clock with {options.workers} processes")
        print(f"processor: {inside:.0f} s to mark, {inside / len(rows):.2f} a notebook, sandboxes included")
        print(f"processor: {own:.0f} s of the command and its processes, sandboxes not included")

        with (plain / "nbgrader_config.py").open("a", encoding="utf-8") as config:
            config.write("\nc.RunSubmission.trusted = True\n")
        hand_in(plain, week, sample)
        seconds, processor = (x / len(sample) for x in run([python, "-m", "nbgrader", "autograde", week], plain))
        notebooks = len(sample[0].notebooks)
        lost = wrong_marks(sample, marks_of(plain, week))
        print(f"plain nbgrader: {seconds:.0f} s by the clock, {processor:.0f} s of the processor for a student's")
        print(f"{notebooks} notebooks; {len(lost)} wrong marks in the sample")
        here = wall / len(students)
        print(f"a student by the clock: {here:.1f} s here, {seconds:.1f} s there, {seconds / here:.0f} times as long")


if __name__ == "__main__":
    main()
