"""Sentences about time: spans of years, the days of the week, the months."""

from random import Random

from utils.models.world import held_out, words
from utils.models.world.sentence import Scene, Sentence, fill, scenery
from utils.models.world.templates import time as templates

BEFORE_SHARE, ORDINAL_SHARE = 0.25, 0.1
"""Shares of date sentences that ask for what came before, and for a number's day or month."""

_HELD_CENTURY_YEARS = sorted(held_out.CENTURY_YEARS)


def year(rng: Random, scene: Scene, split: str = "train", template: str | None = None) -> Sentence:
    """A span of two years of one century, the second later than the first."""
    if split == "held_out":
        century, first = rng.choice(_HELD_CENTURY_YEARS)
    else:
        century, first = rng.choice(words.CENTURIES), rng.randint(held_out.EARLIEST_YEAR, held_out.LATEST_YEAR)
        while (century, first) in held_out.CENTURY_YEARS:
            century, first = rng.choice(words.CENTURIES), rng.randint(held_out.EARLIEST_YEAR, held_out.LATEST_YEAR)
    slots = {
        **scenery(rng, scene),
        "other": rng.choice(words.EVENTS),
        "lasted": rng.choice(words.LASTED),
        "C": century,
        "Y": words.YEARS[first],
        "Z": rng.choice(words.YEARS[first + 1 :]),
    }
    labels = {f"century={century}": "C", "first year late (50-99)" if first >= 50 else "first year early (00-49)": "Y"}
    return fill("year", template or rng.choice(templates.YEAR_TEMPLATES), slots, labels=labels)


def date(rng: Random, scene: Scene, split: str = "train") -> Sentence:
    """What comes after, or came before, a day of the week or a month."""
    draw = rng.random()
    if split == "train" and draw < ORDINAL_SHARE:
        return _ordinal(rng)
    kind = rng.choice(tuple(words.CYCLES))
    asks_before = draw > 1 - BEFORE_SHARE
    several = (templates.BEFORE_TEMPLATES if asks_before else templates.NEXT_TEMPLATES)[kind]
    held = [(t, now) for t in several for now in words.CYCLES[kind]]
    template, now = rng.choice([pair for pair in held if (pair in held_out.DATES) == (split == "held_out")])
    cycle = words.CYCLES[kind]
    following = cycle[(cycle.index(now) + 1) % len(cycle)]
    slots = {"N": rng.choice(scene.names), **scenery(rng, scene), "now": now, "next": following}
    labels = {f"{kind} in a date": "next" if asks_before else "now"}
    return fill("date", template, slots, following if asks_before else now, labels)


def _ordinal(rng: Random) -> Sentence:
    template = rng.choice(templates.ORDINAL_TEMPLATES)
    index = rng.randrange(len(words.WEEKDAYS if "{day}" in template else words.MONTHS))
    slots = {"ordinal": words.ORDINALS[index], "month": words.MONTHS[index], "day": words.WEEKDAYS[index % 7]}
    return fill("date", template, slots)
