"""JumpReLU: a latent is on above a threshold of its own, which is learned (Rajamanoharan et al. 2024b).

Source: https://arxiv.org/abs/2407.14435
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.sae.dictionary import Dictionary


class JumpReLU(Dictionary):
    """The cost is L0 itself: how many latents are on, whatever their size.

    The threshold's gradient is zero almost everywhere, and a jump in between. Training takes the mean gradient over a
    small window around the threshold instead (a straight-through estimator).

    Args:
        d_in: Width of the activations that are read.
        n_latents: Number of latents.
        threshold: First threshold of every latent.
        bandwidth: Width of the window, in units of the pre-activations.
        options: As in :class:`Dictionary`.
    """

    kind = "jumprelu"

    def __init__(
        self, d_in: int, n_latents: int, *, threshold: float = 0.01, bandwidth: float = 0.05, **options: Any
    ) -> None:
        super().__init__(d_in, n_latents, **options)
        self.bandwidth = bandwidth
        self.threshold = nn.Parameter(torch.full((n_latents,), threshold))

    def activate(self, pre: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        on, threshold = _Step.apply(pre, self.threshold, self.bandwidth), self.threshold.detach()
        return pre * on.detach() + threshold * (on - on.detach())  # the jump at the threshold is as high as itself

    def sparsity_cost(
        self, pre: Float[Tensor, "batch latent"], latents: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, ""]:
        return _Step.apply(pre, self.threshold, self.bandwidth).sum(-1).mean()

    @torch.no_grad()
    def constrain_(self) -> None:
        super().constrain_()
        self.threshold.clamp_(min=0.0)

    @torch.no_grad()
    def rescale_(self, in_scale: float, out_scale: float) -> None:
        super().rescale_(in_scale, out_scale)
        self.threshold.div_(out_scale)


class _Step(torch.autograd.Function):
    """1 where ``pre`` exceeds ``threshold``. The threshold's gradient comes from a window around it."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.bandwidth / 2
        grad_threshold = -(grad * near).flatten(0, -2).sum(0) / ctx.bandwidth
        return None, grad_threshold, None
