"""Statistics against closed forms, brute force, scipy, and how often intervals hold the truth in simulations."""

import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from utils import stats

SEEDED = torch.Generator().manual_seed


def share_that_holds(truth, intervals):
    return sum(bool(low <= truth <= high) for low, high in intervals) / len(intervals)


class TestBootstrapInterval:
    def test_of_a_mean_is_near_the_normal_interval(self):
        values = torch.randn(400, 3, generator=SEEDED(0)) * torch.tensor([1.0, 5.0, 0.1]) + 2
        low, high = stats.bootstrap_interval(values, resamples=8000)
        half = 1.959964 * values.std(0) / math.sqrt(400)
        torch.testing.assert_close(low, values.mean(0) - half, atol=0, rtol=0.02)
        torch.testing.assert_close(high, values.mean(0) + half, atol=0, rtol=0.02)

    def test_is_the_plain_bootstrap(self):
        values = torch.randn(12, 2, 3, generator=SEEDED(1))
        picks = torch.randint(12, (500, 12), generator=SEEDED(3))
        means = values[picks].mean(1)
        low, high = stats.bootstrap_interval(values, level=0.9, resamples=500, seed=3)
        torch.testing.assert_close(low, means.quantile(0.05, dim=0))
        torch.testing.assert_close(high, means.quantile(0.95, dim=0))

    def test_takes_any_statistic_and_gives_the_same_for_the_mean(self):
        values = torch.rand(20, 2, generator=SEEDED(2))
        of_mean = stats.bootstrap_interval(values, resamples=300)
        torch.testing.assert_close(stats.bootstrap_interval(values, lambda v: v.mean(0), resamples=300), of_mean)
        low, high = stats.bootstrap_interval(values, lambda v: v[:, 0].mean() / v[:, 1].mean(), resamples=300)
        assert low < values[:, 0].mean() / values[:, 1].mean() < high
        assert low.shape == ()

    @pytest.mark.parametrize("values", [[1, 2, 3, 4], np.array([1.0, 2, 3, 4]), torch.tensor([1, 2, 3, 4]) > 2])
    def test_takes_lists_arrays_and_truth_values(self, values):
        low, high = stats.bootstrap_interval(values)
        assert low < torch.as_tensor(values).double().mean() < high

    def test_holds_the_truth_as_often_as_it_says(self):
        rows = torch.randn(1000, 30, generator=SEEDED(4)).exp()  # lognormal: skewed
        normal = torch.randn(1000, 30, generator=SEEDED(5))
        on_normal = [stats.bootstrap_interval(row, resamples=300, seed=i) for i, row in enumerate(normal)]
        on_skewed = [stats.bootstrap_interval(row, resamples=300, seed=i) for i, row in enumerate(rows)]
        assert 0.91 < share_that_holds(0, on_normal) < 0.96
        assert 0.84 < share_that_holds(math.exp(0.5), on_skewed) < 0.95

    def test_equal_samples_give_a_point(self):
        assert stats.bootstrap_interval([0.5] * 9) == (0.5, 0.5)

    @pytest.mark.parametrize(
        ("values", "settings", "message"),
        [
            ([1.0], {}, "at least 2"),
            (torch.tensor(3.0), {}, "at least 2"),
            ([1.0, math.nan], {}, "1 entries that are NaN"),
            ([1.0, 2.0], {"level": 95}, "such as 0.95"),
        ],
    )
    def test_refuses(self, values, settings, message):
        with pytest.raises(ValueError, match=message):
            stats.bootstrap_interval(values, **settings)


class TestWilsonInterval:
    @pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 10), (49, 50), (7, 7)])
    def test_is_scipy_s(self, successes, n):
        expected = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
        found = stats.wilson_interval(torch.arange(n) < successes)
        assert found == pytest.approx((expected.low, expected.high), abs=1e-6)

    def test_refuses_nothing(self):
        with pytest.raises(ValueError, match="at least one trial"):
            stats.wilson_interval(torch.zeros(0))


