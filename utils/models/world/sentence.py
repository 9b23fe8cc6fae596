"""What a sentence of the micro-world is, and the scene that the sentences of one document share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from utils.models.world import words

PLACE_STAYS = 0.5
"""How often a sentence stays at the place of its scene."""


@dataclass(frozen=True)
class Scene:
    """What the sentences of one document share.

    Attributes:
        topic: What its topic sentences are about.
        cast: A few names, or none: then anybody may appear.
        place: Where it happens, or empty for anywhere.
        liars: Who of the cast always lies; the others never do.
    """

    topic: str
    cast: tuple[str, ...] = ()
    place: str = ""
    liars: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """The names to draw from."""
        return self.cast or words.NAMES


@dataclass(frozen=True)
class Sentence:
    """A sentence, cut before the word that its family asks for.

    Attributes:
        family: Its name in ``families.FAMILIES``.
        prompt: The text up to the answer; all of it where the sentence asks nothing.
        answer: The word that the sentence asks for, or empty.
        rest: The text after the answer.
        wrong: The answer of a model that has missed the point, where there is a single one.
        template: What the sentence was made from, with ...
        slots: ... what stands in its braces.
        labels: What is true of the sentence: (label, index of the first word at which a reader can know it).
    """

    family: str
    prompt: str
    answer: str = ""
    rest: str = ""
    wrong: str = ""
    template: str = ""
    slots: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: tuple[tuple[str, int], ...] = field(default=(), repr=False)

    @property
    def words(self) -> list[str]:
        """The sentence as a list of words."""
        return f"{self.prompt} {self.answer} {self.rest}".split()

    @property
    def answer_index(self) -> int | None:
        """The answer's place among the words, if there is an answer."""
        return len(self.prompt.split()) if self.answer else None


def fill(
    family: str, template: str, slots: Mapping[str, str], wrong: str = "", labels: Mapping[str, str | int] | None = None
) -> Sentence:
    """Fill a template's slots and cut it at ``|``.

    Args:
        family: The sentence's family.
        template: Words, slots in braces, and ``|`` before the answer.
        slots: What to put into the braces.
        wrong: See :class:`Sentence`.
        labels: label -> the slot whose last word tells it, or a number of words.
    """
    before, after, last_word_of = [], [], {}
    current = before
    for word in template.split():
        if word == "|":
            current = after
            continue
        current += word.format_map(slots).split()
        if word.startswith("{"):
            last_word_of.setdefault(word[1:-1], len(before) + len(after) - 1)
    told = {label: last_word_of.get(at) if isinstance(at, str) else at for label, at in (labels or {}).items()}
    missing = [label for label, at in told.items() if at is None]
    if missing:
        raise ValueError(f"the template {template!r} has no slot that tells {', '.join(missing)}")
    answer, rest = (after[0], after[1:]) if after else ("", [])
    return Sentence(
        family, " ".join(before), answer, " ".join(rest), wrong, template, dict(slots), tuple(sorted(told.items()))
    )


def scenery(rng: Random, scene: Scene) -> dict[str, str]:
    """What stands around the people of a sentence."""
    stays = scene.place and rng.random() < PLACE_STAYS
    return {
        "place": scene.place if stays else rng.choice(words.PLACES),
        "object": rng.choice(words.OBJECTS),
        "adjective": rng.choice(words.ADJECTIVES),
        "adverb": rng.choice(words.ADVERBS),
        "event": rng.choice(words.EVENTS),
        "weekday": rng.choice(words.WEEKDAYS),
        "month": rng.choice(words.MONTHS),
        "profession": rng.choice(words.PROFESSIONS),
    }
