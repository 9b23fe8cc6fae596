"""Encode and decode the active latents alone, with exact gradients.

A batch of 1,024 inputs and 6,144 latents has six million latents, of which a TopK dictionary uses 32 thousand. A dense
step spends five matrix products of equal size on them. Only the first, which finds the active ones, needs all latents;
the decoder, the gradient of its weights, and those of the latents and the encoder are sums over active pairs. PyTorch's
``embedding_bag`` computes such sums: rows of a matrix, weighted, summed bag by bag.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.sae.largest import rows_of


@dataclass
class Pairs:
    """The active places of a [row, latent] matrix, in the order of their rows.

    Attributes:
        rows: Row of each pair, ascending, [pair].
        latents: Latent of each pair, [pair].
        n_rows: Number of rows.
        n_latents: Number of latents.
    """

    rows: Int[Tensor, "pair"]
    latents: Int[Tensor, "pair"]
    n_rows: int
    n_latents: int

    @classmethod
    def at(cls, places: Int[Tensor, "pair"], n_rows: int, n_latents: int) -> "Pairs":
        """Those at ascending places of the flattened matrix."""
        rows = rows_of(places, n_latents)
        return cls(rows, places - rows * n_latents, n_rows, n_latents)

    @classmethod
    def below_one_another(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """The pairs of matrices stacked row-wise."""
        starts = [sum(part.n_rows for part in parts[:index]) for index in range(len(parts))]
        rows = torch.cat([part.rows + start for part, start in zip(parts, starts, strict=True)])
        latents = torch.cat([part.latents for part in parts])
        return cls(rows, latents, sum(part.n_rows for part in parts), parts[0].n_latents)

    def where(self, chosen: Bool[Tensor, "pair"]) -> "Pairs":
        """Some of the pairs."""
        return Pairs(self.rows[chosen], self.latents[chosen], self.n_rows, self.n_latents)

    def sum_in_rows(self, weights: Float[Tensor, "pair"], vectors: Float[Tensor, "latent d"]) -> Float[Tensor, "row d"]:
        """For each row, the weighted sum of its latents' vectors."""
        starts = _first_of_each(self.rows, self.n_rows)
        return F.embedding_bag(self.latents, vectors, starts, mode="sum", per_sample_weights=weights)

    def sum_in_latents(
        self, weights: Float[Tensor, "pair"], vectors: Float[Tensor, "row d"]
    ) -> Float[Tensor, "latent d"]:
        """For each latent, the weighted sum of its rows' vectors."""
        order, rows, starts = self._by_latent
        return F.embedding_bag(rows, vectors, starts, mode="sum", per_sample_weights=weights[order])

    @cached_property
    def _by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs in the order of their latents, their rows in that order, and where each latent's begin."""
        narrow = np.uint16 if self.n_latents <= 2**16 else np.int64  # NumPy sorts 16 bits by radix, in linear time
        order = torch.from_numpy(np.argsort(self.latents.numpy().astype(narrow), kind="stable"))
        return order, self.rows[order], _first_of_each(self.latents, self.n_latents)


def _first_of_each(numbers: Int[Tensor, "pair"], n: int) -> Int[Tensor, "n"]:
    """Where the zeros, the ones, ... begin, once the numbers below ``n`` are in ascending order."""
    counts = torch.bincount(numbers, minlength=n)
    return counts.cumsum(0) - counts


def encode_pairs(
    x: Float[Tensor, "row d_in"],
    offset: Float[Tensor, "d_in"] | None,
    encoder: Float[Tensor, "latent d_in"],
    b_enc: Float[Tensor, "latent"],
    select: Callable[[Tensor, Tensor, Tensor], tuple[Float[Tensor, "pair"], Int[Tensor, "pair"]]],
    rows_at_once: int,
) -> tuple[Float[Tensor, "pair"], Pairs]:
    """Some of the pre-activations ``(x - offset) @ encoder.T + b_enc``, and where they are.

    Args:
        select: Called with ``(x - offset, encoder, b_enc)``; the pre-activations that it picks, and their places in the
            flattened matrix, ascending.
        rows_at_once: How many rows ``select`` is called with. It bounds the memory for pre-activations.
    """
    with torch.no_grad():
        centred = x if offset is None else x - offset
        parts = centred.split(rows_at_once)
        values, places = zip(*(select(part, encoder, b_enc) for part in parts), strict=True)
        found = zip(places, parts, strict=True)
        joined = Pairs.below_one_another([Pairs.at(at, len(part), len(encoder)) for at, part in found])
    return _Encode.apply(centred, offset, encoder, b_enc, torch.cat(values), joined), joined


def decode_pairs(
    values: Float[Tensor, "pair"], pairs: Pairs, W_dec: Float[Tensor, "latent d_out"]
) -> Float[Tensor, "row d_out"]:
    """The product of the matrix that holds ``values`` at ``pairs``, and zeros elsewhere, with ``W_dec``."""
    return _Decode.apply(values, W_dec, pairs)


class _Encode(torch.autograd.Function):
    """Values that were read from pre-activations; the gradients of the weights that made those."""

    @staticmethod
    def forward(
        ctx, centred: Tensor, offset: Tensor | None, encoder: Tensor, b_enc: Tensor, values: Tensor, pairs: Pairs
    ) -> Tensor:
        ctx.save_for_backward(centred, encoder)
        ctx.pairs = pairs
        return values

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        centred, encoder = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        grad_b_enc = grad.new_zeros(pairs.n_latents).index_add_(0, pairs.latents, grad)
        grad_offset = -grad_b_enc @ encoder if ctx.needs_input_grad[1] else None
        return None, grad_offset, pairs.sum_in_latents(grad, centred), grad_b_enc, None, None


class _Decode(torch.autograd.Function):
    """``values @ W_dec`` over the pairs."""

    @staticmethod
    def forward(ctx, values: Tensor, W_dec: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.pairs = pairs
        with torch.enable_grad():  # embedding_bag's own gradient of the values is fast, that of the vectors is not
            ctx.values = values.detach().requires_grad_()
            ctx.output = pairs.sum_in_rows(ctx.values, W_dec.detach())
        return ctx.output.detach()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        values, _ = ctx.saved_tensors
        (grad_values,) = torch.autograd.grad(ctx.output, ctx.values, grad.contiguous())
        return grad_values, ctx.pairs.sum_in_latents(values, grad.contiguous()), None
