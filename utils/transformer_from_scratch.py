"""A decoder transformer to read from top to bottom: first the maths, then the classes that hold weights.

One model serves GPT-2 and the shipped GPT-Neo models; :class:`Config` says where they differ. Names and shapes of
weights are TransformerLens's. Notebook 1.2 builds all of this by hand.

Source: GPT-2, Radford et al. 2019,
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Stream = Float[Tensor, "batch seq d_model"]


@dataclass(frozen=True)
class Config:
    """The shape of a model, and the two choices in which GPT-2 and GPT-Neo differ.

    Attributes:
        scale: What attention scores are multiplied by: ``d_head**-0.5`` in GPT-2, 1 in GPT-Neo.
        windows: For each layer how many positions it sees, its own included; None is all before it.
    """

    d_vocab: int
    n_ctx: int
    d_model: int
    d_mlp: int
    n_heads: int
    scale: float
    windows: tuple[int | None, ...]
    eps: float = 1e-5


def layer_norm(
    x: Float[Tensor, "*rest d_model"], w: Float[Tensor, "d_model"], b: Float[Tensor, "d_model"], eps: float
) -> Float[Tensor, "*rest d_model"]:
    """Bring each vector to mean 0 and variance 1, then scale and shift its entries.

    Source: Ba et al. 2016, https://arxiv.org/abs/1607.06450
    """
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.pow(2).mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * w + b


def embed_tokens(
    tokens: Int[Tensor, "batch seq"], W_E: Float[Tensor, "d_vocab d_model"], W_pos: Float[Tensor, "n_ctx d_model"]
) -> Stream:
    """The first residual stream: a vector for each token plus one for its position."""
    return W_E[tokens] + W_pos[: tokens.shape[1]]


def causal_mask(seq: int, window: int | None = None) -> Bool[Tensor, "query key"]:
    """Which keys a query may see: itself and what came before, within ``window`` positions if one is given."""
    position = torch.arange(seq)
    back = position[:, None] - position
    return (back >= 0) & (back < (window or seq))


def attention_weights(
    q: Float[Tensor, "*rest query d_head"],
    k: Float[Tensor, "*rest key d_head"],
    mask: Bool[Tensor, "query key"],
    scale: float,
) -> Float[Tensor, "*rest query key"]:
    """How each query spreads its attention over the keys that the mask allows."""
    scores = q @ k.mT * scale
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)


def head_output(
    x: Stream,
    pattern: Float[Tensor, "batch query key"],
    W_V: Float[Tensor, "d_model d_head"],
    b_V: Float[Tensor, "d_head"],
    W_O: Float[Tensor, "d_head d_model"],
) -> Stream:
    """What one head adds to the residual stream, once it is known where it looks."""
    return pattern @ (x @ W_V + b_V) @ W_O


def all_heads(x: Stream, weights: Any, mask: Bool[Tensor, "query key"], scale: float) -> Stream:
    """What an attention layer adds to the residual stream: the sum over its heads, and a bias.

    Args:
        x: The normalised residual stream.
        weights: Has ``W_Q``, ``W_K``, ``W_V`` [head, d_model, d_head], ``b_Q``, ``b_K``, ``b_V`` [head, d_head],
            ``W_O`` [head, d_head, d_model] and ``b_O`` [d_model].
        mask: Which keys a query may see.
        scale: What the scores are multiplied by.
    """
    x = x[:, None]  # [batch, 1, seq, d_model]: every head reads the same stream
    q = x @ weights.W_Q + weights.b_Q[:, None]  # [batch, head, seq, d_head]
    k = x @ weights.W_K + weights.b_K[:, None]
    v = x @ weights.W_V + weights.b_V[:, None]
    z = attention_weights(q, k, mask, scale) @ v
    return (z @ weights.W_O).sum(dim=1) + weights.b_O


def mlp(
    x: Float[Tensor, "*rest d_model"],
    W_in: Float[Tensor, "d_model d_mlp"],
    b_in: Float[Tensor, "d_mlp"],
    W_out: Float[Tensor, "d_mlp d_model"],
    b_out: Float[Tensor, "d_model"],
) -> Float[Tensor, "*rest d_model"]:
    """Neurons, each position by itself, with GPT-2's approximation of GELU.

    Source: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415
    """
    pre = x @ W_in + b_in
    post = 0.5 * pre * (1 + torch.tanh(math.sqrt(2 / math.pi) * (pre + 0.044715 * pre**3)))
    return post @ W_out + b_out


def transformer_block(x: Stream, ln1: Callable, attention: Callable, ln2: Callable, mlp: Callable) -> Stream:
    """One layer: attention, then the MLP. Each reads a normalised copy of the stream and adds to the stream."""
    x = x + attention(ln1(x))
    return x + mlp(ln2(x))


def transformer_logits(
    tokens: Int[Tensor, "batch seq"],
    W_E: Float[Tensor, "d_vocab d_model"],
    W_pos: Float[Tensor, "n_ctx d_model"],
    blocks: Iterable[Callable],
    ln_final: Callable,
) -> Float[Tensor, "batch seq d_vocab"]:
    """The whole model. The unembedding is the embedding, transposed."""
    x = embed_tokens(tokens, W_E, W_pos)
    for block in blocks:
        x = block(x)
    return ln_final(x) @ W_E.T


class LayerNorm(nn.Module):
    """The weights of a layer norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(config.d_model))
        self.b = nn.Parameter(torch.zeros(config.d_model))
        self.eps = config.eps

    def forward(self, x: Stream) -> Stream:
        return layer_norm(x, self.w, self.b, self.eps)


