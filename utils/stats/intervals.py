"""How sure a number is: bootstrap intervals, and the interval of a share."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from utils.models.measurement import wilson
from utils.stats.samples import as_samples, check_level

RESAMPLES = 2000


class Interval(NamedTuple):
    """The two ends of an interval, each of the shape of the number that they enclose."""

    low: Tensor
    high: Tensor


def bootstrap_interval(
    values: Float[Tensor, "sample *rest"],
    statistic: Callable[[Float[Tensor, "sample *rest"]], Float[Tensor, "*out"]] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval of a statistic, by default the mean over the first dimension.

    It assumes nothing about the distribution, and takes every entry of ``rest`` on the same resamples. It is a little
    too short for few samples: the 95 % interval of a mean of 10 holds the truth in about 89 % of all cases, of 30 in
    about 93 %. Paired quantities stay together when they share a sample: ``torch.stack([a, b], dim=1)``.

    Args:
        values: Independent samples; a sequence of numbers will do.
        statistic: From one resample, of the shape of ``values``, to a tensor of any shape.
        level: The share of cases in which the interval should hold the truth.
        resamples: How many times the samples are drawn anew, with replacement.
        seed: The same seed gives the same interval.

    Raises:
        ValueError: if there are fewer than two samples, a sample is not finite, or ``level`` is not between 0 and 1.

    Source: Efron 1979, https://doi.org/10.1214/aos/1176344552
    """
    values = as_samples(values, "values", at_least=2)
    check_level(level)
    n = len(values)
    draws = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed)).to(values.device)
    if statistic is None:
        times = torch.zeros(resamples, n, dtype=values.dtype, device=values.device)
        times.scatter_add_(1, draws, torch.ones_like(times))
        drawn = torch.tensordot(times / n, values, dims=1)
    else:
        drawn = torch.stack([torch.as_tensor(statistic(values[draw])) for draw in draws])
    return Interval(quantile(drawn, (1 - level) / 2), quantile(drawn, (1 + level) / 2))


def wilson_interval(right: Bool[Tensor, "*trial"]) -> Interval:
    """Wilson's 95 % interval of the share of true entries: right for few trials, and for shares of 0 and 1.

    Raises:
        ValueError: if there is no trial.

    Source: Wilson 1927, https://doi.org/10.2307/2276774
    """
    right = torch.as_tensor(right)
    if not right.numel():
        raise ValueError("wilson_interval needs at least one trial.")
    return Interval(*map(torch.tensor, wilson(int(right.sum()), right.numel())))


def quantile(drawn: Float[Tensor, "draw *out"], q: float) -> Float[Tensor, "*out"]:
    """As ``Tensor.quantile`` over the first dimension, which refuses more than 16 million entries."""
    place = q * (len(drawn) - 1)
    ordered = drawn.sort(0).values
    low = ordered[math.floor(place)]
    return low + (ordered[math.ceil(place)] - low) * (place % 1)
