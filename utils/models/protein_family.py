"""A made-up protein family: a hidden Markov model with motifs and paired residues.

The letters are those of the twenty amino acids and the motifs are drawn after real ones, but the family is synthetic:
nothing that is true of it need be true of a protein. What it offers instead is the truth. The state that wrote each
residue is known, and so is the best possible prediction of the next one (``protein_beliefs.py``).

A chain of states writes a sequence, one residue a state. The first residue is M. Then

- **loop**, **helix** (oily at phases 0 and 3 of 7) and **strand** (oily at phase 0 of 2) follow one another, each with
  its own composition;
- **signal**, in a third of the sequences, right after the M: two positive residues, seven oily ones, ``A.A``;
- **zinc** ``C..C.....H...H``, **walker** ``G....GK[ST]`` and **sequon** ``N.[ST]``, where a dot is any residue but C;
- **hairpin** ``Wabcde NG e'd'c'b'a'``: each residue of the second strand is the partner of one in the first;
- **bridge**: ``C`` and a residue, then, after any number of other states, ``C`` and that residue's partner.

It is a profile hidden Markov model in the manner of Krogh et al. 1994, https://doi.org/10.1006/jmbi.1994.1104, with a
memory for what is paired.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
BOS, UNKNOWN = "[BOS]", "[UNK]"
VOCABULARY = (BOS, *RESIDUES, UNKNOWN)
KINDS = ("loop", "helix", "strand", "signal", "zinc", "walker", "sequon", "hairpin", "bridge")
MOTIFS = KINDS[3:]

PARTNERS = ("KE", "RD", "QN", "TS", "LI", "FY", "VM", "AG")
PARTNER = {a: b for pair in PARTNERS for a, b in (pair, pair[::-1])}
HELD = "".join(pair[0] for pair in PARTNERS)
"""The residues that may follow a bridge's first cysteine. No other cysteine is followed by one of them."""

ANY = RESIDUES.replace("C", "")
NOT_HELD = "".join(residue for residue in ANY if residue not in HELD)
PAIRED = "".join(PARTNER)
# a composition is a string: the number of times that a letter stands in it is its weight
LOOP = "GGGGGGPPPPNNNDDDSSSTEK"
HELIX = ("LLLLLLAAAAIIMMV", "EEEEKKKKRRRQQQAADSN")
STRAND = ("VVVVVIIIIFFYYWTL", "TTTTSSKKRREEQQYH")
OILY = "LLLLLLAAAVVVIFF"
BLUR = 0.04
"""The share of the residues of loops, helices and strands that are drawn from ``ANY`` instead."""

ARM = 5
LETTERS = {
    "signal": ("KR", "KR", *(OILY,) * 7, "A", ANY, "A"),
    "zinc": ("C", NOT_HELD, ANY, "C", *(ANY,) * 5, "H", *(ANY,) * 3, "H"),
    "walker": ("G", *(ANY,) * 4, "G", "K", "ST"),
    "sequon": ("N", ANY, "ST"),
    "hairpin": ("W", *(PAIRED,) * ARM, "N", "G", *("",) * ARM),
}
"""The compositions of the motifs that are written in one go. "" is the partner of an earlier residue."""

SIGNAL_SHARE = 1 / 3
HELIX_END, STRAND_END = 0.1, 0.16
AFTER_LOOP = {"loop": 58, "helix": 9, "strand": 8, "zinc": 5, "walker": 4, "sequon": 5, "hairpin": 6, "bridge": 8}
AFTER_LOOP_OPEN = {**AFTER_LOOP, "bridge": 16}
"""Weights of what comes after a residue of a loop, without and with an open bridge; "bridge" then closes it."""


@dataclass(frozen=True)
class State:
    """One state of the chain.

    Attributes:
        kind: One of ``KINDS``.
        index: The position in the motif, or the phase of a helix or strand, from 0.
        held: The residue that an open bridge waits to pair with, "" if no bridge is open.
        letters: The composition that the residue is drawn from; "" if it is the partner of an earlier one.
        blur: The share of its residues that are drawn from ``ANY`` instead.
        pair: For a partner of an earlier residue at a fixed distance: that distance. Otherwise 0.
    """

    kind: str
    index: int
    held: str
    letters: str
    blur: float = 0.0
    pair: int = 0


