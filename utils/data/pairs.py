"""Pairs of prompts that differ in what a behaviour depends on: where every intervention starts."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.metrics import Metric, logit_difference, probability_difference

SHOWN = 3

Answers = Int[Tensor, "prompt"] | Bool[Tensor, "prompt vocab"]


@dataclass(frozen=True, repr=False, eq=False)
class PromptPairs:
    """Clean prompts beside corrupted ones, padded on the right.

    A pair has the same length and the same words at the same positions, but for those that the corruption changes.
    Answers are those of the clean prompt, so that a metric means the same on both. ``pairs[:8]``, ``pairs[3]`` and
    ``pairs[mask]`` are pairs too.

    Attributes:
        kind: What is asked, and how it is corrupted.
        clean: Token ids [prompt, seq], as ``model.to_tokens`` makes them: BOS first, if the tokenizer has one.
        corrupted: The same with other words [prompt, seq].
        right: The right answers: their token ids [prompt], or true for each of several [prompt, vocab].
        wrong: The answers of a model that missed the point, likewise.
        end: The position of each prompt's last token, after which the answer comes [prompt].
        positions: For each named word ("IO", "S2", "END", ...) the position of its last token [prompt].
        texts: The clean prompts.
        corrupted_texts: The corrupted prompts.
        answers: The right answers in words.
        wrong_answers: The wrong answers in words.
        d_vocab: How many tokens there are.
    """

    kind: str
    clean: Int[Tensor, "prompt seq"]
    corrupted: Int[Tensor, "prompt seq"]
    right: Answers
    wrong: Answers
    end: Int[Tensor, "prompt"]
    positions: Mapping[str, Int[Tensor, "prompt"]]
    texts: tuple[str, ...]
    corrupted_texts: tuple[str, ...]
    answers: tuple[str, ...]
    wrong_answers: tuple[str, ...]
    d_vocab: int

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> "PromptPairs":
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} pairs, and no number {index}")
        rows = torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index].reshape(-1)
        return replace(self, **{field.name: _rows_of(getattr(self, field.name), rows) for field in fields(self)})

    @property
    def same_length(self) -> bool:
        """Whether all prompts end at the same position, so that a position means the same in each."""
        return bool((self.end == self.end[0]).all())

    @property
    def labels(self) -> list[str]:
        """For each position the name of the word that stands there in every prompt, or else the position's number."""
        labels = [str(position) for position in range(self.clean.shape[1])]
        for name, where in self.positions.items():
            if (where == where[0]).all():
                labels[int(where[0])] = name
        return labels

    def metric(self) -> Metric:
        """How far a model is on the side of the clean answer, from its logits after ``end``.

        The logit difference; where several answers are right, the difference of summed probabilities.
        """
        if self.right.ndim == 1:
            return partial(logit_difference, right=self.right, wrong=self.wrong)
        return self._probability_difference

    def to(self, device: str | torch.device) -> "PromptPairs":
        """The same pairs on another device."""
        return replace(self, **{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})

    def _probability_difference(self, logits: Float[Tensor, "prompt vocab"]) -> Float[Tensor, "prompt"]:
        """A model may have more logits than its tokenizer has tokens: none of those is an answer."""
        right, wrong = (F.pad(mask, (0, logits.shape[-1] - self.d_vocab)) for mask in (self.right, self.wrong))
        return probability_difference(logits, right, wrong)

    def __repr__(self) -> str:
        length = "" if self.same_length else "up to "
        lines = [f"{len(self)} pairs of {self.kind} prompts, {length}{self.clean.shape[1]} tokens"]
        for row in range(min(SHOWN, len(self))):
            lines.append(f"  clean      {self.texts[row]!r} -> {self.answers[row]!r} (not {self.wrong_answers[row]!r})")
            lines.append(f"  corrupted  {self.corrupted_texts[row]!r}")
        more = [f"  ... and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "\n".join([*lines, *more])


def _rows_of(value: object, rows: Tensor) -> object:
    if isinstance(value, Tensor):
        return value[rows.to(value.device)]
    if isinstance(value, tuple):
        return tuple(value[row] for row in rows.tolist())
    if isinstance(value, Mapping):
        return {name: _rows_of(several, rows) for name, several in value.items()}
    return value


def _moved(value: object, device: str | torch.device) -> object:
    if isinstance(value, Mapping):
        return {name: several.to(device) for name, several in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def _check(pairs: PromptPairs) -> None:
    """Raise a ValueError that names the first thing that does not fit."""
    clean, n = pairs.clean, len(pairs.clean)
    if clean.ndim != 2 or not n or clean.shape != pairs.corrupted.shape:
        shapes = f"{tuple(clean.shape)} and {tuple(pairs.corrupted.shape)}"
        raise ValueError(f"clean and corrupted need the same shape [prompt, seq] and at least one prompt: {shapes}")
    for name in ("clean", "corrupted"):
        _check_ids(name, getattr(pairs, name), pairs.d_vocab)
    for name in ("texts", "corrupted_texts", "answers", "wrong_answers", "right", "wrong", "end"):
        if len(getattr(pairs, name)) != n:
            raise ValueError(f"{name} has {len(getattr(pairs, name))} entries for {n} prompts")
    _check_answers(pairs)
    for name, where in {"end": pairs.end, **pairs.positions}.items():
        if where.shape != (n,) or where.is_floating_point() or not ((where >= 0) & (where < clean.shape[1])).all():
            raise ValueError(
                f"the position of {name!r} must be one of 0 to {clean.shape[1] - 1} in each prompt: {where}"
            )
    seen = torch.arange(clean.shape[1], device=clean.device) <= pairs.end[:, None]
    same = ~((clean != pairs.corrupted) & seen).any(1)
    if same.any():
        raise ValueError(f"clean and corrupted are the same in rows {same.nonzero()[:, 0].tolist()}")


def _check_answers(pairs: PromptPairs) -> None:
    right, wrong = pairs.right, pairs.wrong
    if right.shape != wrong.shape or right.dtype != wrong.dtype:
        raise ValueError("right and wrong are both token ids [prompt], or both masks [prompt, vocab]")
    if right.ndim == 1:
        for name, answers in (("right", right), ("wrong", wrong)):
            _check_ids(name, answers, pairs.d_vocab)
        both = right == wrong
    elif right.dtype != torch.bool or right.shape != (len(pairs), pairs.d_vocab):
        raise ValueError(f"masks of answers are boolean [prompt, {pairs.d_vocab}], not {right.dtype} {right.shape}")
    else:
        both = (right & wrong).any(1) | ~right.any(1) | ~wrong.any(1)
    if both.any():
        rows = both.nonzero()[:, 0].tolist()
        raise ValueError(f"the right and the wrong answers must differ, and neither be missing: see rows {rows}")


def _check_ids(name: str, ids: Tensor, d_vocab: int) -> None:
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name} holds token ids, not {ids.dtype}")
    outside = ids[(ids < 0) | (ids >= d_vocab)]
    if len(outside):
        raise ValueError(f"{name} holds token {outside[0].item()}, and the vocabulary ends at {d_vocab - 1}")
