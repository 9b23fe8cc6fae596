"""A matrix that changes over steps: played in the notebook, and saved as a file that plays anywhere."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

from utils.plots.grids import heat_map
from utils.plots.theme import GREY, as_numpy

FRAMES_A_SECOND = 25


def animated_heat_map(
    matrices: Any,
    steps: Sequence[Any],
    title: str,
    *,
    x_title: str,
    y_title: str,
    step_title: str = "step",
    seconds: float = 0.3,
    **options: Any,
) -> go.Figure:
    """A heat map with a slider over steps and a button that plays them. All steps share one colour scale.

    Args:
        matrices: [step, rows, columns].
        steps: A label for each step.
        step_title: What the steps are.
        seconds: How long a step is shown.
        options: As :func:`utils.plots.heat_map` takes them.

    Raises:
        ValueError: if there is not one label for each matrix.
    """
    matrices = as_numpy(matrices)
    if matrices.ndim != 3 or len(matrices) != len(steps) or not len(steps):
        raise ValueError(f"Expected {len(steps)} matrices [step, rows, columns], got shape {list(matrices.shape)}.")
    options.setdefault("limits", (float(matrices.min()), float(matrices.max())))
    drawn = [heat_map(matrix, title, x_title=x_title, y_title=y_title, **options) for matrix in matrices]
    figure = drawn[0]
    names = [str(step) for step in steps]
    figure.frames = [go.Frame(data=each.data, name=name) for each, name in zip(drawn, names, strict=True)]
    timing = {"frame": {"duration": 1000 * seconds, "redraw": True}, "transition": {"duration": 0}, "mode": "immediate"}
    still = {**timing, "frame": {"duration": 0, "redraw": True}}
    choices = [{"label": name, "method": "animate", "args": [[name], still]} for name in names]
    slider = {
        "steps": choices,
        "currentvalue": {"prefix": f"{step_title} ", "font": {"color": GREY}},
        "pad": {"t": 60},
        "len": 0.85,
        "x": 0.15,
    }
    play = {"label": "Play", "method": "animate", "args": [None, {**timing, "fromcurrent": True}]}
    pause = {"label": "Stop", "method": "animate", "args": [[None], still]}
    buttons = {"type": "buttons", "buttons": [play, pause], "x": 0.08, "y": -0.1, "xanchor": "right", "yanchor": "top"}
    return figure.update_layout(
        sliders=[slider], updatemenus=[buttons], height=figure.layout.height + 120, margin={"b": 150}
    )


def save_animation(figure: go.Figure, path: Path | str, *, seconds: float = 0.3, scale: float = 1.0) -> Path:
    """Save a figure's frames as a moving picture that plays anywhere.

    Args:
        figure: A figure with frames, such as :func:`animated_heat_map` gives.
        path: ".mp4" writes a video (``IPython.display.Video(path, embed=True)`` shows it), ".gif" an animated picture
            that repeats (``IPython.display.Image(path)``).
        seconds: How long a frame is shown.
        scale: Pixels for each point of the figure.

    Returns:
        The path.

    Raises:
        ValueError: if the figure has no frames, or the path ends in something else.
        RuntimeError: if there is no Chrome to draw the frames.
    """
    import imageio.v3 as iio

    path = Path(path)
    if not figure.frames:
        raise ValueError("This figure has no frames to save. Make one with animated_heat_map.")
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"An animation is saved as .mp4 or .gif, not as {path.name!r}.")
    pictures = np.stack([iio.imread(picture)[..., :3] for picture in _drawn_frames(figure, scale)])
    if path.suffix == ".gif":
        iio.imwrite(path, pictures, duration=1000 * seconds, loop=0)
    else:
        even = pictures[:, : pictures.shape[1] // 2 * 2, : pictures.shape[2] // 2 * 2]  # as the video format wants
        each = max(1, round(seconds * FRAMES_A_SECOND))
        iio.imwrite(path, even.repeat(each, axis=0), fps=FRAMES_A_SECOND, codec="libx264", macro_block_size=2)
    return path


def _drawn_frames(figure: go.Figure, scale: float) -> list[bytes]:
    """A PNG of every frame, on white, with the frame's name under the title and no buttons."""
    prefix = figure.layout.sliders[0].currentvalue.prefix if figure.layout.sliders else ""
    stills = []
    default = pio.templates[pio.templates.default].layout
    width, height = figure.layout.width or default.width, figure.layout.height or default.height
    for frame in figure.frames:
        title = {"text": f"{figure.layout.title.text}<br>{prefix}{frame.name}"}
        still = go.Figure(data=frame.data, layout=figure.layout)
        still.layout.sliders = still.layout.updatemenus = ()
        stills.append(still.update_layout(title=title, paper_bgcolor="white", margin={"b": 60}))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(len(stills))]
        try:
            pio.write_images(stills, files, width=width, height=height, scale=scale)
        except RuntimeError as problem:
            raise RuntimeError(f"Drawing the frames needs Chrome: run plotly_get_chrome once. ({problem})") from problem
        return [file.read_bytes() for file in files]
