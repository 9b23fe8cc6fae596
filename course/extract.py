"""Takes one function out of a notebook or file, with what it needs and nothing else.

A notebook is full of statements that cost time or fail: plots, trainings, unfinished cells. To grade one
function, only the top-level statements that it depends on are run: its definition, the imports, helpers and
constants that these names lead to, and so on. Statements that only do something are left out.
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import re
import symtable
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CannotExtract(Exception):
    """The function is not there, or the code around it cannot be read; the message says which."""


@dataclass(frozen=True)
class Code:
    """Source text by cell; a plain file is one cell."""

    name: str  # for messages, "1_4_attention_detective.ipynb"
    cells: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Code:
        """Read an `.ipynb`, or a `.py` (percent format or plain).

        Raises:
            CannotExtract: if the file is not text or not a notebook.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise CannotExtract(f"{path.name} is not a UTF-8 text file.") from None
        if path.suffix == ".ipynb":
            return cls.of_notebook(path.name, text)
        cells = re.split(r"(?m)^# %%.*$", text)
        return cls(path.name, tuple(cell for cell in cells if cell.strip()))

    @classmethod
    def of_notebook(cls, name: str, text: str) -> Code:
        """The code cells of an `.ipynb`, given as its text.

        Raises:
            CannotExtract: if it is not a notebook.
        """
        return cls(name, _notebook_cells(name, text))


