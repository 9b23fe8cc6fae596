"""Gendered pronouns: "When Mary went to the store," asks for "she".

The task: Mathwin & Corlouer 2023,
https://cmathw.itch.io/identifying-a-preliminary-circuit-for-predicting-gendered-pronouns-in-gpt-2-smal
"""

from random import Random
from typing import TYPE_CHECKING

from utils.data.drafts import Draft, assemble, draw_scenery, question
from utils.data.pairs import PromptPairs
from utils.data.tokens import MICRO_WORLD, language_of, singles
from utils.models import prompts
from utils.models.world.templates.people import PRONOUN_OPENINGS
from utils.models.world.words import FEMALE_NAMES, MALE_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRONOUNS = ("she", "he")


def pronoun_templates(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The templates for a tokenizer. All prompts of one template have the same length."""
    if language_of(tokenizer) == MICRO_WORLD:
        return list(PRONOUN_OPENINGS)
    # A name at the start of a text may be another token than the same name in the middle of it.
    return [opening for opening in PRONOUN_OPENINGS if opening[0] != "{"]


def gendered_pronoun(
    tokenizer: "PreTrainedTokenizerBase",
    n: int,
    *,
    template: str | None = None,
    split: str = "held_out",
    seed: int = 0,
) -> PromptPairs:
    """Prompts with one name that ask for "she" or "he", beside the same with a name of the other gender.

    Named positions: "NAME", "END".

    Args:
        tokenizer: A model's tokenizer: tiny-lm's, or one that reads English.
        n: How many pairs.
        template: One of :func:`pronoun_templates`; by default every prompt draws its own.
        split: For the micro-world: "train", or "held_out" for names after openings that training never put them in.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: if the template is not known.
        NotOneToken: if there are too few names that are one token of this tokenizer.
    """
    templates, language = pronoun_templates(tokenizer), language_of(tokenizer)
    if template is not None and template not in templates:
        raise ValueError(f"{template!r} is not one of pronoun_templates(tokenizer)")
    names = [singles(tokenizer, several, "names") for several in (FEMALE_NAMES, MALE_NAMES)]
    drafts = []
    for row in range(n):
        rng = Random(f"gendered pronoun {split} {seed} {row}")
        if language == MICRO_WORLD:
            prompt = prompts.gendered_prompts(1, rng.getrandbits(32), split, template)[0]
            asked, slots = prompt.template, prompt.slots
        else:
            asked = template or rng.choice(templates)
            slots = {**draw_scenery(rng, tokenizer, asked), "N": rng.choice(names[row % 2])}
        male = slots["N"] in MALE_NAMES
        corrupted = {"N": rng.choice(names[not male])}
        right, wrong = PRONOUNS[male], PRONOUNS[not male]
        drafts.append(Draft(question(asked, language), slots, corrupted, right, wrong, {"NAME": "N"}))
    return assemble("gendered-pronoun", tokenizer, drafts)
