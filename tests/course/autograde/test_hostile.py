"""Hostile submissions gain nothing, harm nobody, and end in time."""

import csv
import os
import time
from pathlib import Path

import pytest
from hostile import ATTACKS, BROKEN, CANARIES, NAME, NOTEBOOK
from sandboxed import needs_sandbox, notebook

from course.autograde.marking import mark_notebook
from course.catalog import exercises
from course.paths import ROOT

pytestmark = needs_sandbox
SECONDS = 2.0  # for one call of a student's function
LONGEST = 30  # seconds for a whole hostile submission on a busy machine; it has at most two lives
RIGHT = f"""
def {NAME}(pattern):
    return pattern.diagonal(-1, -2, -1).mean((0, -1))
"""


@pytest.fixture(scope="module")
def table():
    """Rows of (submission, kind, points, seconds, reason), written down for people to read."""
    rows = []
    yield rows
    folder = Path(os.environ.get("COURSE_ARTEFACTS", ROOT / "build" / "artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "hostile.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("submission", "kind", "points", "seconds", "reason"), *rows])


@pytest.fixture
def canary():
    """A file of the course that a destroyer would love to reach."""
    folder = ROOT / "build" / CANARIES[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gradebook.db").write_bytes(b"untouched")
    yield folder
    assert (folder / "gradebook.db").read_bytes() == b"untouched"
    (folder / "gradebook.db").unlink()
    folder.rmdir()


def mark(code, seconds=SECONDS):
    """The marks, and the one of the attacked exercise."""
    marks = mark_notebook(code, NOTEBOOK, "bubblewrap", seconds)
    return marks, next(mark for mark in marks.exercises if mark.exercise == NAME)


def reason(mark):
    lines = [line.strip() for line in mark.text.splitlines()]
    return next((line for line in lines[2:] if not line.startswith(("pass", "fail", "hint"))), "")


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gains_no_point_and_ends_in_time(name, table, canary):
    attack, started = ATTACKS[name], time.monotonic()
    marks, attacked = mark(notebook(attack.cell))
    seconds = time.monotonic() - started
    table.append((name, attack.kind, attacked.points, f"{seconds:.1f}", reason(attacked)))
    assert marks.points == 0
    assert seconds < LONGEST


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_marked_with_a_reason(name, table):
    started = time.monotonic()
    marks, attacked = mark(BROKEN[name])
    seconds = time.monotonic() - started
    why = marks.problem or reason(attacked)
    table.append((name, "broken", marks.points, f"{seconds:.1f}", why))
    assert marks.points == 0
    assert why
    assert len(marks.exercises) > 10, "every exercise needs its mark"
    assert seconds < LONGEST


@pytest.mark.parametrize("kind", sorted({attack.kind for attack in ATTACKS.values()}))
def test_an_attack_spoils_neither_the_next_exercise_nor_the_next_submission(kind):
    attack = next(attack for attack in ATTACKS.values() if attack.kind == kind)
    right = "def current_token_score(pattern):\n    return pattern.diagonal(0, -2, -1)[..., 1:].mean((0, -1))"
    marks, attacked = mark(notebook(attack.cell, "import torch", right))
    assert (attacked.points, marks.points) == (0, 3)
    assert mark(notebook(RIGHT))[1].points == 4


SPOILS = """
import torch, course.autograde.changes as told
def value_zeroing(model, tokens):
    told.Watch.changes = lambda self: [told.Change("model", (0, 0), "spoilt by a rival"), told.Change(*LAST)]
    return torch.zeros(1)
"""


@pytest.mark.parametrize(
    "last", ["('model', ([],), '')", "('nothing', (), None)", "('model', (0, 0), None)", "(1, 2, 3)"]
)
def test_a_model_that_the_graders_share_is_not_spoilt_for_the_next_student(last):
    right = solution_cells()
    before = mark(right, 20)[0]
    mark(notebook(f"LAST = {last}\n{SPOILS}"), 20)
    after = mark(right, 20)[0]
    points = [{m.exercise: m.points for m in marks.exercises}["value_zeroing"] for marks in (before, after)]
    assert points == [5, 5]


def solution_cells():
    """The solution of the exercise on a shared model, handed in."""
    return notebook(
        "import torch\nfrom jaxtyping import *\nfrom torch import Tensor", exercises()["value_zeroing"].solution
    )


def test_there_are_enough_attacks_of_every_kind():
    kinds = [attack.kind for attack in ATTACKS.values()]
    assert len(kinds) >= 40
    assert {"forge", "read", "destroy", "exhaust", "escape", "detect"} == set(kinds)
    assert min(map(kinds.count, kinds)) >= 2
