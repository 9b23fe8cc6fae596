"""The page of the first week: six panels, a control beside each curve, titles that say what is in them."""

import pytest

from utils import load_model
from utils.week1_page import first_week_page


@pytest.fixture(scope="module")
def page():
    return first_week_page(load_model("tiny-lm"))


def curves(page, name):
    return [trace for trace in page.data if trace.name == name]


def test_every_curve_has_its_control_on_the_same_axis(page):
    trained, control = curves(page, "trained"), curves(page, "untrained")
    assert len(trained) == len(control) == 4
    assert [t.xaxis for t in trained] == [c.xaxis for c in control]
    assert all(len(t.x) == len(t.y) == len(c.y) for t, c in zip(trained, control, strict=True))


def test_titles_are_computed_from_the_curves(page):
    titles = [note.text for note in page.layout.annotations]
    stream, lens, repeated, losses = (trace.y for trace in curves(page, "trained"))
    assert f"The stream grows {stream[-1] / stream[0]:.0f}-fold" in titles
    says = next(i for i, share in enumerate(lens) if share > 0.9)
    assert f"The answer is said after {says} layers" in titles
    assert f"Words seen before cost {sum(repeated[-19:]) / 19:.2f} nats: induction" in titles
    assert f"{sum(loss < 0.1 for loss in losses) / len(losses):.0%} of all words are no surprise" in titles
    assert "Two dimensions keep 2 or 4 or 5 of 5 features" in titles


def test_what_the_trained_model_can_its_control_cannot(page):
    _, lens, repeated, _ = ((t.y, c.y) for t, c in zip(curves(page, "trained"), curves(page, "untrained"), strict=True))
    assert lens[0][-1] > 0.95 > 0.75 > lens[1][-1]
    assert repeated[0][-1] < 1 < 5 < repeated[1][-1]


def test_a_larger_page_is_larger():
    page = first_week_page(load_model("tiny-lm"), scale=2)
    assert (page.layout.width, page.layout.height) == (2000, 1240)
