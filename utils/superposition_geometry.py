"""The geometry of features in superposition: how many are represented, in how many dimensions, in which shape.

Every function takes feature directions W [*grid, hidden, feature], column i being feature i, as
``utils.superposition.train_toy_models`` gives them; the decoder of a sparse autoencoder, transposed, will do as well.
The measures are those of Elhage et al. 2022, https://transformer-circuits.pub/2022/toy_model/index.html.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.superposition import ToyModels, train_toy_models

KEPT = 0.5
"""The norm from which on a feature counts as represented; one that is read back without loss has norm 1."""
OVERLAP = 0.25
"""The cosine from which on two features count as sharing dimensions."""
FLAT = 0.35
"""The singular value, as a share of the largest, below which a shape does not extend in a direction."""
REGULAR = 0.15
"""How far the cosines between a shape's features may be from those of the regular one for it to have the name."""
SHAPES = {
    "dedicated dimension": (1, 1, []),
    "antipodal pair": (2, 1, [-1.0]),
    "triangle": (3, 2, [-1 / 2] * 3),
    "tetrahedron": (4, 3, [-1 / 3] * 6),
    "pentagon": (5, 2, [math.cos(4 * math.pi / 5)] * 5 + [math.cos(2 * math.pi / 5)] * 5),
}
"""Regular arrangements: how many features, in how many dimensions, with which cosines between them, in order."""
SHARED = 0.25
"""The interference from which on a represented feature counts as being in superposition."""
PHASES = ("not represented", "dedicated dimension", "superposition")


def feature_norms(W: Float[Tensor, "*grid hidden feature"]) -> Float[Tensor, "*grid feature"]:
    """The length of each feature's direction: near 1 where it is represented, near 0 where it is not."""
    return W.norm(dim=-2)


def features_kept(W: Float[Tensor, "*grid hidden feature"], threshold: float = KEPT) -> Int[Tensor, "*grid"]:
    """How many features each model represents: those whose direction is longer than a threshold."""
    return (feature_norms(W) > threshold).sum(-1)


def interference_matrix(W: Float[Tensor, "*grid hidden feature"]) -> Float[Tensor, "*grid feature feature"]:
    """W^T W: what each feature (column) writes into the output of each feature (row), before bias and ReLU."""
    return W.mT @ W


def interference(W: Float[Tensor, "*grid hidden feature"]) -> Float[Tensor, "*grid feature"]:
    """How much of the other features lies along each feature's direction: the sum of (W_i_hat . W_j)^2 over j != i."""
    along = _unit(W).mT @ W
    return along.square().sum(-1) - along.diagonal(dim1=-2, dim2=-1).square()


def feature_dimensionality(W: Float[Tensor, "*grid hidden feature"]) -> Float[Tensor, "*grid feature"]:
    """The share of a dimension that each feature has: D_i = |W_i|^2 / sum over j of (W_i_hat . W_j)^2.

    A feature with a dimension of its own has 1, one of an antipodal pair 1/2, one of a pentagon 2/5, an absent one 0.
    """
    along = (_unit(W).mT @ W).square().sum(-1)
    return torch.where(along > 0, feature_norms(W).square() / along.clamp(min=torch.finfo(W.dtype).tiny), 0)


def dimensions_per_feature(W: Float[Tensor, "*grid hidden feature"]) -> Float[Tensor, "*grid"]:
    """The number of hidden dimensions over the number of represented features, counted as the squared norm of W."""
    return W.shape[-2] / W.square().sum((-2, -1))


@dataclass(frozen=True)
class Shape:
    """Features that share dimensions with one another and with no others.

    Attributes:
        features: Their numbers.
        dimensions: How many dimensions they span.
        name: As in ``SHAPES`` if the arrangement is regular, else "6 features in 2 dimensions" and the like.
    """

    features: tuple[int, ...]
    dimensions: int
    name: str


def arrangement(W: Float[Tensor, "hidden feature"]) -> list[Shape]:
    """Into which shapes one model arranges the features that it represents.

    Raises:
        ValueError: if W is not the matrix of one model.
    """
    if W.ndim != 2:
        raise ValueError(f"arrangement wants W [hidden, feature] of one model, got the shape {list(W.shape)}.")
    left = (feature_norms(W) > KEPT).nonzero().flatten().tolist()
    near = (_unit(W).mT @ _unit(W)).abs() > OVERLAP
    shapes = []
    while left:
        group = [left.pop(0)]
        for feature in group:  # the loop also visits what it appends
            group += [other for other in left if near[feature, other]]
            left = [other for other in left if other not in group]
        shapes.append(_shape(W, tuple(sorted(group))))
    return shapes


