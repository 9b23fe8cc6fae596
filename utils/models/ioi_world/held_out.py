"""What the training sentences never show, so that a model can be measured on it. Drawn once, from named seeds."""

from itertools import product
from random import Random

from utils.models.ioi_world.templates import ENDINGS, NEW_OPENINGS, OPENINGS, SHORT_OPENINGS
from utils.models.ioi_world.words import NAMES

HELD_OUT_NAMES = tuple(sorted(Random("held-out names").sample(NAMES, 40)))
"""Names that no training sentence with a giver and a receiver has. They do occur in the other kinds of sentence."""
TRAINED_NAMES = tuple(name for name in NAMES if name not in HELD_OUT_NAMES)

_PAIRS = list(product(OPENINGS, ENDINGS))
_HELD_OUT_PAIRS = frozenset(Random("held-out templates").sample(_PAIRS, 80))
_TRAINED_PAIRS = [pair for pair in _PAIRS if pair not in _HELD_OUT_PAIRS]

TEMPLATES = {
    "train": tuple(" ".join(pair) for pair in _TRAINED_PAIRS),
    "held_out": tuple(" ".join(pair) for pair in _PAIRS if pair in _HELD_OUT_PAIRS),
    "new_openings": tuple(" ".join(pair) for pair in product(NEW_OPENINGS, ENDINGS)),
}
"""The templates of each split. Held out are openings and endings that training never puts together."""
SPLITS = tuple(TEMPLATES)
SHORT_TEMPLATES = tuple(" ".join(pair) for pair in _TRAINED_PAIRS if pair[0] in SHORT_OPENINGS)
"""The templates of "train" with a short opening."""


def names_of(split: str) -> tuple[str, ...]:
    """The names that the sentences of a split may hold."""
    return TRAINED_NAMES if check_split(split) == "train" else HELD_OUT_NAMES


def check_split(split: str) -> str:
    """Return ``split`` if it names one.

    Raises:
        ValueError: if it does not.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    return split
