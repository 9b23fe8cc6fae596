"""Greater-than: "The war lasted from 1732 to 17" asks for a later year of the century.

Hanna et al. 2023, https://arxiv.org/abs/2305.00586.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from utils.data.drafts import Draft, assemble, draw_scenery, question
from utils.data.pairs import PromptPairs
from utils.data.tokens import MICRO_WORLD, NotOneToken, language_of, singles
from utils.models import prompts
from utils.models.world.templates.time import YEAR_TEMPLATES
from utils.models.world.words import CENTURIES, EVENTS, LASTED, YEARS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CORRUPTED_YEAR = {MICRO_WORLD: "02"}
"""The year in every corrupted prompt: the earliest that the micro-world knows; in English "01", as in the paper."""
EARLIEST, LATEST = 3, 97


@dataclass(frozen=True)
class Years:
    """The years that a tokenizer splits into a century and two digits.

    Attributes:
        tokens: The token of each two digits that are one after some century.
        first: (century, year) that a clean prompt may start with.
        corrupted: The year that the corrupted prompts start with.
    """

    tokens: dict[str, int]
    first: list[tuple[str, str]]
    corrupted: str


def year_templates(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The templates for a tokenizer. All prompts of one template have the same length."""
    if language_of(tokenizer) == MICRO_WORLD:
        return list(YEAR_TEMPLATES)
    return [template.replace("{C} {Y}", "{C}{Y}") for template in YEAR_TEMPLATES]


def greater_than(
    tokenizer: "PreTrainedTokenizerBase",
    n: int,
    *,
    template: str | None = None,
    split: str = "held_out",
    seed: int = 0,
) -> PromptPairs:
    """Spans of years that ask for the last two digits of the second year, which has to be later than the first.

    Right are all later years, wrong are the first year and all earlier ones: the metric is the difference of their
    probabilities. The corrupted prompt starts so early that nearly every year is right.

    Named positions: "YY" (the first year's last two digits), "XX" (the century before them), "END".

    Args:
        tokenizer: A model's tokenizer: tiny-lm's, or one that reads English and splits years as GPT-2's does.
        n: How many pairs.
        template: One of :func:`year_templates`; by default every prompt draws its own.
        split: For the micro-world: "train", or "held_out" for first years that training never showed.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: if the template is not known.
        NotOneToken: if the tokenizer does not split years into a century and two digits.
    """
    templates = year_templates(tokenizer)
    if template is not None and template not in templates:
        raise ValueError(f"{template!r} is not one of year_templates(tokenizer)")
    language, years = language_of(tokenizer), _years(tokenizer)
    lasted, events = singles(tokenizer, LASTED, "verbs"), singles(tokenizer, EVENTS, "events")  # so lengths are equal
    drafts = []
    for row in range(n):
        rng = Random(f"greater-than {split} {seed} {row}")
        if language == MICRO_WORLD:
            asked, slots = _draw_from_world(rng, split, template, lasted)
        else:
            asked = template or rng.choice(templates)
            century, year = rng.choice(years.first)
            slots = {**draw_scenery(rng, tokenizer, asked), "lasted": rng.choice(lasted), "other": rng.choice(events)}
            slots |= {"C": century, "Y": year}
        later, earlier = f"{int(slots['Y']) + 1:02d}-99", f"00-{slots['Y']}"
        named = {"XX": "C", "YY": "Y"}
        drafts.append(Draft(question(asked, language), slots, {"Y": years.corrupted}, later, earlier, named))
    return assemble("greater-than", tokenizer, drafts, _masks(tokenizer, drafts, years))


def _masks(
    tokenizer: "PreTrainedTokenizerBase", drafts: Sequence[Draft], years: Years
) -> tuple[Bool[Tensor, "prompt vocab"], Bool[Tensor, "prompt vocab"]]:
    """Which tokens are years after the first one, and which are others."""
    year_of = torch.full((len(tokenizer),), -1)
    year_of[list(years.tokens.values())] = torch.tensor([int(year) for year in years.tokens])
    first = torch.tensor([int(draft.slots["Y"]) for draft in drafts]).reshape(-1, 1)
    return year_of > first, (year_of >= 0) & (year_of <= first)


def _draw_from_world(
    rng: Random, split: str, template: str | None, lasted: Sequence[str]
) -> tuple[str, dict[str, str]]:
    while True:
        prompt = prompts.year_prompts(1, rng.getrandbits(32), split, template)[0]
        if int(prompt.slots["Y"]) >= EARLIEST and prompt.slots["lasted"] in lasted:
            return prompt.template, prompt.slots


def _years(tokenizer: "PreTrainedTokenizerBase") -> Years:
    language = language_of(tokenizer)
    between = " " if language == MICRO_WORLD else ""
    corrupted = CORRUPTED_YEAR.get(language, "01")
    tokens, splits = {}, {}
    for century in CENTURIES:
        texts = [f"in {century}", *(f"in {century}{between}{year}" for year in YEARS)]
        start, *whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
        split = {year: ids[-1] for year, ids in zip(YEARS, whole, strict=True) if ids[:-1] == start}
        tokens |= {year: token for year, token in split.items() if token != tokenizer.unk_token_id}
        splits[century] = [year for year in split if year in tokens]
    first = [
        (century, year)
        for century, several in splits.items()
        for year in several
        if corrupted in several and EARLIEST <= int(year) <= LATEST
    ]
    if not first:
        raise NotOneToken("this tokenizer does not split years into a century and two digits, as in 17 32")
    return Years(tokens, first, corrupted)