def _shape(W: Tensor, features: tuple[int, ...]) -> Shape:
    directions = W[:, list(features)]
    stretch = torch.linalg.svdvals(directions)
    dimensions = int((stretch > FLAT * stretch[0]).sum())
    unit, count = _unit(directions), len(features)
    cosines = (unit.T @ unit)[*torch.triu_indices(count, count, 1)].sort().values
    for name, (shape_features, shape_dimensions, shape_cosines) in SHAPES.items():
        if (shape_features, shape_dimensions) == (count, dimensions):
            expected = torch.tensor(shape_cosines).to(cosines)
            if torch.allclose(cosines, expected, atol=REGULAR, rtol=0):
                return Shape(features, dimensions, name)
    name = f"{count} feature{'s' * (count > 1)} in {dimensions} dimension{'s' * (dimensions > 1)}"
    return Shape(features, dimensions, name)


def pair_losses(density: Tensor | float, relative_importance: Tensor | float) -> dict[str, Tensor]:
    """The loss of three ways to store two features in one dimension, with directions of length 1 and no bias.

    The first feature has importance 1. A feature that is left out costs its importance times E[x^2] = density / 3. An
    antipodal pair is read back without loss unless both are there, and then each errs by the smaller of the two.

    Args:
        density: The probability that a feature is not zero.
        relative_importance: That of the second feature.

    Returns:
        The loss if the "first" or the "second" has the dimension, or both share it as an antipodal "pair".
    """
    density, second = torch.as_tensor(density), torch.as_tensor(relative_importance)
    density, second = torch.broadcast_tensors(density, second)
    return {"first": second * density / 3, "second": density / 3, "pair": (1 + second) * density.square() / 6}


@dataclass(frozen=True)
class PhaseDiagram:
    """What becomes of the last of several features, by its sparsity and its importance relative to the others.

    Attributes:
        sparsity: Of all features [sparsity].
        relative_importance: Of the last feature; the others have 1 [importance].
        norm: The length of its direction [sparsity, importance].
        interference: How much of the others lies along it [sparsity, importance].
        models: The best of the restarts at each point.
    """

    sparsity: Float[Tensor, "sparsity"]
    relative_importance: Float[Tensor, "importance"]
    norm: Float[Tensor, "sparsity importance"]
    interference: Float[Tensor, "sparsity importance"]
    models: ToyModels

    @property
    def phase(self) -> Int[Tensor, "sparsity importance"]:
        """Which of ``PHASES`` the last feature is in, by number."""
        return torch.where(self.norm < KEPT, 0, torch.where(self.interference < SHARED, 1, 2))


def phase_diagram(
    sparsity: Sequence[float] | Tensor,
    relative_importance: Sequence[float] | Tensor,
    n_features: int = 2,
    n_hidden: int = 1,
    restarts: int = 10,
    **training: Any,
) -> PhaseDiagram:
    """Train models over a grid of sparsity and of the last feature's importance.

    Two features that start on the same side of one dimension never become an antipodal pair, so about half of the
    restarts fail where a pair would be best: give it enough of them.

    Args:
        sparsity: The probability that a feature is zero, one number for each row.
        relative_importance: The last feature's importance, one number for each column.
        n_features: How many features each model has.
        n_hidden: How many dimensions.
        restarts: How many models to train at each point, of which the best counts.
        **training: As for ``utils.superposition.train_toy_models``.
    """
    rows, columns = (torch.as_tensor(values, dtype=torch.float32) for values in (sparsity, relative_importance))
    importance = torch.ones(len(rows), len(columns), n_features)
    importance[..., -1] = columns
    grid = rows[:, None].expand(len(rows), len(columns))
    models = train_toy_models(n_features, n_hidden, grid, importance, restarts=restarts, **training).best()
    norm, others = feature_norms(models.W)[..., -1], interference(models.W)[..., -1]
    return PhaseDiagram(rows, columns, norm, others, models)


def _unit(W: Float[Tensor, "*grid hidden feature"]) -> Float[Tensor, "*grid hidden feature"]:
    """Directions of length 1; an absent feature stays zero."""
    return W / W.norm(dim=-2, keepdim=True).clamp(min=torch.finfo(W.dtype).tiny)
