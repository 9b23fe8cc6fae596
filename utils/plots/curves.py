"""Numbers against numbers: lines, bars, training curves, scatter, dose and response."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from utils.plots.theme import COLORS, GREY, as_numpy, tick_labels


def lines(
    series: Mapping[str, Any],
    title: str,
    *,
    x_title: str,
    y_title: str,
    x: Sequence[Any] | None = None,
    intervals: Mapping[str, tuple[Any, Any]] | None = None,
) -> go.Figure:
    """Lines by name, each with a shaded interval where `intervals[name] = (low, high)` is given."""
    figure = go.Figure()
    for index, (name, values) in enumerate(series.items()):
        values = as_numpy(values)
        positions = list(x) if x is not None else list(range(len(values)))
        color = COLORS[index % len(COLORS)]
        if intervals and name in intervals:
            low, high = (as_numpy(edge) for edge in intervals[name])
            band = go.Scatter(
                x=[*positions, *positions[::-1]],
                y=np.concatenate([high, low[::-1]]),
                fill="toself",
                mode="lines",
                fillcolor=color,
                opacity=0.2,
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
            figure.add_trace(band)
        figure.add_trace(go.Scatter(x=positions, y=values, name=name, mode="lines+markers", line={"color": color}))
    figure.update_layout(title=title, showlegend=len(series) > 1)
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(title=y_title)
    return figure


def bars(
    values: Any,
    labels: Sequence[str],
    title: str,
    *,
    x_title: str,
    y_title: str,
    intervals: tuple[Any, Any] | None = None,
) -> go.Figure:
    """Bars from left to right, with error bars where `intervals = (low, high)` is given."""
    heights = as_numpy(values)
    errors = None
    if intervals is not None:
        low, high = (as_numpy(edge) for edge in intervals)
        errors = {
            "type": "data",
            "symmetric": False,
            "array": high - heights,
            "arrayminus": heights - low,
            "color": GREY,
        }
    figure = go.Figure(go.Bar(x=list(range(len(heights))), y=heights, error_y=errors, marker={"color": COLORS[0]}))
    figure.update_layout(title=title)
    figure.update_xaxes(title=x_title, **tick_labels(labels, len(heights)))
    figure.update_yaxes(title=y_title)
    return figure


def training_curves(
    histories: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    *,
    y_title: str,
    x_title: str = "training step",
    events: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> go.Figure:
    """Curves over training, and the moments at which something happened.

    Args:
        histories: Name -> pairs (step, value), each with steps of its own: the ``history`` of a training will do.
        events: Name -> the step at which to draw a vertical line.
        log_x: Steps on a logarithmic axis, from which step 0 is left out.
        log_y: Values on a logarithmic axis.

    Raises:
        ValueError: if a history is not a sequence of pairs.
    """
    figure = go.Figure()
    for name, history in histories.items():
        points = as_numpy(history).astype(float)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"The history of {name!r} must be pairs (step, value), got shape {list(points.shape)}.")
        if log_x:
            points = points[points[:, 0] > 0]
        figure.add_trace(go.Scatter(x=points[:, 0], y=points[:, 1], name=name, mode="lines"))
    figure.update_layout(title=title, showlegend=len(histories) > 1, hovermode="x unified")
    figure.update_xaxes(title=x_title, type="log" if log_x else "linear")
    figure.update_yaxes(title=y_title, type="log" if log_y else "linear")
    for row, (name, step) in enumerate((events or {}).items()):
        figure.add_vline(x=step, line={"color": GREY, "dash": "dash", "width": 1})
        place = float(np.log10(step)) if log_x else step
        figure.add_annotation(
            x=place, y=1 - 0.08 * (row % 4), yref="paper", text=name, showarrow=False, xanchor="left", xshift=4
        )
    return figure


def scatter(
    x: Any,
    y: Any,
    title: str,
    *,
    x_title: str,
    y_title: str,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    named: int = 0,
    diagonal: bool = False,
) -> go.Figure:
    """Points, for example an estimate against the exact value.

    Args:
        x: One number for each point.
        y: The same.
        labels: A name for each point, shown when the pointer is on it.
        groups: A group for each point: one colour each.
        named: Write the labels of so many points, those that are furthest from the origin.
        diagonal: Draw the line on which x and y are equal.

    Raises:
        ValueError: if the lengths differ.
    """
    x, y = as_numpy(x).ravel(), as_numpy(y).ravel()
    given = {"y": y, "labels": labels, "groups": groups}
    for name, values in given.items():
        if values is not None and len(values) != len(x):
            raise ValueError(f"scatter has {len(x)} points and {len(values)} {name}: one for each point is needed.")
    figure = go.Figure()
    if diagonal:
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        line = {"color": GREY, "dash": "dash", "width": 1}
        figure.add_trace(go.Scatter(x=[low, high], y=[low, high], mode="lines", line=line, name="equal"))
    names = np.asarray(labels if labels is not None else [""] * len(x), dtype=object)
    far = np.argsort(-np.hypot(x, y))[:named]
    written = np.where(np.isin(np.arange(len(x)), far), names, "")
    of_group = np.asarray(groups if groups is not None else [""] * len(x), dtype=object)
    for index, group in enumerate(dict.fromkeys(of_group)):
        here = of_group == group
        hover = "%{customdata}<br>" * (labels is not None) + f"{x_title} %{{x:.3g}}<br>{y_title} %{{y:.3g}}"
        points = go.Scatter(
            x=x[here],
            y=y[here],
            name=str(group),
            mode="markers+text" if named else "markers",
            text=written[here],
            textposition="top center",
            customdata=names[here],
            hovertemplate=hover + "<extra></extra>",
            marker={"size": 7, "opacity": 0.75, "color": COLORS[index % len(COLORS)]},
            showlegend=groups is not None,
        )
        figure.add_trace(points)
    figure.update_layout(title=title, height=480)
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(title=y_title)
    return figure


def dose_curves(
    strengths: Any,
    values: Mapping[str, Any],
    title: str,
    *,
    y_title: str,
    x_title: str = "strength (multiples of the direction)",
) -> go.Figure:
    """The mean over prompts at each strength of an intervention, with its 95 % bootstrap interval.

    Args:
        strengths: [strength].
        values: Name -> the result of each prompt, [strength, prompt]: the direction, and its random control.

    Raises:
        ValueError: if values do not have one row for each strength.
    """
    from utils.stats import bootstrap_interval

    strengths = as_numpy(strengths)
    means, intervals = {}, {}
    for name, results in values.items():
        results = as_numpy(results)
        if results.ndim != 2 or len(results) != len(strengths):
            raise ValueError(
                f"{name!r} must be [strength, prompt] with {len(strengths)} rows, got {list(results.shape)}."
            )
        means[name], intervals[name] = results.mean(1), tuple(bootstrap_interval(results.T.copy()))
    return lines(means, title, x=strengths.tolist(), x_title=x_title, y_title=y_title, intervals=intervals)