class TestPermutationTest:
    def test_small_groups_are_exact(self):
        a, b = [3.1, 4.0, 2.2, 5.6], [1.0, 2.0, 2.9]
        found, everyone = stats.permutation_test(a, b), [*a, *b]
        splits = [sum(c) / 4 - (sum(everyone) - sum(c)) / 3 for c in combinations(everyone, 4)]
        above = sum(s >= found.statistic - 1e-9 for s in splits) / len(splits)
        below = sum(s <= found.statistic + 1e-9 for s in splits) / len(splits)
        assert found.statistic == pytest.approx(sum(a) / 4 - sum(b) / 3)
        assert found.p == pytest.approx(min(1, 2 * min(above, below)))

    def test_is_never_zero_and_one_without_a_difference(self):
        far = stats.permutation_test(torch.zeros(40), torch.ones(40) * 9, resamples=99)
        assert far.p == pytest.approx(0.02)  # 2 * 1 / 100
        assert stats.permutation_test([1.0, 2, 3], [1.0, 2, 3]).p == 1

    def test_false_alarms_are_as_rare_as_they_should_be(self):
        groups = torch.randn(400, 2, 12, generator=SEEDED(6)).exp()
        p = [stats.permutation_test(a, b, resamples=199, seed=i).p for i, (a, b) in enumerate(groups)]
        assert 0.02 < sum(value <= 0.05 for value in p) / 400 < 0.08

    def test_takes_a_statistic(self):
        def ratio_of_spread(a, b):
            return a.var() / b.var()

        a, b = torch.randn(30, generator=SEEDED(7)) * 4, torch.randn(30, generator=SEEDED(8))
        found = stats.permutation_test(a, b, ratio_of_spread, resamples=199)
        assert found.p < 0.05
        assert found.statistic == pytest.approx((a.var() / b.var()).item(), rel=1e-4)
        assert found == stats.permutation_test(a, b, ratio_of_spread, resamples=199)

    @pytest.mark.parametrize(("a", "b"), [([], [1.0]), ([1.0], [math.inf]), (torch.ones(2, 3), torch.ones(2))])
    def test_refuses(self, a, b):
        with pytest.raises(ValueError, match=r"at least 1|infinite|one number a sample"):
            stats.permutation_test(a, b)


class TestSignFlipTest:
    def test_is_exact(self):
        differences = [0.5, -0.1, 0.9, 0.4, 0.7]
        means = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=5)]
        expected = 2 * sum(m >= sum(differences) - 1e-9 for m in means) / 32
        found = stats.sign_flip_test(differences)
        assert found == pytest.approx((sum(differences) / 5, expected))

    def test_sees_a_small_difference_that_the_unpaired_test_misses(self):
        base = torch.randn(50, generator=SEEDED(9)) * 10
        better = base + 0.3 + 0.1 * torch.randn(50, generator=SEEDED(10))
        assert stats.sign_flip_test(better - base, resamples=999).p == pytest.approx(0.002)
        assert stats.permutation_test(better, base, resamples=999).p > 0.5


class TestHolm:
    def test_is_the_definition_and_keeps_the_shape(self):
        p = torch.rand(3, 4, generator=SEEDED(11)) ** 3
        flat, adjusted = sorted(p.flatten().tolist()), {}
        for i, value in enumerate(flat):
            adjusted[value] = min(1.0, max((12 - j) * flat[j] for j in range(i + 1)))
        expected = torch.tensor([[adjusted[v] for v in row] for row in p.tolist()])
        torch.testing.assert_close(stats.holm(p), expected)

    def test_keeps_one_test_as_it_is_and_refuses_what_is_no_p_value(self):
        assert stats.holm([0.03]).item() == pytest.approx(0.03)
        with pytest.raises(ValueError, match="between 0 and 1"):
            stats.holm([0.5, 1.2])


