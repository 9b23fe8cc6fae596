"""The moment at which a series changes its level."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from utils.stats.intervals import RESAMPLES
from utils.stats.samples import as_samples, check_level


class ChangePoint(NamedTuple):
    """Where a series changes its level.

    Attributes:
        at: The first step of the new level.
        low, high: The ends of the interval of ``at``.
        before, after: The two levels.
        explained: The share of the series' variance that the two levels explain: 1 for a clean jump, 3/4 for a
            straight line, which has no change point.
    """

    at: float
    low: float
    high: float
    before: float
    after: float
    explained: float


def change_point(
    series: Float[Tensor, "step"],
    steps: Sequence[float] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    shortest: int = 2,
) -> ChangePoint:
    """Find the step at which a series jumps from one level to another: the split with the least squared error.

    Two levels and not two slopes: of an S-shaped curve the split is its steepest part, the moment that is meant by a
    phase change; broken lines find the foot of the rise instead. Look at ``explained`` before you believe in a change.

    The interval puts the residuals back in random order, in blocks, because neighbouring steps of a training run are
    alike; where neighbours correlate at 0.5, a 95 % interval still holds the truth in 87 % of all cases only. It says
    where the change of this run is. For other seeds take each run's change point, and their interval:
    ``bootstrap_interval([change_point(run).at for run in runs])``.

    Args:
        series: One value a step.
        steps: The training step of each value; by default 0, 1, 2, ... Every value counts the same, however they are
            spaced.
        level: The share of cases in which the interval should hold the truth.
        resamples: How many series are drawn for the interval.
        seed: The same seed gives the same interval.
        shortest: How many values there must be on either side.

    Raises:
        ValueError: if the series is shorter than ``2 * shortest``, is constant or not finite, or ``steps`` do not fit.

    Source: least squares as in Bai 1997, https://doi.org/10.1162/003465397557132
    """
    series = as_samples(series, "series", at_least=2 * shortest).double().cpu()
    n = len(series)
    steps = list(range(n)) if steps is None else torch.as_tensor(steps).tolist()
    check_level(level)
    if series.ndim != 1 or len(steps) != n:
        raise ValueError(f"change_point takes one series and a step for each value, not {n} values, {len(steps)} steps")
    if (series == series[0]).all():
        raise ValueError("the series is constant: it has no change point.")
    split = int(_best_split(series[None], shortest))
    fitted = torch.cat([part.mean().expand(len(part)) for part in (series[:split], series[split:])])
    residuals, block = series - fitted, math.ceil(n**0.5)
    starts = torch.randint(n, (resamples, math.ceil(n / block)), generator=torch.Generator().manual_seed(seed))
    places = (starts[..., None] + torch.arange(block)).flatten(1)[:, :n] % n  # blocks go round the end
    again = _best_split(fitted + residuals[places], shortest).double()
    low, high = (round(again.quantile((1 + sign * level) / 2).item()) for sign in (-1, 1))
    explained = 1 - (residuals.square().sum() / (series - series.mean()).square().sum()).item()
    return ChangePoint(steps[split], steps[low], steps[high], fitted[0].item(), fitted[-1].item(), explained)


def _best_split(series: Float[Tensor, "draw step"], shortest: int) -> Float[Tensor, "draw"]:
    """The length of the first part in the best of all divisions of each series into two constant parts."""
    n = series.shape[-1]
    before = torch.arange(shortest, n - shortest + 1)
    total = (series - series.mean(-1, keepdim=True)).cumsum(-1)[:, before - 1]
    return before[(total.square() / (before * (n - before))).argmax(-1)]
