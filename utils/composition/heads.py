"""The matrices that attention heads read and write with, as they act on the residual stream."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from utils.read_weights import NormWeights
from utils.transformer import Transformer

if TYPE_CHECKING:
    from transformer_lens import FactoredMatrix, HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge

Head = tuple[int, int]
"""Layer and number."""


@dataclass(frozen=True)
class HeadWeights:
    """The weights of all heads, the embeddings and the unembedding. Make one with :meth:`of`.

    A model with layer norm is read as TransformerLens processes it, whether or not it was opened that way: the weights
    of a layer norm are multiplied into what reads behind it; the mean over the residual stream, which a layer norm
    takes away, is taken out of everything that reads or writes; and the mean over tokens, which no softmax sees, out of
    the unembedding. The division by the standard deviation depends on the text and is left out. A model without layer
    norm is read as it is. Biases are left out.

    Attributes:
        W_Q, W_K, W_V: [layer, head, d_model, d_head]; the scale of the attention scores is in ``W_Q``.
        W_O: [layer, head, d_head, d_model].
        W_E: Token embeddings [token, d_model].
        W_pos: Position embeddings [position, d_model], if the model has them.
        W_U: [d_model, token].
        windows: For each layer how many positions a query sees, its own included; None where it sees all.
        centred: Whether the model has layer norm, so that the residual stream's mean is never seen.
    """

    W_Q: Float[Tensor, "layer head d_model d_head"]
    W_K: Float[Tensor, "layer head d_model d_head"]
    W_V: Float[Tensor, "layer head d_model d_head"]
    W_O: Float[Tensor, "layer head d_head d_model"]
    W_E: Float[Tensor, "token d_model"]
    W_pos: Float[Tensor, "position d_model"] | None
    W_U: Float[Tensor, "d_model token"]
    windows: tuple[int | None, ...]
    centred: bool

    @classmethod
    def of(cls, model: "Model") -> "HeadWeights":
        """Read a model's heads. HeadWeights are given back as they are, so that a model can be read once.

        Raises:
            NotCovered: if the model is not a decoder with learned positions, such as GPT-2; the message says why.
        """
        if isinstance(model, cls):
            return model
        plain = Transformer.from_model(model)
        centred = plain.ln_final is not None
        parts = [_split(plain, layer) for layer in range(plain.n_layers)]
        W_Q, W_K, W_V, W_O = (torch.stack(several) for several in zip(*parts, strict=True))
        W_U = _behind(plain.ln_final, plain.W_U)
        return cls(
            W_Q,
            W_K,
            W_V,
            _centre(W_O, -1) if centred else W_O,
            _centre(plain.W_E, -1) if centred else plain.W_E,
            _centre(plain.W_pos, -1) if centred and plain.W_pos is not None else plain.W_pos,
            _centre(W_U, -1) if centred else W_U,
            tuple(layer.window for layer in plain.layers),
            centred,
        )

    @property
    def n_layers(self) -> int:
        """The number of layers."""
        return self.W_Q.shape[0]

    @property
    def n_heads(self) -> int:
        """The number of heads in a layer."""
        return self.W_Q.shape[1]

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.W_Q.shape[2]

    @property
    def d_head(self) -> int:
        """The width of a head."""
        return self.W_Q.shape[3]

    @property
    def QK(self) -> "FactoredMatrix":
        """What decides where each head looks, [layer, head, d_model of the query, d_model of the key]."""
        from transformer_lens import FactoredMatrix

        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> "FactoredMatrix":
        """What each head writes of what it looks at, [layer, head, d_model read, d_model written]."""
        from transformer_lens import FactoredMatrix

        return FactoredMatrix(self.W_V, self.W_O)

    def check(self, head: Head) -> Head:
        """Give a head back if the model has it.

        Raises:
            ValueError: if it does not.
        """
        layer, number = head
        if not (0 <= layer < self.n_layers and 0 <= number < self.n_heads):
            raise ValueError(
                f"head {head} is not in this model: layers go from 0 to {self.n_layers - 1}, "
                f"heads from 0 to {self.n_heads - 1}"
            )
        return head

    def check_pair(self, sender: Head, receiver: Head) -> None:
        """Raise a ValueError unless the sender is in a lower layer than the receiver."""
        if not self.check(sender)[0] < self.check(receiver)[0]:
            raise ValueError(f"the sender {sender} must be in a lower layer than the receiver {receiver}")


if TYPE_CHECKING:
    Model = TransformerBridge | HookedTransformer | Transformer | HeadWeights


def _split(plain: Transformer, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_Q, W_K, W_V and W_O of a layer's heads."""
    weights = plain.layers[layer]
    joint = _behind(weights.ln1, weights.W_QKV).unflatten(1, (3, plain.n_heads, plain.d_head))
    W_Q, W_K, W_V = joint.permute(1, 2, 0, 3)  # each [head, d_model, d_head]
    return W_Q, W_K, W_V, weights.W_O.unflatten(0, (plain.n_heads, plain.d_head))


def _behind(norm: NormWeights | None, reading: Float[Tensor, "d_model out"]) -> Float[Tensor, "d_model out"]:
    """A matrix that reads behind a layer norm, as it acts on the residual stream before it."""
    if norm is None:
        return reading
    weight, _ = norm
    return _centre(reading if weight is None else weight[:, None] * reading, 0)


def _centre(matrix: Tensor, dim: int) -> Tensor:
    return matrix - matrix.mean(dim, keepdim=True)
