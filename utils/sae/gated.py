"""Gated: one path decides which latents are on, another how strongly (Rajamanoharan et al. 2024a).

Source: https://arxiv.org/abs/2404.16014
"""

import torch
from jaxtyping import Float
from torch import Tensor

from utils.sae.dictionary import Dictionary


class Gated(Dictionary):
    """Only the gate pays for sparsity, so the magnitudes need not shrink.

    A step function has no gradient. The gate learns from two further terms: the L1 cost of its pre-activations, and the
    error of the reconstruction that they would give through a frozen copy of the decoder.

    Attributes:
        b_gate: Bias of the gate, [latent].
        r_mag: Logarithm of the ratio between magnitude and gate weights, [latent].
        b_mag: Bias of the magnitude, [latent].
    """

    kind = "gated"
    encoder_biases = ("b_gate", "b_mag")

    def __init__(self, d_in: int, n_latents: int, **options) -> None:
        super().__init__(d_in, n_latents, **options)
        self.r_mag = torch.nn.Parameter(torch.zeros(n_latents))

    def pre_activations(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """What gate and magnitude share: no bias yet."""
        return self.centred(x) @ self.W_enc

    def activate(self, pre: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        return (pre + self.b_gate > 0) * (pre * self.r_mag.exp() + self.b_mag).relu()

    def reconstructions(
        self, pre: Float[Tensor, "batch latent"], latents: Float[Tensor, "batch latent"]
    ) -> list[Float[Tensor, "batch d_out"]]:
        through_gate = (pre + self.b_gate).relu() @ self.W_dec.detach() + self.b_dec.detach()
        return [through_gate, self.decode(latents)]

    def sparsity_cost(
        self, pre: Float[Tensor, "batch latent"], latents: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, ""]:
        return ((pre + self.b_gate).relu() @ self.W_dec.norm(dim=1)).mean()
