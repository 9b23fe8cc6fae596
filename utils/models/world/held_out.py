"""What the training text never says, so that a model can be measured on what it has not read.

Everything here is drawn once from a named seed. ``tests/utils/test_models_world.py`` checks that no training
sentence holds any of it.
"""

from itertools import combinations, product
from random import Random

from utils.models.world.facts import FACTS
from utils.models.world.templates.knowledge import FACT_TEMPLATES, HONEST_CUES, LYING_CUES
from utils.models.world.templates.people import IOI_GIVINGS, IOI_OPENINGS, PRONOUN_OPENINGS, WORKPLACE_TEMPLATES
from utils.models.world.templates.time import BEFORE_TEMPLATES, NEXT_TEMPLATES
from utils.models.world.words import CENTURIES, CYCLES, NAMES, PROFESSIONS

SPLITS = ("train", "held_out")

EARLIEST_YEAR, LATEST_YEAR = 2, 97
"""The first year of a sentence lies between these two, so that some year is later and some earlier."""


def check_split(split: str) -> str:
    """Return ``split`` if it names one.

    Raises:
        ValueError: if it does not.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    return split


def _sample(what: str, items: list, count: int) -> frozenset:
    return frozenset(Random(f"held out: {what}").sample(items, count))


NAME_PAIRS = _sample("name pairs", [frozenset(pair) for pair in combinations(sorted(NAMES), 2)], 700)
"""Two people who never meet in training."""

IOI_COMBINATIONS = _sample("ioi combinations", list(product(IOI_OPENINGS, IOI_GIVINGS)), 140)
"""(opening, giving) that never follow one another in training."""

CENTURY_YEARS = _sample(
    "years", [(century, year) for century in CENTURIES for year in range(EARLIEST_YEAR, LATEST_YEAR + 1)], 120
)
"""(century, first year) of no training sentence."""

NAME_OPENINGS = _sample("name and pronoun opening", list(product(NAMES, PRONOUN_OPENINGS)), 340)
"""(name, pronoun opening) of no training sentence."""


def _paraphrases() -> frozenset[tuple[str, str, str]]:
    rng = Random("held out: paraphrases")
    held: set[tuple[str, str, str]] = set()
    for relation, values in FACTS.items():
        asking = [template for template in FACT_TEMPLATES[relation][1:] if "|" in template]
        held |= {(relation, subject, rng.choice(asking)) for subject in values if rng.random() < 0.5}
    return frozenset(held)


PARAPHRASES = _paraphrases()
"""(relation, subject, template): half of all subjects lack one of their relation's templates, never the first."""

WORKPLACES = _sample("workplaces", list(product(PROFESSIONS, WORKPLACE_TEMPLATES[1:])), 60)
"""(profession, workplace template) of no training sentence; never the first template."""

DATES = _sample(
    "dates",
    [
        (template, now)
        for several in (NEXT_TEMPLATES, BEFORE_TEMPLATES)
        for kind, cycle in CYCLES.items()
        for template in several[kind][1:]
        for now in cycle
    ],
    24,
)
"""(date template, earlier day or month) of no training sentence; never the first template of a kind."""

SPEAKERS = _sample(
    "speakers",
    [
        (cue, subject)
        for cue in (*HONEST_CUES, *LYING_CUES)
        for relation in ("capital", "landmark")
        for subject in FACTS[relation]
    ],
    200,
)
"""(speaker's cue, subject) of no training sentence. Capitals and languages have the same subjects."""
