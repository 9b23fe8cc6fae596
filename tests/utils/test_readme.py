"""The table of the library: every module and function that it names is there, and no module is left out."""

import importlib
import re
from pathlib import Path

import pytest

UTILS = Path(__file__).parents[2] / "utils"
ROWS = re.findall(r"^\| (?!you want|---)[^|]+\| ([^|]+) \| ([^|]+) \|$", (UTILS / "README.md").read_text("utf-8"), re.M)
PARTS_OF_OTHERS = {
    "editing_prompts": "editing",
    "example_views": "explorer",
    "read_weights": "transformer",
    "superposition_plots": "superposition",
    "transformer_weights": "transformer_from_scratch",
    "week1_page": "plots",
}


@pytest.mark.parametrize(("modules", "names"), ROWS)
def test_what_a_row_names_exists(modules, names):
    found = [importlib.import_module(f"utils.{module}") for module in re.findall(r"`([\w.]+)`", modules)]
    for name in re.findall(r"`(\w+)`", names):
        assert any(hasattr(module, name) for module in found), f"no {name} in {modules}"


def test_every_module_is_named():
    named = {module.split(".")[0] for modules, _ in ROWS for module in re.findall(r"`([\w.]+)`", modules)}
    there = {path.stem for path in UTILS.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - named - set(PARTS_OF_OTHERS) == {"__init__", "lazy"}
    assert set(PARTS_OF_OTHERS.values()) <= named
