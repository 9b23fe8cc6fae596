"""From templates and the words in their slots to pairs of prompts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from utils.data.pairs import PromptPairs
from utils.data.tokens import ENGLISH, Encoded, NotOneToken, are_single, encode, language_of, single_token
from utils.models.world.sentence import Scene, scenery

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIES = 200
_ANYWHERE = Scene("")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Draft:
    """One pair before it is tokens.

    Attributes:
        template: Words, with slots in braces.
        slots: What stands in the braces.
        corrupted: The slots that hold something else in the corrupted prompt.
        right: The right answer in words.
        wrong: The wrong answer in words.
        named: Role -> the slot that holds it.
        prose: Whether it is made of sentences, which start with a capital letter in English.
    """

    template: str
    slots: Mapping[str, str]
    corrupted: Mapping[str, str]
    right: str
    wrong: str
    named: Mapping[str, str] = field(default_factory=dict)
    prose: bool = True


@dataclass(frozen=True)
class Filled:
    """A text, and for each slot the place in the text where its first filling ends."""

    text: str
    stops: dict[str, int]


def question(template: str, language: str) -> str:
    """A template of the micro-world up to its ``|``, in the spelling of a language.

    >>> question("because {A} liked {B} , {S} waved to | {I} .", "English")
    'because {A} liked {B}, {S} waved to'
    """
    asked = template.partition("|")[0].strip()
    return re.sub(r" ([,.;])", r"\1", asked) if language == ENGLISH else asked


def fill(template: str, slots: Mapping[str, str], capitals: bool = False) -> Filled:
    """Put words into a template's slots; ``capitals`` makes every sentence start with a capital letter."""
    text, stops, after = "", {}, 0
    for slot in _SLOT.finditer(template):
        text += template[after : slot.start()] + slots[slot[1]]
        stops.setdefault(slot[1], len(text))
        after = slot.end()
    text += template[after:]
    if capitals:
        text = re.sub(r"(?:^|(?<=\. ))[a-z]", lambda letter: letter[0].upper(), text)
    return Filled(text, stops)


def draw_scenery(rng: Random, tokenizer: "PreTrainedTokenizerBase", template: str) -> dict[str, str]:
    """Places and things for the slots of a template, each of them one token.

    Raises:
        NotOneToken: if there seem to be none.
    """
    for _ in range(TRIES):
        drawn = scenery(rng, _ANYWHERE)
        if are_single(tokenizer, [drawn[slot] for slot in _SLOT.findall(template) if slot in drawn]):
            return drawn
    raise NotOneToken(f"no words for the template {template!r} are one token each of this tokenizer")


def assemble(
    kind: str,
    tokenizer: "PreTrainedTokenizerBase",
    drafts: Sequence[Draft],
    masks: tuple[Bool[Tensor, "prompt vocab"], Bool[Tensor, "prompt vocab"]] | None = None,
) -> PromptPairs:
    """Turn drafts into pairs.

    Args:
        kind: What is asked, and how it is corrupted.
        tokenizer: The model's tokenizer.
        drafts: At least one.
        masks: The right and the wrong answers, where there are several; by default those of the drafts are tokens.

    Raises:
        ValueError: if there are no drafts, or a corrupted prompt has other positions than its clean one.
        NotOneToken: if an answer is several tokens.
    """
    if not drafts:
        raise ValueError(f"n must be at least 1: there are no {kind} prompts to make pairs of")
    english = language_of(tokenizer) == ENGLISH
    clean = [fill(d.template, d.slots, english and d.prose) for d in drafts]
    corrupted = [fill(d.template, {**d.slots, **d.corrupted}, english and d.prose) for d in drafts]
    read = [(encode(tokenizer, a.text), encode(tokenizer, b.text)) for a, b in zip(clean, corrupted, strict=True)]
    positions: dict[str, list[int]] = {role: [] for role in (*drafts[0].named, "END")}
    for draft, *texts, encoded in zip(drafts, clean, corrupted, read, strict=True):
        places, others = (_positions(draft, *side) for side in zip(texts, encoded, strict=True))
        if places != others:
            raise ValueError(f"the corruption moves words: {texts[0].text!r} against {texts[1].text!r}")
        for role, place in places.items():
            positions[role].append(place)
    at = {role: torch.tensor(places) for role, places in positions.items()}
    answers, wrong_answers = tuple(d.right for d in drafts), tuple(d.wrong for d in drafts)
    right, wrong = masks or (
        torch.tensor([single_token(tokenizer, word) for word in words]) for words in (answers, wrong_answers)
    )
    return PromptPairs(
        kind=kind,
        clean=padded([encoded.ids for encoded, _ in read], tokenizer),
        corrupted=padded([encoded.ids for _, encoded in read], tokenizer),
        right=right,
        wrong=wrong,
        end=at["END"],
        positions=at,
        texts=tuple(filled.text for filled in clean),
        corrupted_texts=tuple(filled.text for filled in corrupted),
        answers=answers,
        wrong_answers=wrong_answers,
        d_vocab=len(tokenizer),
    )


def _positions(draft: Draft, filled: Filled, encoded: Encoded) -> dict[str, int]:
    places = {role: encoded.position_of(filled.stops[slot]) for role, slot in draft.named.items()}
    return {**places, "END": len(encoded.ids) - 1}


def padded(rows: Sequence[Sequence[int]], tokenizer: "PreTrainedTokenizerBase") -> Tensor:
    """Rows of token ids as one tensor, filled up on the right, where causal attention never looks."""
    filler = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
