"""A transformer of attention layers alone: no MLPs, no layer norm, no biases.

Without them the model is a sum of paths through heads, and every path is a product of matrices that can be read from
the weights (Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

POSITION_FREQUENCIES = torch.logspace(math.log2(3), math.log2(3 / 32), 8, base=2)
"""Radians that a position's angles turn from one position to the next; three is nearly half a turn."""


@dataclass(frozen=True)
class AttentionOnlyConfig:
    """The shape of a model.

    Attributes:
        composes: Which inputs of a head see what the layers below wrote: "q", "k" and "v" for queries, keys and values.
            The others read the embeddings alone, so that this way of composing heads is blocked.
        token_scale: Standard deviation of the token embedding's first entries.
        position_scale: Root mean square of the position embedding's first entries that are not zero.
    """

    vocab_size: int
    context: int
    n_layers: int = 2
    n_heads: int = 4
    d_model: int = 64
    composes: str = "qkv"
    token_scale: float = 0.2
    position_scale: float = 2.0

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, not {self.d_model} with {self.n_heads} heads")
        if not set(self.composes) <= set("qkv"):
            raise ValueError(f"composes must hold letters of 'qkv' only, not {self.composes!r}")
        if self.d_model < 2 * len(POSITION_FREQUENCIES):
            raise ValueError(f"d_model must be at least {2 * len(POSITION_FREQUENCIES)}, not {self.d_model}")

    @property
    def d_head(self) -> int:
        """The width of a head."""
        return self.d_model // self.n_heads


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__()
        self.composes, self.n_heads = config.composes, config.n_heads
        self.q, self.k, self.v, self.out = (nn.Linear(config.d_model, config.d_model, bias=False) for _ in range(4))

    def forward(
        self, stream: Float[Tensor, "batch seq d_model"], embedded: Float[Tensor, "batch seq d_model"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """What the layer's heads add to the residual stream."""
        q, k, v = (
            project(stream if name in self.composes else embedded).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for name, project in (("q", self.q), ("k", self.k), ("v", self.v))
        )  # [batch, head, seq, d_head]
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(z.transpose(1, 2).flatten(2))


class AttentionOnly(nn.Module):
    """The whole model.

    Args:
        config: Its shape.
        seed: What its first weights are drawn from.
    """

    def __init__(self, config: AttentionOnlyConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.position = nn.Embedding(config.context, config.d_model)
        self.layers = nn.ModuleList(Attention(config) for _ in range(config.n_layers))
        self.unembed = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Draw the matrices from normal distributions; what writes to the stream starts smaller."""
        config = self.config
        for name, parameter in self.named_parameters():
            std = config.token_scale if name == "embed.weight" else 0.7 * config.d_model**-0.5
            if name.endswith("out.weight"):
                std /= (2 * config.n_layers) ** 0.5
            parameter.normal_(std=std, generator=generator)
        self.position.weight.copy_(config.position_scale * sinusoids(config.context, config.d_model))

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Map token ids to the logits of the next token."""
        embedded = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        stream = embedded
        for layer in self.layers:
            stream = stream + layer(stream, embedded)
        return self.unembed(stream)


def sinusoids(context: int, d_model: int) -> Float[Tensor, "position d_model"]:
    """Position embeddings in which one position further is the same rotation everywhere.

    One pair of dimensions for each of ``POSITION_FREQUENCIES``, with root mean square one; the other dimensions are
    left to the tokens. After Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.
    """
    angles = torch.arange(context)[:, None] * POSITION_FREQUENCIES
    waves = math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)
    return F.pad(waves, (0, d_model - waves.shape[1]))


def native_config(config: AttentionOnlyConfig) -> dict:
    """The configuration as :func:`utils.models.native.save_native` takes it.

    Raises:
        ValueError: if a kind of composition is blocked, which the format cannot say.
    """
    if set(config.composes) != set("qkv"):
        raise ValueError(f"only a model with composes='qkv' can be saved, not {config.composes!r}")
    return {
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "d_model": config.d_model,
        "d_head": config.d_head,
        "d_vocab": config.vocab_size,
        "n_ctx": config.context,
        "attn_only": True,
        "normalization_type": None,
    }


def native_weights(weights: Mapping[str, Tensor], n_heads: int) -> dict[str, Tensor]:
    """The weights under HookedTransformer's names and in its shapes.

    Args:
        weights: The ``state_dict`` of an :class:`AttentionOnly`.
        n_heads: Heads in a layer.
    """
    named = {
        "embed.W_E": weights["embed.weight"],
        "pos_embed.W_pos": weights["position.weight"],
        "unembed.W_U": weights["unembed.weight"].T,
    }
    for name, weight in weights.items():
        match name.split("."):
            case ["layers", layer, ("q" | "k" | "v") as letter, _]:
                split = weight.unflatten(0, (n_heads, -1)).transpose(1, 2)  # [head, d_model, d_head]
                named[f"blocks.{layer}.attn.W_{letter.upper()}"] = split
            case ["layers", layer, "out", _]:
                named[f"blocks.{layer}.attn.W_O"] = weight.T.unflatten(0, (n_heads, -1))  # [head, d_head, d_model]
    return named
