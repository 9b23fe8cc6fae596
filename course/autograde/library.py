"""The copy of `utils` that a sandbox sees: without the functions that exercises ask for, and ready to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
from collections.abc import Iterable
from pathlib import Path

from course.catalog import graders, sources
from course.extract import Code, without_magics
from course.paths import ROOT
from course.solutions import grader_class

LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.md")
LATE = (  # what libraries import when they are first used: once in memory, no check has to wait for it
    "torch.utils.serialization.config",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.gpt2.tokenization_gpt2",
    "transformers.models.gpt_neo.modeling_gpt_neo",
    "transformer_lens.model_bridge.sources.native.model",
)
REFUSAL = 'raise RuntimeError("This function is what an exercise asks you to write.")'


def write_library(folder: Path, forbidden: Iterable[str]) -> Path | None:
    """Copy `utils` into `folder` without the bodies of the functions with these dotted names.

    Returns:
        The copy; None in a course without `utils`.
    """
    if not (ROOT / "utils").is_dir():
        return None
    copy = folder / "utils"
    shutil.copytree(ROOT / "utils", copy, ignore=LEFT_OUT)
    by_file: dict[Path, set[str]] = {}
    for name in forbidden:
        module, _, function = name.rpartition(".")
        by_file.setdefault(_file_that_defines(module, function), set()).add(function)
    for path, functions in by_file.items():
        target = copy / path.relative_to(ROOT / "utils")
        target.write_text(without_bodies(path.read_text(encoding="utf-8"), functions), encoding="utf-8", newline="\n")
    return copy


def without_bodies(code: str, functions: set[str]) -> str:
    """The code with the bodies of some top-level functions replaced by a refusal; line numbers stay.

    Raises:
        LookupError: if one of them is not there.
    """
    lines = code.splitlines()
    found = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    missing = functions - set(found)
    if missing:
        raise LookupError(f"{', '.join(sorted(missing))}: not a function at the top level of its file.")
    for name in functions:
        body = found[name].body
        start, end = body[0].lineno - 1, body[-1].end_lineno
        indent = " " * body[0].col_offset
        if found[name].lineno == body[0].lineno:  # on one line: def f(x): return x
            lines[start] = lines[start][: body[0].col_offset] + REFUSAL
            start, indent = start + 1, ""
        else:
            lines[start] = indent + REFUSAL
            start += 1
        lines[start:end] = [""] * (end - start)
    return "\n".join(lines) + "\n"


def forbids_of(exercise: str) -> tuple[str, ...]:
    """The dotted names of the `utils` functions that an answer to this exercise may not call."""
    return tuple(grader_class(graders()[exercise]).forbids)


def all_forbids() -> set[str]:
    """Those of every exercise of the course."""
    return {name for exercise in graders() for name in forbids_of(exercise)}


def modules_used() -> list[str]:
    """What solution notebooks import, and modules with forbidden functions: to be in memory before any fork."""
    found = {*LATE, *(name.rpartition(".")[0] for name in all_forbids())}
    for source in sources():
        for node in ast.walk(ast.parse(_code_of(source.path))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
                found |= {f"{node.module}.{alias.name}" for alias in node.names if _is_module(node.module, alias.name)}
    return sorted(name for name in found if name.split(".")[0] not in ("course", "tests", "solutions"))


def _code_of(path: Path) -> str:
    return "\n".join(without_magics(cell) for cell in Code.read(path).cells)


def _is_module(package: str, name: str) -> bool:
    folder = ROOT / package.replace(".", "/")
    return (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()


def _file_that_defines(module: str, function: str) -> Path:
    """The file of `utils` that holds a function's definition, also where `module` only passes it on."""
    target = inspect.unwrap(getattr(importlib.import_module(module), function))
    return Path(target.__code__.co_filename)
