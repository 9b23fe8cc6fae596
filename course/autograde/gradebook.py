"""What nbgrader's gradebook holds of a week. Only the process that holds the lock opens it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nbgrader import api
from nbgrader.coursedir import CourseDirectory

from course.autograde.backup import back_up
from course.autograde.record import SQLITE, hold_the_lock, load_config


@dataclass
class Standing:
    """One student's week."""

    given: dict[tuple[str, str], float | None] = field(default_factory=dict)  # by autograding; by notebook and cell
    maxima: dict[tuple[str, str], float] = field(default_factory=dict)
    points: float = 0.0  # what counts: manual marks and late penalties included

    @property
    def maximum(self) -> float:
        return sum(self.maxima.values())


def look(folder: Path, week: str) -> dict[str, Standing] | None:
    """Every student's standing in a week; None if the gradebook has no such week."""
    hold_the_lock(folder)
    with api.Gradebook(CourseDirectory(config=load_config(folder)).db_url) as book:
        if not book.db.query(api.Assignment).filter(api.Assignment.name == week).count():
            return None
        found: dict[str, Standing] = {}
        for student, notebook, cell, kind, maximum, given, score in _grades(book, week):
            standing = found.setdefault(student, Standing())
            standing.points += score
            standing.maxima[notebook, cell] = maximum
            if kind == "code":
                standing.given[notebook, cell] = given
        for student, penalty in _penalties(book, week):
            if student in found:
                found[student].points -= penalty or 0.0
    return found


def back_up_gradebook(folder: Path) -> Path | None:
    """Copy the gradebook into backups/; None if it is in no file of ours but on a database server."""
    hold_the_lock(folder)
    address = CourseDirectory(config=load_config(folder)).db_url
    return back_up(Path(address.removeprefix(SQLITE)), folder / "backups") if address.startswith(SQLITE) else None


def _grades(book: api.Gradebook, week: str) -> list[tuple]:
    """Student, notebook, cell, kind of cell, most points, automatic points and score, for every grade of a week."""
    columns = (
        api.SubmittedAssignment.student_id,
        api.Notebook.name,
        api.GradeCell.name,
        api.GradeCell.cell_type,
        api.GradeCell.max_score,
        api.Grade.auto_score,
        api.Grade.score,
    )
    query = book.db.query(*columns).select_from(api.Grade).join(api.GradeCell, api.Grade.cell_id == api.GradeCell.id)
    return _of_week(query.join(api.SubmittedNotebook, api.Grade.notebook_id == api.SubmittedNotebook.id), week)


def _penalties(book: api.Gradebook, week: str) -> list[tuple]:
    columns = (api.SubmittedAssignment.student_id, api.SubmittedNotebook.late_submission_penalty)
    return _of_week(book.db.query(*columns).select_from(api.SubmittedNotebook), week)


def _of_week(query: object, week: str) -> list[tuple]:
    query = query.join(api.Notebook, api.SubmittedNotebook.notebook_id == api.Notebook.id)
    query = query.join(api.SubmittedAssignment, api.SubmittedNotebook.assignment_id == api.SubmittedAssignment.id)
    query = query.join(api.Assignment, api.SubmittedAssignment.assignment_id == api.Assignment.id)
    return query.filter(api.Assignment.name == week).all()
