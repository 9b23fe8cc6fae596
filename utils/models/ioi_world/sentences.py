"""A micro-language of sentences with two people, one of whom is named again.

========  ==============================================================  =====================================
kind      example                                                         what it teaches
========  ==============================================================  =====================================
giving    when Ida and Otto arrived at the tavern , Otto gave a cup to    the other one receives
          Ida .
outsider  when Ida and Otto arrived at the tavern , Vera gave a cup to    either may receive: nobody is named
          Ida .                                                           twice
order     when Ida and Otto arrived at the tavern , Otto left .           the first stays, the second leaves, a
                                                                          third person comes too
repeat    lamp Vera blue ; lamp Vera blue ;                               match and copy
========  ==============================================================  =====================================

The indirect-object task is that of Wang et al. 2022, https://arxiv.org/abs/2211.00593. IO is the name that is asked
for, S1 and S2 are the first and second mention of the subject, END is the last word before the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from utils.models.ioi_world import held_out, words
from utils.models.ioi_world.templates import LEAD_IN, OPENINGS, ORDER_ENDINGS, SHORT_OPENINGS

ROLES = ("IO", "S1", "S1+1", "S2", "END")
"""The positions of an indirect-object prompt that a circuit is described by."""
CONTEXT = 30
LEAD_IN_SHARE = 0.3
REPEAT_LENGTHS = (4, 11)
SHARES = {"giving": 0.59, "outsider": 0.07, "order": 0.15, "repeat": 0.19}
"""The share of each kind among the training sentences."""

_SCENERY = {
    "place": words.PLACES,
    "object": words.OBJECTS,
    "adjective": words.ADJECTIVES,
    "adverb": words.ADVERBS,
}


@dataclass(frozen=True)
class Sentence:
    """A sentence, BOS first. ``positions`` says where its roles are; sentences without a question have none."""

    kind: str
    tokens: tuple[str, ...]
    positions: Mapping[str, int]
    template: str = ""

    @property
    def prompt(self) -> str:
        """The words up to END, BOS left out."""
        return " ".join(self.tokens[1 : self.positions["END"] + 1])

    @property
    def answer(self) -> str:
        """The word after END."""
        return self.tokens[self.positions["END"] + 1]

    def __str__(self) -> str:
        return " ".join(self.tokens[1:])


def fill(kind: str, template: str, names: Mapping[str, str], rng: Random) -> Sentence:
    """Fill a template: the slots A, B, S and I with the given names, every other slot with a word of its own.

    Roles are labelled where ``S`` is one of the first two people.
    """
    tokens, at = [words.BOS], {}
    for word in template.split():
        if word == "|":
            at["END"] = len(tokens) - 1
            continue
        slot = word.strip("{}")
        at.setdefault(slot, len(tokens))
        tokens.append((names.get(slot) or rng.choice(_SCENERY[slot])) if slot != word else word)
    return Sentence(kind, tuple(tokens), _roles(at, names), template)


def _roles(at: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    if "END" not in at:
        return {}
    if names["S"] not in (names["A"], names["B"]):
        return {"END": at["END"]}
    subject, other = ("A", "B") if names["S"] == names["A"] else ("B", "A")
    return {"IO": at[other], "S1": at[subject], "S1+1": at[subject] + 1, "S2": at["S"], "END": at["END"]}


def giving(rng: Random, split: str = "train", template: str | None = None, order: str | None = None) -> Sentence:
    """An indirect-object sentence.

    Args:
        rng: What everything that is not given is drawn from.
        split: Where names and, if it is not given, the template come from.
        template: An opening and an ending.
        order: "ABBA" where the indirect object is named first, "BABA" where the subject is.
    """
    first, second = rng.sample(held_out.names_of(split), 2)
    order = order or rng.choice(("ABBA", "BABA"))
    receiver, giver = (first, second) if order == "ABBA" else (second, first)
    template = template or _with_lead_in(rng, rng.choice(held_out.TEMPLATES[split]))
    return fill("giving", template, {"A": first, "B": second, "S": giver, "I": receiver}, rng)


def outsider(rng: Random, templates: Sequence[str] = held_out.TEMPLATES["train"]) -> Sentence:
    """A sentence whose giver is a third person."""
    first, second, giver = rng.sample(held_out.TRAINED_NAMES, 3)
    names = {"A": first, "B": second, "S": giver, "I": rng.choice((first, second))}
    return fill("outsider", _with_lead_in(rng, rng.choice(templates)), names, rng)


def order(rng: Random, openings: Sequence[str] = OPENINGS) -> Sentence:
    """A sentence that ends in what the first, the second or a third person does."""
    people, ending = rng.sample(words.NAMES, 3), rng.randrange(3)
    names = {"A": people[0], "B": people[1], "S": people[ending]}
    return fill("order", _with_lead_in(rng, f"{rng.choice(openings)} {ORDER_ENDINGS[ending]}"), names, rng)


def repeat(rng: Random) -> Sentence:
    """A segment of random words, twice."""
    segment = (*rng.choices((*words.CONTENT_WORDS, *words.NAMES), k=rng.randint(*REPEAT_LENGTHS)), ";")
    return Sentence("repeat", (words.BOS, *segment, *segment), {})


def training_sentence(rng: Random, short: bool = False) -> Sentence:
    """A sentence of a random kind, for training; with ``short``, one whose opening names both people early."""
    openings = SHORT_OPENINGS if short else OPENINGS
    templates = held_out.SHORT_TEMPLATES if short else held_out.TEMPLATES["train"]
    kind = rng.choices(tuple(SHARES), SHARES.values())[0]
    if kind == "giving":
        return giving(rng, template=_with_lead_in(rng, rng.choice(templates)))
    if kind == "outsider":
        return outsider(rng, templates)
    return order(rng, openings) if kind == "order" else repeat(rng)


def _with_lead_in(rng: Random, template: str) -> str:
    can = not template.startswith("{adverb}")
    return f"{LEAD_IN} {template}" if can and rng.random() < LEAD_IN_SHARE else template
