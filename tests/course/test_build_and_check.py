"""From one source to notebooks, and what `course check` says when something is out of step."""

import json

import nbformat
import pytest

from course.build import clear_solution


def test_a_new_notebook_is_green_at_once(built_course):
    result = built_course.run("check")
    assert result.returncode == 0, result.stdout
    assert "Everything is in step." in result.stdout


def test_two_builds_are_byte_identical(small_course):
    paths = (small_course.student, small_course.solved, "README.md")
    before = [small_course.read(path) for path in paths]
    for path in paths[:2]:
        (small_course.root / path).unlink()
    assert small_course.run("build", "--force").returncode == 0
    assert [small_course.read(path) for path in paths] == before


def test_the_student_notebook_has_stubs_no_outputs_and_no_hints(built_course):
    notebook = nbformat.reads(built_course.read(built_course.student), as_version=4)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    stub = next(cell for cell in code if f"def {built_course.exercise}" in cell)
    assert stub.endswith("    raise NotImplementedError")
    assert "matrix.mean" not in "".join(code)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert "Hints" not in built_course.read(built_course.student)
    assert notebook.cells[0].source.count("colab-badge") == 1
    assert len(notebook.cells[1].source.splitlines()) <= 5


def test_the_solution_notebook_is_executed_and_the_check_is_partial_credit(built_course):
    notebook = nbformat.reads(built_course.read(built_course.solved), as_version=4)
    check = next(cell for cell in notebook.cells if cell.source == f"check({built_course.exercise})")
    assert check.metadata["nbgrader"]["points"] == 2
    (output,) = check.outputs
    assert float(output.data["text/plain"]) == 2
    assert "pass" in output.data["text/html"]


def test_the_readme_lists_the_notebook(built_course):
    assert "[1.9 Small](curriculum/week1_foundations/1_9_small.ipynb)" in built_course.read("README.md")


def test_clearing_keeps_the_indentation_and_what_stands_around():
    code = (
        "class A:\n    def f(self):\n        ### BEGIN SOLUTION\n        return 1\n        ### END SOLUTION\n    x = 2"
    )
    assert clear_solution(code) == "class A:\n    def f(self):\n        raise NotImplementedError\n    x = 2"


SOURCE, GRADER = "solutions/week1_foundations/1_9_small.py", "tests/week1_foundations/test_1_9_small.py"


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        pytest.param(SOURCE, "return matrix.mean(dim=1)", "return matrix.mean(1)", "1_9_small.ipynb: out of date", id="stale"),
        pytest.param(SOURCE, "# 3. Nearly the code.\n", "", "has 2 hints", id="missing hint"),
        pytest.param(GRADER, '        "sums instead of averaging": lambda matrix: matrix.sum(dim=1),\n', "", "2 mutants", id="mutant"),
        pytest.param(GRADER, '        "a loop": lambda matrix: [float(sum(row)) / len(row) for row in matrix],\n', "", "1 alternatives", id="alternative"),
        pytest.param(GRADER, '@exercise("row_means_1_9")', '@exercise("other")', "no grader for `row_means_1_9`", id="no grader"),
        pytest.param(GRADER, "    @points(2,", "    def test_more(self, answer): ...\n\n    @points(2,", "has no @points", id="no points"),
        pytest.param(SOURCE, "# %%\ncheck(row_means_1_9)\n", "", "has 0 cells 'check(row_means_1_9)'", id="no check cell"),
        pytest.param(SOURCE, "difficulty 1/5 ·", "difficulty 7/5 ·", "must read like", id="malformed exercise line"),
        pytest.param(SOURCE, "#     minutes: 60\n", "", "course: minutes", id="malformed header"),
        pytest.param(SOURCE, "# %%\nimport torch", "# %% tags=[broken\nimport torch", "malformed cell metadata", id="metadata typo"),
        pytest.param(SOURCE, "# Why this matters,", "# See /home/someone/x.txt.", "absolute path '/home/someone", id="absolute path"),
        pytest.param(SOURCE, "# Why this matters,", "# See [this](../nowhere.md).", "broken link to '../nowhere.md'", id="broken link"),
        pytest.param("README.md", "# Small", "# Small [x](gone.md)", "README.md: broken link to 'gone.md'", id="broken link in README"),
        pytest.param("README.md", "| 60 |", "| 90 |", "table of notebooks is out of date", id="stale table"),
        pytest.param(SOURCE, '\nreveal("guess_1_9", example[0])', "", "is never revealed", id="prediction never revealed"),
        pytest.param(
            SOURCE,
            '\nreveal("guess_1_9", example[0])',
            '\nreveal("guess_1_9", example[0])\nprint()',
            "shows nothing where it stands",
            id="verdict that nobody sees",
        ),
    ],
)  # fmt: skip
def test_check_says_what_is_wrong(small_course, path, old, new, said):
    small_course.edit(path, old, new)
    result = small_course.run("check")
    assert result.returncode == 1
    assert said in result.stdout


def test_check_finds_duplicate_names(small_course):
    copy = small_course.read(SOURCE)
    (small_course.root / "solutions/week1_foundations/1_8_copy.py").write_text(copy, encoding="utf-8")
    said = small_course.run("check").stdout
    assert "Exercise `row_means_1_9` is in solutions/week1_foundations/1_8_copy.py and in" in said


def test_check_finds_orphans(small_course):
    orphan = small_course.root / "curriculum/week1_foundations/1_7_gone.ipynb"
    orphan.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    assert "no source makes this notebook" in small_course.run("check").stdout


def test_a_failing_cell_fails_the_build_with_its_place(small_course):
    small_course.edit(SOURCE, "example = row_means_1_9(", "example = 1 / 0 * row_means_1_9(")
    result = small_course.run("build")
    assert result.returncode == 1
    assert "1_9_small.py" in result.stdout + result.stderr
    assert "ZeroDivisionError" in result.stdout + result.stderr


def test_new_refuses_bad_names_and_taken_numbers(small_course):
    assert "Expected something like '2_3 path_patching'" in small_course.run("new", "23", "Path").stdout
    assert "exists already" in small_course.run("new", "1_9", "other").stdout
