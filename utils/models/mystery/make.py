"""Make a pool of mysteries: draw tasks, train a network on each, measure it, seal the truth."""

import json
from pathlib import Path

import torch
from tqdm import tqdm

from utils.models.load import WEIGHTS
from utils.models.mystery.families import Task
from utils.models.mystery.instance import draw_pool
from utils.models.mystery.network import open_network
from utils.models.mystery.pool import INPUTS, SEAL
from utils.models.mystery.train import Settings, train_network
from utils.models.mystery.truth import Truth, measure_truth, seal_truth, to_record
from utils.models.native import save_native
from utils.models.ship import WORLD_READABLE

SHIPPED_SECRET, SHIPPED_COUNT = "shipped with the course", 24
N_INPUTS = 1536
INPUTS_SEED = 2**45


def make_pool(
    pool: Path, secret: str, count: int, truths: Path | None = None, settings: Settings | None = None
) -> None:
    """Make a pool of mysteries. Interrupted, it goes on with the first mystery that is not finished.

    Args:
        pool: The folder to fill with ``mystery-01`` and so on.
        secret: What the tasks are drawn from: whoever knows it can draw them again.
        count: How many.
        truths: Where to write the truth, for a pool whose truth must not lie beside it. Without it every truth is
            sealed in its mystery's folder.
        settings: How to train.

    Raises:
        ValueError: if ``truths`` lies in the pool, which would hand it out.
    """
    if truths is not None and truths.resolve().is_relative_to(pool.resolve()):
        raise ValueError(f"{str(truths)!r} lies in the pool, which learners read: write the truth somewhere else.")
    digits = max(2, len(str(count)))
    for number, task in enumerate(tqdm(draw_pool(secret, count), desc="pool"), start=1):
        folder = pool / f"mystery-{number:0{digits}}"
        if not _finished(folder, truths):
            _keep(make_mystery(folder, task, number, settings), folder, truths)


def make_mystery(folder: Path, task: Task, seed: int, settings: Settings | None = None) -> Truth:
    """Train a network on a task and write its files; the truth is returned, not written."""
    from safetensors.torch import save_file

    trained = train_network(task, 1000 * seed, settings, folder.name)
    save_native(folder, trained.network.shape.config, trained.network.state_dict())
    inputs = task.sample(N_INPUTS, torch.Generator().manual_seed(INPUTS_SEED + seed))
    save_file({"tokens": inputs.to(torch.uint8)}, folder / INPUTS)
    for file in folder.iterdir():
        file.chmod(WORLD_READABLE)
    return measure_truth(open_network(folder), task, trained)


def _finished(folder: Path, truths: Path | None) -> bool:
    known = folder.name in _read(truths) if truths else (folder / SEAL).is_file()
    return known and all((folder / file).is_file() for file in ("config.json", WEIGHTS, INPUTS))


def _keep(truth: Truth, folder: Path, truths: Path | None) -> None:
    if truths is None:
        seal_truth(truth, folder)
    else:
        text = json.dumps({**_read(truths), folder.name: to_record(truth)}, indent=1)
        truths.write_text(text + "\n", encoding="utf-8")


def _read(truths: Path) -> dict:
    return json.loads(truths.read_text(encoding="utf-8")) if truths.is_file() else {}
