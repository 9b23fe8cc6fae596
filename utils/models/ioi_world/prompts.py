"""Indirect-object prompts of the IOI micro-language and their corruptions, ready for a notebook."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from utils.models.ioi_world import held_out, sentences
from utils.models.ioi_world.templates import LEAD_IN
from utils.models.ioi_world.words import BOS, ID_OF
from utils.models.prompts import Prompt, PromptSet

CORRUPTIONS = {
    "abc": "three other names: nobody is named twice",
    "swap": "S2 is the indirect object: the answer is the other name",
    "order": "IO and S1 change places in the opening: the answer stays",
    "names": "two other names in the same places: the answer is another name in the same place",
}
ORDERS = ("ABBA", "BABA")


@dataclass(frozen=True, repr=False)
class IOIPrompts(PromptSet):
    """Indirect-object prompts with their tokens and the position of every role.

    Attributes:
        tokens: Token ids [prompt, seq], as the model's tokenizer makes them of ``texts``: BOS first, and BOS to fill up
            where prompts differ in length.
        positions: For each role of ``sentences.ROLES`` its position in every prompt [prompt].
        labels: For each prompt a label of every token: a role, "BOS", or "" for the rest.
    """

    tokens: Tensor
    positions: Mapping[str, Tensor]
    labels: tuple[tuple[str, ...], ...]

    @property
    def answer_ids(self) -> Tensor:
        """The token ids of the right answers [prompt]."""
        return torch.tensor([ID_OF[answer] for answer in self.answers])

    @property
    def wrong_ids(self) -> Tensor:
        """The token ids of the wrong answers [prompt]."""
        return torch.tensor([ID_OF[wrong] for wrong in self.wrong])


def textbook_ioi_templates(split: str = "held_out") -> list[str]:
    """The templates of a split, in a fixed order. All prompts of one template have the same length."""
    return list(held_out.TEMPLATES[held_out.check_split(split)])


def textbook_ioi_prompts(
    n: int,
    seed: int = 0,
    split: str = "held_out",
    template: str | None = None,
    order: str | None = None,
    corruption: str | None = None,
) -> IOIPrompts:
    """Prompts with two names, one of them again as the giver, that ask for the receiver.

    Clean and corrupted prompts of the same arguments belong together row by row: all words but the names are the same,
    roles stand at the same positions, and ``answers`` and ``wrong`` are those of the clean prompt, so that a logit
    difference means the same on both.

    Args:
        n: How many.
        seed: The same seed gives the same prompts.
        split: "train"; "held_out": names, and combinations of opening and ending, not seen in training; or
            "new_openings": such names after openings not seen in training.
        template: One of ``textbook_ioi_templates``; by default every prompt draws its own.
        order: "ABBA" (the receiver is named first), "BABA", or None for the two in turn.
        corruption: One of ``CORRUPTIONS``, or None for the clean prompts.

    Raises:
        ValueError: if an argument is not one of those named.
    """
    _check(split, template, order, corruption)
    drawn = []
    for row in range(n):
        rng = Random(f"textbook-ioi prompts {split} {seed} {row}")
        drawn.append(sentences.giving(rng, split, template, order or ORDERS[row % 2]))
    shown = [corrupt(s, corruption, Random(f"{corruption} {split} {seed} {row}"), split) for row, s in enumerate(drawn)]
    return IOIPrompts(
        f"textbook indirect-object{f' ({corruption})' if corruption else ''}",
        tuple(_prompt(clean, sentence) for clean, sentence in zip(drawn, shown, strict=True)),
        _pad([[ID_OF[token] for token in s.tokens[: s.positions["END"] + 1]] for s in shown]),
        {role: torch.tensor([s.positions[role] for s in drawn]) for role in sentences.ROLES},
        tuple(_labels(s) for s in drawn),
    )


def corrupt(sentence: sentences.Sentence, corruption: str | None, rng: Random, split: str) -> sentences.Sentence:
    """The sentence with other names, as ``CORRUPTIONS`` says. The positions keep the roles of the clean sentence."""
    io, subject = (sentence.tokens[sentence.positions[role]] for role in ("IO", "S1"))
    others = rng.sample([name for name in held_out.names_of(split) if name not in (io, subject)], 3)
    names = {
        None: (io, subject, subject),
        "abc": others,
        "swap": (io, subject, io),
        "order": (subject, io, subject),
        "names": (others[0], others[1], others[1]),
    }[corruption]
    tokens = list(sentence.tokens)
    for role, name in zip(("IO", "S1", "S2"), names, strict=True):
        tokens[sentence.positions[role]] = name
    return sentences.Sentence(sentence.kind, tuple(tokens), sentence.positions, sentence.template)


def _prompt(clean: sentences.Sentence, shown: sentences.Sentence) -> Prompt:
    answer, wrong = (clean.tokens[clean.positions[role]] for role in ("IO", "S1"))
    names = {role: shown.tokens[shown.positions[role]] for role in ("IO", "S1", "S2")}
    return Prompt(shown.prompt, answer, wrong, shown.template, names)


def _labels(sentence: sentences.Sentence) -> tuple[str, ...]:
    role_at = {position: role for role, position in sentence.positions.items()}
    return ("BOS", *(role_at.get(position, "") for position in range(1, sentence.positions["END"] + 1)))


def _pad(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows), default=0)
    return torch.tensor([row + [ID_OF[BOS]] * (longest - len(row)) for row in rows])


def _check(split: str, template: str | None, order: str | None, corruption: str | None) -> None:
    held_out.check_split(split)
    if order not in (None, *ORDERS):
        raise ValueError(f"order must be one of {', '.join(ORDERS)} or None, not {order!r}")
    if corruption not in (None, *CORRUPTIONS):
        raise ValueError(f"corruption must be one of {', '.join(CORRUPTIONS)} or None, not {corruption!r}")
    known = {known for several in held_out.TEMPLATES.values() for known in several}
    if template is not None and template.removeprefix(f"{LEAD_IN} ") not in known:
        raise ValueError(f"{template!r} is not one of textbook_ioi_templates(split)")
