"""The Activation Explorer of notebook 1.3 in a real JupyterLab: unfinished, then with the learner's functions.

Needs what `test_jupyterlab.py` needs. Screenshots go to the same folder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from course.catalog import exercises

if TYPE_CHECKING:
    from lab_page import LabPage
    from playwright.sync_api import Locator

NOTEBOOK = "curriculum/week1_foundations/1_3_activation_explorer.ipynb"
PARTS = ("corpus_activations", "top_examples", "context_window", "coloured_text", "logit_weights")
PATTERN = ".js-plotly-plot .heatmaplayer image"


def dashboard_cell(page: LabPage) -> int:
    """The position of the cell that makes the dashboard."""
    (found,) = (i for i, c in enumerate(page.cells) if c.cell_type == "code" and "explorer = Explorer(" in c.source)
    return found


def type_into(cell: Locator, label: str, text: str) -> None:
    """Replace what stands in the dashboard's field with this label, and press Enter."""
    field = cell.locator(".widget-inline-hbox", has_text=label).locator("input")
    field.fill(text)
    field.press("Enter")


def says(cell: Locator, text: str) -> None:
    """Wait until the dashboard shows a text."""
    cell.locator(".widget-html", has_text=text).first.wait_for(timeout=30_000)


@pytest.fixture
def opened(open_notebook: Callable[[str], LabPage]) -> tuple[LabPage, int]:
    """The student notebook, run up to the first model; the position of the dashboard's cell."""
    page = open_notebook(NOTEBOOK)
    first_exercise = page.index_of("kl_divergence")
    for index in page.code_cells(0, first_exercise)[:3]:
        page.run(index)
    return page, dashboard_cell(page)


def test_unfinished_parts_are_named_and_the_head_is_shown(opened: tuple[LabPage, int]) -> None:
    page, index = opened
    for name in PARTS:
        page.run(page.index_of(name))
    page.run(index)
    cell = page.cell(index)
    says(cell, "corpus_activations is not written yet")
    cell.locator(PATTERN).wait_for(timeout=30_000)
    page.picture("explorer_1_unfinished", index)
    assert page.errors() == []


def test_shows_what_a_learner_chooses(opened: tuple[LabPage, int]) -> None:
    page, index = opened
    for name in PARTS:
        page.replace(page.index_of(name), exercises()[name].solution)
        page.run(page.index_of(name))
    page.run(index)
    cell = page.cell(index)
    says(cell, "Top examples of neuron 2.55")
    cell.locator(PATTERN).wait_for(timeout=30_000)
    page.picture("explorer_2_opened", index)

    type_into(cell, "prompt", "people in Senegal speak")
    says(cell, "Senegal")
    cell.locator(".xtick", has_text="Senegal").first.wait_for(timeout=30_000)
    type_into(cell, "neuron", "34")
    says(cell, "Top examples of neuron 2.34")
    type_into(cell, "layer", "1")
    says(cell, "Top examples of neuron 1.34")
    type_into(cell, "head", "3")
    cell.locator(".gtitle", has_text="Where head 1.3 looks").wait_for(timeout=30_000)
    page.picture("explorer_3_chosen", index)
    cell.screenshot(path=page.artefacts / "explorer_4_whole.png")

    type_into(cell, "prompt", "the capital of Gondor is")
    says(cell, "Not in the model's vocabulary: 'Gondor'")
    says(cell, "Top examples of neuron 1.34")
    page.picture("explorer_5_unknown_word", index)
    type_into(cell, "prompt", "the capital of France is")
    cell.locator(".xtick", has_text="France").first.wait_for(timeout=30_000)

    assert page.errors() == []
    assert page.hardly_readable() == []
    page.theme("JupyterLab Dark")
    page.picture("explorer_6_dark", index)
    assert page.hardly_readable() == []
