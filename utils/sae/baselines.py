"""What a dictionary has to beat: neurons, principal components and random directions, and a supervised probe above."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

RIDGE = 1e-3


def both_signs(features: Float[Tensor, "token feature"]) -> Float[Tensor, "token both"]:
    """Each feature and its negative, for what has no preferred sign."""
    return torch.cat([features, -features], dim=1)


def random_directions(d: int, n: int, seed: int = 0) -> Float[Tensor, "d n"]:
    """Directions drawn evenly from the sphere."""
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(d, n, generator=rng), dim=0)


def principal_directions(x: Float[Tensor, "token d"]) -> Float[Tensor, "d d"]:
    """The principal components of activations, the largest first, as columns."""
    return torch.linalg.eigh(torch.cov(x.T)).eigenvectors.flip(1)


def linear_probe(
    x: Float[Tensor, "token d"], variables: Mapping[str, Bool[Tensor, "token"]]
) -> Float[Tensor, "d variable"]:
    """Directions of ridge regression from activations to variables: they know the answer, and serve as a ceiling."""
    truth = torch.stack([truth.float() for truth in variables.values()], dim=1)
    centred = (x - x.mean(0)).double()
    gram = centred.T @ centred
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    return torch.linalg.solve(gram, centred.T @ (truth - truth.mean(0)).double()).float()
