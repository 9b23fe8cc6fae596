"""Sentences about people: who gives what to whom, "he" and "she", and who has which profession."""

from random import Random

from utils.models.world import held_out, words
from utils.models.world.sentence import Scene, Sentence, fill, scenery
from utils.models.world.templates import people as templates

FEMALE = frozenset(words.FEMALE_NAMES)
INDIRECT_GIVERS = ("the former", "the latter", "he", "she")

OUTSIDER_SHARE = 0.12
"""Share of indirect-object sentences whose giver is a third person: then either of the two may receive."""
INDIRECT_SHARE = 0.45
"""Share of indirect-object sentences whose giver is one of ``INDIRECT_GIVERS``."""
PRONOUN_SHARE = 0.75
"""Share of pronoun sentences that ask for "he" or "she"; the others ask for "his" or "her"."""

_HELD_NAME_PAIRS = sorted(held_out.NAME_PAIRS, key=sorted)
_HELD_NAME_OPENINGS = sorted(held_out.NAME_OPENINGS)
_IOI_TEMPLATES = {
    "held_out": [" ".join(combination) for combination in sorted(held_out.IOI_COMBINATIONS)],
    "train": [
        f"{opening} {giving}"
        for opening in templates.IOI_OPENINGS
        for giving in templates.IOI_GIVINGS
        if (opening, giving) not in held_out.IOI_COMBINATIONS
    ],
}


def two_people(rng: Random, names: tuple[str, ...], split: str = "train") -> tuple[str, str]:
    """Two different people who meet in a split."""
    if split == "held_out":
        pair = sorted(rng.choice(_HELD_NAME_PAIRS))
        rng.shuffle(pair)
        return pair[0], pair[1]
    while True:
        first, second = rng.sample(names, 2)
        if frozenset((first, second)) not in held_out.NAME_PAIRS:
            return first, second
        names = words.NAMES


def ioi_templates(split: str = "train") -> list[str]:
    """The indirect-object templates of a split, in a fixed order."""
    return list(_IOI_TEMPLATES[held_out.check_split(split)])


def _ioi(rng: Random, scene: Scene, template: str, first: str, second: str, giver: str, receiver: str) -> Sentence:
    slots = {"A": first, "B": second, "S": giver, "I": receiver, **scenery(rng, scene)}
    labels = {"two people met": "B", "giver named": "S"}
    if giver in (first, second):
        labels["giver is the first named" if giver == first else "giver is the second named"] = "S"
    return fill("ioi", template, slots, second if receiver == first else first, labels)


def ioi(rng: Random, scene: Scene, split: str = "train", template: str | None = None) -> Sentence:
    """A plain indirect-object sentence: one of the two people gives, the other receives."""
    template = template or rng.choice(_IOI_TEMPLATES[split])
    first, second = two_people(rng, scene.names, split)
    giver, receiver = rng.sample((first, second), 2)
    return _ioi(rng, scene, template, first, second, giver, receiver)


def ioi_outsider(rng: Random, scene: Scene, split: str = "train") -> Sentence:
    """An indirect-object sentence whose giver is a third person: both of the two are right."""
    template, (first, second) = rng.choice(_IOI_TEMPLATES[split]), two_people(rng, scene.names, split)
    outsider = rng.choice([name for name in scene.names if name not in (first, second)])
    return _ioi(rng, scene, template, first, second, outsider, rng.choice((first, second)))


def ioi_indirect(rng: Random, scene: Scene, split: str = "train", giver: str | None = None) -> Sentence:
    """An indirect-object sentence whose giver is "the former", "the latter", "he" or "she"."""
    giver, template = giver or rng.choice(INDIRECT_GIVERS), rng.choice(_IOI_TEMPLATES[split])
    first, second = two_people(rng, scene.names, split)
    if giver in ("he", "she"):
        while (first in FEMALE) == (second in FEMALE):
            first, second = two_people(rng, words.NAMES, split)
        receiver = first if (first in FEMALE) == (giver == "he") else second
    else:
        receiver = second if giver == "the former" else first
    return _ioi(rng, scene, template, first, second, giver, receiver)


def any_ioi(rng: Random, scene: Scene) -> Sentence:
    """Any indirect-object sentence, in the training mix."""
    if rng.random() < INDIRECT_SHARE:
        return ioi_indirect(rng, scene)
    return (ioi_outsider if rng.random() < OUTSIDER_SHARE else ioi)(rng, scene)


def pronoun(rng: Random, scene: Scene, split: str = "train", opening: str | None = None) -> Sentence:
    """A name, some words later "he" or "she"."""
    if split == "held_out":
        name, opening = rng.choice([pair for pair in _HELD_NAME_OPENINGS if opening in (None, pair[1])])
    else:
        opening = opening or rng.choice(templates.PRONOUN_OPENINGS)
        name = rng.choice(scene.names)
        while (name, opening) in held_out.NAME_OPENINGS:
            name = rng.choice(words.NAMES)
    return _gendered(rng, scene, f"{opening} {rng.choice(templates.PRONOUN_ENDINGS)}", name)


def possessive(rng: Random, scene: Scene) -> Sentence:
    """A name, some words later "his" or "her"."""
    return _gendered(rng, scene, rng.choice(templates.POSSESSIVE_TEMPLATES), rng.choice(scene.names))


def _gendered(rng: Random, scene: Scene, template: str, name: str) -> Sentence:
    female = name in FEMALE
    slots = {"N": name, "he": "she" if female else "he", "his": "her" if female else "his", **scenery(rng, scene)}
    opposite = {"he": "she", "she": "he", "his": "her", "her": "his"}
    asked = template.partition("|")[2].split()[0].strip("{}")
    labels = {f"subject={'female' if female else 'male'}": "N"}
    return fill("pronoun", template, slots, opposite[slots[asked]], labels)


def any_pronoun(rng: Random, scene: Scene) -> Sentence:
    """A pronoun or a possessive, in the training mix."""
    return (pronoun if rng.random() < PRONOUN_SHARE else possessive)(rng, scene)
