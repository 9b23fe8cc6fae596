"""Probes on planted directions, on noise, and against an optimiser of another library."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from utils.probes import (
    control_labels,
    linear_probe,
    mean_difference_probe,
    on_untrained,
    score_probe,
    split_by_group,
)


def planted(n=3000, d=20, shift=3.0, seed=0):
    """Noise with a direction along which the classes differ, in 60 groups."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=g)
    direction = torch.zeros(d)
    direction[3], direction[7] = 0.6, -0.8
    x = torch.randn(n, d, generator=g) + shift * labels[:, None] * direction
    return x, labels, torch.arange(n) % 60, direction


@pytest.mark.parametrize("fit", [linear_probe, mean_difference_probe])
def test_a_planted_direction_is_found(fit):
    x, labels, groups, direction = planted()
    score = score_probe(x, labels, groups, fit=fit)
    assert torch.cosine_similarity(score.probe.direction.float(), direction, dim=0) > 0.9
    assert score.accuracy == pytest.approx(0.933, abs=0.04)  # the best possible: the normal distribution at 1.5
    assert score.accuracy_interval.low < score.accuracy < score.accuracy_interval.high


@pytest.mark.parametrize("fit", [linear_probe, mean_difference_probe])
def test_noise_is_read_at_chance(fit):
    x, labels, groups, _ = planted(shift=0.0)
    score = score_probe(x, labels, groups, fit=fit)
    assert score.accuracy_interval.low < 0.5 < score.accuracy_interval.high


def test_a_class_that_no_example_has_is_never_predicted():
    x, labels, _, _ = planted(n=200)
    for probe in (linear_probe(x, 2 * labels), linear_probe(x, 1 + labels)):
        assert set(probe.predict(x).tolist()) <= {0, 2} or set(probe.predict(x).tolist()) <= {1, 2}
        assert len(probe.weight) == 3


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("penalty", [0.1, 5.0])
def test_the_linear_probe_is_at_the_optimum_that_scipy_finds(classes, penalty):
    g = torch.Generator().manual_seed(1)
    x, labels = torch.randn(80, 5, generator=g, dtype=torch.float64) * 3 + 1, torch.randint(classes, (80,), generator=g)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()

    rows = 1 if classes == 2 else classes  # two classes share one weight vector

    def scores(flat):
        given = z @ flat[: rows * 5].reshape(rows, 5).T + flat[rows * 5 :]
        return np.hstack([-given / 2, given / 2]) if classes == 2 else given

    def loss(flat):
        log_p = scores(flat) - np.log(np.exp(scores(flat)).sum(1, keepdims=True))
        return -log_p[np.arange(80), labels].sum() + penalty / 2 * (flat[: rows * 5] ** 2).sum()

    best = minimize(loss, np.zeros(rows * 6), method="BFGS", options={"gtol": 1e-7}).x
    expected = torch.tensor(scores(best)).softmax(-1)
    probe = linear_probe(x, labels, penalty)
    torch.testing.assert_close(probe.scores(x).softmax(-1), expected, atol=1e-4, rtol=0)


def test_the_mean_difference_decides_halfway():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 4.0], [12.0, 4.0]])
    probe = mean_difference_probe(x, torch.tensor([0, 0, 1, 1]))
    assert torch.equal(probe.direction, torch.tensor([10.0, 4.0], dtype=torch.float64))
    middle = torch.tensor([6.0, 2.0])
    assert probe.predict(torch.stack([middle - 0.1, middle + 0.1])).tolist() == [0, 1]


def test_no_group_is_on_both_sides():
    groups = torch.randint(15, (200,), generator=torch.Generator().manual_seed(0))
    train, test = split_by_group(groups, 0.4, seed=2)
    assert torch.equal(train, ~test)
    assert not set(groups[train].tolist()) & set(groups[test].tolist())
    assert len(groups[test].unique()) == 6
    assert not torch.equal(test, split_by_group(groups, 0.4, seed=3)[1])


