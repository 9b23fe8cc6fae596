"""The truth about a mystery: its task, and what each of its components was measured to contribute."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.models.load import WEIGHTS, sha256
from utils.models.measurement import Measurement, mean, proportion
from utils.models.mystery.ablation import answers, mean_outputs, replace_by
from utils.models.mystery.circuits import is_minimal, set_effects
from utils.models.mystery.families import Task
from utils.models.mystery.instance import task_of, task_record
from utils.models.mystery.network import Network
from utils.models.mystery.pool import SEAL, Mystery
from utils.models.mystery.seal import open_seal, seal
from utils.models.mystery.train import Trained

TRUTH_SEED = 2**50
"""The seed of the inputs that the truth is measured on. Training and its checks have seeds below it."""
N_INPUTS = 2000
WORTH_NOTING = 0.2


@dataclass(frozen=True)
class Truth:
    """What a grader knows about a mystery.

    Attributes:
        task: The task, whose ``answer`` and ``sample`` are exact.
        accuracy: The share of right answers on fresh inputs.
        circuit: The components that carry the task.
        kept: The mean probability of the network's own answers with all other components mean-ablated.
        removed: The same with the circuit mean-ablated.
        floor: The same with all components mean-ablated.
        intact: The same with nothing ablated.
        minimal: Whether no smaller set of components keeps 95 % of that probability.
        effects: For each component the loss of accuracy when it alone is mean-ablated.
        attention: For each head of the circuit what it reads: (head, from where, to what, mean attention weight).
        seed: The seed of the network that was kept.
        steps: How many training steps it took.
        cpu_seconds: How long all attempts took.
    """

    task: Task
    accuracy: Measurement
    circuit: tuple[str, ...]
    kept: float
    removed: float
    floor: float
    intact: float
    minimal: bool
    effects: Mapping[str, Measurement]
    attention: tuple[tuple[str, str, str, float], ...]
    seed: int
    steps: int
    cpu_seconds: float

    def __str__(self) -> str:
        lines = [self.task.truth, f"accuracy           {self.accuracy}"]
        lines.append(f"circuit            {', '.join(self.circuit)}{'' if self.minimal else ' (a smaller one exists)'}")
        lines.append(f"own answers kept   {self.kept:.3f} with it alone, {self.removed:.3f} without it")
        lines += [f"{component:18} {effect}" for component, effect in self.effects.items()]
        lines += [f"{head:18} {weight:.2f} of attention from {a} to {b}" for head, a, b, weight in self.attention]
        return "\n".join(lines)


@torch.no_grad()
def measure_truth(network: Network, task: Task, trained: Trained) -> Truth:
    """Measure a network, as it is stored, on fresh inputs.

    Args:
        network: The stored network; ``trained`` holds the weights before rounding.
        task: What it was trained on.
        trained: The run that made it.
    """
    tokens = task.sample(N_INPUTS, torch.Generator().manual_seed(TRUTH_SEED))
    truth, means = task.answer(tokens), mean_outputs(network, tokens)
    right = answers(network, tokens) == truth
    effects = {}
    for component in network.shape.components:
        without = answers(network, tokens, replace_by(means, {component})) == truth
        effects[component] = mean(right.float() - without.float(), f"accuracy lost without {component}")
    (floor, intact), (kept, removed) = set_effects(network, tokens, [(), trained.circuit])
    return Truth(
        task=task,
        accuracy=proportion(right, "right answers on fresh inputs"),
        circuit=trained.circuit,
        kept=kept,
        removed=removed,
        floor=floor,
        intact=intact,
        minimal=is_minimal(network, tokens, trained.circuit),
        effects=effects,
        attention=tuple(_attention(network, task, tokens, trained.circuit)),
        seed=trained.seed,
        steps=trained.steps,
        cpu_seconds=trained.cpu_seconds,
    )


def _attention(network: Network, task: Task, tokens: Tensor, circuit: tuple[str, ...]) -> list[tuple]:
    """The largest mean attention weights between positions that play a part."""
    last = torch.zeros_like(tokens, dtype=torch.bool)
    last[:, -1] = True
    roles = {**task.roles(tokens), "last position": last}
    found = []
    for component, pattern in network.patterns(tokens).items():
        if component not in circuit:
            continue
        for source, queries in roles.items():
            if pattern.shape[1] == 1 and source != "last position":
                continue
            rows = queries[:, -pattern.shape[1] :]
            for target, keys in roles.items():
                weight = (pattern * keys[:, None]).sum(-1)[rows].mean().item()
                if weight >= WORTH_NOTING:
                    found.append((component, source, target, round(weight, 3)))
    return found


def to_record(truth: Truth) -> dict[str, Any]:
    """A truth as plain JSON values."""
    return {**asdict(truth), "task": task_record(truth.task), "sentence": truth.task.truth}


def from_record(record: Mapping[str, Any]) -> Truth:
    """The truth of a record."""
    fields = {name: value for name, value in record.items() if name != "sentence"}
    return Truth(
        **fields
        | {
            "task": task_of(record["task"]),
            "accuracy": Measurement(**record["accuracy"]),
            "circuit": tuple(record["circuit"]),
            "effects": {component: Measurement(**effect) for component, effect in record["effects"].items()},
            "attention": tuple(map(tuple, record["attention"])),
        }
    )


def seal_truth(truth: Truth, folder: Path) -> None:
    """Put a truth into a mystery's folder, out of sight."""
    (folder / SEAL).write_bytes(seal(to_record(truth), _key(folder)))


def _key(folder: Path) -> bytes:
    return bytes.fromhex(sha256(folder / WEIGHTS))


def unseal(mystery: Mystery, truths: Path | None = None) -> Truth:
    """Tell the truth about a mystery. Graders call this; a learner who does has solved nothing.

    Args:
        mystery: As ``load_mystery`` opens it.
        truths: The instructor's file, for a pool that was made with one.

    Raises:
        FileNotFoundError: if the truth is not in the mystery's folder, and no file is given.
        KeyError: if the file does not know the mystery.
        ValueError: if the seal is damaged.
    """
    if truths is not None:
        records = json.loads(truths.read_text(encoding="utf-8"))
        if mystery.name not in records:
            raise KeyError(f"{truths.name} does not know {mystery.name}; it knows {', '.join(records)}.")
        return from_record(records[mystery.name])
    if not (mystery.folder / SEAL).is_file():
        raise FileNotFoundError(f"The truth about {mystery.name} is with whoever made it: give the file of truths.")
    return from_record(open_seal((mystery.folder / SEAL).read_bytes(), _key(mystery.folder)))
