"""What nbgrader has afterwards: scores, comments, penalties, notebooks and feedback, and nothing that a browser runs."""

import base64
import dataclasses
import datetime
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell
from nbgrader.api import Gradebook

from course.autograde import staging
from course.autograde.gradebook import back_up_gradebook, look
from course.autograde.marks import ExerciseMark, NotebookMarks
from course.autograde.outcome import UNTRUSTED
from course.autograde.pool import Failed
from course.autograde.record import COPIES, STAGED, Job, Recorded, hold_the_lock, load_config, record, write_feedback
from course.autograde.round import Round
from course.autograde.store import Results
from course.autograde.tasks import Changed, find_tasks
from course.paths import ROOT

POINTS = {"double": 3.5, "largest": 0.6, "Counter": 2.0, "initials": 1.0}
PICTURE = base64.b64encode(b"\x89PNG a picture").decode()
EVIL = "<script>alert('evil')</script>"
HOLDS_THE_LOCK = """
import sys, time
from pathlib import Path
from course.autograde.record import hold_the_lock
hold_the_lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(1000)
"""


def marks(sandbox: str = "bubblewrap", problem: str = "", **points: float) -> NotebookMarks:
    """The marks of the tiny notebook; exercises that are not named have none of their points."""
    exercises = tuple(
        ExerciseMark(name, points.get(name, 0.0), maximum, "report", f"<div>the report of {name}</div>")
        for name, maximum in POINTS.items()
    )
    return NotebookMarks("1_9_tiny", () if problem else exercises, sandbox, 0.0, 0.0, problem)


class Desk:
    """Records in this process what was handed in."""

    def __init__(self, small_class):
        self.course, self.folder = small_class, small_class.folder

    def job(self, student: str, given: NotebookMarks, **changes: object) -> Job:
        tasks = find_tasks(self.folder, self.course.week, [self.course.notebook], student, given.sandbox)
        given = dataclasses.replace(given, problem=tasks[0].problem or given.problem)
        return dataclasses.replace(Job(self.folder, student, self.course.week, tuple(tasks), (given,)), **changes)

    def record(self, student: str, given: NotebookMarks, **changes: object) -> Recorded:
        job = self.job(student, given, **changes)
        recorded = record(job)
        if job.feedback:
            write_feedback(job, recorded.gradebook)
        return recorded

    def book(self) -> Gradebook:
        return Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}")

    def comments(self, student: str) -> dict[str, str | None]:
        with self.book() as book:
            found = book.find_submission_notebook(self.course.notebook, self.course.week, student).comments
            return {comment.name: comment.comment for comment in found}

    def flagged(self, student: str) -> bool:
        with self.book() as book:
            return book.find_submission_notebook(self.course.notebook, self.course.week, student).flagged


@pytest.fixture
def desk(small_class):
    before = dict(os.environ)  # nbgrader's configuration changes it
    yield Desk(small_class)
    os.environ.clear()
    os.environ.update(before)
    hold_the_lock(small_class.folder).close()
    for cached in (hold_the_lock, load_config):
        cached.cache_clear()


def test_scores_reports_and_feedback(desk: Desk) -> None:
    desk.course.hand_in("ada")
    assert desk.record("ada", marks(double=2.0, largest=0.6)).notes == ()
    assert desk.course.marks()["ada"] == {"double": 2.0, "largest": 0.6, "Counter": 0, "initials": 0}
    assert desk.course.exported() == pytest.approx({"ada": 2.6})
    assert desk.comments("ada") == {"double": None, **dict.fromkeys(["largest", "Counter", "initials"], "No response.")}
    page = desk.course.feedback("ada")
    assert "the report of double" in page
    assert "2.6 / 7.1" in page
    assert '<a href="#check_double">double</a> (Score: 2.0 / 3.5)' in page
    assert not (desk.folder / STAGED).exists()


