"""Indirect objects: "When Mary and John went to the store, John gave a drink to" asks for Mary.

The task, its roles and corruptions: Wang et al. 2022, https://arxiv.org/abs/2211.00593.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from utils.data.drafts import Draft, assemble, draw_scenery, question
from utils.data.pairs import PromptPairs
from utils.data.textbook import textbook_pairs
from utils.data.tokens import ENGLISH, MICRO_WORLD, TEXTBOOK, language_of, single_token, singles
from utils.models import prompts
from utils.models.ioi_world import prompts as textbook
from utils.models.world import people
from utils.models.world.templates.people import IOI_GIVINGS, IOI_OPENINGS
from utils.models.world.words import NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IOI_CORRUPTIONS = {
    **textbook.CORRUPTIONS,
    "random": "another prompt of the same template: other names, in any order, and other things",
}
ORDERS = textbook.ORDERS


def ioi_templates(tokenizer: "PreTrainedTokenizerBase", split: str = "held_out") -> list[str]:
    """The templates for a tokenizer. All prompts of one template have the same length.

    Args:
        tokenizer: A model's tokenizer.
        split: For the micro-worlds: "train" or "held_out".
    """
    language = language_of(tokenizer)
    if language == TEXTBOOK:
        return textbook.textbook_ioi_templates(split)
    if language == MICRO_WORLD:
        return people.ioi_templates(split)
    # A name at the start of a text may be another token than the same name in the middle of it.
    return [f"{opening} {giving}" for opening in IOI_OPENINGS if opening[0] != "{" for giving in IOI_GIVINGS]


def ioi(
    tokenizer: "PreTrainedTokenizerBase",
    n: int,
    corruption: str = "abc",
    *,
    order: str | None = None,
    template: str | None = None,
    names: Sequence[str] | None = None,
    split: str = "held_out",
    seed: int = 0,
) -> PromptPairs:
    """Prompts with two names, one of them again as the giver, that ask for the receiver.

    Named positions: "IO" (the receiver), "S1" and "S2" (the giver, twice), "S1+1" (the word after S1), "END".

    Args:
        tokenizer: A model's tokenizer (``model.tokenizer``): tiny-lm's, textbook-ioi's, or one that reads English.
        n: How many pairs.
        corruption: One of ``IOI_CORRUPTIONS``.
        order: "ABBA" (the receiver is named first), "BABA", or None for the two in turn.
        template: One of :func:`ioi_templates`; by default every prompt draws its own.
        names: Names to draw from, for a tokenizer that reads English; by default all that are one token.
        split: For the micro-worlds: "train", or "held_out" for what training never showed.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: if an argument is not one of those named, or there are too few names.
        NotOneToken: if a name is several tokens; the message names it.
    """
    language, templates = language_of(tokenizer), ioi_templates(tokenizer, split)
    _check(corruption, order, template, templates)
    if names is not None and language != ENGLISH:
        raise ValueError(f"names cannot be chosen for the {language} model: leave them out")
    if language == TEXTBOOK:
        return textbook_pairs(tokenizer, n, corruption, order, template, split, seed)
    known = _usable_names(tokenizer, names)
    drafts = []
    for row in range(n):  # the clean prompts of a seed are the same for every corruption, and for every n
        rng, wanted = Random(f"ioi {split} {seed} {row}"), order or ORDERS[row % 2]
        if language == MICRO_WORLD:
            asked, slots = _draw_from_world(rng, split, template, wanted)
        else:
            asked = template or rng.choice(templates)
            slots = {**draw_scenery(rng, tokenizer, asked), **_draw_people(rng, known, wanted)}
        again = Random(f"ioi {corruption} {split} {seed} {row}")
        drafts.append(_draft(again, tokenizer, question(asked, language), slots, corruption, known))
    pairs = assemble(f"indirect-object ({corruption})", tokenizer, drafts)
    return replace(pairs, positions={**pairs.positions, "S1+1": pairs.positions["S1"] + 1})


def _draw_from_world(rng: Random, split: str, template: str | None, order: str) -> tuple[str, dict[str, str]]:
    """A template and its slots, as the micro-world's own maker draws them."""
    while True:
        prompt = prompts.ioi_prompts(1, rng.getrandbits(32), split, template)[0]
        if (prompt.slots["S"] == prompt.slots["B"]) == (order == "ABBA"):
            return prompt.template, prompt.slots


def _draw_people(rng: Random, names: Sequence[str], order: str) -> dict[str, str]:
    first, second = rng.sample(names, 2)
    return {"A": first, "B": second, "S": second if order == "ABBA" else first}


def _draft(
    rng: Random,
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    slots: dict[str, str],
    corruption: str,
    names: Sequence[str],
) -> Draft:
    """Corrupt the names in the slots A, B and S; the roles stay those of the clean prompt."""
    subject, receiver = ("A", "B") if slots["S"] == slots["A"] else ("B", "A")
    first, second = slots["A"], slots["B"]
    x, y, z = rng.sample([name for name in names if name not in (first, second)], 3)
    corrupted = {
        "abc": {"A": x, "B": y, "S": z},
        "swap": {"S": slots[receiver]},
        "order": {"A": second, "B": first},
        "names": {receiver: x, subject: y, "S": y},
        "random": {"A": x, "B": y, "S": rng.choice((x, y))},
    }[corruption]
    if corruption == "random":
        corrupted |= draw_scenery(rng, tokenizer, template)
    named = {"IO": receiver, "S1": subject, "S2": "S"}
    return Draft(template, slots, corrupted, slots[receiver], slots[subject], named)


def _usable_names(tokenizer: "PreTrainedTokenizerBase", names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return singles(tokenizer, NAMES, "names", at_least=5)
    for name in names:
        single_token(tokenizer, name)
    if len(set(names)) < 5:
        raise ValueError(f"two names and three others to replace them are needed, not {len(set(names))}")
    return tuple(dict.fromkeys(names))


def _check(corruption: str, order: str | None, template: str | None, templates: Sequence[str]) -> None:
    if corruption not in IOI_CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(IOI_CORRUPTIONS)}, not {corruption!r}")
    if order not in (None, *ORDERS):
        raise ValueError(f"order must be one of {', '.join(ORDERS)} or None, not {order!r}")
    if template is not None and template not in templates:
        raise ValueError(f"{template!r} is not one of ioi_templates(tokenizer, split)")