def test_a_group_that_gives_its_label_away_does_not_help_on_other_groups():
    g = torch.Generator().manual_seed(0)
    groups = torch.arange(400) // 10
    labels = torch.randint(2, (40,), generator=g)[groups]
    x = torch.randn(40, 40, generator=g)[groups]  # nothing but the group's identity
    rows = score_probe(x, labels, torch.arange(400))
    by_group = score_probe(x, labels, groups)
    assert rows.accuracy > 0.95
    assert by_group.accuracy_interval.low < 0.65


def test_a_control_task_gives_each_type_one_label_as_often_as_the_labels_occur():
    types = torch.arange(20_000) % 5_000
    labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < 0.2).long()
    control = control_labels(labels, types)
    assert torch.equal(control[:5_000], control[5_000:10_000])
    assert control.double().mean().item() == pytest.approx(0.2, abs=0.03)


def test_selectivity_tells_a_property_from_types_learned_by_heart():
    g = torch.Generator().manual_seed(0)
    types, groups = torch.randint(30, (1200,), generator=g), torch.arange(1200) // 20
    labels = torch.randint(2, (1200,), generator=g)
    one_hot = torch.nn.functional.one_hot(types, 30).float()
    context = torch.randn(1200, 10, generator=g) + 4 * labels[:, None] * torch.eye(10)[0]
    read = score_probe(context, labels, groups, types)  # holds the label, not the type
    assert read.accuracy > 0.95
    assert read.selectivity > 0.35
    by_heart = score_probe(one_hot, (types % 2), groups, types)  # holds the type alone
    assert by_heart.accuracy > 0.95
    assert by_heart.control > 0.95
    assert abs(by_heart.selectivity) < 0.05
    assert by_heart.selectivity_interval.low <= by_heart.selectivity <= by_heart.selectivity_interval.high


def test_a_score_says_what_the_commonest_class_gives():
    g = torch.Generator().manual_seed(0)
    labels = (torch.rand(2000, generator=g) < 0.9).long()
    score = score_probe(torch.randn(2000, 3, generator=g), labels, torch.arange(2000))
    assert score.majority == pytest.approx(0.9, abs=0.03)
    assert score.selectivity is None
    assert "commonest class" in str(score)


def test_an_untrained_model_is_measured_once_for_each_seed():
    from utils import load_model

    model = load_model("tiny-lm")
    measured = on_untrained(model, lambda twin: twin.W_U[0, 1], seeds=(0, 1, 0))
    assert measured[0] == measured[2] != measured[1]
    assert measured[0] != model.W_U[0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: linear_probe(x, y[:-1]), "one label for each"),
        (lambda x, y: linear_probe(x[None], y), "example, d_model"),
        (lambda x, y: linear_probe(x, y * 0), "nothing to tell apart"),
        (lambda x, y: linear_probe(x, y.float()), "whole numbers"),
        (lambda x, y: linear_probe(x, y - 1), "whole numbers"),
        (lambda x, y: mean_difference_probe(x, y + torch.arange(len(y)) % 2), "two classes"),
        (lambda x, y: split_by_group(y * 0), "one side empty"),
        (lambda x, y: linear_probe(x, y + torch.arange(len(y)) % 2).direction, "two classes"),
        (lambda x, y: score_probe(x, y, torch.arange(len(y)) % 2, test_share=0.5), "at least two"),
    ],
)
def test_wrong_input_is_named(call, message):
    x, labels, _, _ = planted(n=40)
    with pytest.raises(ValueError, match=message):
        call(x, labels)


def test_a_penalty_can_be_bound_and_shrinks_the_weights():
    x, labels, groups, _ = planted()
    loose, tight = (
        score_probe(x, labels, groups, fit=partial(linear_probe, penalty=penalty)).probe for penalty in (0.01, 1000.0)
    )
    assert tight.direction.norm() < 0.5 * loose.direction.norm()
