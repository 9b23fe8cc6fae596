"""Figures of toy models of superposition, in the course's theme."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from utils.plots import COLORS, GREY, as_numpy
from utils.superposition_geometry import PHASES, PhaseDiagram

PANEL = 190
REACH = 1.35


def feature_vectors(W: Float[Tensor, "panel 2 feature"], panels: Sequence[str], title: str) -> go.Figure:
    """The direction of every feature in the plane of two hidden dimensions, one panel for each model.

    The circle has radius 1, where a feature's direction ends that is read back without loss.

    Args:
        W: Feature directions of each model.
        panels: What to write above each panel.
        title: The finding.

    Raises:
        ValueError: if the models do not have two hidden dimensions, or there is not one label for each.
    """
    directions = as_numpy(W)
    if directions.ndim != 3 or directions.shape[1] != 2:
        raise ValueError(f"feature_vectors wants W [panel, 2, feature], got the shape {list(directions.shape)}.")
    if len(panels) != len(directions):
        raise ValueError(f"Expected {len(directions)} labels, one for each panel, got {len(panels)}.")
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.02)
    for column, matrix in enumerate(directions, start=1):
        circle = {"type": "circle", "x0": -1, "y0": -1, "x1": 1, "y1": 1, "line": {"color": GREY, "dash": "dot"}}
        figure.add_shape(row=1, col=column, **circle)
        for feature, (x, y) in enumerate(matrix.T):
            figure.add_trace(_arrow(feature, x, y, in_legend=column == 1), row=1, col=column)
    figure.update_xaxes(range=[-REACH, REACH], visible=False, constrain="domain")
    figure.update_yaxes(range=[-REACH, REACH], visible=False)
    for column in range(1, len(panels) + 1):
        figure.update_yaxes(scaleanchor=f"x{column if column > 1 else ''}", row=1, col=column)
    size = {"width": PANEL * len(panels) + 130, "height": PANEL + 100}
    return figure.update_layout(title=title, margin={"l": 20, "r": 20, "t": 80, "b": 10}, **size)


def _arrow(feature: int, x: float, y: float, in_legend: bool) -> go.Scatter:
    name, color = f"feature {feature}", COLORS[feature % len(COLORS)]
    return go.Scatter(
        x=[0, x],
        y=[0, y],
        name=name,
        legendgroup=name,
        showlegend=in_legend,
        mode="lines+markers",
        line={"color": color, "width": 3},
        marker={"size": [0, 8], "color": color},
        hovertemplate=f"{name}<br>(%{{x:.2f}}, %{{y:.2f}})<extra></extra>",
    )


def phase_map(diagram: PhaseDiagram, title: str) -> go.Figure:
    """Which phase the last feature is in, by its relative importance and its density, 1 - sparsity.

    Both axes are logarithmic: give the diagram points at equal ratios.
    """
    step = 1 / len(PHASES)
    colors: list[Any] = [GREY, COLORS[1], COLORS[0]]
    scale = [[edge, color] for number, color in enumerate(colors) for edge in (number * step, (number + 1) * step)]
    names = [[PHASES[number] for number in row] for row in diagram.phase.tolist()]
    figure = go.Figure(
        go.Heatmap(
            x=as_numpy(diagram.relative_importance),
            y=as_numpy(1 - diagram.sparsity),
            z=as_numpy(diagram.phase),
            zmin=-0.5,
            zmax=len(PHASES) - 0.5,
            colorscale=scale,
            colorbar={"tickvals": list(range(len(PHASES))), "ticktext": list(PHASES), "thickness": 14},
            text=names,
            hovertemplate="relative importance %{x:.2g}<br>density %{y:.2g}<br>%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title="importance of the last feature, relative to the others", type="log", showgrid=False)
    figure.update_yaxes(title="density (1 - sparsity)", type="log", showgrid=False)
    return figure.update_layout(title=title)
