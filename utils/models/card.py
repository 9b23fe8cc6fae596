"""The card of a shipped model, written from measurements: ``MODEL_CARD.md`` to read, ``card.json`` to check."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.models.load import CARD, sha256
from utils.models.measurement import Findings, Measurement, Table
from utils.models.recipe import Recipe
from utils.models.trials import FILE as TRIALS
from utils.models.trials import read_trials, trial_table

TEXT_CARD, CURVE = "MODEL_CARD.md", "training_curve.svg"
GENERATED = {CARD, TEXT_CARD, CURVE, TRIALS}
CURVE_POINTS = 60


@dataclass(frozen=True)
class Origin:
    """Where a shipped model's weights come from."""

    seed: int
    steps: int
    versions: Mapping[str, str]
    curve: Mapping[str, list[tuple[int, float]]]


def write_card(recipe: Recipe, origin: Origin, findings: Findings) -> Path:
    """Write ``card.json``, ``MODEL_CARD.md`` and ``training_curve.svg`` into a recipe's folder.

    Args:
        recipe: What the model was made from.
        origin: The run that made it.
        findings: What was measured on the files that lie in the folder.

    Returns:
        The path of ``MODEL_CARD.md``.
    """
    folder = recipe.folder
    files = sorted(file for file in folder.iterdir() if file.name not in GENERATED)
    curve = {name: _thin(points) for name, points in origin.curve.items()}
    card = {
        "name": recipe.name,
        "seed": origin.seed,
        "steps": origin.steps,
        "settings": asdict(recipe.settings),
        "versions": dict(origin.versions),
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": {file.name: sha256(file) for file in files},
        "measurements": {key: asdict(measurement) for key, measurement in findings.measurements.items()},
        "tables": {key: asdict(table) for key, table in findings.tables.items()},
        "curve": curve,
    }
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    has_curve = _draw(recipe.name, curve, folder / CURVE)
    (folder / TEXT_CARD).write_text(_text(recipe, card, findings, has_curve), encoding="utf-8")
    return folder / TEXT_CARD


def _text(recipe: Recipe, card: dict, findings: Findings, has_curve: bool) -> str:
    failing = [key for key, measurement in findings.measurements.items() if not measurement.holds]
    parts = [
        f"# {recipe.name}",
        recipe.about.strip(),
        f"Made by `python -m utils.models.train {recipe.name}` (seed {card['seed']}, {card['steps']:,} steps, torch "
        f"{card['versions']['torch']}), {card['bytes'] / 1e6:.2f} MB. Another machine rounds differently: the same "
        f"command then gives a sibling, not a copy. `python -m utils.models.verify {recipe.name}` measures the numbers "
        "below again.",
        "## Measured\n\nOn the files in this folder, with 95 % intervals.",
        _measurement_table(findings.measurements),
        f"Below its bar: {', '.join(failing)}." if failing else "",
        *(f"### {table.title}\n\n{_markdown(table)}" for table in findings.tables.values()),
        f"## Training\n\n![Training curves]({CURVE})" if has_curve else "",
        f"## Seeds\n\nEvery run of this recipe that was measured. The shipped one is in bold.\n\n"
        f"{trial_table(recipe.folder, card['seed'])}"
        if len(read_trials(recipe.folder)) > 1
        else "",
        f"## Known limits\n\n{recipe.limits.strip()}" if recipe.limits else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _measurement_table(measurements: Mapping[str, Measurement]) -> str:
    lines = ["| measured | value | interval | n | bar | what |", "|---" * 6 + "|"]
    for key, m in measurements.items():
        lines.append(f"| {key} | {m.value:.3f} | {m.low:.3f} to {m.high:.3f} | {m.n} | {m.bar} | {m.what} |")
    return "\n".join(lines)


def _markdown(table: Table) -> str:
    lines = [f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    for row in table.rows:
        lines.append("| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in row) + " |")
    return "\n".join(lines)


def _thin(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most ``CURVE_POINTS`` points of a curve: means over stretches of equal length."""
    stretch = -(-len(points) // CURVE_POINTS)
    groups = [points[start : start + stretch] for start in range(0, len(points), max(stretch, 1))]
    return [(group[0][0], round(sum(value for _, value in group) / len(group), 5)) for group in groups]


def _draw(name: str, curve: Mapping[str, list[tuple[int, float]]], file: Path) -> bool:
    """Draw the training curves one above another. False where there is nothing to draw, or no browser to draw it."""
    if not curve:
        return False
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=len(curve), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(curve))
    for row, (what, points) in enumerate(curve.items(), start=1):
        figure.add_scatter(x=[step for step, _ in points], y=[value for _, value in points], row=row, col=1)
        figure.update_yaxes(title_text=what, row=row, col=1)
    figure.update_xaxes(title_text="training step", row=len(curve), col=1)
    figure.update_layout(
        title=f"{name} while it was trained",
        showlegend=False,
        template="plotly_white",
        width=700,
        height=120 + 150 * len(curve),
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
    )
    with contextlib.suppress(Exception):  # kaleido needs a browser: without one the card has no picture
        figure.write_image(file)
    return file.is_file()
