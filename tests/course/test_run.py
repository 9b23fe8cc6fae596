"""`course run`: which notebooks it takes, and what it says of those that fail."""

import pytest

from course import run
from course.catalog import sources
from course.source import SourceError


def ids(*names):
    return [source.id for source in run.choose(list(names))]


def test_a_week_or_a_notebook_is_chosen_by_its_short_or_its_whole_name():
    first = sources()[0]
    whole_week = [source.id for source in sources() if source.week == first.week]
    assert ids() == [source.id for source in sources()]
    assert ids(first.week) == ids(first.week.partition("_")[0]) == whole_week
    assert ids(first.name) == ids(first.id) == [first.id]
    assert ids(first.id, first.week) == whole_week


def test_a_name_of_nothing_lists_what_there_is(capsys):
    with pytest.raises(SourceError, match=r"called 'week99'\. There are: week1.*1_1"):
        run.choose(["week99"])
    assert run.main(["week99"]) == 1
    assert "There are: week1" in capsys.readouterr().out


def test_a_notebook_that_fails_is_named_with_its_cell_and_counted(monkeypatch, capsys):
    def execute(notebook, *, where, pictures):
        if where.startswith("1_1"):
            raise SourceError(f"{where}: ZeroDivisionError: division by zero\nin the cell\n\n1 / 0")
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
        return notebook

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(run, "earned", lambda notebook: {})
    assert run.main(["1_1", "1_4"]) == 1
    said = capsys.readouterr().out
    assert "1_1  FAILS" in said
    assert "ZeroDivisionError" in said
    assert "1_4  runs" in said
    assert "2 notebooks, 1 fail" in said


def test_lost_points_are_a_failure(monkeypatch):
    (source,) = run.choose(["1_1"])
    monkeypatch.setattr(run, "execute", lambda notebook, *, where, pictures: notebook)
    name = source.exercises[0].name
    monkeypatch.setattr(run, "earned", lambda notebook: {name: 0.0})
    assert run.run(source) == f"{source.name}: not all points for {name}"
