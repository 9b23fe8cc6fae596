"""What every training run of a recipe measured, the shipped one and the others."""

import json
from pathlib import Path

from utils.models.measurement import Findings
from utils.models.recipe import Recipe

FILE = "trials.json"


def record_trial(recipe: Recipe, seed: int, findings: Findings) -> Path:
    """Add a run's values to ``trials.json``, in place of an earlier run of the same seed."""
    file = recipe.folder / FILE
    trials = {**read_trials(recipe.folder), seed: {key: round(m.value, 4) for key, m in findings.measurements.items()}}
    file.write_text(json.dumps(dict(sorted(trials.items())), indent=1) + "\n", encoding="utf-8")
    return file


def read_trials(folder: Path) -> dict[int, dict[str, float]]:
    """The measured values of every run: seed -> name -> value."""
    if not (folder / FILE).is_file():
        return {}
    trials = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return {int(seed): values for seed, values in trials.items()}


def trial_table(folder: Path, shipped_seed: int) -> str:
    """The trials as a Markdown table with a column for each seed, the shipped one in bold."""
    trials = read_trials(folder)
    seeds = [f"**seed {seed}**" if seed == shipped_seed else f"seed {seed}" for seed in trials]
    lines = [f"| measured | {' | '.join(seeds)} |", "|---" * (len(seeds) + 1) + "|"]
    for key in trials.get(shipped_seed, {}):
        cells = [f"{values[key]:.3f}" if key in values else "" for values in trials.values()]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines)
