"""Where to draw a circuit's nodes: in layers from the input up, with few crossings.

An edge that passes layers gets a stop in each of them, which keeps its own place, so that it goes around nodes. Every
node and stop moves towards the mean of its neighbours, layer by layer, up and down again, and keeps its distance.

Source: Sugiyama et al. 1981, https://doi.org/10.1109/TSMC.1981.4308636
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass

from utils.circuits.circuit import Circuit
from utils.circuits.graph import node_of

SWEEPS = 12
NODE_WIDTH, STOP_WIDTH = 1.0, 0.35

Point = tuple[float, float]
Stop = tuple[str, str, int]
"""The stop of the edges between two nodes in a layer."""


@dataclass(frozen=True)
class Layout:
    """Places in a drawing, x to the right and y up; a node is one wide, a layer one high.

    Attributes:
        nodes: Place of each node.
        routes: For each pair of joined nodes the places that their edges go through, both ends included.
    """

    nodes: dict[str, Point]
    routes: dict[tuple[str, str], list[Point]]


def layered_layout(circuit: Circuit) -> Layout:
    """Places for all nodes and edges of a circuit; a layer without a node is left out."""
    heights = {node: _height(node, circuit.graph.n_layers) for node in circuit.nodes}
    present = sorted(set(heights.values()))
    level = {node: present.index(height) for node, height in heights.items()}
    pairs = dict.fromkeys((edge.source, node_of(edge.destination)) for edge in circuit)
    chains = {(a, b): [a, *((a, b, y) for y in range(level[a] + 1, level[b])), b] for a, b in pairs}
    layers: list[list[str | Stop]] = [[node for node in level if level[node] == y] for y in range(len(present))]
    neighbours: dict[str | Stop, list[str | Stop]] = defaultdict(list)
    for chain in chains.values():
        for stop in chain[1:-1]:
            layers[stop[2]].append(stop)
        for lower, upper in itertools.pairwise(chain):
            neighbours[lower].append(upper)
            neighbours[upper].append(lower)
    x = _settled(layers, neighbours)
    y = {item: float(height) for height, layer in enumerate(layers) for item in layer}
    place = {item: (x[item], y[item]) for item in x}
    return Layout(
        {node: place[node] for node in level}, {pair: [place[i] for i in chain] for pair, chain in chains.items()}
    )


def _height(node: str, n_layers: int) -> int:
    if node in ("input", "logits"):
        return 0 if node == "input" else 2 * n_layers + 1
    layer = int(node[1:].partition(".")[0])
    return 2 * layer + (1 if node.startswith("a") else 2)


def _settled(layers: list[list], neighbours: dict) -> dict:
    x = {}
    for layer in layers:
        x |= _apart(layer, {item: float(place) for place, item in enumerate(layer)})
    for _ in range(SWEEPS):
        for layer in [*layers, *reversed(layers)]:
            wanted = {
                i: sum(x[n] for n in neighbours[i]) / len(neighbours[i]) if neighbours[i] else x[i] for i in layer
            }
            x |= _apart(sorted(layer, key=wanted.__getitem__), wanted)
    return x


def _apart(layer: list, wanted: dict) -> dict:
    """Places near the wanted ones, in the order given, that keep their distance."""
    placed, edge = {}, float("-inf")
    for item in layer:
        half = (NODE_WIDTH if isinstance(item, str) else STOP_WIDTH) / 2
        placed[item] = max(wanted[item], edge + half)
        edge = placed[item] + half
    shift = sum(wanted[item] - placed[item] for item in layer) / len(layer)
    return {item: place + shift for item, place in placed.items()}
