import json

import pytest

from course.extract import CannotExtract, Code, extract


def code(*cells: str) -> Code:
    return Code("answers.ipynb", cells)


def test_only_what_the_function_needs_is_run():
    cells = code(
        "import math\nraise RuntimeError('a cell that fails')",
        "SCALE = 2\nother = 1 / 0",
        "def helper(x):\n    return SCALE * x",
        "def wanted(x):\n    return helper(x) + math.floor(0.5)",
        "wanted(3) / 0",
    )
    assert extract(cells, "wanted")(4) == 8


def test_local_names_pull_nothing_in():
    cells = code(
        "words = 1 / 0", "def f(items):\n    words = [w for w in items]\n    return len(words)", "for w in f(1): pass"
    )
    assert extract(cells, "f")([1, 2]) == 2


def test_the_last_definition_counts():
    assert extract(code("def f(): return 1", "def f(): return 2"), "f")() == 2


def test_magics_and_broken_cells_elsewhere_do_no_harm():
    cells = code("%pip install x\n!ls\ndef f():\n    return 1", "%%bash\necho", "def g(:\n  pass", "x = (")
    assert extract(cells, "f")() == 1


@pytest.mark.parametrize("cell", ["def g(a, a): pass", "nonlocal x", "-" * 100_000 + "1", "x = '\0'"])
def test_a_cell_that_is_read_and_cannot_be_compiled_does_no_harm_to_others(cell):
    assert extract(code(cell, "def f(): return 1"), "f")() == 1


@pytest.mark.parametrize(
    "cell",
    [
        "A = 1; B = 2;\ndef f(): return A + B  # the end",
        "A = 1; \\\nB = 2\ndef f(): return A + B",
        "A, B = 1, 2; f = lambda: A + B; plot(A)",
        "import functools\nA = 1\nB = 2\n\n@functools.cache\n# explained\ndef f(): return (A +\n  B)",
        "A = len('a\u2028')\r\nB = 1\r\ndef f(): return A + B",
    ],
)
def test_statements_are_found_however_they_are_written(cell):
    assert extract(code(cell), "f")() == 3


def test_a_function_assigned_from_another_is_found():
    assert extract(code("def g(): return 3", "f = g"), "f")() == 3


def test_defaults_decorators_annotations_and_classes_are_followed():
    cells = code(
        "import functools\nfrom dataclasses import dataclass",
        "BASE = 5\n@dataclass\nclass Box:\n    value: int = BASE",
        "@functools.lru_cache\ndef f(n: int, box: Box = Box()) -> Box:\n    return box.value + n",
    )
    assert extract(cells, "f")(1) == 6


def test_values_built_in_steps_are_complete():
    cells = code("TABLE = {}", "TABLE['a'] = 1\nTABLE['b'] = 2", "def f(): return sorted(TABLE)")
    assert extract(cells, "f")() == ["a", "b"]


def test_conditional_imports_are_followed():
    cells = code("try:\n    import numpy as np\nexcept ImportError:\n    np = None", "def f(): return np is not None")
    assert extract(cells, "f")() is True


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("x = 1",), "wanted is not defined"),
        (("def wanted(x:\n    return x",), "Syntax error in line 1"),
        (("a = 1\n\ndef wanted(x, x):\n    return x",), "Syntax error in line 3"),
        (("y = 1 / 0\ndef wanted(): return y",), "raised ZeroDivisionError"),
        (("import no_such_module_here\ndef wanted(): return no_such_module_here",), "ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_extracted_is_said(cells, said):
    with pytest.raises(CannotExtract, match=said):
        extract(code(*cells), "wanted")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ipynb", b"{}", "not a Jupyter notebook"),
        ("a.ipynb", b"not json", "not a Jupyter notebook"),
        ("a.py", b"\xff\xfe\x00x", "not a UTF-8"),
    ],
)
def test_unreadable_files_are_said(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CannotExtract, match=said):
        Code.read(tmp_path / name)


def test_notebook_sources_may_be_strings_or_lists(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": "text"},
        {"cell_type": "code", "source": ["def f():\n", "    return 1"]},
        {"cell_type": "code", "source": "x = 1"},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert Code.read(tmp_path / "n.ipynb").cells == ("def f():\n    return 1", "x = 1")


def test_a_helper_that_is_defined_again_and_again_is_there_when_it_is_used():
    cells = tuple(
        f"def wrap(function):\n    return lambda x: {number} + function(x)\n"
        f"def answer_{number}(x):\n    return x\nanswer_{number} = wrap(answer_{number})"
        for number in (1, 2, 3)
    )
    assert [extract(Code("n.ipynb", cells), f"answer_{number}")(0) for number in (1, 2, 3)] == [1, 2, 3]


def test_what_is_used_at_once_is_taken_from_before_and_what_is_used_later_from_the_end():
    cells = ("SIZE = 1", "FIRST = [SIZE]", "SIZE = 2", "def answer():\n    return FIRST, SIZE")
    assert extract(Code("n.ipynb", cells), "answer")() == ([1], 2)


def test_a_default_is_taken_from_before_its_function():
    cells = ("SIZE = 1", "def answer(size=SIZE):\n    return size", "SIZE = undefined")
    with pytest.raises(CannotExtract, match="undefined"):
        extract(Code("n.ipynb", cells), "answer")
    cells = ("SIZE = 1", "def answer(size=SIZE):\n    return size", "SIZE = 2")
    assert extract(Code("n.ipynb", cells), "answer")() == 1
