"""`python -m course run`: execute solution notebooks from top to bottom, and say how long each took.

python -m course run            all notebooks
python -m course run week1      those of one week
python -m course run 1_4 1_5    these

Nothing is written. A notebook fails when a cell raises an error or one of its own checks does not earn all its points.
"""

from __future__ import annotations

import argparse
import time

from nbformat import NotebookNode
from tqdm import tqdm

from course.build import solution_notebook
from course.catalog import graders, sources
from course.execute import execute
from course.source import Cell, NotebookSource, SourceError, checked_in


def main(argv: list[str]) -> int:
    """Execute the chosen notebooks, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m course run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", help="weeks or notebooks, for example week1 or 1_4 (default: all)")
    options = parser.parse_args(argv)
    try:
        chosen = choose(options.notebooks)
    except SourceError as error:
        print(error)
        return 1
    failed, start = 0, time.perf_counter()
    for source in tqdm(chosen, desc="notebooks", leave=False):
        begun = time.perf_counter()
        problem = run(source)
        failed += bool(problem)
        tqdm.write(
            f"{source.id}  {'FAILS' if problem else 'runs '}  {time.perf_counter() - begun:5.0f} s  {source.title}"
        )
        if problem:
            tqdm.write(problem)
    print(f"{len(chosen)} notebooks, {failed} fail, {time.perf_counter() - start:.0f} s in all")
    return int(failed > 0)


def choose(names: list[str]) -> list[NotebookSource]:
    """The notebooks of some weeks ("week1", "week1_foundations") or of some names ("1_4"); all without a name.

    Raises:
        SourceError: if a name stands for no notebook.
    """
    chosen = []
    for name in names:
        found = [s for s in sources() if name in (s.id, s.name, s.week, s.week.partition("_")[0])]
        if not found:
            weeks = sorted({source.week.partition("_")[0] for source in sources()})
            there = ", ".join([*weeks, *(source.id for source in sources())])
            raise SourceError(f"No week or notebook is called {name!r}. There are: {there}.")
        chosen += [source for source in found if source not in chosen]
    return chosen if names else list(sources())


def run(source: NotebookSource) -> str:
    """Execute one notebook's solutions; what went wrong, or an empty string."""
    try:
        notebook = execute(solution_notebook(source), where=source.name, pictures=False)
    except SourceError as error:
        return str(error)
    short = [name for name, points in earned(notebook).items() if points < graders()[name].points]
    return f"{source.name}: not all points for {', '.join(short)}" if short else ""


def earned(notebook: NotebookNode) -> dict[str, float]:
    """The points that the checks of an executed notebook gave, by exercise."""
    points = {}
    for cell in notebook.cells:
        if name := checked_in(Cell(cell.cell_type, cell.source)):
            (output,) = cell.outputs
            points[name] = float(output.data["text/plain"])
    return points
