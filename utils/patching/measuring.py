"""From final residual streams or logits to the numbers of one or several metrics."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from utils.metrics import Metric

Metrics = Metric | Mapping[str, Metric]
"""One metric, or several by name: what is returned is then a dictionary of the same names."""
Results = Tensor | dict[str, Tensor]
"""The numbers of one metric [*grid, prompt], or of several by name."""


def measure(metric: Metrics, logits: Float[Tensor, "row prompt vocab"]) -> Results:
    """Every metric of every row: [row, prompt], or a dictionary of them.

    Raises:
        ValueError: if a metric does not give one number per prompt.
    """
    if isinstance(metric, Mapping):
        return {name: measure(single, logits) for name, single in metric.items()}
    values = [metric(row) for row in logits]
    if values[0].shape != logits.shape[1:2]:
        raise ValueError(
            f"a metric must give one number for each of the {logits.shape[1]} prompts, but gave the shape "
            f"{tuple(values[0].shape)}: leave the average over prompts to what comes after. See utils.metrics."
        )
    return torch.stack(values)


def each(change: Callable[[Tensor], Tensor], results: Results) -> Results:
    """Apply a function to the numbers of every metric."""
    return {name: change(r) for name, r in results.items()} if isinstance(results, dict) else change(results)


def joined(parts: list[Results]) -> Results:
    """The results of several pieces of a grid, one after the other."""
    if isinstance(parts[0], dict):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(parts)
