"""Who wrote the answer: direct logit attribution and the logit lens.

The final residual stream is a sum, and reading logits off it is linear once the scale of the final layer norm is
frozen. A logit difference is therefore a sum of what each component wrote, read along one direction. The sum is exact;
what it leaves out is what components do for each other (see :mod:`utils.patching`, and for its estimate by gradients
:mod:`utils.attribution_patching`).

Source: Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html;
Wang et al. 2022, https://arxiv.org/abs/2211.00593
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.metrics import at_end
from utils.patching.inputs import check_tokens, checked_end
from utils.readout import activation_name, read_activation

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class LogitAttribution:
    """A logit difference as a sum over the components of a model.

    Attributes:
        embedding: What the token at the answering position brings itself.
        positions: What its position embedding brings; zeros in a model without.
        attention: All heads of a layer together, without the layer's bias.
        mlp: All neurons of a layer together, without the layer's bias.
        bias: What the model adds on every prompt: biases of attention and MLPs, of the final layer norm and the
            unembedding.
    """

    embedding: Float[Tensor, "prompt"]
    positions: Float[Tensor, "prompt"]
    attention: Float[Tensor, "layer prompt"]
    mlp: Float[Tensor, "layer prompt"]
    bias: Float[Tensor, "prompt"]

    @property
    def total(self) -> Float[Tensor, "prompt"]:
        """The sum: the logit difference itself."""
        return self.embedding + self.positions + self.attention.sum(0) + self.mlp.sum(0) + self.bias


@torch.no_grad()
def attribute_components(
    model: "TransformerBridge",
    tokens: Int[Tensor, "prompt seq"],
    right: Int[Tensor, "prompt"],
    wrong: Int[Tensor, "prompt"] | None = None,
    end: Int[Tensor, "prompt"] | None = None,
) -> LogitAttribution:
    """What embeddings, attention and MLPs of every layer, and the biases, write directly into a logit difference.

    Args:
        tokens: Prompts. Rows may be padded on the right.
        right, wrong: The tokens whose logits are compared; without ``wrong`` the logit of ``right`` alone.
        end: The answering position of each prompt; the last one by default.

    Raises:
        ValueError: if the prompts, the answers or the positions do not fit the model or each other.
    """
    reading = _Reading.of(model, tokens, right, wrong, end, ("z", "post"))
    nothing = torch.zeros_like(reading.bias)
    positions = reading.cache.get("hook_pos_embed")
    return LogitAttribution(
        embedding=reading.read(reading.at_end(reading.cache["hook_embed"])),
        positions=nothing if positions is None else reading.read(reading.at_end(positions.expand(len(tokens), -1, -1))),
        attention=torch.stack([reading.heads(layer).sum(0) for layer in range(model.cfg.n_layers)]),
        mlp=torch.stack([reading.neurons(layer).sum(0) for layer in range(model.cfg.n_layers)]),
        bias=reading.bias + sum(reading.read(bias) for bias in _layer_biases(model)),
    )


@torch.no_grad()
def attribute_heads(
    model: "TransformerBridge",
    tokens: Int[Tensor, "prompt seq"],
    right: Int[Tensor, "prompt"],
    wrong: Int[Tensor, "prompt"] | None = None,
    end: Int[Tensor, "prompt"] | None = None,
) -> Float[Tensor, "layer head prompt"]:
    """As :func:`attribute_components`, for every head: they add up to ``attention``."""
    reading = _Reading.of(model, tokens, right, wrong, end, ("z",))
    return torch.stack([reading.heads(layer) for layer in range(model.cfg.n_layers)])


@torch.no_grad()
def attribute_neurons(
    model: "TransformerBridge",
    tokens: Int[Tensor, "prompt seq"],
    right: Int[Tensor, "prompt"],
    wrong: Int[Tensor, "prompt"] | None = None,
    end: Int[Tensor, "prompt"] | None = None,
) -> Float[Tensor, "layer neuron prompt"]:
    """As :func:`attribute_components`, for every neuron: they add up to ``mlp``. No neurons if there are no MLPs."""
    reading = _Reading.of(model, tokens, right, wrong, end, ("post",))
    return torch.stack([reading.neurons(layer) for layer in range(model.cfg.n_layers)])


@torch.no_grad()
def attribute_sources(
    model: "TransformerBridge",
    tokens: Int[Tensor, "prompt seq"],
    right: Int[Tensor, "prompt"],
    wrong: Int[Tensor, "prompt"] | None = None,
    end: Int[Tensor, "prompt"] | None = None,
) -> Float[Tensor, "layer head source prompt"]:
    """As :func:`attribute_heads`, by the position a head reads from: its attention times what its OV circuit makes
    of the stream there. The sources of a head add up to the head; positions after the answering one have none.
    """
    reading = _Reading.of(model, tokens, right, wrong, end, ("v", "pattern"))
    return torch.stack([reading.sources(layer) for layer in range(model.cfg.n_layers)])


@torch.no_grad()
def logit_lens(
    model: "TransformerBridge", tokens: Int[Tensor, "prompt seq"], end: Int[Tensor, "prompt"] | None = None
) -> dict[str, Float[Tensor, "prompt vocab"]]:
    """The logits that the model would give if the residual stream ended early, at the answering position.

    Other than :func:`utils.readout.read_stream` it applies the model's own final layer norm, folded or not.

    Args:
        tokens: Prompts. Rows may be padded on the right.
        end: The answering position of each prompt; the last one by default.

    Returns:
        From "embedding" through "0 attention", "0 MLP" ... to the end of the model, as
        :func:`utils.readout.stream_points` names them; without MLPs there are no points of that name.

    Source: nostalgebraist 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru
    """
    check_tokens(model, tokens)
    end, points = checked_end(tokens, end), {"embedding": activation_name(0, "resid_pre")}
    for layer, block in enumerate(model.blocks):
        has_mlp = hasattr(block, "mlp")
        points[f"{layer} attention"] = activation_name(layer, "resid_mid" if has_mlp else "resid_post")
        if has_mlp:
            points[f"{layer} MLP"] = activation_name(layer, "resid_post")
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in points.values())
    return {point: model.unembed(model.ln_final(at_end(cache[name], end))) for point, name in points.items()}


@dataclass(frozen=True)
class _Reading:
    """Activations, and what one unit of the residual stream at the answering position adds to the logit difference."""

    model: "TransformerBridge"
    cache: Mapping[str, Tensor]
    end: Int[Tensor, "prompt"]
    direction: Float[Tensor, "prompt d_model"]
    bias: Float[Tensor, "prompt"]

    @classmethod
    def of(
        cls,
        model: "TransformerBridge",
        tokens: Tensor,
        right: Tensor,
        wrong: Tensor | None,
        end: Tensor | None,
        kinds: tuple[str, ...],
    ) -> "_Reading":
        """Run the model, keep activations of these kinds, and freeze the final layer norm."""
        check_tokens(model, tokens)
        end, layers = checked_end(tokens, end), range(model.cfg.n_layers)
        final = activation_name(model.cfg.n_layers - 1, "resid_post")
        names = {"hook_embed", "hook_pos_embed", final} | {activation_name(layer, k) for layer in layers for k in kinds}
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)
        W_U, b_U = _answer_weights(model, right, wrong, len(tokens))
        direction, norm_bias = _frozen_norm(model, at_end(cache[final], end), W_U)
        return cls(model, dict(cache.items()), end, direction, norm_bias + b_U)

    def at_end(self, activation: Float[Tensor, "prompt seq *rest"]) -> Float[Tensor, "prompt *rest"]:
        return at_end(activation, self.end)

    def read(self, written: Float[Tensor, "*prompt d_model"]) -> Float[Tensor, "prompt"]:
        return (written * self.direction).sum(-1)

    def heads(self, layer: int) -> Float[Tensor, "head prompt"]:
        z = self.at_end(read_activation(self.cache, layer, "z"))
        return torch.einsum("phd,hdm,pm->hp", z, self.model.W_O[layer], self.direction)

    def neurons(self, layer: int) -> Float[Tensor, "neuron prompt"]:
        post = self.cache.get(activation_name(layer, "post"))
        if post is None:
            return self.direction.new_zeros(0, len(self.direction))
        return (self.at_end(post) * (self.direction @ self.model.blocks[layer].mlp.W_out.T)).T

    def sources(self, layer: int) -> Float[Tensor, "head source prompt"]:
        value = read_activation(self.cache, layer, "v")
        value = value.repeat_interleave(self.model.cfg.n_heads // value.shape[2], dim=2)  # heads may share values
        rows = torch.arange(len(self.end), device=self.end.device)
        pattern = read_activation(self.cache, layer, "pattern")[rows, :, self.end]  # [prompt, head, source]
        read = torch.einsum("pshd,hdm,pm->phs", value, self.model.W_O[layer], self.direction)
        return (pattern * read).permute(1, 2, 0)


def _answer_weights(
    model: "TransformerBridge", right: Tensor, wrong: Tensor | None, prompts: int
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt"]]:
    """The columns of the unembedding and their biases, of the right answer minus the wrong one."""
    answers = [right] if wrong is None else [right, wrong]
    size = model.W_U.shape[1]
    for tokens in answers:
        if tokens.shape != (prompts,) or int(tokens.min()) < 0 or int(tokens.max()) >= size:
            raise ValueError(
                f"right and wrong must each hold one token id from 0 to {size - 1} for each of {prompts} prompts, "
                f"got {tokens.tolist()}"
            )
    W, b = ([weights[..., tokens] for tokens in answers] for weights in (model.W_U, model.b_U))
    return (W[0].T, b[0]) if wrong is None else ((W[0] - W[1]).T, b[0] - b[1])


def _frozen_norm(
    model: "TransformerBridge", final: Float[Tensor, "prompt d_model"], W_U: Float[Tensor, "prompt d_model"]
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt"]]:
    """The direction to read before the final layer norm, at the scale that it has on these prompts; and its bias."""
    wrapped = getattr(model.ln_final, "original_component", model.ln_final)
    if isinstance(wrapped, torch.nn.Identity):
        return W_U, torch.zeros_like(W_U[:, 0])
    weight, bias = (getattr(wrapped, name, None) for name in ("weight", "bias"))
    direction = W_U if weight is None else W_U * weight
    if "RMS" not in type(wrapped).__name__:  # layer norm takes the mean away, RMS norm does not
        final, direction = (x - x.mean(-1, keepdim=True) for x in (final, direction))
    scale = (final.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    return direction / scale, torch.zeros_like(W_U[:, 0]) if bias is None else (W_U * bias).sum(-1)


def _layer_biases(model: "TransformerBridge") -> list[Float[Tensor, "d_model"]]:
    """What attention and MLPs add to the residual stream at every position."""
    attention = [getattr(block.attn, "b_O", None) for block in model.blocks]
    mlps = [getattr(block.mlp, "b_out", None) for block in model.blocks if hasattr(block, "mlp")]
    return [bias for bias in (*attention, *mlps) if bias is not None]
