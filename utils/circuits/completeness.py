"""What is missing from a circuit, and what could be left out: completeness and minimality.

``F(C)`` and ``F(M)`` are the metric with the circuit's edges alone, and with all; see :mod:`utils.circuits.evaluation`.

- Completeness: for parts K of the circuit, ``F(C - K)`` is close to ``F(M - K)``: the circuit without them is as
  broken as the model without them (Wang et al. 2022, https://arxiv.org/abs/2211.00593).
- Minimality: for each node v there is a K such that ``F(C - K)`` and ``F(C - K - v)`` differ (Wang et al. 2022).

To take a node away is to corrupt every edge from it and to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from utils.circuits.circuit import Circuit
from utils.circuits.evaluation import Estimate, circuit_values, estimates
from utils.circuits.graph import node_of
from utils.circuits.patching import EdgePatcher
from utils.metrics import Metric

ENDS = {"input", "logits"}


@dataclass(frozen=True)
class Completeness:
    """The circuit and the model without the same nodes.

    Attributes:
        removed: The nodes K that were taken away, for each row.
        circuit: ``F(C - K)`` on each prompt.
        model: ``F(M - K)`` on each prompt.
    """

    removed: tuple[tuple[str, ...], ...]
    circuit: Float[Tensor, "subset prompt"]
    model: Float[Tensor, "subset prompt"]

    @property
    def gaps(self) -> Float[Tensor, "subset"]:
        """How far apart the means are: 0 where the circuit is complete."""
        return (self.circuit.mean(-1) - self.model.mean(-1)).abs()


def completeness(
    patcher: EdgePatcher, circuit: Circuit, metric: Metric, subsets: Iterable[Iterable[str]]
) -> Completeness:
    """Take sets of nodes away from the circuit and from the whole model, and compare what is left.

    Args:
        subsets: Nodes to take away, such as [["a2.h0"], ["a0.h1", "m0"]]: each role of the story, random sets
            (:func:`random_nodes`), and the worst that a search finds (:func:`least_complete`).

    Raises:
        ValueError: if a node is not in the circuit.
    """
    removed, full = tuple(tuple(nodes) for nodes in subsets), Circuit.full(circuit.graph)
    for nodes in removed:
        _check_nodes(circuit, nodes)
    left = [without_nodes(whole, nodes) for whole in (circuit, full) for nodes in removed]
    values = circuit_values(patcher, left, metric)
    return Completeness(removed, values[: len(removed)], values[len(removed) :])


def least_complete(patcher: EdgePatcher, circuit: Circuit, metric: Metric, size: int) -> Completeness:
    """Search for nodes without which circuit and model differ most, adding the worst node each time.

    Returns:
        One row for each number of nodes from 1 to ``size``.
    """
    taken: tuple[str, ...] = ()
    chosen = []
    for _ in tqdm(range(min(size, len(removable(circuit)))), "nodes taken away", leave=False):
        candidates = [(*taken, node) for node in removable(circuit) if node not in taken]
        taken = candidates[int(completeness(patcher, circuit, metric, candidates).gaps.argmax())]
        chosen.append(taken)
    return completeness(patcher, circuit, metric, chosen)


def minimality(
    patcher: EdgePatcher, circuit: Circuit, metric: Metric, given: Mapping[str, Iterable[str]] | None = None
) -> dict[str, Estimate]:
    """What each node does for the circuit: ``F(C - K) - F(C - K - v)``, as a share of ``F(M) - F()``.

    Args:
        given: For a node v, the nodes K that are taken away first: its backups, without which its own part shows.
            None by default.

    Returns:
        Node -> its part. A node whose part is close to 0 whatever K may be is not needed.
    """
    first = {node: tuple((given or {}).get(node, ())) for node in removable(circuit)}
    _check_nodes(circuit, [*(given or {}), *(node for nodes in first.values() for node in nodes)])
    pairs = []
    for node, nodes in first.items():
        pairs += [without_nodes(circuit, nodes), without_nodes(circuit, (*nodes, node))]
    values = circuit_values(patcher, [Circuit(circuit.graph), Circuit.full(circuit.graph), *pairs], metric)
    parts = estimates(values, lambda means: (means[2::2] - means[3::2]) / (means[1] - means[0]))
    return dict(zip(first, parts, strict=True))


def removable(circuit: Circuit) -> tuple[str, ...]:
    """The circuit's heads and MLPs."""
    return tuple(node for node in circuit.nodes if node not in ENDS)


def without_nodes(circuit: Circuit, nodes: Iterable[str]) -> Circuit:
    """The circuit without the edges from and to some nodes."""
    gone = set(nodes)
    kept = (edge for edge in circuit.edges if edge.source not in gone and node_of(edge.destination) not in gone)
    return Circuit(circuit.graph, frozenset(kept))


def random_nodes(circuit: Circuit, n: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Sets of the circuit's nodes to take away: each node is in a set with probability one half."""
    nodes = removable(circuit)
    chosen = torch.rand(n, len(nodes), generator=torch.Generator().manual_seed(seed)) < 0.5
    return [tuple(node for node, taken in zip(nodes, row, strict=True) if taken) for row in chosen.tolist()]


def _check_nodes(circuit: Circuit, nodes: Iterable[str]) -> None:
    for node in nodes:
        if node not in removable(circuit):
            raise ValueError(
                f"{node!r} is not a head or MLP of the circuit, which has {', '.join(removable(circuit))}."
            )