def test_again_is_the_same_and_manual_marks_stay(desk: Desk) -> None:
    desk.course.hand_in("ada")
    desk.record("ada", marks(double=2.0))
    with desk.book() as book:
        grade = book.find_grade("check_largest", desk.course.notebook, desk.course.week, "ada")
        grade.manual_score = 0.3
        book.find_comment("largest", desk.course.notebook, desk.course.week, "ada").manual_comment = "nearly"
        book.db.commit()
    for _ in range(2):
        desk.record("ada", marks(double=3.5))
        assert desk.course.marks()["ada"] == {"double": 3.5, "largest": 0.3, "Counter": 0, "initials": 0}
        assert desk.comments("ada")["largest"] == "nearly"
    standing = look(desk.folder, desk.course.week)["ada"]
    assert (standing.points, standing.maximum) == (pytest.approx(3.8), pytest.approx(7.1))
    assert standing.given[desk.course.notebook, "check_largest"] == 0


def test_never_more_than_the_maximum_nor_less_than_nothing(desk: Desk) -> None:
    desk.course.hand_in("ada")
    desk.record("ada", marks(double=1000.0, largest=-5.0, Counter=float("nan")))
    assert desk.course.marks()["ada"] == {"double": 3.5, "largest": 0, "Counter": 0, "initials": 0}


def test_late_submissions_are_nbgraders_business(desk: Desk) -> None:
    with (desk.folder / "nbgrader_config.py").open("a", encoding="utf-8") as file:
        file.write('c.LateSubmissionPlugin.penalty_method = "zero"\n')
    desk.course.hand_in("late", "unclear")
    for student, stamp in (("late", "2026-01-02 00:00:00 UTC"), ("unclear", "the day before yesterday")):
        desk.course.path(student).with_name("timestamp.txt").write_text(stamp, encoding="utf-8")
    with desk.book() as book:
        book.update_or_create_assignment(desk.course.week, duedate=datetime.datetime(2026, 1, 1))
    for student in ("late", "unclear"):
        desk.record(student, marks(double=3.5))
    assert desk.course.exported() == {"late": 0.0, "unclear": 3.5}
    assert desk.course.marks()["late"]["double"] == 3.5
    assert look(desk.folder, desk.course.week)["late"].points == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "The file is empty."),
        (b"{ not a notebook", "The file is not a notebook."),
        (b"\xff\xfe\x00", "The file is not UTF-8 text."),
        (b"[" * 100_000, "The file is not a notebook."),
        (b'{"nbformat": 4, "cells": [{"cell_type": 7}, 8]}', "The file is not a notebook."),
        (None, "1_9_tiny.ipynb was not handed in."),
    ],
)
def test_what_cannot_be_marked_has_its_row_and_its_reason(desk: Desk, content: bytes | None, problem: str) -> None:
    if content is None:
        desk.course.path("eve").parent.mkdir(parents=True)
    else:
        desk.course.write("eve", content)
    desk.record("eve", marks(problem="" if content is None else problem))
    assert desk.course.marks()["eve"] == dict.fromkeys(POINTS, 0)
    assert desk.course.exported() == {"eve": 0.0}
    assert set(desk.comments("eve").values()) == {f"This notebook could not be marked. {problem}"}
    assert problem in desk.course.autograded("eve").cells[0].source
    assert desk.course.feedback("eve").count(problem) > len(POINTS)


def test_a_mark_without_sandbox_says_so_until_there_is_a_better_one(desk: Desk) -> None:
    desk.course.hand_in("ada")
    desk.record("ada", marks(sandbox="none", double=3.5), feedback=False)
    assert desk.flagged("ada")
    assert set(desk.comments("ada").values()) == {UNTRUSTED}
    assert UNTRUSTED in desk.course.autograded("ada").cells[0].source
    desk.record("ada", marks(double=3.5), was_untrusted=True)
    assert not desk.flagged("ada")
    assert UNTRUSTED not in set(desk.comments("ada").values())
    assert UNTRUSTED not in desk.course.feedback("ada")


