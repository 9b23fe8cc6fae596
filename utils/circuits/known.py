"""The circuits that shipped models are known to have, as circuits of their graphs."""

from pathlib import Path

from utils.circuits.circuit import Circuit
from utils.circuits.graph import Edge, Graph
from utils.models.known_circuit import Edge as RecordedEdge
from utils.models.known_circuit import known_circuit


def recorded_circuit(name: str | Path, graph: Graph) -> Circuit:
    """The recorded circuit of a shipped model, the truth that methods are scored against.

    It holds the edges that alone carry at least ``known_circuit(name).threshold`` of the model's logit difference, on
    the prompts and with the corruption that its card names. A weak edge that belongs to the mechanism is not in it.

    Args:
        name: A shipped model, or the folder of a model.
        graph: The model's graph: ``Graph.of(model)``.

    Raises:
        ValueError: if no circuit is recorded for the model, or it is not one of this graph.
    """
    return Circuit(graph, frozenset(map(edge_of, known_circuit(name).edges)))


def edge_of(recorded: RecordedEdge) -> Edge:
    """The graph's name of a recorded edge: ("a2.0", "a3.1", "q") is a2.h0->a3.h1<q>."""
    source, target = (node.replace(".", ".h") for node in (recorded.source, recorded.target))
    return Edge(source, f"{target}<{recorded.channel}>" if recorded.channel else target)
