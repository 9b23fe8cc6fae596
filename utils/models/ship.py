"""From a finished training run to a folder in the repository: weights, measurements and card."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from utils.models.card import Origin, write_card
from utils.models.recipe import Recipe
from utils.models.trials import record_trial

if TYPE_CHECKING:
    from utils.models.measurement import Findings
    from utils.models.training import Training

WORLD_READABLE = 0o644
PACKAGES = ("torch", "transformers", "transformer-lens", "sae-lens")


def ship(training: "Training", recipe: Recipe) -> Path:
    """Put a trained model in its folder in the repository, measure what lies there, and write its card."""
    _save(training, recipe, recipe.folder)
    findings = _measure(recipe, recipe.folder)
    record_trial(recipe, training.seed, findings)
    versions = {package: version(package) for package in PACKAGES}
    return write_card(recipe, Origin(training.seed, training.steps, versions, training.history), findings)


def try_out(training: "Training", recipe: Recipe) -> Path:
    """Measure a trained model as :func:`ship` would, and record it among the trials. The shipped files stay."""
    recipe.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _save(training, recipe, Path(folder))
        return record_trial(recipe, training.seed, _measure(recipe, Path(folder)))


def rewrite_card(recipe: Recipe) -> Path:
    """Measure the shipped files again and write their card anew, after a change in what is measured or said."""
    card = json.loads((recipe.folder / "card.json").read_text(encoding="utf-8"))
    findings = _measure(recipe, recipe.folder)
    record_trial(recipe, card["seed"], findings)
    return write_card(recipe, Origin(card["seed"], card["steps"], card["versions"], card["curve"]), findings)


def _measure(recipe: Recipe, folder: Path) -> "Findings":
    findings = recipe.measure(folder)
    return findings | recipe.measure_slowly(folder) if recipe.measure_slowly else findings


def _save(training: "Training", recipe: Recipe, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(training, recipe, folder)
    for file in folder.iterdir():
        file.chmod(WORLD_READABLE)
