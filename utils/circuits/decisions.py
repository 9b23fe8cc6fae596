"""What ACDC did: its decisions, and the circuit that they leave."""

from dataclasses import dataclass

from utils.circuits.circuit import Circuit
from utils.circuits.graph import Edge, Graph


@dataclass(frozen=True)
class Decision:
    """What became of one edge.

    Attributes:
        change: How much the mean loss rises without the edge, the edges removed before it being gone.
        removed: Whether that was less than the threshold.
    """

    edge: Edge
    change: float
    removed: bool


@dataclass(frozen=True, repr=False)
class ACDCRun:
    """The decisions of one run, in the order in which they were taken.

    Attributes:
        threshold: By how much the loss may rise for one edge, in the loss's unit.
        loss: The mean loss of the circuit that is left.
        runs: How many times a model without some edges was tried.
        n_tried: How many edges there were to decide on; more than there are decisions if the run was interrupted.
    """

    graph: Graph
    threshold: float
    decisions: tuple[Decision, ...]
    loss: float
    runs: int
    n_tried: int

    @property
    def circuit(self) -> Circuit:
        """The edges that are left: those that must stay, and those that no decision was taken on."""
        removed = {decision.edge for decision in self.decisions if decision.removed}
        return Circuit(self.graph, frozenset(self.graph.edges) - removed)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return len(self.decisions) == self.n_tried

    def __str__(self) -> str:
        left = "" if self.complete else f", interrupted after {len(self.decisions):,} of {self.n_tried:,} decisions"
        kept = f"{len(self.circuit):,} of {self.graph.n_edges:,} edges kept"
        return f"ACDC at threshold {self.threshold:g}: {kept}, loss {self.loss:.4g}{left}"

    __repr__ = __str__
