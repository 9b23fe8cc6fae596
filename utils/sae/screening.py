"""The largest entries of a matrix product, looked for in half precision and found in single.

Which 32 of 6,144 latents are active is decided by a product of all inputs with the whole encoder, more than half of the
time of a TopK dictionary's training step. Where the CPU multiplies bfloat16 numbers much faster, the product is first
taken roughly. What rounding can do to it is bounded, so an entry too far below its row's k-th largest is out. The few
that are left in each row, some dozens beside the 32, are computed in single precision. The result is what the whole
product would have given.
"""

import warnings
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.sae.largest import largest_in_rows, lower_bound, rows_of, that_reach

UNIT = 2.0**-8
"""Rounding to bfloat16 changes a number by at most this share of it."""
FEWEST_INPUTS, LATENTS_PER_ENTRY = 256, 100
"""From this size on the product takes so long that screening pays."""


def screening_pays(d_in: int, n_latents: int, k: int) -> bool:
    """Whether this CPU multiplies bfloat16 matrices with units of their own, and the product is large enough."""
    large = d_in >= FEWEST_INPUTS and n_latents >= LATENTS_PER_ENTRY * k
    return large and _multiplies_bfloat16_fast()


@cache
def _multiplies_bfloat16_fast() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # an older PyTorch does not tell
    return bool(capabilities.get("amx_bf16", False))


def largest_of_product(
    x: Float[Tensor, "row d_in"], encoder: Float[Tensor, "latent d_in"], b_enc: Float[Tensor, "latent"], k: int
) -> tuple[Float[Tensor, "entry"], Int[Tensor, "entry"]]:
    """The k largest entries in each row of ``x @ encoder.T + b_enc``, and their places in it, flattened and ascending.

    Args:
        x: In single precision, on the CPU.
        encoder: Likewise.
        b_enc: Likewise.
        k: Between 1 and the number of latents.
    """
    rough = (x.bfloat16() @ encoder.bfloat16().T).float().add_(b_enc)
    reached = lower_bound(rough, k)
    places = that_reach(rough, reached - 2 * largest_error(x, encoder, b_enc, reached))
    rows = rows_of(places, len(encoder))
    latents = places - rows * len(encoder)
    values = entries_of_product(x, encoder, rows, latents) + b_enc[latents]
    chosen = largest_in_rows(values, rows, k)
    return values[chosen], places[chosen]


def largest_error(x: Tensor, encoder: Tensor, b_enc: Tensor, reached: Tensor) -> Float[Tensor, "row"]:
    """How far an entry of the rough product that matters can lie from the precise one, for each row.

    By the inequality of Cauchy and Schwarz, two rounded factors and sums in single precision change a product of
    vectors by no more than the first line. The result is rounded, too: the second line, for entries from ``reached``
    down to twice the error below it.
    """
    factors = (2.02 * UNIT + x.shape[1] * 2.0**-23) * x.norm(dim=1) * encoder.norm(dim=1).max()
    result = 1.05 * UNIT * (reached.abs() + b_enc.abs().max() + 2 * factors)
    return factors + result


def entries_of_product(x: Tensor, encoder: Tensor, rows: Tensor, latents: Tensor) -> Float[Tensor, "entry"]:
    """The products of some rows of x with some rows of the encoder; ``rows`` ascends."""
    starts = torch.searchsorted(rows, torch.arange(len(x) + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # that these tensors may still change
        shape, zeros = (len(x), len(encoder)), x.new_zeros(len(rows))
        wanted = torch.sparse_csr_tensor(starts, latents, zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(wanted, x, encoder.T, beta=0.0).values()
