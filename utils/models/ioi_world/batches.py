"""Training sentences as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from utils.models.ioi_world.sentences import Sentence, training_sentence
from utils.models.ioi_world.words import BOS, ID_OF


@dataclass(frozen=True)
class Batch:
    """Sentences, padded on the right to the longest.

    Attributes:
        tokens: Token ids [sentence, seq].
        real: Whether a token is part of its sentence [sentence, seq].
        asked: Whether the next token is a receiver [sentence, seq].
        sentences: What the rows were made from.
    """

    tokens: Tensor
    real: Tensor
    asked: Tensor
    sentences: tuple[Sentence, ...]

    def rows(self, kind: str) -> Tensor:
        """The rows of the sentences of a kind."""
        return torch.tensor([row for row, s in enumerate(self.sentences) if s.kind == kind], dtype=torch.long)

    def positions(self, role: str, rows: Tensor) -> Tensor:
        """Where a role, or "BOS", stands in each of some rows."""
        if role == "BOS":
            return torch.zeros_like(rows)
        return torch.tensor([self.sentences[row].positions[role] for row in rows.tolist()], dtype=torch.long)


def to_batch(sentences: Sequence[Sentence]) -> Batch:
    """Turn sentences into token ids."""
    shape = len(sentences), max(len(sentence.tokens) for sentence in sentences)
    tokens = torch.full(shape, ID_OF[BOS])
    real, asked = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, sentence in enumerate(sentences):
        ids = [ID_OF[token] for token in sentence.tokens]
        tokens[row, : len(ids)] = torch.tensor(ids)
        real[row, : len(ids)] = True
        if "END" in sentence.positions:
            asked[row, sentence.positions["END"]] = True
    return Batch(tokens, real, asked, tuple(sentences))


def training_batch(name: str, seed: int, step: int, size: int, short: bool) -> Batch:
    """The sentences of one training step, drawn from its arguments alone."""
    rng = Random(f"{name} {seed} {step}")
    return to_batch([training_sentence(rng, short) for _ in range(size)])
