"""Tests of ``utils.fourier`` against NumPy's FFT, least squares, loops, and functions whose spectrum is known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.fourier import (
    SINGLE_SHARE,
    addition_loss,
    answer_waves,
    distance_irrelevance,
    excluded_logits,
    excluded_loss,
    fourier_basis,
    frequency_power,
    gradient_symmetry,
    keep_frequencies,
    key_frequencies,
    live_neurons,
    mean_by_sum,
    neuron_clusters,
    restricted_logits,
    restricted_loss,
    single_frequency_share,
    to_waves,
    wave_frequencies,
)

SIZES = (1, 2, 5, 8, 13)
ODD_SIZES = (5, 11)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wave(p: int, k: int, phase: float = 0.0) -> torch.Tensor:
    return torch.cos(2 * math.pi * k * torch.arange(p, dtype=torch.float64) / p + phase)


def grid(p: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij")


def clock_logits(p: int, amplitudes: dict[int, float]) -> torch.Tensor:
    """Sum of amplitude * cos(w (a + b - c)): [a, b, c], by loops."""
    logits = torch.zeros(p, p, p, dtype=torch.float64)
    for a in range(p):
        for b in range(p):
            for c in range(p):
                logits[a, b, c] = sum(x * math.cos(2 * math.pi * k * (a + b - c) / p) for k, x in amplitudes.items())
    return logits


class TestBasis:
    @pytest.mark.parametrize("p", SIZES)
    def test_is_orthonormal_for_odd_and_even_sizes(self, p):
        basis = fourier_basis(p, torch.float64)
        torch.testing.assert_close(basis @ basis.T, torch.eye(p, dtype=torch.float64), atol=1e-12, rtol=0)

    @pytest.mark.parametrize("p", SIZES)
    def test_each_row_has_power_only_at_its_own_frequency(self, p):
        spectrum = np.abs(np.fft.rfft(fourier_basis(p, torch.float64).numpy(), axis=1))
        for row, k in zip(spectrum, wave_frequencies(p).tolist(), strict=True):
            assert row.argmax() == k
            assert np.delete(row, k).max(initial=0) < 1e-10

    def test_cosine_comes_before_sine_and_both_start_positive(self):
        basis = fourier_basis(7)
        assert basis[0, 0] > 0
        assert basis[1, 0] > 0.5
        assert basis[2, 0] == 0
        assert basis[2, 1] > 0

    def test_large_p_in_single_precision_stays_exact(self):
        basis = fourier_basis(997)
        assert basis.dtype == torch.float32
        torch.testing.assert_close(basis @ basis.T, torch.eye(997), atol=2e-6, rtol=0)

    def test_refuses_no_residues(self):
        with pytest.raises(ValueError, match="p = 0"):
            fourier_basis(0)


class TestPower:
    @pytest.mark.parametrize("p", SIZES)
    def test_agrees_with_numpy_fft(self, p):
        values = noise(p, 3, 2)
        spectrum = np.abs(np.fft.rfft(values.numpy(), axis=0)) ** 2 / p
        twice = [1 if k in (0, p / 2) else 2 for k in range(p // 2 + 1)]  # -k holds as much as k
        expected = spectrum * np.array(twice)[:, None, None]
        np.testing.assert_allclose(frequency_power(values).numpy(), expected, atol=1e-10)

    @pytest.mark.parametrize("p", SIZES)
    def test_sums_to_the_squared_length(self, p):
        values = noise(p, 4)
        torch.testing.assert_close(frequency_power(values).sum(0), values.square().sum(0))

    @pytest.mark.parametrize("p", [6, 7])
    def test_transform_over_two_residues_agrees_with_products_of_basis_rows(self, p):
        values, basis = noise(p, p, 3), fourier_basis(p, torch.float64)
        waves = to_waves(values, 2)
        for i in range(p):
            for j in range(p):
                product = torch.outer(basis[i], basis[j])
                torch.testing.assert_close(waves[i, j], (product[..., None] * values).sum((0, 1)))

    def test_transform_refuses_too_few_dimensions(self):
        with pytest.raises(ValueError, match="2 or more dimensions"):
            to_waves(torch.zeros(5), 2)

    @pytest.mark.parametrize("p", [9, 10])
    @pytest.mark.parametrize("kept", [(0,), (0, 2), (1, 4), (3, 3), ()])
    def test_kept_frequencies_agree_with_a_filtered_fft(self, p, kept):
        values = noise(p, 3)
        spectrum = np.fft.rfft(values.numpy(), axis=0)
        spectrum[[k for k in range(p // 2 + 1) if k not in kept]] = 0
        expected = np.fft.irfft(spectrum, n=p, axis=0)
        np.testing.assert_allclose(keep_frequencies(values, kept).numpy(), expected, atol=1e-10)

    def test_keeping_refuses_a_frequency_that_does_not_exist(self):
        with pytest.raises(ValueError, match="from 0 to 4"):
            keep_frequencies(noise(9), [5])


class TestKeyFrequencies:
    def test_finds_the_waves_that_were_put_in(self):
        values = torch.stack([3 + wave(31, 4, 0.3) + 0.01 * wave(31, 8), 2 * wave(31, 11, 1.0)], 1)
        assert key_frequencies(values) == [4, 11]

    def test_takes_a_function_without_other_dimensions(self):
        assert key_frequencies(wave(12, 6) + 1) == [6]

    def test_the_constant_does_not_count_as_power(self):
        assert key_frequencies(1000 + wave(15, 2)) == [2]

    def test_a_constant_function_has_none(self):
        assert key_frequencies(torch.zeros(7, 2)) == []

    def test_threshold_is_a_share_of_power(self):
        values = wave(21, 1) + 0.5 * wave(21, 2)  # powers 1 : 0.25
        assert key_frequencies(values, 0.19) == [1, 2]
        assert key_frequencies(values, 0.21) == [1]


class TestNeurons:
    @pytest.mark.parametrize("p", [6, 7])
    def test_share_is_the_r_squared_of_least_squares_on_waves_of_one_frequency(self, p):
        activations = noise(p, p, 4)
        a, b = grid(p)
        shares = single_frequency_share(activations)
        for k in range(1, p // 2 + 1):
            one = [torch.ones(p, p, dtype=torch.float64)]
            waves_a, waves_b = (
                [*one, *(f(2 * math.pi * k * x.double() / p) for f in (torch.cos, torch.sin))] for x in (a, b)
            )
            design = torch.stack([x * y for x in waves_a for y in waves_b]).flatten(1).T.numpy()
            target = activations.flatten(0, 1).numpy()
            fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
            expected = fitted.var(0) / target.var(0)
            np.testing.assert_allclose(shares[k].numpy(), expected, atol=1e-10)

    def test_relu_of_waves_of_one_frequency_is_above_the_threshold_and_of_two_below(self):
        p = 29
        a, b = grid(p)
        pure = (wave(p, 5)[a] + wave(p, 5)[b]).relu()
        mixed = (wave(p, 5)[a] + wave(p, 5)[b] + wave(p, 9)[a] + wave(p, 9)[b]).relu()
        share, frequency = single_frequency_share(torch.stack([pure, mixed], -1)).max(0)
        assert frequency[0] == 5
        assert share[0] > SINGLE_SHARE > share[1]

    def test_constant_neuron_has_no_share_and_is_not_live(self):
        activations = torch.stack([torch.full((5, 5), 2.0), noise(5, 5).float()], -1)
        assert single_frequency_share(activations)[:, 0].tolist() == [0, 0, 0]
        assert live_neurons(activations).tolist() == [False, True]

    def test_live_means_a_share_of_the_largest_variance(self):
        activations = torch.stack([noise(9, 9), 0.1 * noise(9, 9), 0.01 * noise(9, 9)], -1)
        assert live_neurons(activations, 1e-3).tolist() == [True, True, False]
        assert live_neurons(100 + activations, 1e-5).tolist() == [True, True, True]

    def test_clusters_name_live_single_frequency_neurons_by_frequency(self):
        p = 13
        a, b = grid(p)
        columns = [wave(p, 4)[a], wave(p, 2)[a] * wave(p, 2)[b], noise(p, p), 1e-4 * wave(p, 4)[b], 3 + wave(p, 4)[b]]
        clusters = neuron_clusters(torch.stack(columns, -1))
        assert {k: members.tolist() for k, members in clusters.items()} == {2: [1], 4: [0, 4]}

    def test_refuses_what_is_not_a_grid(self):
        with pytest.raises(ValueError, match="all pairs"):
            single_frequency_share(torch.zeros(5, 4, 3))


class TestRestrictedAndExcluded:
    @pytest.mark.parametrize("p", [4, 5])
    def test_mean_by_sum_agrees_with_a_loop(self, p):
        values = noise(p, p, 3)
        for s in range(p):
            expected = sum(values[a, (s - a) % p] for a in range(p)) / p
            torch.testing.assert_close(mean_by_sum(values)[s], expected)

    @pytest.mark.parametrize("p", ODD_SIZES)
    def test_restricted_is_the_projection_on_waves_of_the_sum(self, p):
        logits, keys = noise(p, p, p), (1, 2)
        a, b = grid(p)
        columns = [torch.ones(p * p, dtype=torch.float64)]
        for k in keys:
            angle = 2 * math.pi * k * (a + b).flatten().double() / p
            columns += [angle.cos(), angle.sin()]
        design = torch.stack(columns, 1).numpy()
        expected = design @ np.linalg.lstsq(design, logits.flatten(0, 1).numpy(), rcond=None)[0]
        np.testing.assert_allclose(restricted_logits(logits, keys).flatten(0, 1).numpy(), expected, atol=1e-10)

    @pytest.mark.parametrize("p", ODD_SIZES)
    def test_restricted_and_excluded_add_up_to_the_logits_and_their_mean(self, p):
        logits = noise(p, p, p)
        total = restricted_logits(logits, [2]) + excluded_logits(logits, [2])
        torch.testing.assert_close(total, logits + logits.mean((0, 1)))

    def test_all_frequencies_restricted_keep_a_function_of_the_sum_whole(self):
        logits = clock_logits(7, {1: 2.0, 3: 1.0})
        torch.testing.assert_close(restricted_logits(logits, range(1, 4)), logits)
        torch.testing.assert_close(excluded_logits(logits, [1, 3]), torch.zeros_like(logits))

    def test_losses_tell_the_wave_mechanism_from_memory(self):
        p, keys = 11, [2, 5]
        clock = 20 * clock_logits(p, {2: 1.0, 5: 1.0})
        memory = noise(p, p, p)
        a, b = grid(p)
        memory[a, b, (a + b) % p] += 30 * (noise(p, p, seed=1) > 0)
        memory -= restricted_logits(memory, keys)
        pairs = noise(p, p, seed=1) > 0
        assert restricted_loss(clock, keys) < 1e-3
        assert excluded_loss(clock, keys, pairs) == pytest.approx(math.log(p))
        assert restricted_loss(memory, keys, pairs) == pytest.approx(math.log(p))
        assert excluded_loss(memory, keys, pairs) < 0.01

    def test_addition_loss_agrees_with_a_loop_on_the_chosen_pairs(self):
        p = 5
        logits, pairs = noise(p, p, p).float(), noise(p, p) > 0
        losses = [
            F.cross_entropy(logits[a, b].double(), torch.tensor((a + b) % p)).item()
            for a in range(p)
            for b in range(p)
            if pairs[a, b]
        ]
        assert addition_loss(logits, pairs) == pytest.approx(np.mean(losses), abs=1e-12)

    def test_addition_loss_refuses_another_number_of_answers(self):
        with pytest.raises(ValueError, match="expected logits"):
            addition_loss(torch.zeros(5, 5, 6))


class TestMechanism:
    @pytest.mark.parametrize("p", [7, 8])
    def test_answer_waves_agree_with_least_squares(self, p):
        logits, keys = clock_logits(p, {1: 3.0, 3: 1.0}) + noise(p, p, p), [3, 1]
        centred = logits - logits.mean(-1, keepdim=True)
        design = torch.stack([clock_logits(p, {k: 1.0}).flatten() for k in keys], 1).numpy()
        target = centred.flatten().numpy()
        expected, residual, *_ = np.linalg.lstsq(design, target, rcond=None)
        amplitudes, explained = answer_waves(logits, keys)
        np.testing.assert_allclose(amplitudes.numpy(), expected, atol=1e-10)
        assert explained == pytest.approx(1 - residual[0] / (target**2).sum())

    def test_answer_waves_explain_a_pure_clock_whatever_is_added_to_all_answers(self):
        amplitudes, explained = answer_waves(clock_logits(7, {2: 1.5}) + noise(7, 7, 1), [2])
        assert amplitudes.tolist() == pytest.approx([1.5])
        assert explained == pytest.approx(1)

    def test_distance_irrelevance_is_zero_where_the_distance_decides_and_agrees_with_a_loop(self):
        p = 7
        a, b = grid(p)
        by_distance = wave(p, 2)[(a - b) % p][..., None].expand(p, p, p)
        assert distance_irrelevance(by_distance) == pytest.approx(0, abs=1e-12)
        logits = noise(p, p, p)
        right = logits[a, b, (a + b) % p].numpy()
        spreads = [np.std([right[x, (x - d) % p] for x in range(p)]) for d in range(p)]
        assert distance_irrelevance(logits) == pytest.approx(np.mean(spreads) / right.std())

    def test_gradient_symmetry_is_one_for_a_sum_and_the_closed_form_for_weighted_inputs(self):
        readers, answers = noise(4, 5), torch.tensor([0, 3, 4])

        def symmetric(x):
            return (x[:, 0] + x[:, 1]).tanh() @ readers

        def halves(x):  # reads the first two coordinates of a and the last two of b
            return torch.cat([x[:, 0, :2], x[:, 1, 2:]], 1) @ readers

        assert gradient_symmetry(symmetric, noise(3, 2, 4), answers) == pytest.approx(1)
        assert gradient_symmetry(halves, noise(3, 2, 4), answers) == pytest.approx(0)
