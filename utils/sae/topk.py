"""TopK: of all latents, the k largest are kept (Gao et al. 2024, https://arxiv.org/abs/2406.04093)."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from utils.sae.active_pairs import Pairs, at_least, decode_pairs, encode_pairs
from utils.sae.dictionary import Dictionary, Pass

FEW = 64
"""Where k is smaller than the number of latents by this factor, torch's topk is fast; else numpy's partition is."""


class TopK(Dictionary):
    """Exactly ``k`` latents at most are active for every input, so sparsity needs no penalty and shrinks nothing.

    On a CPU, training computes the decoder and all weight gradients for the active latents alone; the result is that of
    the dense computation.

    Args:
        d_in: Width of the activations that are read.
        n_latents: Number of latents.
        k: How many latents may be active.
        options: As in :class:`Dictionary`.

    Raises:
        ValueError: if k is not between 1 and the number of latents.
    """

    kind = "topk"
    rows_at_once: int | None = 512

    def __init__(self, d_in: int, n_latents: int, *, k: int, **options: Any) -> None:
        super().__init__(d_in, n_latents, **options)
        if not 1 <= k <= n_latents:
            raise ValueError(f"k must be between 1 and the {n_latents} latents, got {k}.")
        self.k = k

    def activate(self, pre: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        values, latents = pre.topk(self.k, sorted=False)
        return torch.zeros_like(pre).scatter(-1, latents, values.relu())

    def select(self, pre: Float[Tensor, "batch latent"]) -> tuple[Float[Tensor, "pair"], Pairs]:
        """The pre-activations that may be active in training, and their places."""
        if FEW * self.k <= self.n_latents:
            values, latents = pre.topk(self.k, sorted=False)
            rows = torch.arange(len(pre)).repeat_interleave(self.k)
            return values.flatten(), Pairs(rows, latents.flatten(), *pre.shape)
        place = self.n_latents - self.k
        smallest = np.partition(pre.numpy(), place, axis=1)[:, place]
        return at_least(pre, torch.from_numpy(smallest)[:, None])

    def training_pass(self, x: Float[Tensor, "batch d_in"]) -> Pass:
        if x.device.type != "cpu":
            return super().training_pass(x)
        offset = None if self.is_transcoder else self.b_dec
        values, pairs = encode_pairs(x, offset, self.encoder, self.b_enc, self.select, self.rows_at_once)
        values = values.relu()
        outputs = [output + self.skipped(x) for output in self.reconstructions_of_pairs(values, pairs)]
        fired = torch.zeros(self.n_latents).index_add_(0, pairs.latents, (values.detach() > 0).float())
        return Pass(outputs, values.new_zeros(()), fired > 0)

    def reconstructions_of_pairs(self, values: Float[Tensor, "pair"], pairs: Pairs) -> list[Tensor]:
        """What :meth:`reconstructions` gives, from the active pairs."""
        return [decode_pairs(values, pairs, self.W_dec) + self.b_dec]
