"""The best possible prediction of a made-up protein's next residue: exact filtering of its hidden Markov model."""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.models.protein_family import KINDS, RESIDUES, VOCABULARY, chain
from utils.models.proteins import partner_numbers


@dataclass(frozen=True)
class Beliefs:
    """What an ideal reader knows after each token.

    Attributes:
        next_residue: Log-probabilities of the next token, in the order of ``VOCABULARY``; -inf where impossible.
        kind: Probabilities of the kind of the current position, in the order of ``KINDS``. All loop at BOS.
        state: Probabilities of the current state of ``chain()``.
    """

    next_residue: Float[Tensor, "sequence position vocab"]
    kind: Float[Tensor, "sequence position kind"]
    state: Float[Tensor, "sequence position state"]


@cache
def _tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Transitions [state, state], emissions [state, residue], distances of pairs [state], partners [residue]."""
    model = chain()
    partner = torch.from_numpy(partner_numbers())
    pair = torch.tensor([state.pair for state in model.states])
    return torch.from_numpy(model.transition), torch.from_numpy(model.emission), pair, partner


def read_proteins(tokens: Int[Tensor, "sequence position"]) -> Beliefs:
    """Filter sequences through the chain that wrote them.

    The state that copies a residue's partner writes what stands a fixed distance back, so that the chain is an
    autoregressive hidden Markov model, and the forward algorithm is exact (Rabiner 1989,
    https://doi.org/10.1109/5.18626).

    Args:
        tokens: Sequences that start with BOS and hold residues only.

    Raises:
        ValueError: if a sequence does not start with BOS, holds another special token, or cannot be of the family.
    """
    if (tokens[:, 0] != 0).any() or ((tokens[:, 1:] < 1) | (tokens[:, 1:] > len(RESIDUES))).any():
        raise ValueError("expected sequences of one BOS and then residues alone")
    transition, _, _, _ = _tensors()
    n, length = tokens.shape
    ahead = torch.zeros(n, len(transition), dtype=torch.double)
    ahead[:, 0] = 1
    next_residue, states = [_predict(ahead, tokens, 1)], [ahead]
    for t in range(1, length):
        belief = ahead * _likelihood(tokens, t)
        total = belief.sum(1, keepdim=True)
        if (total == 0).any():
            row = int((total[:, 0] == 0).nonzero()[0])
            raise ValueError(f"sequence {row} cannot be of the family: its residue {t} has probability 0")
        belief = belief / total
        ahead = belief @ transition
        next_residue.append(_predict(ahead, tokens, t + 1))
        states.append(belief)
    state = torch.stack(states, 1)
    names = torch.tensor([KINDS.index(state.kind) for state in chain().states])
    kind = state @ torch.nn.functional.one_hot(names, len(KINDS)).double()
    return Beliefs(torch.stack(next_residue, 1).log(), kind, state)


def _copied(tokens: Tensor, t: int) -> list[tuple[Tensor, Tensor]]:
    """For each distance of pairs: the states that copy over it, and the residue [sequence] they write at position t.

    A residue of -1 stands where there is nothing to copy.
    """
    _, _, pair, partner = _tensors()
    found = []
    for distance in pair[pair > 0].unique().tolist():
        source = tokens[:, t - distance] - 1 if t - distance >= 1 else torch.full((len(tokens),), -1)
        found.append(((pair == distance).nonzero()[:, 0], torch.where(source >= 0, partner[source], -1)))
    return found


def _likelihood(tokens: Tensor, t: int) -> Tensor:
    """The probability [sequence, state] with which each state writes the residue at position t."""
    _, emission, _, _ = _tensors()
    likelihood = emission[:, tokens[:, t] - 1].T.clone()
    for states, residue in _copied(tokens, t):
        likelihood[:, states] = (residue == tokens[:, t] - 1).double()[:, None]
    return likelihood


def _predict(ahead: Tensor, tokens: Tensor, t: int) -> Tensor:
    """The probability [sequence, vocab] of each token at position t, if ``ahead`` is that of the states there."""
    _, emission, _, _ = _tensors()
    chance = torch.zeros(len(tokens), len(VOCABULARY), dtype=torch.double)
    chance[:, 1 : len(RESIDUES) + 1] = ahead @ emission
    for states, residue in _copied(tokens, t):
        weight = torch.where(residue >= 0, ahead[:, states].sum(1), 0)
        chance[torch.arange(len(tokens)), residue.clamp(min=0) + 1] += weight
    return chance