class TestSpearman:
    def test_is_scipy_s_with_ties_and_batches(self):
        a = torch.randn(4, 3, 15, generator=SEEDED(12)).round(decimals=0)
        b = torch.randn(3, 15, generator=SEEDED(13))
        found = stats.spearman(a, b)
        assert found.shape == (4, 3)
        for i, j in product(range(4), range(3)):
            assert found[i, j].item() == pytest.approx(scipy_stats.spearmanr(a[i, j], b[j]).statistic, abs=1e-6)

    def test_the_interval_holds_the_truth_as_often_as_it_says(self):
        rho, n = 0.6, 25
        x, noise = torch.randn(2, 3000, n, generator=SEEDED(14))
        low, high = stats.spearman_interval(x, rho * x + math.sqrt(1 - rho**2) * noise)
        truth = 6 / math.pi * math.asin(rho / 2)  # of a bivariate normal distribution
        assert 0.935 < ((low <= truth) & (truth <= high)).double().mean() < 0.965

    def test_perfect_order_and_no_order(self):
        assert stats.spearman([1, 2, 3, 4], [10, 20, 30, 400]) == 1
        assert stats.spearman_interval([1, 2, 3, 4], [4, 3, 2, 1]) == (-1, -1)
        assert stats.spearman([1, 1, 1], [1, 2, 3]).isnan()

    def test_refuses_what_does_not_pair(self):
        with pytest.raises(ValueError, match="3 and 4 do not pair"):
            stats.spearman([1, 2, 3], [1, 2, 3, 4])
        with pytest.raises(ValueError, match="at least four items"):
            stats.spearman_interval([1, 2, 3], [1, 2, 3])


class TestEffectSize:
    def test_has_no_bias_where_cohen_s_d_has_one(self):
        a = torch.randn(4000, 6, generator=SEEDED(15)) + 0.8
        b = torch.randn(4000, 5, generator=SEEDED(16))
        mean = sum(stats.effect_size(x, y) for x, y in zip(a, b, strict=True)) / 4000
        assert mean == pytest.approx(0.8, abs=0.05)  # Cohen's d is 0.87 on average

    def test_by_hand_and_refusals(self):
        assert stats.effect_size([1.0, 3.0], [0.0, 2.0]) == pytest.approx(1 / math.sqrt(2) * (1 - 3 / 7))
        with pytest.raises(ValueError, match="vary"):
            stats.effect_size([1.0, 1.0], [2.0, 2.0])


class TestChangePoint:
    def test_is_the_best_of_all_splits(self):
        series = torch.randn(40, generator=SEEDED(17)).double() + (torch.arange(40) >= 13) * 1.5
        errors = {k: sum(p.var(correction=0) * len(p) for p in (series[:k], series[k:])) for k in range(2, 39)}
        best = min(errors, key=errors.get)
        found = stats.change_point(series)
        assert found.at == best
        assert (found.before, found.after) == pytest.approx((series[:best].mean().item(), series[best:].mean().item()))
        assert found.explained == pytest.approx(1 - (errors[best] / ((series - series.mean()) ** 2).sum()).item())

    def test_a_clean_jump_is_certain_and_a_line_is_three_quarters_of_one(self):
        jump = stats.change_point([0.0] * 5 + [2.0] * 9, steps=range(0, 140, 10))
        assert jump == (50, 50, 50, 0, 2, 1)
        assert stats.change_point(torch.arange(1000.0)).explained == pytest.approx(0.75, abs=1e-5)

    def test_the_steepest_part_of_a_slow_rise(self):
        rise = torch.sigmoid((torch.arange(200) - 120) / 8)
        assert abs(stats.change_point(rise).at - 120) <= 2

    def test_noise_explains_little_and_could_change_anywhere(self):
        found = stats.change_point(torch.randn(100, generator=SEEDED(18)))
        assert found.explained < 0.15
        assert found.high - found.low > 50

    @pytest.mark.parametrize(("memory", "coverage"), [(0.0, 0.93), (0.5, 0.87)])
    def test_the_interval_holds_the_truth_as_often_as_the_docstring_says(self, memory, coverage):
        noise = torch.randn(600, 80, generator=SEEDED(20))
        for step in range(1, 80):
            noise[:, step] = memory * noise[:, step - 1] + math.sqrt(1 - memory**2) * noise[:, step]
        runs = noise + 2.0 * (torch.arange(80) >= 50)
        found = [stats.change_point(run, resamples=200, seed=i) for i, run in enumerate(runs)]
        assert share_that_holds(50, [(point.low, point.high) for point in found]) == pytest.approx(coverage, abs=0.04)

    @pytest.mark.parametrize(
        ("series", "settings", "message"),
        [
            ([1.0, 2, 3], {}, "at least 4"),
            ([2.0] * 9, {}, "constant"),
            (torch.randn(8, 2), {}, "one series"),
            ([1.0, 2, 3, 4], {"steps": [1, 2]}, "4 values, 2 steps"),
        ],
    )
    def test_refuses(self, series, settings, message):
        with pytest.raises(ValueError, match=message):
            stats.change_point(series, **settings)
