"""Figures say what they were given, and moving pictures hold every frame."""

import os
import shutil

import imageio.v3 as iio
import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from utils import plots

CHROME = next(filter(None, map(shutil.which, ("google-chrome", "chromium", "chromium-browser", "chrome"))), None)
CHROME = os.environ.get("BROWSER_PATH", CHROME)


def test_every_name_is_where_the_notebooks_import_it_from():
    for name in plots.__all__:
        assert hasattr(plots, name)


def test_a_patching_grid_has_its_layers_from_the_bottom_up_and_its_interval_on_hover():
    effects = torch.arange(6.0).view(2, 3) - 4
    figure = plots.patching_grid(effects, ["a", "b", "a"], "x", interval=(effects - 1, effects + 2))
    assert np.array_equal(figure.data[0].z, effects)
    assert figure.data[0].zmin == -figure.data[0].zmax == -4
    assert np.array_equal(figure.data[0].customdata[..., 1], effects + 2)
    assert "customdata[0]" in figure.data[0].hovertemplate
    assert figure.layout.yaxis.autorange is True
    assert list(figure.layout.xaxis.ticktext) == ["a", "b", "a"]
    assert plots.head_grid(effects, "x").layout.yaxis.autorange == "reversed"


def test_training_curves_keep_each_history_s_own_steps_and_mark_events():
    histories = {"loss": [(0, 3.0), (10, 2.0)], "score": [(5, 0.1), (7, 0.2), (20, 0.3)]}
    figure = plots.training_curves(histories, "x", y_title="y", events={"change": 7})
    assert [list(trace.x) for trace in figure.data] == [[0, 10], [5, 7, 20]]
    assert figure.layout.shapes[0].x0 == 7
    assert figure.layout.annotations[0].text == "change"
    logarithmic = plots.training_curves(histories, "x", y_title="y", events={"change": 10}, log_x=True)
    assert list(logarithmic.data[0].x) == [10]
    assert logarithmic.layout.annotations[0].x == 1


def test_a_scatter_names_the_furthest_points_and_draws_the_diagonal():
    figure = plots.scatter(
        [0, 3, -1], [0, 4, 0], "x", x_title="a", y_title="b", labels=["p", "q", "r"], named=1, diagonal=True
    )
    line, points = figure.data
    assert list(line.x) == list(line.y) == [-1, 4]
    assert list(points.text) == ["", "q", ""]
    grouped = plots.scatter([0, 1], [0, 1], "x", x_title="a", y_title="b", groups=["head", "MLP"])
    assert [trace.name for trace in grouped.data] == ["head", "MLP"]


def test_dose_curves_are_means_within_their_bands():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) + torch.tensor([[0.0], [1.0], [5.0]])
    figure = plots.dose_curves([-1, 0, 1], {"steering": values}, "x", y_title="y")
    band, line = figure.data
    np.testing.assert_allclose(line.y, values.mean(1), rtol=1e-5)
    high, low = np.asarray(band.y)[:3], np.asarray(band.y)[3:][::-1]
    assert (low < line.y).all()
    assert (line.y < high).all()
    assert (high - low < 1).all()


def test_an_animation_has_a_frame_and_a_place_on_the_slider_for_each_step():
    matrices = torch.rand(4, 2, 3)
    figure = plots.animated_heat_map(matrices, [0, 1, 5, 9], "x", x_title="head", y_title="layer")
    assert [frame.name for frame in figure.frames] == ["0", "1", "5", "9"]
    assert len(figure.layout.sliders[0].steps) == 4
    assert all(np.array_equal(f.data[0].z, m) for f, m in zip(figure.frames, matrices, strict=True))
    assert len({(f.data[0].zmin, f.data[0].zmax) for f in figure.frames}) == 1


@pytest.mark.skipif(not CHROME, reason="drawing a frame needs Chrome or Chromium")
def test_a_saved_animation_shows_every_frame_in_order_for_its_time(tmp_path):
    brightness = torch.tensor([0.0, 0.5, 1.0])
    figure = plots.animated_heat_map(
        brightness[:, None, None].expand(3, 2, 3), "abc", "x", x_title="head", y_title="layer", limits=(0, 1)
    )
    figure.update_traces(colorscale="gray")
    for frame in figure.frames:
        frame.data[0].colorscale = "gray"
    picture = iio.imread(plots.save_animation(figure, tmp_path / "forming.gif"))
    film = iio.imread(plots.save_animation(figure, tmp_path / "forming.mp4", seconds=0.2))
    assert len(picture) == 3
    assert len(film) == 3 * 5
    for pixels in (picture, film[::5]):
        height, width = pixels.shape[1:3]
        shades = pixels[:, height // 3, width // 3, 0].astype(float)
        assert shades[0] < shades[1] < shades[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.heat_map(torch.ones(3), "x", x_title="", y_title=""), "matrix"),
        (lambda: plots.patching_grid(torch.ones(2, 3), ["a", "b"], "x"), "3 labels"),
        (lambda: plots.patching_grid(torch.ones(1, 2), "ab", "x", interval=(torch.ones(2), torch.ones(2))), "two ends"),
        (lambda: plots.training_curves({"loss": [1.0, 2.0]}, "x", y_title=""), "pairs"),
        (lambda: plots.scatter([1, 2], [1], "x", x_title="", y_title=""), "one for each"),
        (lambda: plots.dose_curves([1, 2], {"a": torch.ones(3, 4)}, "x", y_title=""), "2 rows"),
        (lambda: plots.animated_heat_map(torch.ones(2, 3, 3), [1], "x", x_title="", y_title=""), "1 matrices"),
        (lambda: plots.save_animation(go.Figure(), "x.gif"), "no frames"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_file_type_that_cannot_be_written_is_refused_before_the_work_begins(tmp_path):
    figure = plots.animated_heat_map(torch.rand(1, 2, 3), "a", "x", x_title="", y_title="")
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif"):
        plots.save_animation(figure, tmp_path / "x.webm")
