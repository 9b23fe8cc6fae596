"""Measure a pool against its truth, without saying what that is, and write the pool's card."""

import json
from importlib.metadata import version
from pathlib import Path

import torch

from utils.models.card import _markdown, _measurement_table
from utils.models.load import CARD, sha256
from utils.models.measurement import Findings, Measurement, Table, mean, proportion
from utils.models.mystery.families import FAMILIES
from utils.models.mystery.network import Network, Shape
from utils.models.mystery.pool import POOL, Mystery, mystery_names
from utils.models.mystery.score import component_score, held_out_inputs
from utils.models.mystery.truth import Truth, unseal

N_FAST, N_FULL, N_CAUSAL = 1000, 10_000, 256
HELD_OUT_SEED = 1
CPU_SECONDS_BAR = 60.0


def measure_pool(fast: bool = True, pool: Path = POOL, truths: Path | None = None) -> Findings:
    """Measure every mystery of a pool on fresh inputs against its unsealed truth.

    Args:
        fast: Accuracy on 1,000 inputs each. Otherwise on 10,000, with the causal test of every circuit.
        pool: The pool's folder.
        truths: The instructor's file, for a pool that was made with one.

    Returns:
        One measurement for each mystery, and some over all. Nothing in them names a task or a component.
    """
    opened = [Mystery(pool / name) for name in mystery_names(pool)]
    known = [unseal(mystery, truths) for mystery in opened]
    n = N_FAST if fast else N_FULL
    found = {m.name: _accuracy(m, truth, n, truths) for m, truth in zip(opened, known, strict=True)}
    key = "accuracy" if fast else "accuracy_full"
    found = {f"{name}_{key}": measurement for name, measurement in found.items()}
    found["cpu_seconds"] = _cpu_seconds(known)
    if fast:
        return Findings(found)
    causal, table = _causal(opened, known, truths)
    return Findings({**found, **causal}, {"causal": table})


@torch.no_grad()
def _accuracy(mystery: Mystery, truth: Truth, n: int, truths: Path | None) -> Measurement:
    """Through the bridge, as a learner runs it."""
    tokens = held_out_inputs(mystery, n, HELD_OUT_SEED, truths)
    said = torch.cat([mystery.model(part)[:, -1].argmax(-1) for part in tokens.split(1000)])
    return proportion(said == truth.task.answer(tokens), "right answers on fresh inputs", at_least=0.99)


def _cpu_seconds(known: list[Truth]) -> Measurement:
    seconds = [truth.cpu_seconds for truth in known]
    what = "CPU seconds of the longest training, as recorded (the interval is the range)"
    return Measurement(max(seconds), min(seconds), max(seconds), len(seconds), what, at_most=CPU_SECONDS_BAR)


def _causal(opened: list[Mystery], known: list[Truth], truths: Path | None) -> tuple[dict[str, Measurement], Table]:
    rows = []
    for mystery, truth in zip(opened, known, strict=True):
        score = component_score(truth.circuit, mystery, N_CAUSAL, HELD_OUT_SEED, truths)
        rows.append([mystery.name, score.kept, score.removed, score.floor, score.others.value, score.as_good])
    columns = ("mystery", "circuit alone", "without circuit", "without all", "other sets", "as good")
    kept, removed, floor, others = torch.tensor([row[1:5] for row in rows]).T
    found = {
        "circuit_alone": mean(kept, "probability of the own answers with the circuit alone", at_least=0.95),
        "without_circuit": mean(removed - floor, "the same without the circuit, less without all", at_most=0.1),
        "other_sets": mean(others, "alone minus without, mean of other sets of the same size"),
    }
    return found, Table("Causal test of the sealed circuits", columns, rows, tolerance=0.03)


def write_pool_card(pool: Path, truths: Path | None = None) -> Path:
    """Measure a pool and write its ``MODEL_CARD.md`` and ``card.json``.

    Returns:
        The path of ``MODEL_CARD.md``.
    """
    findings = measure_pool(True, pool, truths) | measure_pool(False, pool, truths)
    files = sorted(file for file in pool.glob("*/*") if file.is_file())
    card = {
        "name": pool.name,
        "versions": {"torch": version("torch")},
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": {file.relative_to(pool).as_posix(): sha256(file) for file in files},
        "measurements": {key: vars(measurement) for key, measurement in findings.measurements.items()},
        "tables": {key: vars(table) for key, table in findings.tables.items()},
    }
    (pool / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    tables = [f"### {table.title}\n\n{_markdown(table)}" for table in findings.tables.values()]
    parts = [_introduction(), _measurement_table(findings.measurements), *tables]
    (pool / "MODEL_CARD.md").write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    return pool / "MODEL_CARD.md"


def _introduction() -> str:
    shape = Shape()
    parameters = sum(parameter.numel() for parameter in Network(shape).parameters())
    text = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    return text.format(parameters=parameters, families=len(FAMILIES), **vars(shape))
