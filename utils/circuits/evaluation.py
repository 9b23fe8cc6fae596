"""Does a circuit do what the model does? Faithfulness, and its areas over all sizes, CPR and CMD.

``F(C)`` is a metric while the circuit's edges alone work: all others carry what they carry on the corrupted prompts.
``F(M)`` is the model's, and ``F()`` that of no edge at all, which is the metric on the corrupted prompts.

- Faithfulness: ``F(C)`` where ``F()`` is 0 and ``F(M)`` is 1 (Hanna et al. 2024, https://arxiv.org/abs/2403.17806).
- CPR and CMD: faithfulness over circuits of all sizes, as the area under the curve, and between it and 1
  (Mueller et al. 2025, https://arxiv.org/abs/2504.13151).

Both depend on how edges are corrupted: compare only what was measured with the same prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from utils.circuits.circuit import Circuit
from utils.circuits.patching import EdgePatcher
from utils.metrics import Metric, normalised
from utils.stats import Interval, bootstrap_interval

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The sizes of circuits, as shares of all edges, at which MIB measures faithfulness."""


@dataclass(frozen=True)
class Estimate:
    """A number over prompts, with its 95 % bootstrap interval."""

    value: float
    interval: Interval

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.interval.low:.3f}, {self.interval.high:.3f}]"


def circuit_values(
    patcher: EdgePatcher, circuits: Sequence[Circuit], metric: Metric
) -> Float[Tensor, "circuit prompt"]:
    """``F(C)`` of several circuits on every prompt: the metric while all edges outside the circuit are corrupted.

    Raises:
        ValueError: if a circuit belongs to another graph than the patcher's model.
    """
    for circuit in circuits:
        if circuit.graph != patcher.graph:
            raise ValueError(f"A circuit belongs to {circuit.graph}, the model has {patcher.graph}.")
    return patcher.measure(torch.stack([circuit.complement().mask for circuit in circuits]), metric)


def faithfulness(patcher: EdgePatcher, circuit: Circuit, metric: Metric) -> Estimate:
    """How much of the model's behaviour a circuit has: 0 as with no edge, 1 as the model.

    It is a ratio of means over prompts. It can exceed 1, where the circuit leaves out what works against the answer.

    Args:
        patcher: The model with its clean and corrupted prompts.
        metric: From logits to one number for each prompt; 0 and 1 are set by the model, so its zero does not matter.

    Raises:
        ValueError: if clean and corrupted prompts give the same metric, so that there is nothing to restore.
    """
    graph = circuit.graph
    values = circuit_values(patcher, [circuit, Circuit(graph), Circuit.full(graph)], metric)
    return estimates(values, lambda means: normalised(*means)[None])[0]


@dataclass(frozen=True)
class FaithfulnessCurve:
    """Faithfulness of the best circuits of several sizes by some scores.

    Attributes:
        shares: Size of each circuit as a share of all edges.
        sizes: The same in edges.
        faithfulness: Of each circuit, with its interval.
        cpr: Circuit performance ratio, the area under the curve: how well small circuits do. Larger is better.
        cmd: Circuit-model distance, the area between the curve and 1: how close circuits are to the model. 0 is best.
    """

    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    faithfulness: tuple[Estimate, ...]
    cpr: Estimate
    cmd: Estimate


def faithfulness_curve(
    patcher: EdgePatcher,
    scores: Float[Tensor, "source destination"],
    metric: Metric,
    *,
    absolute: bool = True,
    shares: Sequence[float] = SHARES,
) -> FaithfulnessCurve:
    """Faithfulness of the circuits that the largest scores make, at each size, and its areas by the trapezoid rule.

    CPR rewards a circuit that leaves out what hurts: rank by signed score for it. For CMD all that matters should
    be in: rank by absolute score.

    Args:
        scores: One for each edge; with ``absolute=False`` larger means more helpful (an effect of corrupting an edge
            is negative where the edge helps: change its sign).
        absolute: Whether the size of a score counts, or its sign too.
        shares: Sizes of the circuits, ascending; the areas are over this range.
    """
    graph = patcher.graph
    scores = scores.detach().cpu()
    ranked = scores.abs() if absolute else scores - scores[graph.exists].min()
    sizes = tuple(int(share * graph.n_edges) for share in shares)
    circuits = [Circuit.top(graph, ranked, size) for size in sizes]
    values = circuit_values(patcher, [Circuit(graph), Circuit.full(graph), *circuits], metric)
    at = torch.tensor(shares, dtype=values.dtype, device=values.device)

    def curve_and_areas(means: Tensor) -> Tensor:
        curve = normalised(means[2:], means[0], means[1])
        return torch.stack([*curve, torch.trapezoid(curve, at), torch.trapezoid((1 - curve).abs(), at)])

    *curve, cpr, cmd = estimates(values, curve_and_areas)
    return FaithfulnessCurve(tuple(shares), sizes, tuple(curve), cpr, cmd)


def estimates(
    values: Float[Tensor, "row prompt"], statistic: Callable[[Float[Tensor, "row"]], Float[Tensor, "number"]]
) -> list[Estimate]:
    """Numbers made of the means over prompts, with the intervals that come from drawing prompts anew."""
    intervals = bootstrap_interval(values.T, lambda drawn: statistic(drawn.mean(0)))
    numbers = zip(statistic(values.mean(-1)).tolist(), *intervals, strict=True)
    return [Estimate(value, Interval(low, high)) for value, low, high in numbers]
