"""Waves over the residues 0 ... p-1: the language in which a network that has learnt to add modulo p can be read.

Every function of a residue is a sum of waves: a constant, and a cosine and a sine for each frequency. A network that
groks modular addition keeps a handful of *key frequencies* k and computes cos(w (a + b - c)), w = 2 pi k / p, for each
candidate answer c. The sum of these is largest where c = a + b. Notebook 6.2 builds these functions one by one.

Activations and logits are given on the grid of all inputs, ``[a, b, ...]`` with a and b from 0 to p-1.

Sources: Nanda et al. 2023, https://arxiv.org/abs/2301.05217; Zhong et al. 2023, https://arxiv.org/abs/2306.17844
"""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

KEY_SHARE = 0.02
LIVE_SHARE = 1e-3
SINGLE_SHARE = 0.85
ROUNDING = 1e-20


def wave_frequencies(p: int) -> Int[Tensor, "wave"]:
    """The frequency of each row of :func:`fourier_basis`: 0, 1, 1, 2, 2, ..."""
    return (torch.arange(p) + 1) // 2


def fourier_basis(p: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "wave residue"]:
    """The orthonormal waves on p points: constant, then cosine and sine of frequency 1, of frequency 2, and so on.

    For even p the last row is the cosine of frequency p/2: +, -, +, - ... It has no sine.

    Raises:
        ValueError: if p is below 1.
    """
    if p < 1:
        raise ValueError(f"expected at least one residue, got p = {p}")
    angle = 2 * math.pi / p * torch.outer(wave_frequencies(p), torch.arange(p)).double()  # [wave, residue]
    is_sine = (torch.arange(p) % 2 == 0) & (torch.arange(p) > 0)
    return F.normalize(torch.where(is_sine[:, None], angle.sin(), angle.cos())).to(dtype)


def to_waves(values: Float[Tensor, "*residues_and_rest"], n_residues: int = 1) -> Float[Tensor, "*waves_and_rest"]:
    """The coefficients of a function of one or several residues, which are the first dimensions of ``values``.

    With ``n_residues=2``, activations [a, b, neuron] become coefficients [wave of a, wave of b, neuron]. The basis is
    orthonormal: the sum of squares stays the same.

    Raises:
        ValueError: if ``values`` has fewer than ``n_residues`` dimensions.
    """
    if values.ndim < n_residues:
        raise ValueError(f"expected {n_residues} or more dimensions, got the shape {tuple(values.shape)}")
    for dim in range(n_residues):
        basis = fourier_basis(values.shape[dim], values.dtype).to(values.device)
        values = torch.tensordot(basis, values, ([1], [dim])).movedim(0, dim)
    return values


