"""Facts: "The capital of France is" asks for Paris, beside "The capital of Japan is".

What a fact's subject carries, and where: Meng et al. 2022, https://arxiv.org/abs/2202.05262.
"""

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from utils.data.drafts import Draft, assemble, question
from utils.data.pairs import PromptPairs
from utils.data.tokens import ENGLISH, MICRO_WORLD, language_of, pieces, singles
from utils.models import prompts
from utils.models.world.facts import FACTS
from utils.models.world.templates.knowledge import FACT_TEMPLATES
from utils.models.world.words import CAPITALS, LANGUAGES, REAL_LANDMARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LANDMARKS = {
    **{" ".join(words): city for words, city in REAL_LANDMARKS.items()},
    "Colosseum": "Rome",
    "Sistine Chapel": "Rome",
    "Kremlin": "Moscow",
    "Red Square": "Moscow",
    "Louvre": "Paris",
    "Acropolis": "Athens",
    "Parthenon": "Athens",
    "Forbidden City": "Beijing",
    "Berlin Wall": "Berlin",
    "Buckingham Palace": "London",
    "London Eye": "London",
    "Space Needle": "Seattle",
}
"""Landmarks of the real world, for models that read English."""
ENGLISH_FACTS = {"capital": CAPITALS, "language": LANGUAGES, "landmark": LANDMARKS}
ENGLISH_TEMPLATES = 4
"""How many of a relation's templates are true of the real world too: its first ones."""


def fact_templates(tokenizer: "PreTrainedTokenizerBase", relation: str) -> list[str]:
    """The templates that ask for a relation.

    Raises:
        ValueError: if there is no such relation for this tokenizer.
    """
    language = language_of(tokenizer)
    known = FACTS if language == MICRO_WORLD else ENGLISH_FACTS
    if relation not in known:
        raise ValueError(f"relation must be one of {', '.join(known)}, not {relation!r}")
    asking = [template for template in FACT_TEMPLATES[relation] if "|" in template]
    if language == ENGLISH:
        return [template for template in asking[:ENGLISH_TEMPLATES] if template[0] != "{"]
    return asking


def facts(
    tokenizer: "PreTrainedTokenizerBase",
    n: int,
    relation: str = "capital",
    *,
    template: str | None = None,
    split: str = "held_out",
    seed: int = 0,
) -> PromptPairs:
    """Prompts that ask for a fact about a subject, beside the same question about another subject.

    Right is the clean subject's value, wrong the corrupted one's. Both subjects have as many tokens.

    Named positions: "SUBJECT" (its last token), "END".

    Args:
        tokenizer: A model's tokenizer: tiny-lm's, or one that reads English.
        n: How many pairs.
        relation: "capital", "language" or "landmark"; for the micro-world also "builder".
        template: One of :func:`fact_templates`; by default every prompt draws its own.
        split: For the micro-world: "train", or "held_out" for paraphrases that training never used for that subject.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: if there is no such relation or template, or not a single fact that fits this tokenizer.
    """
    templates, language = fact_templates(tokenizer, relation), language_of(tokenizer)
    if template is not None and template not in templates:
        raise ValueError(f"{template!r} is not one of fact_templates(tokenizer, {relation!r})")
    values = (FACTS if language == MICRO_WORLD else ENGLISH_FACTS)[relation]
    others = _replacements(tokenizer, values)
    asked = [
        (asking, slots)
        for asking, slots in _questions(language, relation, templates, values, split)
        if slots["subject"] in others and template in (None, asking)
    ]
    if not asked:
        raise ValueError(f"no {relation} fits this tokenizer: no two subjects of equal length with one-token values")
    drafts = []
    for row in range(n):
        rng = Random(f"facts {relation} {split} {seed} {row}")
        chosen, slots = rng.choice(asked)
        other = rng.choice(others[slots["subject"]])
        right, wrong = values[slots["subject"]], values[other]
        named = {"SUBJECT": "subject"}
        drafts.append(Draft(question(chosen, language), slots, {"subject": other}, right, wrong, named))
    return assemble(f"fact ({relation})", tokenizer, drafts)


def _questions(
    language: str, relation: str, templates: list[str], values: Mapping[str, str], split: str
) -> list[tuple[str, Mapping[str, str]]]:
    """Every template with the slots that it may be asked with."""
    if language == MICRO_WORLD:
        return [(prompt.template, prompt.slots) for prompt in prompts.fact_prompts(relation, split)]
    return [(template, {"subject": subject}) for template in templates for subject in values]


def _replacements(tokenizer: "PreTrainedTokenizerBase", values: Mapping[str, str]) -> dict[str, list[str]]:
    """For each subject the others with as many tokens and another value; values of several tokens are left out."""
    fitting = set(singles(tokenizer, sorted(set(values.values())), "values", at_least=0))
    subjects = [subject for subject, value in values.items() if value in fitting]
    lengths = dict(zip(subjects, map(len, pieces(tokenizer, subjects)), strict=True))
    several = {
        subject: [o for o, size in lengths.items() if size == length and values[o] != values[subject]]
        for subject, length in lengths.items()
    }
    return {subject: others for subject, others in several.items() if others}
