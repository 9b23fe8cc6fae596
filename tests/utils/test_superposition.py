"""Toy models of superposition: gradients, geometry and losses against closed forms, and what training finds."""

import math

import pytest
import torch

import utils.superposition as superposition
from utils.superposition import (
    ToyModels,
    loss_and_gradient,
    measured_loss,
    reconstruct,
    reconstruction_loss,
    sample_features,
    train_toy_models,
)
from utils.superposition_geometry import (
    PHASES,
    SHAPES,
    arrangement,
    dimensions_per_feature,
    feature_dimensionality,
    feature_norms,
    features_kept,
    interference,
    interference_matrix,
    pair_losses,
    phase_diagram,
)

QUICK = {"steps": 800, "batch": 256, "progress": False}


def polygon(sides: int, turn: float = 0.3) -> torch.Tensor:
    """Directions [2, sides] to the corners of a regular polygon."""
    angles = turn + 2 * math.pi * torch.arange(sides) / sides
    return torch.stack([angles.cos(), angles.sin()])


def tetrahedron() -> torch.Tensor:
    return torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).T / math.sqrt(3)


def turned(W: torch.Tensor) -> torch.Tensor:
    """The same directions after a random rotation."""
    return torch.linalg.qr(torch.randn(len(W), len(W), generator=torch.Generator().manual_seed(3))).Q @ W


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("models", "hidden", "features", "n"), [(3, 2, 5, 7), (2, 4, 3, 11)])
def test_the_closed_form_gradient_is_that_of_autograd(relu, models, hidden, features, n):
    torch.manual_seed(0)
    W = torch.randn(models, hidden, features, requires_grad=True)
    b = torch.randn(models, features, requires_grad=True)
    x, importance = torch.rand(models, n, features), torch.rand(models, features)
    expected = reconstruction_loss(reconstruct(W, b, x, relu), x, importance)
    expected.sum().backward()
    loss, by_W, by_b = loss_and_gradient(W.detach(), b.detach(), x, importance, relu)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(by_W, W.grad)
    torch.testing.assert_close(by_b, b.grad)


def test_reconstruction_and_loss_follow_their_definition():
    torch.manual_seed(1)
    W, b, x, importance = torch.randn(2, 3), torch.randn(3), torch.rand(4, 3), torch.rand(3)
    total = 0.0
    for vector in x:
        hidden = [sum(W[k, i] * vector[i] for i in range(3)) for k in range(2)]
        for i in range(3):
            read = max(0.0, float(sum(W[k, i] * hidden[k] for k in range(2)) + b[i]))
            total += float(importance[i]) * (read - float(vector[i])) ** 2
    assert reconstruction_loss(reconstruct(W, b, x), x, importance).item() == pytest.approx(total / 4, rel=1e-5)


def test_features_are_zero_as_often_as_asked_and_otherwise_uniform():
    sparsity = torch.tensor([0.0, 0.5, 0.97])
    x = sample_features(40_000, sparsity, 3, torch.Generator().manual_seed(0))
    assert x.shape == (3, 40_000, 3)
    torch.testing.assert_close((x == 0).float().mean((1, 2)), sparsity, atol=0.006, rtol=0)
    for values in x:
        active = values[values > 0]
        quantiles = torch.quantile(active[:9000], torch.tensor([0.1, 0.5, 0.9]))
        torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.5, 0.9]), atol=0.03, rtol=0)


