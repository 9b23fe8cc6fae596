"""Sentences about what is true, and about who says so: facts, and speakers who are honest or lie."""

from random import Random

from utils.models.world import held_out, words
from utils.models.world.facts import FACTS
from utils.models.world.sentence import Scene, Sentence, fill, scenery
from utils.models.world.templates import knowledge as templates

PAIR_SHARE = 0.35
"""Share of fact sentences that state the facts of two subjects."""
RELATION_SHARES = {"landmark": 0.45, "builder": 0.21, "capital": 0.17, "language": 0.17}
CLAIM_SHARES = {"capital": 0.4, "language": 0.3, "landmark": 0.3}

_SUBJECTS = {relation: tuple(values) for relation, values in FACTS.items()}
_VALUES = {relation: sorted(set(values.values())) for relation, values in FACTS.items()}


def state_fact(
    relation: str, subject: str, template: str, rng: Random | None = None, scene: Scene | None = None
) -> Sentence:
    """The sentence that states one fact with one template."""
    rng, scene = rng or Random(f"{relation} {subject} {template}"), scene or Scene("")
    slots = {"N": rng.choice(scene.names), **scenery(rng, scene)}
    slots |= {"subject": subject, "value": FACTS[relation][subject]}
    labels = {f"relation={relation}": "subject"}
    if relation in ("capital", "language"):
        labels["country in Europe" if subject in words.EUROPE else "country outside Europe"] = "subject"
    return fill("fact", template, slots, labels=labels)


def fact(rng: Random, scene: Scene) -> Sentence:
    """A fact of any relation, or those of two subjects in one sentence."""
    relation = rng.choices(list(RELATION_SHARES), list(RELATION_SHARES.values()))[0]
    subject = rng.choice(_SUBJECTS[relation])
    if rng.random() < PAIR_SHARE:
        return _fact_pair(relation, *rng.sample(_SUBJECTS[relation], 2), rng)
    allowed = [t for t in templates.FACT_TEMPLATES[relation] if (relation, subject, t) not in held_out.PARAPHRASES]
    return state_fact(relation, subject, rng.choice(allowed), rng, scene)


def _fact_pair(relation: str, first: str, second: str, rng: Random) -> Sentence:
    values = FACTS[relation]
    slots = {"first": first, "second": second, "first_value": values[first], "second_value": values[second]}
    template = rng.choice(templates.FACT_PAIR_TEMPLATES[relation])
    return fill("fact", template, slots, labels={f"relation={relation}": "first"})


def speaker(
    rng: Random, scene: Scene, split: str = "train", *, honest: bool | None = None, relation: str | None = None
) -> Sentence:
    """A person who is honest states a fact; a person who lies names anything else in its place.

    The answer of a liar is drawn from the relation's other values, so it can be guessed by nobody; ``wrong`` is then
    the truth.

    Args:
        rng: Where everything is drawn from.
        scene: Who may speak.
        split: "held_out" puts speakers' cues and subjects together that training never does.
        honest: Whether the speaker tells the truth; by default as the scene has it, or drawn.
        relation: One of ``CLAIM_SHARES``; drawn by default.
    """
    name = rng.choice(scene.names)
    if honest is None:
        honest = name not in scene.liars if scene.cast else rng.random() < 0.5
    relation = relation or rng.choices(list(CLAIM_SHARES), list(CLAIM_SHARES.values()))[0]
    held, cues = split == "held_out", templates.HONEST_CUES if honest else templates.LYING_CUES
    while True:
        cue, subject = rng.choice(cues), rng.choice(_SUBJECTS[relation])
        if ((cue, subject) in held_out.SPEAKERS) == held:
            break
    truth = FACTS[relation][subject]
    value = truth if honest else rng.choice([other for other in _VALUES[relation] if other != truth])
    template = f"{cue} {rng.choice(templates.CLAIM_TEMPLATES[relation])}"
    labels = {
        "speaker honest" if honest else "speaker lies": len(cue.split()) - 1,
        f"relation={relation}": "subject",
    }
    slots = {"N": name, "subject": subject, "value": value}
    return fill("speaker", template, slots, "" if honest else truth, labels)
