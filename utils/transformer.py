"""A decoder's weights, read once, and its forward pass without hooks.

A TransformerBridge calls a module and a hook at every step; where an analysis runs a model thousands of times, or only
parts of it, most of the time goes there. :class:`Transformer` holds the same weights as plain tensors and offers each
part of the computation as a function of tensors. It covers GPT-2's shape and its simpler relatives: learned positions,
layer norm or none, MLPs or none, attention over all earlier positions or over a window of them.

Every function works under autograd and gives gradients for its inputs; the weights themselves have none.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.read_weights import Layer, NormWeights, NotCovered, read_weights

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge

TOLERANCE = 1e-4
COMPARED_COLUMNS = 64


@dataclass(frozen=True)
class Activations:
    """What a run computed; the lists have one entry per layer.

    Attributes:
        pre: The residual stream before the layer.
        qkv: Queries (scaled), keys and values.
        z: What each head read from its values.
        mid: The residual stream between attention and MLP.
        post: The residual stream after the last layer.
    """

    pre: list[Float[Tensor, "prompt seq d_model"]]
    qkv: list[Float[Tensor, "prompt seq 3 head d_head"]]
    z: list[Float[Tensor, "prompt seq head d_head"]]
    mid: list[Float[Tensor, "prompt seq d_model"]]
    post: Float[Tensor, "prompt seq d_model"]


@dataclass(frozen=True)
class Transformer:
    """The weights of a decoder and its forward pass, in parts. Make one with :meth:`from_model`.

    Attributes:
        d_vocab: Number of tokens that it reads; ``W_U`` may have another number of columns.
        eps: What layer norm adds to the variance.
    """

    n_heads: int
    d_head: int
    eps: float
    layers: list[Layer]
    W_E: Float[Tensor, "d_vocab d_model"]
    W_pos: Float[Tensor, "n_ctx d_model"] | None
    ln_final: NormWeights | None
    W_U: Float[Tensor, "d_model d_vocab_out"]
    b_U: Float[Tensor, "d_vocab_out"]

    @classmethod
    def from_model(cls, model: "TransformerBridge | HookedTransformer | Transformer") -> "Transformer":
        """Read the weights of a model, and compare one forward pass with the model's own.

        Most weights are shared with the model, which saves the time and the memory of a copy, and some are not: read
        them again after a change to the model. A Transformer is given back as it is, so that a caller who makes several
        analyses can read the weights once.

        Raises:
            NotCovered: if the model has a part that the plain pass does not compute, or the two passes differ.
        """
        if isinstance(model, cls):
            return model
        plain = cls(**read_weights(model))
        plain._compare_with(model)
        return plain

    @property
    def n_layers(self) -> int:
        """The number of layers."""
        return len(self.layers)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.W_E.shape[1]

    @property
    def d_vocab(self) -> int:
        """The number of tokens that the model reads."""
        return self.W_E.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_E.device

    def to(self, device: str | torch.device) -> "Transformer":
        """A copy whose weights are on another device."""
        return _moved(self, device)

    def check_tokens(self, tokens: Int[Tensor, "*batch seq"]) -> None:
        """Raise a ValueError unless the model can read these tokens."""
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= self.d_vocab):
            raise ValueError(
                f"Token ids go from 0 to {self.d_vocab - 1} in this model; "
                f"given were ids from {int(tokens.min())} to {int(tokens.max())}. Use the model's own tokenizer."
            )
        if self.W_pos is not None and tokens.shape[-1] > len(self.W_pos):
            raise ValueError(f"The model reads at most {len(self.W_pos)} positions, not {tokens.shape[-1]}.")

    def embed(self, tokens: Int[Tensor, "*batch seq"]) -> Float[Tensor, "*batch seq d_model"]:
        """The residual stream before the first layer.

        Raises:
            ValueError: if a token is out of the vocabulary, or the prompt longer than the model's context.
        """
        self.check_tokens(tokens)
        embedded = self.W_E[tokens]
        return embedded if self.W_pos is None else embedded + self.W_pos[: tokens.shape[-1]]

    def norm(self, x: Float[Tensor, "*batch d_model"], ln: NormWeights | None) -> Float[Tensor, "*batch d_model"]:
        """Layer norm, or ``x`` itself where the model has none."""
        return x if ln is None else F.layer_norm(x, (self.d_model,), *ln, self.eps)

    def qkv(self, layer: int, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch 3 head d_head"]:
        """Scaled queries, keys and values that a layer computes from the residual stream before it."""
        weights = self.layers[layer]
        joint = F.linear(self.norm(x, weights.ln1), weights.W_QKV.T, weights.b_QKV)
        return joint.unflatten(-1, (3, self.n_heads, self.d_head))

    def mask(
        self, layer: int, queries: Int[Tensor, "*batch query"], keys: Int[Tensor, "*batch key"]
    ) -> Bool[Tensor, "*batch query key"]:
        """Which positions a layer's queries see: True where the key is not later and within the window."""
        back = queries[..., :, None] - keys[..., None, :]
        window = self.layers[layer].window
        return back >= 0 if window is None else (back >= 0) & (back < window)

    def attend(
        self,
        layer: int,
        q: Float[Tensor, "*batch query head d_head"],
        k: Float[Tensor, "*batch key head d_head"],
        v: Float[Tensor, "*batch key head d_head"],
    ) -> Float[Tensor, "*batch query head d_head"]:
        """What each head reads: its values, averaged with its attention pattern.

        Args:
            layer: Which layer, for its window.
            q: Scaled queries as :meth:`qkv` gives them, at the last of the keys' positions.
        """
        batch, mask = q.shape[:-3], None
        causal = self.layers[layer].window is None and q.shape[-3] == k.shape[-3]
        if not causal:
            keys = torch.arange(k.shape[-3], device=k.device)
            mask = self.mask(layer, keys[k.shape[-3] - q.shape[-3] :], keys)
        q, k, v = (part.reshape(batch.numel(), *part.shape[-3:]).transpose(1, 2) for part in (q, k, v))
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=1.0)
        return z.transpose(1, 2).reshape(*batch, q.shape[-2], self.n_heads, self.d_head)

    def attention_out(self, layer: int, z: Float[Tensor, "*batch head d_head"]) -> Float[Tensor, "*batch d_model"]:
        """What a layer's attention adds to the residual stream, its bias included."""
        weights = self.layers[layer]
        return F.linear(z.flatten(-2), weights.W_O.T, weights.b_O)

    def mlp(self, layer: int, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """What a layer's MLP adds to the residual stream ``x`` that it reads; zeros in a layer without one."""
        weights = self.layers[layer]
        if weights.W_in is None:
            return torch.zeros_like(x)
        hidden = weights.activation(F.linear(self.norm(x, weights.ln2), weights.W_in.T, weights.b_in))
        return F.linear(hidden, weights.W_out.T, weights.b_out)

    def unembed(
        self, x: Float[Tensor, "*batch d_model"], columns: Int[Tensor, "column"] | None = None
    ) -> Float[Tensor, "*batch d_vocab_out"]:
        """The logits of a final residual stream: of all tokens, or of those in ``columns`` alone."""
        W_U, b_U = (self.W_U, self.b_U) if columns is None else (self.W_U[:, columns], self.b_U[columns])
        return F.linear(self.norm(x, self.ln_final), W_U.T, b_U)

    def run(self, tokens: Int[Tensor, "prompt seq"]) -> Activations:
        """Run the model on tokens and keep what each layer computes.

        Raises:
            ValueError: as :meth:`embed`.
        """
        return self.run_from(self.embed(tokens))

    def run_from(self, embedded: Float[Tensor, "prompt seq d_model"]) -> Activations:
        """As :meth:`run`, from the residual stream before the first layer."""
        x, pre, qkv, z, mid = embedded, [], [], [], []
        for layer in range(self.n_layers):
            pre.append(x)
            qkv.append(self.qkv(layer, x))
            z.append(self.attend(layer, *qkv[-1].unbind(-3)))
            mid.append(x + self.attention_out(layer, z[-1]))
            x = mid[-1] + self.mlp(layer, mid[-1])
        return Activations(pre, qkv, z, mid, post=x)

    @torch.no_grad()
    def _compare_with(self, model: nn.Module) -> None:
        """Raise NotCovered unless the logits on a few random tokens are the model's."""
        context = 8 if self.W_pos is None else len(self.W_pos)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.d_vocab, (1, min(context, 8)), generator=generator).to(self.device)
        expected, post = model(tokens), self.run(tokens).post
        columns = torch.randint(len(self.b_U), (COMPARED_COLUMNS,), generator=generator).to(self.device)
        same_size = expected.shape[-1] == len(self.b_U)
        near = TOLERANCE * max(1.0, float(expected.abs().max()))
        if not same_size or not bool(((self.unembed(post, columns) - expected[..., columns]).abs() < near).all()):
            raise NotCovered("The plain forward pass differs from the model's own: the model has a part it leaves out.")


def _moved(value: Any, device: str | torch.device) -> Any:
    """A copy of a tensor, or of a structure that holds tensors, on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    if isinstance(value, (Transformer, Layer)):
        return replace(value, **{name: _moved(item, device) for name, item in vars(value).items()})
    return value