def test_dense_linear_models_do_what_principal_components_do():
    importance = torch.tensor([1.0, 0.3, 0.8, 0.1])
    found = train_toy_models(4, 2, [0.0], importance, relu=False, steps=1500, restarts=3, progress=False).best()
    # principal components of the weighted features: the two of largest variance, importance / 12, are kept
    left_out = importance.sort().values[:2].sum() / 12
    assert found.loss.item() == pytest.approx(left_out.item(), rel=0.05)
    expected = torch.diag(torch.tensor([1.0, 0, 1, 0]))
    torch.testing.assert_close(interference_matrix(found.W)[0], expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
def test_the_losses_of_two_features_in_one_dimension_are_those_of_the_formula(density):
    second = 0.7
    ways = {"first": [[1.0, 0.0]], "second": [[0.0, 1.0]], "pair": [[1.0, -1.0]]}
    x = sample_features(400_000, torch.tensor(1 - density), 2, torch.Generator().manual_seed(0))
    formula = pair_losses(density, second)
    for way, W in ways.items():
        loss = reconstruction_loss(reconstruct(torch.tensor(W), torch.zeros(2), x), x, torch.tensor([1.0, second]))
        assert loss.item() == pytest.approx(formula[way].item(), rel=0.06), way


def test_dimensionality_of_known_arrangements():
    torch.testing.assert_close(feature_dimensionality(turned(torch.eye(3))), torch.ones(3))
    torch.testing.assert_close(feature_dimensionality(torch.tensor([[2.0, -2.0]])), torch.full((2,), 0.5))
    for sides in (3, 5, 7):
        torch.testing.assert_close(feature_dimensionality(polygon(sides)), torch.full((sides,), 2 / sides))
    torch.testing.assert_close(feature_dimensionality(tetrahedron()), torch.full((4,), 0.75))
    torch.testing.assert_close(feature_dimensionality(torch.tensor([[1.0, 0.0], [0.0, 0.0]])), torch.tensor([1.0, 0.0]))


def test_measures_keep_the_grid_and_match_a_loop():
    W = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(5))
    others, shares = interference(W), feature_dimensionality(W)
    assert others.shape == shares.shape == feature_norms(W).shape == (2, 3, 6)
    one = W[1, 2].double()
    for i in range(6):
        along = [float(one[:, i] @ one[:, j] / one[:, i].norm()) ** 2 for j in range(6)]
        assert others[1, 2, i].item() == pytest.approx(sum(along) - along[i], rel=1e-4)
        assert shares[1, 2, i].item() == pytest.approx(float(one[:, i].norm() ** 2) / sum(along), rel=1e-4)
    torch.testing.assert_close(interference_matrix(W).diagonal(dim1=-2, dim2=-1), feature_norms(W) ** 2)
    torch.testing.assert_close(dimensions_per_feature(W), 4 / feature_norms(W).square().sum(-1))
    assert features_kept(torch.tensor([[1.0, 0.4, 0.6]])).item() == 2


@pytest.mark.parametrize(
    ("name", "W"),
    [
        ("dedicated dimension", torch.tensor([[0.9]])),
        ("antipodal pair", torch.tensor([[1.0, -0.8]])),
        ("triangle", polygon(3)),
        ("pentagon", polygon(5)),
        ("tetrahedron", tetrahedron()),
    ],
)
def test_regular_shapes_are_named_wherever_they_point(name, W):
    spare = torch.zeros(2, W.shape[1])
    absent = torch.zeros(len(W) + 2, 1)
    found = arrangement(turned(torch.cat([torch.cat([W, spare]), absent], dim=1)))
    assert [(shape.name, shape.features) for shape in found] == [(name, tuple(range(W.shape[1])))]
    assert found[0].dimensions == len(W) == SHAPES[name][1]


def test_shapes_in_dimensions_of_their_own_are_told_apart():
    W = torch.zeros(3, 4)
    W[0, 0], W[0, 2], W[1, 1], W[2, 3] = 1, -1, 1, -1
    found = {shape.features: shape.name for shape in arrangement(turned(W))}
    assert found == {(0, 2): "antipodal pair", (1,): "dedicated dimension", (3,): "dedicated dimension"}


def test_equal_dimensionalities_alone_do_not_make_a_pentagon():
    W = torch.cat([polygon(3, turn=0.2), torch.eye(2)], dim=1)  # a tight frame: every feature has 2/5 of a dimension
    torch.testing.assert_close(feature_dimensionality(W), torch.full((5,), 0.4))
    assert [shape.name for shape in arrangement(W)] == ["5 features in 2 dimensions"]


def test_sparser_features_are_stored_in_larger_number():
    importance = 0.9 ** torch.arange(5)
    models = train_toy_models(5, 2, [0.0, 0.7, 0.97], importance, restarts=4, steps=1200, batch=256, progress=False)
    best = models.best()
    assert features_kept(best.W).tolist() == [2, 4, 5]
    names = [[shape.name for shape in arrangement(W)] for W in best.W]
    assert names == [["dedicated dimension"] * 2, ["antipodal pair"] * 2, ["pentagon"]]


