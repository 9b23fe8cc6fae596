"""BatchTopK: k latents on average over a batch (Bussmann et al. 2024, https://arxiv.org/abs/2412.06410)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.sae.largest import largest
from utils.sae.topk import TopK

THRESHOLD_RATE = 0.01


class BatchTopK(TopK):
    """A hard input may use more latents, an easy one fewer.

    Which latents are kept depends on the rest of the batch, so outside of training a fixed threshold decides: the
    running mean of the smallest activation that training kept. SAELens stores the trained dictionary as a JumpReLU.

    Args:
        d_in: Width of the activations that are read.
        n_latents: Number of latents.
        k: How many latents are active on average.
        options: As in :class:`Dictionary`.
    """

    kind = "batchtopk"
    entries_at_once = None

    def __init__(self, d_in: int, n_latents: int, *, k: int, **options: Any) -> None:
        super().__init__(d_in, n_latents, k=k, **options)
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))

    def activate(self, pre: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        if not self.training:
            return pre * (pre > self.threshold)
        flat = pre.relu().flatten()
        values, places = flat.topk(self.k * pre[..., 0].numel(), sorted=False)
        self._follow(values.detach())
        return torch.zeros_like(flat).scatter(0, places, values).view_as(pre)

    def select(
        self, x: Float[Tensor, "batch d_in"], encoder: Float[Tensor, "latent d_in"], b_enc: Float[Tensor, "latent"]
    ) -> tuple[Float[Tensor, "pair"], Int[Tensor, "pair"]]:
        values, places = largest(torch.addmm(b_enc, x, encoder.T).view(1, -1), self.k * len(x))
        self._follow(values)
        return values, places

    @torch.no_grad()
    def _follow(self, kept: Float[Tensor, "pair"]) -> None:
        positive = kept[kept > 0]
        if len(positive):
            self.threshold.lerp_(positive.min().double(), THRESHOLD_RATE)

    @torch.no_grad()
    def rescale_(self, in_scale: float, out_scale: float) -> None:
        super().rescale_(in_scale, out_scale)
        self.threshold.div_(out_scale)
