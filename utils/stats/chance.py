"""Could chance have done it? Permutation tests, a correction for many tests, and how large an effect is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from utils.stats.samples import as_samples

if TYPE_CHECKING:
    import numpy as np

PERMUTATIONS = 10_000
"""Where there are no more relabelings than this, a test counts them all and its p-value is exact."""


class Test(NamedTuple):
    """What a test found: the statistic as observed, and how often chance alone does as well, on either side."""

    __test__ = False  # not for pytest

    statistic: float
    p: float


def permutation_test(
    a: Float[Tensor, "sample_a"],
    b: Float[Tensor, "sample_b"],
    statistic: Callable[[Tensor, Tensor], float] | None = None,
    resamples: int = PERMUTATIONS,
    seed: int = 0,
) -> Test:
    """Test whether two groups differ: how often does a random split of all samples differ as much?

    Args:
        a: One group.
        b: The other; the groups are independent. For two numbers of the same prompt see :func:`sign_flip_test`.
        statistic: From the two groups to one number; by default the mean of ``a`` minus the mean of ``b``.
        resamples: How many random splits, unless there are no more than these in all.
        seed: The same seed gives the same splits.

    Returns:
        The observed statistic and its two-sided p-value, which is never zero: the observed split is one of those that
        are counted.

    Raises:
        ValueError: if a group is empty, or a sample is not one finite number.

    Source: Phipson & Smyth 2010, https://doi.org/10.2202/1544-6115.1585
    """
    from scipy import stats

    groups = _one_number_each(a, "a"), _one_number_each(b, "b")
    if statistic is None:
        settings = {"statistic": lambda a, b, axis: a.mean(axis) - b.mean(axis), "vectorized": True, "batch": 1000}
    else:
        settings = {
            "statistic": lambda a, b: float(statistic(torch.from_numpy(a.copy()), torch.from_numpy(b.copy()))),
            "vectorized": False,
        }
    found = stats.permutation_test(groups, n_resamples=resamples, rng=seed, **settings)
    return Test(float(found.statistic), float(found.pvalue))


def sign_flip_test(differences: Float[Tensor, "pair"], resamples: int = PERMUTATIONS, seed: int = 0) -> Test:
    """Test whether the mean of paired differences is zero: how often is it as far off with random signs?

    Returns:
        The mean and its two-sided p-value, exact for up to 13 pairs, and never zero.

    Raises:
        ValueError: if there is no pair, or a difference is not one finite number.
    """
    from scipy import stats

    pairs = _one_number_each(differences, "differences")
    found = stats.permutation_test(
        (pairs, -pairs),
        lambda kept, flipped, axis: kept.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=1000,
        rng=seed,
    )
    return Test(float(found.statistic), float(found.pvalue))


def holm(p_values: Float[Tensor, "*tests"]) -> Float[Tensor, "*tests"]:
    """Holm's adjusted p-values: below 0.05 where a finding holds although so many tests were made.

    Raises:
        ValueError: if a p-value is not between 0 and 1.

    Source: Holm 1979, https://www.jstor.org/stable/4615733
    """
    p = as_samples(p_values, "p_values", at_least=1)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p_values must lie between 0 and 1.")
    ascending, order = p.flatten().sort()
    others = torch.arange(len(ascending), 0, -1, device=p.device)
    adjusted = (ascending * others).cummax(0).values.clamp(max=1)
    return torch.empty_like(adjusted).scatter(0, order, adjusted).reshape(p.shape)


def effect_size(a: Float[Tensor, "sample_a"], b: Float[Tensor, "sample_b"]) -> float:
    """Hedges' g: the difference of two means in standard deviations of a group, corrected for small samples.

    Raises:
        ValueError: if a group has fewer than two samples, or neither varies.

    Source: Hedges 1981, https://doi.org/10.3102/10769986006002107
    """
    a, b = as_samples(a, "a", at_least=2), as_samples(b, "b", at_least=2)
    freedom = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * a.var() + (len(b) - 1) * b.var()) / freedom
    if pooled == 0:
        raise ValueError("effect_size needs samples that vary: the standard deviation is zero.")
    return ((a.mean() - b.mean()) / pooled.sqrt()).item() * (1 - 3 / (4 * freedom - 1))


def _one_number_each(samples: Tensor, name: str) -> "np.ndarray":
    """In double precision, so that equal statistics of two relabelings are seen to be equal."""
    samples = as_samples(samples, name, at_least=1).double().cpu().numpy()
    if samples.ndim != 1:
        raise ValueError(f"{name} holds one number a sample, and has shape {samples.shape}: test one at a time.")
    return samples
