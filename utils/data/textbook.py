"""Pairs for the textbook-ioi models, made of the prompts that their cards are measured on."""

from random import Random
from typing import TYPE_CHECKING

import torch

from utils.data.pairs import PromptPairs
from utils.models.ioi_world.prompts import IOIPrompts, textbook_ioi_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def textbook_pairs(
    tokenizer: "PreTrainedTokenizerBase",
    n: int,
    corruption: str,
    order: str | None,
    template: str | None,
    split: str,
    seed: int,
) -> PromptPairs:
    """Indirect-object pairs of the textbook micro-world; arguments as those of :func:`utils.data.ioi`."""
    clean = textbook_ioi_prompts(n, seed, split, template, order)
    if corruption == "random":
        corrupted_tokens, corrupted_texts = _resampled(clean, split, seed)
    else:
        corrupted = textbook_ioi_prompts(n, seed, split, template, order, corruption)
        corrupted_tokens, corrupted_texts = corrupted.tokens, corrupted.texts
    return PromptPairs(
        kind=f"indirect-object ({corruption})",
        clean=clean.tokens,
        corrupted=corrupted_tokens,
        right=clean.answer_ids,
        wrong=clean.wrong_ids,
        end=clean.positions["END"],
        positions=dict(clean.positions),
        texts=tuple(clean.texts),
        corrupted_texts=tuple(corrupted_texts),
        answers=tuple(clean.answers),
        wrong_answers=tuple(clean.wrong),
        d_vocab=len(tokenizer),
    )


def _resampled(clean: IOIPrompts, split: str, seed: int) -> tuple[torch.Tensor, list[str]]:
    """For each prompt another of the same template."""
    tokens, texts = clean.tokens.clone(), []
    rng = Random(f"textbook pairs {split} {seed}")
    for row, prompt in enumerate(clean.prompts):
        while True:
            order = rng.choice(("ABBA", "BABA"))
            other = textbook_ioi_prompts(1, rng.getrandbits(32), split, prompt.template, order)
            if not {prompt.answer, prompt.wrong} & {other.answers[0], other.wrong[0]}:
                break
        tokens[row, : other.tokens.shape[1]] = other.tokens[0]
        texts += other.texts
    return tokens, texts
