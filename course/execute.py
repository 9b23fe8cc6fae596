"""Runs a solution notebook and tidies its outputs, so that two runs on one machine give the same file."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from course.grading import environment
from course.paths import ROOT
from course.source import SourceError

SECONDS_PER_CELL = 600
WIDGET = "application/vnd.jupyter.widget-view+json"
PROGRESS = re.compile(r"\d+%\||\d+it \[")
RANDOM_DIV = re.compile(r"circuits-vis-[0-9a-f-]{6,}")


def execute(notebook: NotebookNode, *, where: str, pictures: bool = True) -> NotebookNode:
    """Execute in place, in the folder of the sources, offline and with nothing recorded as the learner's progress.

    Args:
        where: the source's path, for messages.
        pictures: store a PNG beside each Plotly figure (needs kaleido and Chrome or Chromium), since GitHub
            does not run Plotly's JavaScript.

    Raises:
        SourceError: if a cell fails; the message quotes the cell and its error.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    renderer = "plotly_mimetype+png" if pictures else "plotly_mimetype"
    with tempfile.TemporaryDirectory() as folder:
        variables = {
            "COURSE_PROGRESS": str(Path(folder, "progress.sqlite")),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "2",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PLOTLY_RENDERER": renderer,
            "PYTHONHASHSEED": "0",
        }
        with environment(**variables):
            client = NotebookClient(
                notebook,
                timeout=SECONDS_PER_CELL,
                kernel_name="python3",
                record_timing=False,
                store_widget_state=False,
                coalesce_streams=True,
                resources={"metadata": {"path": str(ROOT / "solutions")}},
            )
            try:
                client.execute(stderr=subprocess.DEVNULL)  # the kernel's own log; what cells write is in their outputs
            except CellTimeoutError as error:
                raise SourceError(f"{where}: a cell ran longer than {SECONDS_PER_CELL} seconds.") from error
            except CellExecutionError as error:
                raise SourceError(f"{where}: {error.ename}: {error.evalue}\n{_cell_that_failed(notebook)}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [tidy(output) for output in cell.outputs if not is_noise(output)]
    return notebook


def is_noise(output: NotebookNode) -> bool:
    """Whether an output is nobody's result: a progress bar, or a complaint of the program that draws the pictures."""
    data = output.get("data", {})
    is_bar = WIDGET in data and PROGRESS.search(data.get("text/plain", "")) is not None
    return is_bar or (output.get("name") == "stderr" and "choreographer" in output.text)


def _cell_that_failed(notebook: NotebookNode) -> str:
    failed = next((c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", []))), None)
    return f"in the cell\n\n{failed.source}" if failed else ""


def tidy(output: NotebookNode) -> NotebookNode:
    """Take out what differs from run to run: random ids of elements and widgets, the root folder's absolute path."""
    names: dict[str, str] = {}
    output.get("data", {}).pop(WIDGET, None)
    for mime, content in list(output.get("data", {}).items()):
        if isinstance(content, str) and not mime.startswith("image/"):
            content = RANDOM_DIV.sub(lambda match: names.setdefault(match[0], f"circuits-vis-{len(names)}"), content)
            output["data"][mime] = content.replace(str(ROOT) + os.sep, "")
    if "text" in output:
        output["text"] = output["text"].replace(str(ROOT) + os.sep, "")
    return output
