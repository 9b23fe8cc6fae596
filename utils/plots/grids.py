"""Matrices as figures: heat maps, heads by layer, attention patterns, patching grids."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from utils.plots.theme import DIVERGING, SEQUENTIAL, as_numpy, tick_labels


def heat_map(
    values: Any,
    title: str,
    *,
    x_title: str,
    y_title: str,
    x: Sequence[str] | None = None,
    y: Sequence[str] | None = None,
    diverging: bool = False,
    limits: tuple[float, float] | None = None,
    unit: str = "",
    decimals: int | None = None,
) -> go.Figure:
    """A heat map, first row on top.

    Args:
        values: [rows, columns], a tensor or array.
        x: label of each column (repeated labels are kept apart).
        y: label of each row.
        diverging: colours that are white at zero, for signed values.
        limits: ends of the colour scale; by default those of the data.
        unit: what the colour bar measures.
        decimals: write each value into its square with so many decimals.
    """
    matrix = as_numpy(values)
    if matrix.ndim != 2:
        raise ValueError(f"heat_map wants a matrix [rows, columns], got shape {list(matrix.shape)}.")
    rows, columns = matrix.shape
    low, high = limits or (float(np.nanmin(matrix)), float(np.nanmax(matrix)))
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    trace = go.Heatmap(
        z=matrix,
        zmin=low,
        zmax=high,
        colorscale=DIVERGING if diverging else SEQUENTIAL,
        colorbar={"title": {"text": unit, "side": "right"}, "thickness": 14},
        hovertemplate=f"{y_title} %{{y}}<br>{x_title} %{{x}}<br>%{{z:.3f}}<extra></extra>",
        x=list(range(columns)),
        y=list(range(rows)),
    )
    if decimals is not None:
        trace.update(text=np.round(matrix, decimals), texttemplate=f"%{{text:.{decimals}f}}")
    figure = go.Figure(trace)
    figure.update_layout(title=title, height=max(280, min(720, 130 + 26 * rows)))
    figure.update_xaxes(title=x_title, **tick_labels(x, columns))
    figure.update_yaxes(title=y_title, autorange="reversed", **tick_labels(y, rows))
    return figure


def head_grid(
    scores: Any, title: str, *, unit: str = "score", limits: tuple[float, float] | None = (0, 1), **options: Any
) -> go.Figure:
    """One number per head: layers from top to bottom, heads from left to right.

    Args:
        scores: [layer, head].
    """
    return heat_map(scores, title, x_title="head", y_title="layer", unit=unit, limits=limits, decimals=2, **options)


def attention_pattern(pattern: Any, tokens: Sequence[str], title: str) -> go.Figure:
    """One head's attention: each row is a query, its columns are the keys it looks at.

    Args:
        pattern: [query, key].
        tokens: one label per position.
    """
    figure = heat_map(
        pattern,
        title,
        x=tokens,
        y=tokens,
        x_title="key (looked at)",
        y_title="query (looking)",
        unit="attention",
        limits=(0, 1),
    )
    side = max(420, min(760, 150 + 24 * len(tokens)))
    return figure.update_layout(width=side + 60, height=side)


def patching_grid(
    effects: Any,
    tokens: Sequence[str],
    title: str,
    *,
    interval: tuple[Any, Any] | None = None,
    rows: Sequence[str] | None = None,
    y_title: str = "layer",
    unit: str = "effect",
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """One number for each layer and position: layers from bottom to top as in the model, tokens from left to right.

    Args:
        effects: [layer, position].
        tokens: One label per position.
        interval: The ends (low, high) of each number's interval, shown when the pointer is on its square.
        rows: A label per row, by default the layer's number.
        unit: What the effect is measured in.
        limits: Ends of the colour scale, made symmetric around zero; by default those of the data.

    Raises:
        ValueError: if the labels or the interval do not have the shape of the effects.
    """
    matrix = as_numpy(effects)
    figure = heat_map(
        matrix, title, x=tokens, y=rows, x_title="token", y_title=y_title, unit=unit, diverging=True, limits=limits
    )
    if interval is not None:
        ends = np.stack([as_numpy(end) for end in interval], -1)
        if ends.shape != (*matrix.shape, 2):
            raise ValueError(
                f"The interval needs two ends of the effects' shape {list(matrix.shape)}, got {list(ends.shape[:-1])}."
            )
        shown = f"{y_title} %{{y}}<br>token %{{x}}<br>%{{z:.3f}} "
        hover = shown + "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
        figure.update_traces(customdata=ends, hovertemplate=hover)
    return figure.update_yaxes(autorange=True)
