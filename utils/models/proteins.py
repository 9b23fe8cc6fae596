"""Made-up proteins with the truth about every residue: samples of the family in ``protein_family.py``."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from utils.models.protein_family import KINDS, PARTNER, RESIDUES, VOCABULARY, chain

LENGTH = 64


@dataclass(frozen=True)
class Proteins:
    """Sequences with the truth about every position. Position 0 is BOS: there the labels are -1.

    Attributes:
        tokens: Ids in ``VOCABULARY``.
        state: The number of the state in ``chain()``.
        kind: The index in ``KINDS``.
        index: The position in the motif, or the phase of a helix or strand.
        pair: The earlier position whose residue decides this one, -1 if there is none.
    """

    tokens: Int[Tensor, "sequence position"]
    state: Int[Tensor, "sequence position"]
    kind: Int[Tensor, "sequence position"]
    index: Int[Tensor, "sequence position"]
    pair: Int[Tensor, "sequence position"]

    @cached_property
    def texts(self) -> list[str]:
        """The residues of each sequence as letters, without BOS: what ``model.to_tokens`` takes."""
        return ["".join(VOCABULARY[token] for token in row[1:]) for row in self.tokens.tolist()]

    def __len__(self) -> int:
        return len(self.tokens)


def sample_proteins(n: int, seed: int | list[int] = 0, length: int = LENGTH) -> Proteins:
    """Write sequences of the family.

    Args:
        n: How many.
        seed: The same seed gives the same sequences. Training uses [seed of the run, step].
        length: Positions of a sequence, the BOS at its start included.

    Raises:
        ValueError: if the length leaves no room for a residue.
    """
    if length < 2:
        raise ValueError(f"a sequence holds BOS and at least one residue: length must be 2 or more, got {length}")
    states, residues, pair = _walk(n, np.random.default_rng(seed), length - 1)
    labels = np.array([(KINDS.index(state.kind), state.index) for state in chain().states])
    pair = np.where(pair < 0, -1, pair + 1)
    columns = {
        "tokens": residues + 1,
        "state": states,
        "kind": labels[states, 0],
        "index": labels[states, 1],
        "pair": pair,
    }
    at_bos = {name: 0 if name == "tokens" else -1 for name in columns}
    return Proteins(
        **{
            name: torch.from_numpy(np.pad(column, ((0, 0), (1, 0)), constant_values=at_bos[name]))
            for name, column in columns.items()
        }
    )


def partner_numbers() -> np.ndarray:
    """The number of each residue's partner in ``RESIDUES`` [residue], -1 for those without."""
    return np.array([RESIDUES.find(PARTNER.get(residue, "?")) for residue in RESIDUES])


def _walk(n: int, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Walk ``n`` times through the chain: states, residues and paired positions [n, length]."""
    followers, shares, written = _tables()
    distance = np.array([state.pair for state in chain().states])
    opens, closes = (np.array([(s.kind, s.index) == ("bridge", i) for s in chain().states]) for i in (1, 3))
    states, residues, pair = (np.zeros((n, length), int) for _ in range(3))
    opened, row, partner = np.full(n, -1), np.arange(n), partner_numbers()
    draws = rng.random((length, 2, n))
    for t in range(length):
        if t:
            choice = (shares[states[:, t - 1]] < draws[t, 0, :, None]).sum(1)
            states[:, t] = followers[states[:, t - 1], choice]
        now = states[:, t]
        back = distance[now]
        drawn = (written[now] < draws[t, 1, :, None]).sum(1)
        residues[:, t] = np.where(back > 0, partner[residues[row, t - back]], drawn)
        pair[:, t] = np.where(back > 0, t - back, np.where(closes[now], opened, -1))
        opened = np.where(opens[now], t, opened)
    return states, residues, pair


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For sampling: the states that may follow each, their cumulated shares, and the cumulated compositions."""
    model = chain()
    width = (model.transition > 0).sum(1).max()
    followers = np.argsort(-model.transition, axis=1, kind="stable")[:, :width]
    shares = np.cumsum(np.take_along_axis(model.transition, followers, 1), 1)[:, :-1]
    return followers, shares, np.cumsum(model.emission, 1)[:, :-1]