@dataclass(frozen=True)
class Chain:
    """The whole model: states, what each writes, and what may follow it.

    Attributes:
        states: State number 0 writes the first residue of every sequence.
        emission: Probability of each residue; a row of zeros for a state that writes a partner.
        transition: Probability of each next state.
    """

    states: tuple[State, ...]
    emission: Float[np.ndarray, "state residue"]
    transition: Float[np.ndarray, "state state"]


@cache
def chain() -> Chain:
    """Build the family's chain of states."""
    states = [State("loop", 0, "", "M"), *_motif("signal", "")]
    for held in ("", *HELD):
        states.append(State("loop", 0, held, LOOP, BLUR))
        states += [State("helix", phase, held, HELIX[phase not in (0, 3)], BLUR) for phase in range(7)]
        states += [State("strand", phase, held, STRAND[phase], BLUR) for phase in range(2)]
        for kind in ("zinc", "walker", "sequon", "hairpin"):
            states += _motif(kind, held)
    states.append(State("bridge", 0, "", "C"))
    states += [State("bridge", 1, held, held) for held in HELD]
    states += [State("bridge", 2, held, "C") for held in HELD]
    states += [State("bridge", 3, held, PARTNER[held]) for held in HELD]
    number = {(state.kind, state.index, state.held): i for i, state in enumerate(states) if i}
    transition = np.zeros((len(states), len(states)))
    transition[0, number["signal", 0, ""]] = SIGNAL_SHARE
    transition[0, number["loop", 0, ""]] = 1 - SIGNAL_SHARE
    for i, state in enumerate(states[1:], 1):
        for name, share in _followers(state):
            transition[i, number[name]] += share
    return Chain(tuple(states), np.stack([_composition(state) for state in states]), transition)


def family_fingerprint() -> str:
    """Eight hexadecimal digits that change when the family does."""
    digest = hashlib.sha256(" ".join(VOCABULARY).encode())
    for table in (chain().emission, chain().transition):
        digest.update(table.round(9).tobytes())
    return digest.hexdigest()[:8]


def _motif(kind: str, held: str) -> list[State]:
    letters = LETTERS[kind]
    copies = range(len(letters) - ARM, len(letters)) if kind == "hairpin" else ()
    distance = {index: 3 + 2 * k for k, index in enumerate(copies)}  # over the turn, and further at each step
    return [State(kind, i, held, drawn, pair=distance.get(i, 0)) for i, drawn in enumerate(letters)]


def _composition(state: State) -> np.ndarray:
    drawn, anything = (np.array([letters.count(r) for r in RESIDUES], float) for letters in (state.letters, ANY))
    if not state.letters:
        return drawn
    return (1 - state.blur) * drawn / drawn.sum() + state.blur * anything / anything.sum()


def _followers(state: State) -> Iterator[tuple[tuple[str, int, str], float]]:
    """What may come after a state, as (kind, index, held), with its probability."""
    kind, index, held = state.kind, state.index, state.held
    if kind == "loop":
        weights = AFTER_LOOP_OPEN if held else AFTER_LOOP
        for next_kind, weight in weights.items():
            first = 2 if held and next_kind == "bridge" else 0
            yield (next_kind, first, held), weight / sum(weights.values())
    elif kind in ("helix", "strand"):
        end, phases = (HELIX_END, 7) if kind == "helix" else (STRAND_END, 2)
        yield (kind, (index + 1) % phases, held), 1 - end
        yield ("loop", 0, held), end
    elif kind == "bridge" and index == 0:
        yield from ((("bridge", 1, residue), 1 / len(HELD)) for residue in HELD)
    elif kind == "bridge" and index == 2:
        yield ("bridge", 3, held), 1.0
    elif kind == "bridge" and index == 3:
        yield ("loop", 0, ""), 1.0
    elif kind in LETTERS and index + 1 < len(LETTERS[kind]):
        yield (kind, index + 1, held), 1.0
    else:
        yield ("loop", 0, held), 1.0
