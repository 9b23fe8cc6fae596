"""What is true in the micro-world: where landmarks stand, who built them, capitals and languages.

Countries are as on a map. Landmarks are invented, but for a few famous ones. A landmark's name is an *ordered* pair of
words, and for every pair the reversed pair is another landmark elsewhere ("Golden Lion", "Lion Golden"): a model has to
bind both words before it can know the city.
"""

from itertools import combinations
from random import Random

from utils.models.world.words import BUILDERS, CAPITALS, LANDMARK_WORDS, LANGUAGES, REAL_LANDMARKS

INVENTED_PAIRS = 50
LANDMARK_CITIES = 30


def _build_facts() -> dict[str, dict[str, str]]:
    rng = Random("facts of the micro-world")
    pairs = rng.sample(list(combinations(LANDMARK_WORDS, 2)), INVENTED_PAIRS)
    landmarks = [" ".join(pair) for pair in pairs] + [" ".join(reversed(pair)) for pair in pairs]
    cities = list(CAPITALS.values())[:LANDMARK_CITIES]
    located = {landmark: rng.choice(cities) for landmark in landmarks}
    located |= {" ".join(words): city for words, city in REAL_LANDMARKS.items()}
    return {
        "landmark": located,
        "builder": {landmark: rng.choice(BUILDERS) for landmark in located},
        "capital": dict(CAPITALS),
        "language": dict(LANGUAGES),
    }


FACTS = _build_facts()
"""Relation -> subject -> value."""
