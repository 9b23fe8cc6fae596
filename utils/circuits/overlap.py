"""How a found circuit, or the scores of all edges, compares with a circuit that is known to be there.

Overlap is not faithfulness: a circuit can hold most of the true edges and not work, or work by other edges
(Hanna et al. 2024, https://arxiv.org/abs/2403.17806). Judge by both.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from utils.circuits.circuit import Circuit
from utils.stats import ranks

ENDS = {"input", "logits"}


@dataclass(frozen=True)
class Overlap:
    """What two sets have in common.

    Attributes:
        found: How many items were found.
        true: How many there are.
        both: How many of those found are true.
    """

    found: int
    true: int
    both: int

    @property
    def precision(self) -> float:
        """The share of what was found that is true; NaN if nothing was found."""
        return self.both / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        """The share of what is true that was found; NaN if nothing is true."""
        return self.both / self.true if self.true else float("nan")

    def __str__(self) -> str:
        return f"precision {self.precision:.3f}, recall {self.recall:.3f} (found {self.found}, true {self.true})"


def edge_overlap(found: Circuit, truth: Circuit) -> Overlap:
    """Precision and recall of a circuit's edges.

    Raises:
        ValueError: if the circuits belong to different graphs.
    """
    return Overlap(len(found), len(truth), len(found & truth))


def node_overlap(found: Circuit, truth: Circuit) -> Overlap:
    """Precision and recall of a circuit's heads and MLPs; the input and the logits are in every circuit.

    Raises:
        ValueError: if the circuits belong to different graphs.
    """
    if found.graph != truth.graph:
        raise ValueError(f"The circuits belong to different graphs: {found.graph} and {truth.graph}.")
    nodes, true = set(found.nodes) - ENDS, set(truth.nodes) - ENDS
    return Overlap(len(nodes), len(true), len(nodes & true))


@dataclass(frozen=True)
class ROC:
    """How well a score tells the edges of a circuit from the others, at every threshold.

    Attributes:
        false_positives: Share of the other edges above the threshold, from none to all.
        true_positives: Share of the circuit's edges above it.
        auc: The area under the curve: the probability that an edge of the circuit has a larger score than another
            one. 0.5 is chance, 1 is perfect.
    """

    false_positives: Float[Tensor, "threshold"]
    true_positives: Float[Tensor, "threshold"]
    auc: float


def roc(scores: Float[Tensor, "source destination"], truth: Circuit) -> ROC:
    """The ROC curve of edge scores against a known circuit.

    Args:
        scores: One for each edge, larger for an edge that is thought to matter more: the absolute effect, for example.

    Raises:
        ValueError: if the scores do not fit the graph, or hold NaN, or the circuit has no edge or all edges.

    Source: Conmy et al. 2023, https://arxiv.org/abs/2304.14997
    """
    exists = truth.graph.exists
    if scores.shape != exists.shape:
        raise ValueError(f"The scores must be {list(exists.shape)} [source, destination], not {list(scores.shape)}.")
    values, true = scores.detach().cpu()[exists].double(), truth.mask[exists]
    if values.isnan().any():
        raise ValueError(f"{int(values.isnan().sum())} edges have no score (NaN).")
    n_true, n_false = int(true.sum()), int((~true).sum())
    if not n_true or not n_false:
        raise ValueError(f"The circuit has {n_true} of {len(true)} edges: a curve needs edges in and out of it.")
    thresholds = values.unique().flip(0)
    above = values >= thresholds[:, None]
    start = torch.zeros(1, dtype=torch.float64)
    rank_sum = ranks(values)[true].sum().item()
    return ROC(
        torch.cat([start, (above & ~true).sum(1) / n_false]),
        torch.cat([start, (above & true).sum(1) / n_true]),
        (rank_sum - n_true * (n_true + 1) / 2) / (n_true * n_false),
    )