def extract(code: Code, name: str) -> Callable:
    """Define `name` in a fresh namespace and return it.

    The last definition counts, as it would in a notebook run from top to bottom.

    Raises:
        CannotExtract: if `name` is not defined, or a statement that it needs fails.
    """
    statements = _statements(code, name)
    needed = _needed(statements, name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for statement in needed:
        try:
            exec(statement.compiled(), namespace)
        except Exception as error:
            line = f"line {statement.node.lineno} of {statement.place}"
            raise CannotExtract(f"`{name}` needs {line}, which raised {type(error).__name__}: {error}") from error
    return namespace[name]


@dataclass(frozen=True)
class Statement:
    """One top-level statement with the names it binds and the names it uses."""

    node: ast.stmt
    place: str
    binds: frozenset[str]
    uses: frozenset[str]

    def compiled(self) -> Any:
        return compile(ast.Module([self.node], []), f"<{self.place}>", "exec")


def _statements(code: Code, wanted: str) -> list[Statement]:
    """All statements in order. A cell with a syntax error is skipped unless it seems to define `wanted`."""
    found = []
    for number, cell in enumerate(code.cells, start=1):
        source = without_magics(cell)
        place = code.name if len(code.cells) == 1 else f"{code.name}, code cell {number}"
        try:
            found += _statements_of(source, place)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if re.search(rf"(?m)^(async\s+)?(def|class)\s+{wanted}\b", source):
                line = getattr(error, "lineno", "?")
                raise CannotExtract(
                    f"Syntax error in line {line} of {place}: {getattr(error, 'msg', error)}."
                ) from None
            continue
        linecache.cache[f"<{place}>"] = (len(source), None, source.splitlines(keepends=True), f"<{place}>")
    return found


def _statements_of(source: str, place: str) -> list[Statement]:
    """Those of one cell.

    Raises:
        SyntaxError: if Python cannot read it.
        ValueError: likewise.
    """
    lines, found = source.split("\n"), []
    for node in ast.parse(source).body:
        table = symtable.symtable(_text(node, lines), "statement", "exec")
        found.append(Statement(node, place, _bound(node, table), _used(table)))
    return found


def _text(node: ast.stmt, lines: list[str]) -> str:
    """A statement's own lines, below empty ones; if they hold more than it, what `ast` writes, which takes longer."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
    rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].strip()
    if node.col_offset or (rest and not rest.startswith(b"#")):
        return ast.unparse(node)
    return "\n" * (first - 1) + "\n".join(lines[first - 1 : node.end_lineno])


def _needed(statements: list[Statement], name: str) -> list[Statement]:
    """The statements that `name` depends on, in the order of the notebook."""
    binders: dict[str, list[int]] = {}
    for index, statement in enumerate(statements):
        for bound in statement.binds:
            binders.setdefault(bound, []).append(index)
    if not any(_defines(statements[i].node, name) for i in binders.get(name, [])):
        raise CannotExtract(f"{name} is not defined there.")
    stars = [i for i, statement in enumerate(statements) if _is_star_import(statement.node)]
    end = len(statements)
    chosen: set[int] = set()
    wanted, seen = [(name, end)], set()
    while wanted:
        current, before = wanted.pop()
        if (current, before) in seen or hasattr(builtins, current):
            continue
        seen.add((current, before))
        if current not in binders:
            chosen.update(stars)  # the name may come from any of them
            continue
        for index in _relevant(binders[current], statements, current, before):
            if index not in chosen:
                chosen.add(index)
                wanted += [(used, end) for used in statements[index].uses]
                wanted += [(used, index) for used in _used_at_once(statements[index])]
    return [statements[index] for index in sorted(chosen)]


def _relevant(indices: list[int], statements: list[Statement], name: str, before: int) -> list[int]:
    """The last definition of a name and what changes it afterwards; all of them where none is a definition.

    Only what stands before the statement with the number `before` counts, unless there is nothing: cells can have been
    run in another order.
    """
    indices = [index for index in indices if index < before] or indices
    defining = [place for place, index in enumerate(indices) if _defines(statements[index].node, name)]
    return indices[defining[-1] :] if defining else indices


def _used_at_once(statement: Statement) -> frozenset[str]:
    """The names that a statement needs when it is run: of a function only its decorators, defaults and annotations."""
    node = statement.node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return statement.uses
    arguments = [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
    parts = [*node.decorator_list, *arguments]
    return frozenset(item.id for part in parts for item in ast.walk(part) if isinstance(item, ast.Name))


def _is_star_import(node: ast.stmt) -> bool:
    """`from somewhere import *`, but for the bootstrap's, which brings only check, hint and the like."""
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and node.module != "course.notebook"


def _defines(node: ast.stmt, name: str) -> bool:
    """Whether the statement gives the name a whole new value, as `TABLE["a"] = 1` does not."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    return _is_definition(node)


def _is_definition(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _bound(node: ast.stmt, table: symtable.SymbolTable) -> frozenset[str]:
    """Names that a top-level statement binds, by definition, import or assignment, or changes: `TABLE["a"] = 1`."""
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    if not _is_definition(node):
        for item in ast.walk(node):
            if isinstance(item, ast.Attribute | ast.Subscript) and isinstance(item.ctx, ast.Store):
                names |= {base.id for base in ast.walk(item.value) if isinstance(base, ast.Name)}
    return frozenset(names)


def _used(table: symtable.SymbolTable) -> frozenset[str]:
    """Global names that a statement reads, those inside function bodies included; local variables do not count."""
    names: set[str] = set()
    tables = [table]
    while tables:
        table = tables.pop()
        at_top = table.get_type() == "module"
        names |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (at_top or s.is_global())}
        tables += table.get_children()
    return frozenset(names)


def without_magics(cell: str) -> str:
    """Blank out IPython's % and ! lines, keeping the line numbers; a %% cell is no Python at all."""
    if cell.lstrip().startswith("%%"):
        return ""
    lines = re.split(r"\r\n|\r|\n", cell)  # as Python does; splitlines would cut inside some strings
    return "\n".join("" if re.match(r"\s*[%!?]", line) else line for line in lines)


def _notebook_cells(name: str, text: str) -> tuple[str, ...]:
    try:
        cells = json.loads(text)["cells"]
        return tuple("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CannotExtract(f"{name} is not a Jupyter notebook (format 4): {type(error).__name__}: {error}") from None
