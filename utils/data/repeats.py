"""Repeated random tokens: what came after this token the first time comes again. Only induction can know it.

Olsson et al. 2022, https://arxiv.org/abs/2209.11895.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import torch

from utils.data.pairs import PromptPairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPEAT_CORRUPTIONS = {
    "answer": "one token differs: another one follows the first mention, and is then the right answer",
    "random": "other tokens stand before: nothing is repeated",
}


def repeated_tokens(
    tokenizer: "PreTrainedTokenizerBase | Sequence[int]",
    n: int,
    corruption: str = "answer",
    *,
    length: int = 20,
    bos: int | None = None,
    seed: int = 0,
) -> PromptPairs:
    """A segment of different random tokens, and its beginning again; asked is how it goes on.

    Named positions: "FIRST" (the first mention of the last token), "FIRST+1" (what followed it), "END".

    Args:
        tokenizer: A model's tokenizer, whose whole words are drawn from; for a model without one, the ids to draw
            from.
        n: How many pairs.
        corruption: One of ``REPEAT_CORRUPTIONS``.
        length: Tokens in the segment, at least 3.
        bos: What stands first, for a model without a tokenizer; by default nothing.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: if the corruption is not known, or there are not enough tokens to draw from.
    """
    if corruption not in REPEAT_CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(REPEAT_CORRUPTIONS)}, not {corruption!r}")
    if n < 1 or length < 3:
        raise ValueError(f"n must be at least 1 and length at least 3, not {n} and {length}")
    if isinstance(tokenizer, Sequence):
        words, names, d_vocab = list(tokenizer), {i: str(i) for i in tokenizer}, max(*tokenizer, bos or 0) + 1
    else:
        names = _whole_words(tokenizer)
        words, d_vocab, bos = list(names), len(tokenizer), tokenizer.bos_token_id
    if len(words) < 2 * length:
        raise ValueError(f"two segments of {length} need {2 * length} different words: there are {len(words)}")
    asked, start = length // 2, [] if bos is None else [bos]
    clean, corrupted, right, wrong = [], [], [], []
    for row in range(n):
        drawn = Random(f"repeated tokens {seed} {row}").sample(words, 2 * length)
        segment, other = drawn[:length], drawn[length:]
        first = other if corruption == "random" else [*segment[: asked + 1], other[asked + 1], *segment[asked + 2 :]]
        clean.append([*start, *segment, *segment[: asked + 1]])
        corrupted.append([*start, *first, *segment[: asked + 1]])
        right.append(segment[asked + 1])
        wrong.append(other[asked + 1])
    at = {"FIRST": len(start) + asked, "FIRST+1": len(start) + asked + 1, "END": len(start) + length + asked}
    positions = {name: torch.full((n,), place) for name, place in at.items()}
    return PromptPairs(
        kind=f"repeated-token ({corruption})",
        clean=torch.tensor(clean),
        corrupted=torch.tensor(corrupted),
        right=torch.tensor(right),
        wrong=torch.tensor(wrong),
        end=positions["END"],
        positions=positions,
        texts=tuple(" ".join(names[i] for i in row[len(start) :]) for row in clean),
        corrupted_texts=tuple(" ".join(names[i] for i in row[len(start) :]) for row in corrupted),
        answers=tuple(names[i] for i in right),
        wrong_answers=tuple(names[i] for i in wrong),
        d_vocab=d_vocab,
    )


def _whole_words(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """The tokens that are a word or begin one, with the space before it where the tokenizer keeps one."""
    written = enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    words = {i: found for i, token in written if (found := re.fullmatch(r"([Ġ▁]?)([A-Za-z]{3,})", token))}
    keeps_spaces = any(found[1] for found in words.values())  # written so by byte-level tokenizers and SentencePiece
    return {i: found[2] for i, found in words.items() if bool(found[1]) == keeps_spaces}
