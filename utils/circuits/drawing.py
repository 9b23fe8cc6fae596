"""A picture of a circuit: the input at the bottom, the logits at the top, an edge as wide as its score is large."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from utils.circuits.circuit import Circuit
from utils.circuits.graph import CHANNELS, Edge, node_of
from utils.circuits.layout import layered_layout
from utils.plots import COLORS, GREY

if TYPE_CHECKING:
    import networkx as nx

CHANNEL_COLORS = dict(zip(CHANNELS, COLORS, strict=False))
NODE_COLOR, NODE_TEXT = "#dfe4ea", "#1b1f24"
ROLE_COLORS = ["#f6d186", "#a8d5ba", "#c3b1e1", "#f4b6a6", "#a7c7e7", "#e6e29a", "#d9b8a0", "#b8d8d8"]
WIDEST, THINNEST = 7.0, 1.0
PIXELS, LEGEND = (92, 96), 170
"""Width of a node and height of a layer; width of the legend."""
SIDE, LIFT = 0.16, 0.22
"""How far a head's queries and values enter to the left and right of its keys, and edges end from a node's middle."""


def draw_circuit(
    circuit: Circuit,
    title: str,
    scores: Float[Tensor, "source destination"] | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
    unit: str = "score",
) -> go.Figure:
    """Draw a circuit in layers.

    An edge's colour says which input of a head it enters; it is dashed where its score is negative.

    Args:
        circuit: Best below some 60 edges; see ``Circuit.pruned`` and ``Circuit.top``.
        title: The finding.
        scores: One for each edge of the graph: the width of an edge, and what is shown when the pointer is on it.
        roles: Role -> its nodes, one colour for each.
        unit: What the scores are measured in.

    Raises:
        ValueError: if the circuit has no edge, the scores do not fit, or a role names a node that is not in it.
    """
    values = _scores_of(circuit, scores)
    role_of = _role_of(circuit, roles or {})
    layout = layered_layout(circuit)
    largest = max(map(abs, values.values())) or 1.0
    figure = go.Figure()
    for channel in (*CHANNELS, ""):
        for edge in sorted((e for e in circuit if _channel(e) == channel), key=lambda e: abs(values[e])):
            route = layout.routes[edge.source, node_of(edge.destination)]
            width = THINNEST + (WIDEST - THINNEST) * abs(values[edge]) / largest if scores is not None else 2.0
            shown = f"{edge}<br>{unit} {values[edge]:.3g}" if scores is not None else str(edge)
            figure.add_traces(_edge_traces(route, channel, width, values[edge] < 0, shown))
    for name, color in [("queries", "q"), ("keys", "k"), ("values", "v")]:
        if any(_channel(edge) == color for edge in circuit):
            figure.add_trace(_legend_entry(name, mode="lines", line={"color": CHANNEL_COLORS[color], "width": 3}))
    colors = dict(zip(roles or {}, ROLE_COLORS * len(roles or {}), strict=False))
    for role, color in colors.items():
        figure.add_trace(_legend_entry(role, mode="markers", marker={"color": color, "size": 13, "symbol": "square"}))
    for node, (x, y) in layout.nodes.items():
        color = colors.get(role_of.get(node), NODE_COLOR)
        box = {"bgcolor": color, "bordercolor": GREY, "borderwidth": 1, "borderpad": 4}
        figure.add_annotation(x=x, y=y, text=node, showarrow=False, font={"color": NODE_TEXT, "size": 12}, **box)
    return _framed(figure, title, [*layout.nodes.values(), *(p for route in layout.routes.values() for p in route)])


def circuit_dot(circuit: Circuit, scores: Float[Tensor, "source destination"] | None = None) -> str:
    """The circuit as text for Graphviz: ``dot -Tsvg``, or https://graphviz.org in a browser.

    Raises:
        ValueError: if the circuit has no edge, or the scores do not fit.
    """
    values = _scores_of(circuit, scores)
    largest = max(map(abs, values.values())) or 1.0
    lines = ["digraph circuit {", "  rankdir=BT;", '  node [shape=box, style="rounded,filled", fillcolor="#dfe4ea"];']
    ranks: dict[float, list[str]] = {}
    for node, (_, y) in layered_layout(circuit).nodes.items():
        ranks.setdefault(y, []).append(f'"{node}"')
    lines += [f"  {{rank=same; {'; '.join(nodes)}}}" for nodes in ranks.values()]
    for edge in circuit:
        channel = _channel(edge)
        width = THINNEST + (WIDEST - THINNEST) * abs(values[edge]) / largest if scores is not None else 2.0
        settings = [f'color="{CHANNEL_COLORS.get(channel, GREY)}"', f"penwidth={width:.2f}"]
        settings += [f'label="{channel}"'] * bool(channel) + ["style=dashed"] * (values[edge] < 0)
        lines.append(f'  "{edge.source}" -> "{node_of(edge.destination)}" [{", ".join(settings)}];')
    return "\n".join([*lines, "}"]) + "\n"


def as_networkx(circuit: Circuit, scores: Float[Tensor, "source destination"] | None = None) -> "nx.MultiDiGraph":
    """The circuit as a graph of networkx, for its algorithms: paths, cuts, centrality.

    Nodes have a ``layer``, from 0 at the input up; edges a ``channel`` ("q", "k", "v" or "") and a ``score``.

    Raises:
        ValueError: if the circuit has no edge, or the scores do not fit.
    """
    import networkx as nx

    graph, values = nx.MultiDiGraph(), _scores_of(circuit, scores)
    for node, (_, y) in layered_layout(circuit).nodes.items():
        graph.add_node(node, layer=int(y))
    for edge in circuit:
        graph.add_edge(edge.source, node_of(edge.destination), channel=_channel(edge), score=values[edge])
    return graph


def _channel(edge: Edge) -> str:
    """Which input of a head an edge enters, empty for an MLP's and the logits'."""
    return edge.destination.partition("<")[2].rstrip(">")


def _scores_of(circuit: Circuit, scores: Tensor | None) -> dict[Edge, float]:
    if not len(circuit):
        raise ValueError("This circuit has no edge to draw.")
    shape = circuit.graph.exists.shape
    if scores is not None and scores.shape != shape:
        raise ValueError(f"The scores must be {list(shape)} [source, destination], not {list(scores.shape)}.")
    return {edge: 1.0 if scores is None else float(scores[circuit.graph.place(edge)]) for edge in circuit}


def _role_of(circuit: Circuit, roles: Mapping[str, Sequence[str]]) -> dict[str, str]:
    found = {}
    for role, nodes in roles.items():
        for node in nodes:
            if node not in circuit.graph.nodes:
                raise ValueError(
                    f"The role {role!r} names {node!r}, which is no node: nodes are written 'a1.h0', 'm1'."
                )
            found[node] = role
    return found


def _edge_traces(
    route: Sequence[tuple[float, float]], channel: str, width: float, negative: bool, shown: str
) -> list[go.Scatter]:
    """The curve of an edge, and its head."""
    color = CHANNEL_COLORS.get(channel, GREY)
    side = {"q": -SIDE, "v": SIDE}.get(channel, 0.0)
    x, y = _smooth(route, side)
    curve = go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": color, "width": width, "dash": "dash" if negative else "solid"},
        opacity=0.75,
        text=[shown] * len(x),
        hoverinfo="text",
        showlegend=False,
    )
    marker = {"symbol": "triangle-up", "size": 7 + width, "color": color}
    head = go.Scatter(x=x[-1:], y=y[-1:], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)
    return [curve, head]


def _smooth(route: Sequence[tuple[float, float]], side: float) -> tuple[np.ndarray, np.ndarray]:
    """A curve through the places that goes up all the way; it begins above the first and ends below the last."""
    from scipy.interpolate import PchipInterpolator

    xs, ys = np.array(route).T
    xs[1:-1] += side / 2  # edges of one pair of nodes run side by side
    xs[-1] += side
    ys[0], ys[-1] = ys[0] + LIFT, ys[-1] - LIFT
    t = np.linspace(0, 1, 16)
    if len(route) == 2:
        return xs[0] + (xs[1] - xs[0]) * t * t * (3 - 2 * t), ys[0] + (ys[1] - ys[0]) * t
    y = np.linspace(ys[0], ys[-1], 16 * len(route))
    return PchipInterpolator(ys, xs)(y), y


def _legend_entry(name: str, **look: object) -> go.Scatter:
    return go.Scatter(x=[None], y=[None], name=name, **look)


def _framed(figure: go.Figure, title: str, places: Sequence[tuple[float, float]]) -> go.Figure:
    """Set the size so that nodes and layers take the same number of pixels in every drawing."""
    x, y = np.array(places).T
    width, height = max(4.0, np.ptp(x) + 1.4), np.ptp(y) + 0.8
    figure.update_xaxes(visible=False, range=[np.mean([x.min(), x.max()]) + end * width / 2 for end in (-1, 1)])
    figure.update_yaxes(visible=False, range=[y.min() - 0.4, y.max() + 0.4])
    return figure.update_layout(
        title=title,
        hovermode="closest",
        width=LEGEND + PIXELS[0] * width,
        height=70 + PIXELS[1] * height,
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
    )
