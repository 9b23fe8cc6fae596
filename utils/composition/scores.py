"""How much of what one head writes another one reads, from the weights alone.

Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html.
"""

from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from utils.composition.heads import Head, HeadWeights

if TYPE_CHECKING:
    from utils.composition.heads import Model

Input = Literal["Q", "K", "V"]
"""Which input of the receiver reads what the sender writes."""


def composition_scores(model: "Model", through: Input) -> Float[Tensor, "layer sender layer receiver"]:
    """How well what each head writes and what each later head reads go together.

    The Frobenius norm of the product of the two heads' matrices over the product of their norms: 0 where the receiver
    reads nothing of what the sender writes, 1 at the most. Two random heads reach about ``d_model ** -0.5``; what is
    more than chance is said by :func:`composition_deviations`.

    Args:
        model: A model, or its :class:`HeadWeights`. For layer norm see there.
        through: The receiver's input: "Q" and "K" are read by its QK matrix, from either side, "V" by its OV matrix.

    Raises:
        ValueError: if there is no such input.
        NotCovered: as :meth:`HeadWeights.of`.

    Returns:
        One score for each pair of heads; 0 where the sender is not in a lower layer than the receiver.
    """
    heads = HeadWeights.of(model)
    written, read = _written(heads), _read(heads, through)
    scores = torch.zeros(heads.n_layers, heads.n_heads, heads.n_layers, heads.n_heads, device=written.device)
    for low in range(heads.n_layers):
        for high in range(low + 1, heads.n_layers):
            product = written[low].flatten(0, 1) @ read[high].transpose(0, 1).flatten(1)
            blocks = product.unflatten(0, (heads.n_heads, -1)).unflatten(-1, (heads.n_heads, -1))
            scores[low, :, high] = torch.linalg.vector_norm(blocks, dim=(1, 3))
    return scores


def composition_deviations(model: "Model", through: Input) -> Float[Tensor, "layer sender layer receiver"]:
    """How far each pair's squared score is from chance, in standard deviations of chance.

    Chance turns what the sender writes in a random direction of the residual stream. Both heads keep all their singular
    values, which in trained heads are far more uneven than in random matrices; lost is only that the directions meet.
    Mean and standard deviation over all rotations are exact: the mean of the squared score is one over the number of
    dimensions, whatever the heads.

    Returns:
        As :func:`composition_scores`, with negative numbers where a pair avoids each other.

    Source: Collins & Sniady 2006 for the moments of random rotations, https://arxiv.org/abs/math-ph/0402073
    """
    heads = HeadWeights.of(model)
    written, read = _written(heads), _read(heads, through)
    n = heads.d_model - heads.centred  # layer norm takes one dimension away
    # The mean of tr(A R B R')^2 over rotations R; A and B have traces 1, and their squares have traces a and b.
    a = (written @ written.mT).square().sum((-2, -1))[:, :, None, None]
    b = (read.mT @ read).square().sum((-2, -1))
    mean_square = (n + 1 - 2 * a - 2 * b + 2 * n * a * b) / (n * (n - 1) * (n + 2))
    deviations = (composition_scores(heads, through).square() - 1 / n) / (mean_square - 1 / n**2).sqrt()
    layer = torch.arange(heads.n_layers, device=deviations.device)
    joined = (layer[:, None] < layer)[:, None, :, None] & (a > 0) & (b > 0)
    return deviations.where(joined, 0)


def gaussian_baseline(d_model: int, d_head: int, draws: int = 100, seed: int = 0) -> Float[Tensor, "draw"]:
    """Composition scores of pairs of heads whose weights are all drawn from the standard normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    value, output, near, far = (torch.randn(draws, d_model, d_head, generator=generator) for _ in range(4))
    written, read = _unit(_triangle(value) @ output.mT), _unit(near @ _triangle(far).mT)
    return torch.linalg.matrix_norm(written @ read)


def virtual_weights(
    model: "Model",
    sender: Head,
    receiver: Head,
    through: Input,
) -> Float[Tensor, "d_head d_head"]:
    """The weights that join two heads as if they were wired directly: from what the sender mixed to one input.

    Args:
        model: A model, or its :class:`HeadWeights`.
        sender: Layer and number of a head.
        receiver: Layer and number of a head in a higher layer.
        through: Which input of the receiver: its queries, keys or values.

    Raises:
        ValueError: if a head is not in the model, the sender is not below the receiver, or there is no such input.
    """
    heads = HeadWeights.of(model)
    heads.check_pair(sender, receiver)
    _check_input(through)
    return heads.W_O[sender] @ getattr(heads, f"W_{through}")[receiver]


def _written(heads: HeadWeights) -> Float[Tensor, "layer head d_head d_model"]:
    """What a head can write: the OV matrix turned so that nothing is lost, scaled to norm 1."""
    return _unit(_triangle(heads.W_V) @ heads.W_O)


def _read(heads: HeadWeights, through: Input) -> Float[Tensor, "layer head d_model d_head"]:
    """What a head reads through one of its inputs, likewise."""
    _check_input(through)
    near, far = {
        "Q": (heads.W_Q, heads.W_K),
        "K": (heads.W_K, heads.W_Q),
        "V": (heads.W_V, heads.W_O.mT),
    }[through]
    return _unit(near @ _triangle(far).mT)


def _triangle(matrix: Float[Tensor, "*rest d_model d_head"]) -> Float[Tensor, "*rest d_head d_head"]:
    """A small matrix that turns vectors of a head into others of the same lengths as the tall matrix does."""
    return torch.linalg.qr(matrix, mode="r").R


def _unit(matrix: Float[Tensor, "*rest row column"]) -> Float[Tensor, "*rest row column"]:
    """The matrix divided by its Frobenius norm; a head that was cut out (all zeros) stays zero."""
    norm = torch.linalg.matrix_norm(matrix, keepdim=True)
    return matrix / norm.where(norm > 0, 1)


def _check_input(through: str) -> None:
    if through not in get_args(Input):
        raise ValueError(f"through must be one of {', '.join(get_args(Input))}, not {through!r}")