def test_a_flag_of_the_instructors_stays(desk: Desk) -> None:
    desk.course.hand_in("ada")
    desk.record("ada", marks())
    with desk.book() as book:
        book.find_submission_notebook(desk.course.notebook, desk.course.week, "ada").flagged = True
        book.db.commit()
    desk.record("ada", marks(double=1.0))
    assert desk.flagged("ada")


def test_deleted_checks_come_back_and_it_is_noted(desk: Desk) -> None:
    notebook = desk.course.answer("x")
    notebook.cells = [cell for cell in notebook.cells if cell.source != "check(double)"]
    desk.course.write("ada", json.dumps(notebook).encode())
    recorded = desk.record("ada", marks(double=3.5))
    assert desk.course.marks()["ada"]["double"] == 3.5
    assert recorded.notes == ("1_9_tiny of ada: the cell check(double) was missing or out of place, it is back",)


def test_a_changed_file_is_not_recorded(desk: Desk) -> None:
    desk.course.hand_in("ada")
    job = desk.job("ada", marks())
    desk.course.write("ada", b"{}")
    with pytest.raises(Changed):
        record(job)


def test_cells_that_nbgrader_cannot_stand_cost_no_points(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.course.hand_in("ada", text="the answer")
    monkeypatch.setattr("course.nbgrader_config.restore", _stumbles_over("the answer"))
    (note,) = desk.record("ada", marks(double=3.5)).notes
    assert note == "The cells of ada could not be shown; the marks are kept."
    assert desk.course.marks()["ada"]["double"] == 3.5
    assert "cannot be shown here" in desk.course.autograded("ada").cells[0].source
    assert "the answer" not in desk.course.feedback("ada")


class Writer:
    """Takes requests, and does nothing."""

    def __init__(self):
        self.requests = []
        self.submit = self.requests.append


def _round_of(job: Job, results: Results) -> Round:
    """A round in which one student's week is marked, and whose processes do nothing."""
    known = dict(zip(job.tasks, job.marks, strict=True))
    this_round = Round(job.folder, job.week, {job.student: list(job.tasks)}, results, "bubblewrap", marks=known)
    this_round._writer, this_round._printer, this_round._backed_up = Writer(), Writer(), True
    return this_round


def test_cells_that_hang_nbgrader_cost_no_points(desk: Desk, tmp_path: Path) -> None:
    desk.course.hand_in("ada")
    job, hangs = desk.job("ada", marks()), Failed("It was not finished after 300 seconds.", died=True)
    with Results(tmp_path / "results.sqlite") as results:
        this_round = _round_of(job, results)
        this_round._took(partial(record, job), hangs)
        (request,) = this_round._writer.requests
        assert request.args == (dataclasses.replace(job, without_cells=True),)
        this_round._took(request, hangs)
        assert this_round.problems == [f"nbgrader did not take the marks of ada. {hangs.reason}"]
        assert results.recorded("ada", job.week) is None


def test_pages_that_cannot_be_written_cost_no_points(desk: Desk, tmp_path: Path) -> None:
    desk.course.hand_in("ada")
    job, hangs = desk.job("ada", marks()), Failed("It was not finished after 300 seconds.", died=True)
    with Results(tmp_path / "results.sqlite") as results:
        this_round = _round_of(job, results)
        this_round._took(partial(record, job), Recorded(0.0, (), "sqlite:///a copy"))
        (printing,) = this_round._printer.requests
        assert printing.args == (job, "sqlite:///a copy")
        assert results.recorded("ada", job.week) is None  # not before the pages are there
        this_round._printed(printing, hangs)
        (request,) = this_round._writer.requests
        assert request.args == (dataclasses.replace(job, without_cells=True),)
        this_round._printed(partial(write_feedback, *request.args, ""), None)
        assert results.recorded("ada", job.week)


def test_pages_are_made_from_a_copy_of_the_gradebook(desk: Desk) -> None:
    desk.course.hand_in("ada")
    job = desk.job("ada", marks(double=3.5))
    recorded = record(job)
    (copy,) = (desk.folder / COPIES).iterdir()
    assert recorded.gradebook == f"sqlite:///{copy}"
    before = (desk.folder / "gradebook.db").read_bytes()
    write_feedback(job, recorded.gradebook)
    assert "the report of double" in desk.course.feedback("ada")
    assert not list((desk.folder / COPIES).iterdir())
    assert (desk.folder / "gradebook.db").read_bytes() == before


def _stumbles_over(text: str):
    def restore(submitted: nbformat.NotebookNode, released: nbformat.NotebookNode) -> list[str]:
        if any(text in cell.source for cell in submitted.cells):
            raise RecursionError
        return []

    return restore


def test_what_is_shown_runs_nothing(desk: Desk) -> None:
    """The student's own words, code and pictures stay; HTML and JavaScript do not, wherever they are."""
    notebook = desk.course.answer("x")
    html = {"text/html": EVIL, "application/javascript": "alert('evil')", "image/svg+xml": f"<svg>{EVIL}</svg>"}
    outputs = [
        new_output("stream", text="a printed line " + EVIL),
        new_output("display_data", data={**html, "text/plain": "a plain " + EVIL}, metadata={"x": EVIL}),
        new_output("display_data", data={"image/png": PICTURE, **html}),
        new_output("display_data", data={"image/png": f'x" onerror="alert(1)"{EVIL}'}),
        new_output("error", ename="Oops", evalue=EVIL, traceback=["\x1b[31mthe traceback " + EVIL]),
    ]
    notebook.cells += [
        new_code_cell("print(1)", outputs=outputs, metadata={"tags": [EVIL], "evil": EVIL}),
        new_markdown_cell(f"my notes, where $a<b$ {EVIL} <img src=x onerror=alert('evil')>"),
        new_markdown_cell("[a link](javascript:alert('evil')) [b](java&#115;cript:alert) [c][c]\n\n[c]: javascript:c"),
        new_markdown_cell("[a good link](https://example.org)"),
        new_markdown_cell("![x](attachment:a.png)", attachments={"a.png": {"image/png": PICTURE, "text/html": EVIL}}),
        new_raw_cell(EVIL, metadata={"raw_mimetype": "text/html"}),
    ]
    notebook.metadata["title"] = EVIL
    notebook.metadata["language_info"] = {"name": EVIL, "pygments_lexer": EVIL}
    notebook.cells[0]["id"] = EVIL
    desk.course.write("eve", json.dumps(notebook).encode())
    desk.record("eve", marks(double=3.5))
    page = desk.course.feedback("eve")
    for kept in (
        "a printed line",
        "a plain",
        "the traceback",
        "my notes",
        'href="https://example.org"',
        f"data:image/png;base64,{PICTURE}",
    ):
        assert kept in page, kept
    assert "alert('evil')</script>" not in page
    assert not re.search(r"<(img|svg|script)[^>]*(alert|onerror)|<script>alert|href=.java", page)
    assert "evil" not in json.dumps(desk.course.autograded("eve").metadata)


def test_sizes_are_limited(desk: Desk) -> None:
    released = desk.course.released
    notebook = desk.course.answer("x")
    flood = [new_output("stream", text="y" * 150_000)] + [new_output("stream", text="y")] * 100
    notebook.cells += [new_code_cell("z" * 150_000, outputs=flood) for _ in range(20)]
    notebook.cells += [new_markdown_cell("m")] * 2000
    shown = staging.shown(json.dumps(notebook).encode(), released)
    assert len(shown.cells) == staging.MOST_CELLS
    assert len(staging.as_bytes(shown)) < 4_000_000
    assert "shortened" in shown.cells[len(desk.course.answer("x").cells)].source


def test_backup_of_the_gradebook(desk: Desk) -> None:
    copy = back_up_gradebook(desk.folder)
    assert copy.parent == desk.folder / "backups"
    assert look(desk.folder, desk.course.week) == {}
    assert look(desk.folder, "week7_unknown") is None


def test_one_writer_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k | {"timeout": 0.2}))
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(desk.folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            hold_the_lock(desk.folder)
        other.kill()
        other.wait()
    hold_the_lock(Path(desk.folder))
