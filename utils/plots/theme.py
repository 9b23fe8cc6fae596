"""The look of every figure, readable on white and on black, and how a notebook shows it."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

GREY = "#7f8790"  # readable on white and on black
COLORS = ["#3b7dd8", "#e07b39", "#2f9e6e", "#b5549b", "#8a7f2f", "#d1495b", "#5f9ea0", "#7f8790"]
SEQUENTIAL = "Viridis"
DIVERGING = [[0.0, "#c2410c"], [0.5, "#f4f4f2"], [1.0, "#1d4ed8"]]

pio.templates["course"] = go.layout.Template(
    layout={
        "font": {"color": GREY, "size": 13},
        "title": {"font": {"size": 15}, "x": 0.02, "xanchor": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": COLORS,
        "xaxis": {"gridcolor": "rgba(127,135,144,.25)", "zeroline": False, "automargin": True},
        "yaxis": {"gridcolor": "rgba(127,135,144,.25)", "zeroline": False, "automargin": True},
        "margin": {"l": 60, "r": 20, "t": 60, "b": 50},
        "width": 720,
        "height": 400,
    }
)
pio.templates.default = "course"
if "PLOTLY_RENDERER" not in os.environ and "ipykernel" in sys.modules and "google.colab" not in sys.modules:
    pio.renderers.default = "plotly_mimetype"  # JupyterLab draws it; no 4 MB of JavaScript in each notebook


def as_numpy(values: Any) -> np.ndarray:
    """A numpy array of a tensor (on any device, with or without gradient), an array or a list."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().float() if values.is_floating_point() else values.detach().cpu()
    return np.asarray(values)


def tick_labels(labels: Sequence[str] | None, count: int) -> dict[str, Any]:
    """The settings of an axis whose places 0, 1, ... carry labels; repeated labels are kept apart.

    Raises:
        ValueError: if there is not one label for each place.
    """
    if labels is None:
        return {"dtick": 1} if count <= 24 else {}
    if len(labels) != count:
        raise ValueError(f"Expected {count} labels, one for each row or column, got {len(labels)}.")
    return {"tickmode": "array", "tickvals": list(range(count)), "ticktext": list(labels)}