class Attention(nn.Module):
    """The weights of an attention layer."""

    def __init__(self, config: Config, window: int | None) -> None:
        super().__init__()
        heads, d_model, d_head = config.n_heads, config.d_model, config.d_model // config.n_heads
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.empty(heads, d_model, d_head)) for _ in range(3))
        self.b_Q, self.b_K, self.b_V = (nn.Parameter(torch.zeros(heads, d_head)) for _ in range(3))
        self.W_O = nn.Parameter(torch.empty(heads, d_head, d_model))
        self.b_O = nn.Parameter(torch.zeros(d_model))
        self.scale, self.window = config.scale, window

    def forward(self, x: Stream) -> Stream:
        return all_heads(x, self, causal_mask(x.shape[1], self.window).to(x.device), self.scale)


class MLP(nn.Module):
    """The weights of an MLP."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(config.d_model, config.d_mlp))
        self.b_in = nn.Parameter(torch.zeros(config.d_mlp))
        self.W_out = nn.Parameter(torch.empty(config.d_mlp, config.d_model))
        self.b_out = nn.Parameter(torch.zeros(config.d_model))

    def forward(self, x: Stream) -> Stream:
        return mlp(x, self.W_in, self.b_in, self.W_out, self.b_out)


class Block(nn.Module):
    """The parts of one layer."""

    def __init__(self, config: Config, window: int | None) -> None:
        super().__init__()
        self.ln1, self.attn = LayerNorm(config), Attention(config, window)
        self.ln2, self.mlp = LayerNorm(config), MLP(config)

    def forward(self, x: Stream) -> Stream:
        return transformer_block(x, self.ln1, self.attn, self.ln2, self.mlp)


class Transformer(nn.Module):
    """The whole model. Its matrices start as small random numbers, as GPT-2's did."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))
        self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model))
        self.blocks = nn.ModuleList(Block(config, window) for window in config.windows)
        self.ln_final = LayerNorm(config)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.split(".")[-1].startswith("W_"):
                nn.init.normal_(parameter, std=0.02, generator=generator)

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq d_vocab"]:
        if tokens.shape[-1] > self.config.n_ctx:
            raise ValueError(
                f"The model reads {self.config.n_ctx} positions, got {tokens.shape[-1]} tokens. Crop them."
            )
        return transformer_logits(tokens, self.W_E, self.W_pos, self.blocks, self.ln_final)
