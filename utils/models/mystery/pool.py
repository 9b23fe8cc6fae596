"""Open a sealed mystery: a model and valid inputs, and not a word about what it does."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from utils.models.load import CARD, WEIGHTS, DamagedModel, load_model, sha256
from utils.models.mystery.network import Network, open_network

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

POOL = Path(__file__).parents[1] / "shipped_mysteries"
INPUTS, SEAL = "inputs.safetensors", "sealed.bin"


@dataclass(frozen=True)
class Mystery:
    """A model with a task of its own.

    Its inputs are 13 token ids each, of valid form and drawn as in training. Its answer is the token that it finds
    likeliest at the last position. What it says at other positions, or on inputs of another form, was never trained.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The mystery's name, which says nothing."""
        return self.folder.name

    @cached_property
    def model(self) -> "TransformerBridge":
        """The model, as ``load_model`` opens it."""
        return load_model(self.folder)

    @cached_property
    def network(self) -> Network:
        """The same weights as a small PyTorch module, for fast ablations."""
        return open_network(self.folder)

    @property
    def components(self) -> tuple[str, ...]:
        """The names of all heads ("0.3" is head 3 of layer 0) and MLPs ("1.mlp")."""
        return self.network.shape.components

    @cached_property
    def inputs(self) -> Tensor:
        """All inputs that come with the mystery [input, position]."""
        from safetensors.torch import load_file

        return load_file(self.folder / INPUTS)["tokens"].long()

    def sample_inputs(self, n: int, seed: int = 0) -> Tensor:
        """Choose inputs at random from those that come with the mystery.

        Args:
            n: How many.
            seed: The same seed chooses the same.

        Returns:
            Different rows [n, position] of :attr:`inputs`.

        Raises:
            ValueError: if there are fewer than ``n``.
        """
        if not 0 < n <= len(self.inputs):
            raise ValueError(f"n is {n}; expected 1 to {len(self.inputs)}, the inputs that come with a mystery.")
        return self.inputs[torch.randperm(len(self.inputs), generator=torch.Generator().manual_seed(seed))[:n]]

    def __repr__(self) -> str:
        return f"<{self.name}, sealed>"


def mystery_names(pool: Path = POOL) -> list[str]:
    """The names of the mysteries in a pool."""
    return sorted(file.parent.name for file in pool.glob(f"*/{WEIGHTS}"))


def assigned_name(learner_id: str, pool: Path = POOL) -> str:
    """The mystery of a learner: always the same, and as good as random."""
    names = mystery_names(pool)
    if not names:
        raise FileNotFoundError(f"There are no mysteries in {str(pool)!r}.")
    return names[int.from_bytes(hashlib.sha256(f"mystery of {learner_id}".encode()).digest()) % len(names)]


def load_mystery(learner_id: str | None = None, *, number: int | None = None, pool: Path = POOL) -> Mystery:
    """Open the mystery of a learner, or one by its number.

    Args:
        learner_id: Any text that names the learner.
        number: The number of a mystery, from 1, instead of a learner.
        pool: The folder of the pool; the shipped one by default.

    Raises:
        ValueError: if not exactly one of the two is given, or no mystery has this number.
        DamagedModel: if a file differs from what the pool's card says.
    """
    if (learner_id is None) == (number is None):
        raise ValueError("Give either a learner's id or a number: load_mystery('ada') or load_mystery(number=3).")
    names = mystery_names(pool)
    if number is not None and not 1 <= number <= len(names):
        raise ValueError(f"There is no mystery number {number}; this pool has 1 to {len(names)}.")
    name = assigned_name(str(learner_id), pool) if number is None else names[number - 1]
    _check_files(pool, name)
    return Mystery(pool / name)


def _check_files(pool: Path, name: str) -> None:
    """Compare a mystery's files with the digests in the pool's card, if it has one."""
    if not (pool / CARD).is_file():
        return
    for file, digest in json.loads((pool / CARD).read_text(encoding="utf-8"))["sha256"].items():
        if file.startswith(f"{name}/") and (not (pool / file).is_file() or sha256(pool / file) != digest):
            restore = f" Restore it with: git checkout -- utils/models/{pool.name}" if pool == POOL else ""
            raise DamagedModel(f"{file} is missing or damaged.{restore}")
