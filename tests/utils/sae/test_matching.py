"""Best-match F1 against a brute force over all features and thresholds."""

import pytest
import torch

from utils.sae import both_signs, linear_probe, match, principal_directions, random_directions, score


def f1_of(predicted, truth):
    hits = (predicted & truth).sum().item()
    return 2 * hits / max(1, predicted.sum().item() + truth.sum().item())


def brute_force(features, truth):
    best = 0.0
    for column in features.T:
        cuts = column.unique()
        for cut in [cuts.min() - 1, *((cuts[1:] + cuts[:-1]) / 2)]:
            best = max(best, f1_of(column > cut, truth))
    return best


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_f1_over_all_features_and_thresholds_is_found(sparse, seed):
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(120, 7, generator=rng)
    if sparse:  # ties: most values are zero, others repeat
        features = (features * 2).round().clamp(min=0)
    truths = {str(share): torch.rand(120, generator=rng) < share for share in (0.25, 0.5, 0.7)}
    truths["linked"] = features[:, 4] + 0.3 * torch.randn(120, generator=rng) > 0.8
    found = match(features, truths)
    for name, truth in truths.items():
        assert found[name].f1 == pytest.approx(brute_force(features, truth))
        chosen = features[:, found[name].feature] > found[name].threshold
        assert f1_of(chosen, truth) == pytest.approx(found[name].f1)


def test_the_score_is_taken_on_the_other_split():
    rng = torch.Generator().manual_seed(0)
    noise, other = torch.randn(2, 200, 500, generator=rng)
    truth = {"coin": torch.arange(200) % 2 == 0}
    found = match(noise, truth)
    scored = score(found, other, truth)["coin"]
    predicted = other[:, found["coin"].feature] > found["coin"].threshold
    assert scored.f1 == pytest.approx(f1_of(predicted, truth["coin"]))
    assert found["coin"].f1 > scored.f1  # choosing among 500 random features flatters the match split
    assert scored.always == pytest.approx(2 / 3)
    assert scored.precision == pytest.approx((predicted & truth["coin"]).sum().item() / predicted.sum().item())
    assert scored.recall == pytest.approx((predicted & truth["coin"]).sum().item() / 100)


def test_rare_variables_are_left_out_and_wrong_lengths_refused():
    features = torch.randn(100, 4)
    assert match(features, {"rare": torch.arange(100) < 5, "nearly always": torch.arange(100) > 5}) == {}
    with pytest.raises(ValueError, match=r"known for shape \[99\], but there are features of 100 tokens"):
        match(features, {"short": torch.zeros(99, dtype=torch.bool)})


def test_a_negative_direction_needs_its_other_sign():
    values = torch.linspace(-1, 1, 100)[:, None]
    truth = {"low": values[:, 0] < -0.5}
    assert match(values, truth)["low"].f1 < 0.5
    assert match(both_signs(values), truth)["low"].f1 == 1.0


def test_principal_directions_are_those_of_the_singular_value_decomposition():
    x = torch.randn(200, 6) * torch.tensor([5.0, 4, 3, 2, 1, 0.5])
    right = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh.T
    torch.testing.assert_close((principal_directions(x).T @ right).abs(), torch.eye(6), atol=1e-3, rtol=0)


def test_random_directions_have_length_one_and_no_preference():
    directions = random_directions(20, 5000)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(5000))
    assert directions.mean(1).abs().max() < 0.02


def test_the_probe_finds_a_linear_variable():
    x = torch.randn(500, 8)
    truth = {"side": x @ torch.arange(8.0) > 1.0}
    assert match(x @ linear_probe(x, truth), truth)["side"].f1 > 0.95