def frequency_power(values: Float[Tensor, "residue *rest"]) -> Float[Tensor, "frequency *rest"]:
    """The sum of squares of a function's part at each frequency, 0 to p // 2."""
    p = len(values)
    power = values.new_zeros(p // 2 + 1, *values.shape[1:])
    return power.index_add(0, wave_frequencies(p).to(values.device), to_waves(values).square())


def keep_frequencies(
    values: Float[Tensor, "residue *rest"], frequencies: Iterable[int]
) -> Float[Tensor, "residue *rest"]:
    """The part of a function at the given frequencies; frequency 0 is its mean.

    Raises:
        ValueError: if a frequency is not between 0 and p // 2.
    """
    p, chosen = len(values), torch.tensor(sorted(set(frequencies)), dtype=torch.long)
    if len(chosen) and not 0 <= chosen[0] <= chosen[-1] <= p // 2:
        raise ValueError(f"expected frequencies from 0 to {p // 2} for p = {p}, got {chosen.tolist()}")
    waves = fourier_basis(p, values.dtype)[torch.isin(wave_frequencies(p), chosen)].to(values.device)
    return torch.tensordot(waves.T @ waves, values, 1)


def key_frequencies(values: Float[Tensor, "residue *rest"], least_share: float = KEY_SHARE) -> list[int]:
    """The frequencies that hold at least a share of all power above frequency 0, in rising order.

    Give it ``W_E[:p]``; ``(W_out @ W_U).T``, which is [answer, neuron]; or :func:`mean_by_sum` of the logits.
    """
    power = frequency_power(values.reshape(len(values), -1)).sum(1)
    return [k for k in range(1, len(power)) if power[k] > 0 and power[k] >= least_share * power[1:].sum()]


def single_frequency_share(activations: Float[Tensor, "a b neuron"]) -> Float[Tensor, "frequency neuron"]:
    """The share of each neuron's variance over all inputs that the waves of one frequency explain.

    The waves of frequency k are the products of {1, cos, sin} of a and {1, cos, sin} of b at that frequency: eight,
    without the constant. ``single_frequency_share(activations).max(0)`` is each neuron's best share and its frequency.

    Returns:
        Rows 0 to p // 2. Row 0 is zero, and so is the column of a neuron that is constant.

    Raises:
        ValueError: if the inputs are not all p x p pairs.
    """
    p = _residues(activations)
    frequency = wave_frequencies(p)
    power = to_waves(activations.double(), 2).square()  # [wave, wave, neuron]
    constant, power[0, 0] = power[0, 0].clone(), 0
    total = power.sum((0, 1))
    shares = torch.zeros(p // 2 + 1, *total.shape).to(total)
    for k in range(1, p // 2 + 1):
        member = (frequency == k) | (frequency == 0)
        shares[k] = power[member][:, member].sum((0, 1)) / total
    varies = total > ROUNDING * constant
    return shares.where(varies, 0).to(activations.dtype)


def live_neurons(activations: Float[Tensor, "a b neuron"], least_share: float = LIVE_SHARE) -> Bool[Tensor, "neuron"]:
    """Which neurons vary: their variance over all inputs is at least this share of the largest one."""
    variance = activations.double().flatten(0, 1).var(0)
    return (variance > 0) & (variance >= least_share * variance.max())


def neuron_clusters(
    activations: Float[Tensor, "a b neuron"], least_share: float = SINGLE_SHARE
) -> dict[int, Int[Tensor, "member"]]:
    """The live single-frequency neurons of each frequency.

    A neuron is *single-frequency* if one frequency explains at least ``least_share`` of its variance.

    Returns:
        frequency -> indices of neurons; frequencies in rising order, those without neurons left out.
    """
    share, frequency = single_frequency_share(activations).max(0)
    single = live_neurons(activations) & (share >= least_share)
    return {k: (single & (frequency == k)).nonzero().flatten() for k in frequency[single].unique().tolist()}


def mean_by_sum(values: Float[Tensor, "a b *rest"]) -> Float[Tensor, "sum *rest"]:
    """The mean over all pairs with the same (a + b) mod p: the part of a function that knows the sum and no more."""
    p, flat = _residues(values), values.flatten(0, 1)
    return values.new_zeros(p, *values.shape[2:]).index_add(0, _sums(p).to(values.device), flat) / p


def restricted_logits(logits: Float[Tensor, "a b answer"], frequencies: Iterable[int]) -> Float[Tensor, "a b answer"]:
    """The logits with nothing left but their mean and the waves of a + b at some frequencies."""
    p = _residues(logits)
    kept = keep_frequencies(mean_by_sum(logits), {0, *frequencies})
    return kept[_sums(p).to(logits.device)].view(p, p, -1)


def excluded_logits(logits: Float[Tensor, "a b answer"], frequencies: Iterable[int]) -> Float[Tensor, "a b answer"]:
    """The logits without the waves of a + b at some frequencies."""
    return logits - restricted_logits(logits, frequencies) + logits.mean((0, 1))


def addition_loss(logits: Float[Tensor, "a b answer"], pairs: Bool[Tensor, "a b"] | None = None) -> float:
    """Mean cross-entropy of the answer (a + b) mod p, in nats, in double precision.

    Args:
        logits: For all pairs.
        pairs: Which pairs count, such as the training set; all by default.

    Raises:
        ValueError: if the inputs are not all p x p pairs, or there are not p answers.
    """
    p = _residues(logits)
    if logits.shape[2:] != (p,):
        raise ValueError(f"expected logits [{p}, {p}, {p}] as [a, b, answer], got {tuple(logits.shape)}")
    losses = F.cross_entropy(logits.flatten(0, 1).double(), _sums(p).to(logits.device), reduction="none")
    return (losses if pairs is None else losses[pairs.flatten()]).mean().item()


def restricted_loss(
    logits: Float[Tensor, "a b answer"], frequencies: Iterable[int], pairs: Bool[Tensor, "a b"] | None = None
) -> float:
    """The loss of :func:`restricted_logits`: it falls as the wave mechanism forms, before the test loss does."""
    return addition_loss(restricted_logits(logits, frequencies), pairs)


def excluded_loss(
    logits: Float[Tensor, "a b answer"], frequencies: Iterable[int], pairs: Bool[Tensor, "a b"] | None = None
) -> float:
    """The loss of :func:`excluded_logits`. On training pairs it tells memory, low, from the wave mechanism, high."""
    return addition_loss(excluded_logits(logits, frequencies), pairs)


def answer_waves(
    logits: Float[Tensor, "a b answer"], frequencies: Iterable[int]
) -> tuple[Float[Tensor, "frequency"], float]:
    """Fit the logits by a sum of cos(w (a + b - c)), one amplitude for each frequency.

    Returns:
        The amplitudes of the least-squares fit, in the order of ``frequencies``, and the share of the logits' variance
        that it explains, after each pair's mean over the answers, which no probability depends on, is taken away.
    """
    p = _residues(logits)
    residue = torch.arange(p)
    centred = (logits - logits.mean(-1, keepdim=True)).double().cpu()
    by_sum = mean_by_sum(centred)
    by_error = torch.stack([by_sum[residue, (residue - error) % p].mean() for error in range(p)])  # error = a + b - c
    waves = torch.cos(2 * math.pi / p * torch.outer(torch.tensor(list(frequencies)), residue).double())
    amplitudes = waves @ by_error / waves.square().sum(1)
    explained = amplitudes.square() @ waves.square().mean(1) / centred.square().mean()
    return amplitudes.to(logits), explained.item()


def distance_irrelevance(logits: Float[Tensor, "a b answer"]) -> float:
    """How little the right answer's logit depends on a - b: near 1 for the clock, near 0 for the pizza.

    The mean over distances d of the standard deviation among pairs with a - b = d, divided by that among all pairs.
    """
    p = _residues(logits)
    a, distance = torch.arange(p), torch.arange(p)[:, None]
    b = (a - distance) % p  # [distance, a]
    right = logits[a, b, (a + b) % p]
    return (right.std(1, correction=0).mean() / right.std(correction=0)).item()


def gradient_symmetry(
    logits_of: Callable[[Float[Tensor, "triple 2 d_model"]], Float[Tensor, "triple answer"]],
    embeddings: Float[Tensor, "triple 2 d_model"],
    answers: Int[Tensor, "triple"],
) -> float:
    """Mean cosine of an answer's gradients in the embeddings of a and b: near 1 for the pizza, less for the clock.

    Args:
        logits_of: The network from the embeddings of a and b to the logits.
        embeddings: Of a and b for each triple (a, b, c).
        answers: c for each triple.
    """
    embeddings = embeddings.detach().requires_grad_(True)
    chosen = logits_of(embeddings).gather(1, answers[:, None]).sum()
    (gradients,) = torch.autograd.grad(chosen, embeddings)
    return F.cosine_similarity(gradients[:, 0], gradients[:, 1], dim=-1).mean().item()


def _sums(p: int) -> Int[Tensor, "pair"]:
    """(a + b) mod p for all pairs in the order of a flattened grid."""
    residue = torch.arange(p)
    return ((residue[:, None] + residue) % p).flatten()


def _residues(grid: Tensor) -> int:
    """p of a tensor [a, b, ...] on all p x p pairs."""
    if grid.ndim < 2 or grid.shape[0] != grid.shape[1]:
        raise ValueError(f"expected a grid of all pairs [p, p, ...], got the shape {tuple(grid.shape)}")
    return len(grid)
