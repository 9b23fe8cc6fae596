"""What every sparse dictionary has in common: an encoder, a decoder with unit rows, and one pass of training.

A dictionary writes an activation ``x`` as a sparse sum of directions. Its kinds differ in two places only: the function
between pre-activations and latents (:meth:`Dictionary.activate`), and what training asks beyond a small error
(:meth:`Dictionary.reconstructions`, :meth:`Dictionary.sparsity_cost`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from utils.sae.activations import Site


@dataclass
class Pass:
    """What one batch gives to training.

    Attributes:
        outputs: The reconstructions that are each compared with the target, the full one last: [batch, d_out] each.
        cost: How much the latents cost, a scalar. The dictionary's ``sparsity`` is its price in units of squared error.
        fired: Which latents were active anywhere in the batch, [latent].
    """

    outputs: list[Float[Tensor, "batch d_out"]]
    cost: Float[Tensor, ""]
    fired: Bool[Tensor, "latent"]


class Dictionary(nn.Module):
    """A sparse dictionary; the base of all kinds.

    Args:
        d_in: Width of the activations that are read.
        n_latents: Number of latents (directions).
        d_out: Width of the activations that are written. None makes an autoencoder, which writes what it reads; a
            number makes a transcoder, whose target is another activation (Dunefsky et al. 2024,
            https://arxiv.org/abs/2406.11944).
        skip: Give a transcoder a linear path beside the latents (Paulo et al. 2025, https://arxiv.org/abs/2501.18823).
        sparsity: The price of the sparsity cost, for the kinds that have one.
        seed: Of the first weights.

    Attributes:
        encoder: What each latent reads, [latent, d_in].
        W_dec: What each latent writes, [latent, d_out], rows of length one.
        b_dec: [d_out]. An autoencoder also takes it away from its input.
        W_skip: [d_out, d_in] or None.
        idle_steps: For how many training steps each latent has not fired, [latent].
        site: Where in a model it belongs, if that is known.
        metadata: What else its files say, such as the model's name.

    Raises:
        ValueError: for widths below one, or a skip connection in an autoencoder.
    """

    kind: str
    encoder_biases: tuple[str, ...] = ("b_enc",)

    def __init__(
        self,
        d_in: int,
        n_latents: int,
        *,
        d_out: int | None = None,
        skip: bool = False,
        sparsity: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(d_in, n_latents, d_out or 1) < 1:
            raise ValueError(f"A dictionary needs positive widths, got {d_in=}, {n_latents=}, {d_out=}.")
        if skip and d_out is None:
            raise ValueError("A skip connection would copy an autoencoder's input; only a transcoder (d_out=) has one.")
        self.is_transcoder, self.sparsity = d_out is not None, sparsity
        rng = torch.Generator().manual_seed(seed)
        directions = F.normalize(torch.randn(n_latents, d_out or d_in, generator=rng), dim=1)
        read = F.normalize(torch.randn(n_latents, d_in, generator=rng), dim=1) if self.is_transcoder else directions
        self.encoder = nn.Parameter(read * d_in / n_latents)  # so scaled, the first reconstruction is about x / 2
        self.W_dec = nn.Parameter(directions)
        self.b_dec = nn.Parameter(torch.zeros(directions.shape[1]))
        self.W_skip = nn.Parameter(torch.zeros(directions.shape[1], d_in)) if skip else None
        for bias in self.encoder_biases:
            self.register_parameter(bias, nn.Parameter(torch.zeros(n_latents)))
        self.register_buffer("idle_steps", torch.zeros(n_latents))
        self.site: Site | None = None
        self.metadata: dict = {}

    @property
    def W_enc(self) -> Float[Tensor, "d_in latent"]:
        """The encoder as others shape it."""
        return self.encoder.T

    @property
    def d_in(self) -> int:
        """Width of the activations that are read."""
        return self.encoder.shape[1]

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.encoder.shape[0]

    @property
    def d_out(self) -> int:
        """Width of the activations that are written."""
        return self.W_dec.shape[1]

    def centred(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The encoder's input: an autoencoder takes its output bias away first."""
        return x if self.is_transcoder else x - self.b_dec

    def pre_activations(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """The latents before their activation function."""
        return self.centred(x) @ self.W_enc + self.b_enc

    def activate(self, pre: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        """The latents of given pre-activations, zero wherever a latent is off."""
        raise NotImplementedError

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """The latents of an activation."""
        return self.activate(self.pre_activations(x))

    def decode(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch d_out"]:
        """The sum of the active latents' directions, and the bias. A skip connection is not part of it."""
        return latents @ self.W_dec + self.b_dec

    def skipped(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"] | float:
        """What the skip connection adds, zero where there is none."""
        return 0.0 if self.W_skip is None else x @ self.W_skip.T

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """The reconstruction of ``x``, or a transcoder's prediction of its target."""
        return self.decode(self.encode(x)) + self.skipped(x)

    def training_pass(self, x: Float[Tensor, "batch d_in"]) -> Pass:
        """Everything that training needs from one batch, with gradients."""
        pre = self.pre_activations(x)
        latents = self.activate(pre)
        outputs = [output + self.skipped(x) for output in self.reconstructions(pre, latents)]
        return Pass(outputs, self.sparsity_cost(pre, latents), (latents.detach() > 0).any(0))

    def reconstructions(
        self, pre: Float[Tensor, "batch latent"], latents: Float[Tensor, "batch latent"]
    ) -> list[Float[Tensor, "batch d_out"]]:
        """The reconstructions that training compares with the target, the full one last."""
        return [self.decode(latents)]

    def sparsity_cost(
        self, pre: Float[Tensor, "batch latent"], latents: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, ""]:
        """What the latents of a batch cost, averaged over the batch."""
        return pre.new_zeros(())

    @torch.no_grad()
    def constrain_(self) -> None:
        """Return to unit decoder rows after a step. Without them a latent could pay less by writing longer."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8))

    @torch.no_grad()
    def rescale_(self, in_scale: float, out_scale: float) -> None:
        """Make a dictionary of ``in_scale * x`` and ``out_scale * y`` one of ``x`` and ``y``.

        Every activation function here commutes with a positive factor once its biases and thresholds carry it too.
        """
        self.encoder.mul_(in_scale / out_scale)
        self.b_dec.div_(out_scale)
        if self.W_skip is not None:
            self.W_skip.mul_(in_scale / out_scale)
        for bias in self.encoder_biases:
            getattr(self, bias).div_(out_scale)

    def extra_repr(self) -> str:
        latents = f"{self.n_latents} latents"
        return f"{self.d_in} -> {latents} -> {self.d_out}{' + skip' if self.W_skip is not None else ''}"
