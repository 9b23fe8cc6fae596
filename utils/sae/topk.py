"""TopK: of all latents, the k largest are kept (Gao et al. 2024, https://arxiv.org/abs/2406.04093)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.sae.active_pairs import Pairs, decode_pairs, encode_pairs
from utils.sae.dictionary import Dictionary, Pass
from utils.sae.largest import largest
from utils.sae.screening import largest_of_product, screening_pays


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
    entries_at_once: int | None = 2**22
    """How many pre-activations a training step holds at once; those of the whole batch if None."""

    def __init__(self, d_in: int, n_latents: int, *, k: int, **options: Any) -> None:
        super().__init__(d_in, n_latents, **options)
        if not 1 <= k <= n_latents:
            raise ValueError(f"k must be between 1 and the {n_latents} latents, got {k}.")
        self.k = k

    def activate(self, pre: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        values, latents = pre.topk(self.k, sorted=False)
        return torch.zeros_like(pre).scatter(-1, latents, values.relu())

    def select(
        self, x: Float[Tensor, "batch d_in"], encoder: Float[Tensor, "latent d_in"], b_enc: Float[Tensor, "latent"]
    ) -> tuple[Float[Tensor, "pair"], Int[Tensor, "pair"]]:
        """The pre-activations that may be active in training, and their places in the flattened matrix of all."""
        if x.dtype == torch.float32 and screening_pays(self.d_in, self.n_latents, self.k):
            return largest_of_product(x, encoder, b_enc, self.k)
        return largest(torch.addmm(b_enc, x, encoder.T), self.k)

    def training_pass(self, x: Float[Tensor, "batch d_in"]) -> Pass:
        if x.device.type != "cpu":
            return super().training_pass(x)
        offset = None if self.is_transcoder else self.b_dec
        rows_at_once = max(1, self.entries_at_once // self.n_latents) if self.entries_at_once else len(x)
        values, pairs = encode_pairs(x, offset, self.encoder, self.b_enc, self.select, rows_at_once)
        values = values.relu()
        outputs = [output + self.skipped(x) for output in self.reconstructions_of_pairs(values, pairs)]
        fired = torch.bincount(pairs.latents, values.detach(), minlength=self.n_latents) > 0
        return Pass(outputs, values.new_zeros(()), fired)

    def reconstructions_of_pairs(self, values: Float[Tensor, "pair"], pairs: Pairs) -> list[Tensor]:
        """What :meth:`reconstructions` gives, from the active pairs."""
        return [decode_pairs(values, pairs, self.W_dec) + self.b_dec]
