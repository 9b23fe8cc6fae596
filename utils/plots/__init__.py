"""Figures: one Plotly theme, and the handful of plots that the notebooks draw again and again.

Every function returns a `plotly.graph_objects.Figure` (or a displayable view); a notebook shows it by making it
the last expression of its cell. Titles state the finding: pass a computed sentence.
"""

from utils.plots.animation import animated_heat_map, save_animation
from utils.plots.attention_view import AttentionView
from utils.plots.curves import bars, dose_curves, lines, scatter, training_curves
from utils.plots.grids import attention_pattern, head_grid, heat_map, patching_grid
from utils.plots.theme import COLORS, DIVERGING, GREY, SEQUENTIAL, as_numpy

__all__ = [
    "COLORS",
    "DIVERGING",
    "GREY",
    "SEQUENTIAL",
    "AttentionView",
    "animated_heat_map",
    "as_numpy",
    "attention_pattern",
    "bars",
    "dose_curves",
    "head_grid",
    "heat_map",
    "lines",
    "patching_grid",
    "save_animation",
    "scatter",
    "training_curves",
]
