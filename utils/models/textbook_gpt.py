"""An attention-only decoder to train, in the shape of GPT-2 without its MLPs.

With ``word_dims`` the residual stream is two streams side by side. Words live in the first dimensions: the embedding,
the unembedding and what the last layer writes. Positions, and what every lower layer writes, live in the others. Only
the queries and keys of the first layer and the keys and values of the last one see words. So the first layer may
compare words, the last one may find and move them, and everything between knows positions alone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TextbookConfig:
    """The shape of a model. ``word_dims`` and ``word_length`` are None for a plain one.

    Attributes:
        word_dims: How many dimensions words have to themselves.
        word_length: The length that every embedding row is held at; the final norm's gain is then one. Logits are
            bounded, and a name can only win if it is moved alone.
        position_std: Standard deviation of the position embedding before training.
    """

    vocab_size: int
    context: int
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    word_dims: int | None = None
    word_length: float | None = None
    position_std: float = 0.05


class Attention(nn.Module):
    """Causal self-attention that also returns its pattern.

    ``unread`` and ``unwritten`` say how many of the first dimensions the queries, keys and values do not read and the
    layer does not write.
    """

    def __init__(self, config: TextbookConfig, layer: int) -> None:
        super().__init__()
        d_model, words, self.n_heads = config.d_model, config.word_dims or 0, config.n_heads
        first, last = layer == 0, layer == config.n_layers - 1
        self.unread = {"q": 0 if first else words, "k": 0 if first or last else words, "v": 0 if last else words}
        self.unwritten = 0 if last else words
        self.q, self.k, self.v = (nn.Linear(d_model - self.unread[name], d_model) for name in "qkv")
        self.out = nn.Linear(d_model, d_model - self.unwritten)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map the normalised stream [batch, seq, d_model] to what is added to it, and the pattern [b, head, q, k]."""
        q, k, v = (self._split(getattr(self, name)(x[..., self.unread[name] :])) for name in "qkv")
        scores = q @ k.mT / q.shape[-1] ** 0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        pattern = scores.masked_fill(future, -torch.inf).softmax(-1)
        written = self.out((pattern @ v).transpose(1, 2).flatten(2))
        return F.pad(written, (self.unwritten, 0)), pattern

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class TextbookGPT(nn.Module):
    """The whole model. The unembedding is the embedding, transposed."""

    def __init__(self, config: TextbookConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        words = config.word_dims or 0
        self.embed = nn.Embedding(config.vocab_size, words or config.d_model)
        self.position = nn.Embedding(config.context, config.d_model - words)
        self.norms = nn.ModuleList(nn.LayerNorm(config.d_model) for _ in range(config.n_layers))
        self.attentions = nn.ModuleList(Attention(config, layer) for layer in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.d_model)
        self.final_norm.weight.requires_grad_(config.word_length is None)
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Draw the matrices from normal distributions; the ones that write to the stream start smaller."""
        length, matrix = self.config.word_length, 0.7 * self.config.d_model**-0.5
        stds = {
            "embed.weight": length * self.embed.embedding_dim**-0.5 if length else 0.05,
            "position.weight": self.config.position_std,
        }
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = stds.get(name, matrix)
                std /= (2 * self.config.n_layers) ** 0.5 if name.endswith("out.weight") else 1
                parameter.normal_(std=std, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()

    @property
    def word_rows(self) -> Tensor:
        """The embedding [vocab, d_model]."""
        rows, length = self.embed.weight, self.config.word_length
        rows = F.normalize(rows) * length if length else rows
        return F.pad(rows, (0, self.config.d_model - rows.shape[1]))

    @property
    def position_rows(self) -> Tensor:
        """The position embedding [context, d_model]."""
        return F.pad(self.position.weight, (self.config.d_model - self.position.embedding_dim, 0))

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map token ids [batch, seq] to logits [batch, seq, vocab] and each layer's pattern [batch, head, q, k]."""
        rows = self.word_rows
        x = rows[tokens] + self.position_rows[: tokens.shape[1]]
        patterns = []
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            written, pattern = attention(norm(x))
            x = x + written
            patterns.append(pattern)
        return self.final_norm(x) @ rows.T, patterns
