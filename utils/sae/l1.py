"""L1: a ReLU encoder whose latents pay for their size (Bricken et al. 2023; "standard" in SAELens).

Source: https://transformer-circuits.pub/2023/monosemantic-features
"""

from jaxtyping import Float
from torch import Tensor

from utils.sae.dictionary import Dictionary


class L1(Dictionary):
    """The first kind that was used. The price makes latents rare, and smaller than they should be (shrinkage)."""

    kind = "l1"

    def activate(self, pre: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        return pre.relu()

    def sparsity_cost(
        self, pre: Float[Tensor, "batch latent"], latents: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, ""]:
        return (latents @ self.W_dec.norm(dim=1)).mean()
