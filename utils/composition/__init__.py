"""What heads do by their weights alone: circuits, how heads are joined, and whether they copy.

Every function takes a model, or its :class:`HeadWeights` where a model is asked many questions.
"""

from utils.composition.circuits import (
    OV_eigenvalues,
    copied_tokens,
    eigenvalue_copying_scores,
    full_OV,
    full_QK,
    matched_tokens,
    positional_QK,
)
from utils.composition.heads import Head, HeadWeights
from utils.composition.scores import (
    composition_deviations,
    composition_scores,
    gaussian_baseline,
    virtual_weights,
)

__all__ = [
    "Head",
    "HeadWeights",
    "OV_eigenvalues",
    "composition_deviations",
    "composition_scores",
    "copied_tokens",
    "eigenvalue_copying_scores",
    "full_OV",
    "full_QK",
    "gaussian_baseline",
    "matched_tokens",
    "positional_QK",
    "virtual_weights",
]
