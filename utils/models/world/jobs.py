"""Sentences about professions: who has which, and where each works."""

from itertools import product
from random import Random

from utils.models.world import held_out, words
from utils.models.world.people import two_people
from utils.models.world.sentence import Scene, Sentence, fill, scenery
from utils.models.world.templates.people import JOB_INTRODUCTIONS, WORKPLACE_TEMPLATES

INTRODUCTION_SHARE = 0.2
"""Share of profession sentences that introduce two people; the others ask where a profession works."""

_CHOICES = {
    "held_out": sorted(held_out.WORKPLACES),
    "train": sorted(set(product(words.WORKPLACES, WORKPLACE_TEMPLATES)) - held_out.WORKPLACES),
}


def introduce(rng: Random, scene: Scene) -> Sentence:
    """A sentence that gives two people their professions."""
    first, second = two_people(rng, scene.names)
    one, other = rng.sample(words.PROFESSIONS, 2)
    slots = {**scenery(rng, scene), "A": first, "B": second, "J": one, "K": other}
    return fill("job", rng.choice(JOB_INTRODUCTIONS), slots)


def workplace(rng: Random, scene: Scene, split: str = "train", choice: tuple[str, str] | None = None) -> Sentence:
    """Where a profession works. ``choice`` is (profession, template), drawn from the split by default."""
    job, template = choice or rng.choice(_CHOICES[split])
    slots = {**scenery(rng, scene), "N": rng.choice(scene.names), "job": job, "workplace": words.WORKPLACES[job]}
    return fill("job", template, slots, labels={"relation=workplace": "job"})


def workplace_choices(split: str) -> list[tuple[str, str]]:
    """Every (profession, template) of a split, in a fixed order."""
    return list(_CHOICES[held_out.check_split(split)])


def any_job(rng: Random, scene: Scene) -> Sentence:
    """A sentence about professions, in the training mix."""
    return (introduce if rng.random() < INTRODUCTION_SHARE else workplace)(rng, scene)