def test_the_best_restart_is_the_one_with_the_smallest_loss():
    models = train_toy_models(3, 2, torch.tensor([[0.2], [0.8]]), restarts=4, **QUICK)
    best = models.best()
    assert models.loss.shape == (2, 1, 4)
    assert best.W.shape == (2, 1, 2, 3)
    assert best.curve.shape == (len(models.curve), 2, 1)
    for row in range(2):
        chosen = int(models.loss[row, 0].argmin())
        assert best.loss[row, 0] == models.loss[row, 0, chosen]
        assert torch.equal(best.W[row, 0], models.W[row, 0, chosen])
        assert torch.equal(best.b[row, 0], models.b[row, 0, chosen])
        assert torch.equal(best.curve[:, row, 0], models.curve[:, row, 0, chosen])
    assert best.sparsity.tolist() == models.sparsity[..., 0].tolist()


def test_the_seed_decides_the_models_and_training_lowers_the_loss():
    first, again, other = (train_toy_models(3, 1, [0.5], seed=seed, **QUICK) for seed in (4, 4, 5))
    assert torch.equal(first.W, again.W)
    assert not torch.equal(first.W, other.W)
    assert (first.curve[-1] < first.curve[0]).all()


def test_the_measured_loss_is_the_expected_one():
    grid = (1, 1)  # an antipodal pair, whose loss is known
    models = ToyModels(
        torch.tensor([[[[1.0, -1.0]]]]),
        torch.zeros(1, 1, 2),
        torch.full(grid, 0.3),
        torch.ones(1, 1, 2),
        True,
        torch.zeros(grid),
        torch.zeros(0, *grid),
    )
    loss = measured_loss(models, 5000, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(pair_losses(0.7, 1.0)["pair"].item(), rel=0.03)


def test_an_interrupted_training_returns_the_models_as_they_are(monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > 60:
            raise KeyboardInterrupt
        return loss_and_gradient(*arguments)

    monkeypatch.setattr(superposition, "loss_and_gradient", interrupted)
    models = train_toy_models(3, 2, [0.5], restarts=2, **QUICK)
    assert len(models.curve) == 2
    assert models.loss.isfinite().all()


def test_the_phase_diagram_has_its_three_corners():
    diagram = phase_diagram([0.0, 0.97], [0.2, 1.0, 5.0], **QUICK)
    assert diagram.phase.shape == (2, 3)
    phases = [[PHASES[number] for number in row] for row in diagram.phase.tolist()]
    assert (phases[0][0], phases[0][2]) == ("not represented", "dedicated dimension")
    assert phases[1] == ["superposition"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_hidden": 0}, "positive"),
        ({"sparsity": [0.5, 1.0]}, "probability from 0 to below 1"),
        ({"importance": [1.0, 1.0]}, r"expected \[3\]"),
        ({"importance": [1.0, -1.0, 1.0]}, "negative"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_the_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_toy_models(**{"n_features": 3, "n_hidden": 2, "sparsity": [0.5], **arguments}, **QUICK)


def test_arrangement_wants_one_model():
    with pytest.raises(ValueError, match="one model"):
        arrangement(torch.ones(2, 3, 4))


def test_figures_show_every_feature_of_every_model_and_every_phase():
    from utils.superposition_plots import feature_vectors, phase_map

    W = torch.stack([polygon(5), torch.zeros(2, 5)])
    figure = feature_vectors(W, ["dense", "sparse"], "Five features")
    assert len(figure.data) == 10
    assert [note.text for note in figure.layout.annotations] == ["dense", "sparse"]
    assert figure.data[2].x[1] == pytest.approx(W[0, 0, 2].item())
    with pytest.raises(ValueError, match="Expected 2 labels"):
        feature_vectors(W, ["one"], "")
    with pytest.raises(ValueError, match=r"\[panel, 2, feature\]"):
        feature_vectors(torch.zeros(1, 3, 5), ["one"], "")
    diagram = phase_diagram([0.0, 0.9], [0.5, 2.0], restarts=1, steps=5, batch=8, progress=False)
    drawn = phase_map(diagram, "Phases").data[0]
    assert drawn.z.tolist() == diagram.phase.tolist()
    assert drawn.text[0][0] == PHASES[diagram.phase[0, 0]]
