"""Which known variable does a latent stand for? Best-match F1, with the choice made on other text than the score.

For every variable and every latent, the threshold with the best F1 is found exactly on the match split; the best latent
with its threshold is then scored on the test split. Neurons, principal components and random directions go through the
same procedure, so that a dictionary is compared with what choosing among many candidates gives by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_POSITIVES = 20


@dataclass(frozen=True)
class Match:
    """The latent that says best whether a variable is true.

    Attributes:
        variable: Its name.
        feature: Column of the latent.
        threshold: The variable is predicted where the latent is above it.
        f1: On the match split.
    """

    variable: str
    feature: int
    threshold: float
    f1: float


@dataclass(frozen=True)
class Score:
    """How well a match does on the test split. ``always`` is the F1 of predicting the variable everywhere."""

    f1: float
    precision: float
    recall: float
    positives: int
    always: float


def match(features: Float[Tensor, "token feature"], variables: Mapping[str, Bool[Tensor, "token"]]) -> dict[str, Match]:
    """Find the feature and the threshold with the largest F1 for every variable.

    Args:
        features: Latents, neurons or projections. A feature can only predict with its large values: give a direction
            twice, with both signs, if its sign means nothing.
        variables: What is known about every token. Those with fewer than 20 true or false tokens are left out.

    Raises:
        ValueError: if features and variables are of different tokens.
    """
    usable = {name: truth for name, truth in variables.items() if _usable(truth, len(features), name)}
    ordered, order = features.T.contiguous().sort(dim=1, descending=True)  # [feature, token]
    ranks = _ranks(ordered, order)
    found = {}
    for name, truth in usable.items():
        f1, feature, rank = _best(ranks, truth)
        values = ordered[feature]
        below = values[rank].item() if rank < len(truth) else values[-1].item() - 1.0
        found[name] = Match(name, feature, (values[rank - 1].item() + below) / 2, f1)
    return found


def score(
    matches: Mapping[str, Match],
    features: Float[Tensor, "token feature"],
    variables: Mapping[str, Bool[Tensor, "token"]],
) -> dict[str, Score]:
    """Score matches on other text than they were chosen on. Variables without a true token there are left out."""
    scores = {}
    for name, chosen in matches.items():
        truth, predicted = variables[name], features[:, chosen.feature] > chosen.threshold
        positives, hits = int(truth.sum()), int((predicted & truth).sum())
        if positives:
            guesses = max(1, int(predicted.sum()))
            f1 = 2 * hits / (int(predicted.sum()) + positives)
            always = 2 * positives / (len(truth) + positives)
            scores[name] = Score(f1, hits / guesses, hits / positives, positives, always)
    return scores


def _usable(truth: Bool[Tensor, "token"], tokens: int, name: str) -> bool:
    if truth.shape != (tokens,):
        raise ValueError(f"{name!r} is known for shape {list(truth.shape)}, but there are features of {tokens} tokens.")
    return MIN_POSITIVES <= int(truth.sum()) <= tokens - MIN_POSITIVES


def _ranks(ordered: Float[Tensor, "feature token"], order: Int[Tensor, "feature token"]) -> np.ndarray:
    """How many tokens are predicted at each token's value, the token itself included: [feature, token]."""
    n = ordered.shape[1]
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:, :-1] = ordered[:, :-1] != ordered[:, 1:]  # a threshold cannot part equal values
    ends = torch.where(last, torch.arange(1, n + 1), n + 1).int()
    ends = ends.flip(1).cummin(1).values.flip(1)
    return torch.empty_like(ends).scatter_(1, order, ends).numpy()


def _best(ranks: np.ndarray, truth: Bool[Tensor, "token"]) -> tuple[float, int, int]:
    """The largest F1 over all features and thresholds, its feature, and how many tokens it predicts.

    Between two true tokens F1 only falls, so thresholds at the true tokens are enough: at the j-th of them j are hit.
    """
    positives = int(truth.sum())
    at_true = np.sort(ranks[:, truth.numpy()], axis=1)  # [feature, positive]
    f1 = 2 * np.arange(1, positives + 1) / (at_true + positives)
    # of equal ranks only the last counts all hits, and it has the largest F1
    feature, place = np.unravel_index(f1.argmax(), f1.shape)
    return float(f1[feature, place]), int(feature), int(at_true[feature, place])
