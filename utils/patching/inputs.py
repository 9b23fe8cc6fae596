"""What every intervention is given: prompts that fit the model and each other, heads that exist."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from utils.transformer import Transformer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Head = tuple[int, int]
"""A layer and a head in it, both from 0."""


def check_tokens(
    model: "TransformerBridge | Transformer", tokens: Int[Tensor, "prompt seq"], what: str = "tokens"
) -> None:
    """Refuse what is not a batch of token ids of the model.

    Raises:
        ValueError: if ``tokens`` is not [prompt, seq], holds no token, or leaves the vocabulary.
    """
    if tokens.ndim != 2 or tokens.is_floating_point() or tokens.numel() == 0:
        raise ValueError(
            f"{what} must be token ids [prompt, seq], got {tokens.dtype} of shape {tuple(tokens.shape)}. "
            "A single prompt needs a batch dimension: tokens[None]."
        )
    size = getattr(model, "cfg", model).d_vocab
    outside = tokens[(tokens < 0) | (tokens >= size)]
    if len(outside):
        raise ValueError(f"{what} holds the id {int(outside[0])}; this model's vocabulary has ids 0 to {size - 1}.")


def check_pair(
    model: "TransformerBridge | Transformer", original: Int[Tensor, "prompt seq"], new: Int[Tensor, "prompt seq"]
) -> None:
    """Refuse two batches that do not belong together row by row.

    Raises:
        ValueError: if one of them does not fit the model, or they differ in shape.
    """
    check_tokens(model, original, "original")
    check_tokens(model, new, "new")
    if original.shape != new.shape:
        raise ValueError(
            f"original is {tuple(original.shape)} and new {tuple(new.shape)}: patching pairs them row by row and "
            "position by position. Use prompts of one template, padded on the right to the same length."
        )


def checked_end(tokens: Int[Tensor, "prompt seq"], end: Int[Tensor, "prompt"] | None) -> Int[Tensor, "prompt"]:
    """The answering position of each prompt, the last one where none is given.

    Raises:
        ValueError: if there is not one position within the tokens for each prompt.
    """
    prompts, seq = tokens.shape
    if end is None:
        return torch.full((prompts,), seq - 1, device=tokens.device)
    if end.shape != (prompts,) or int(end.min()) < 0 or int(end.max()) >= seq:
        raise ValueError(
            f"end must hold one position from 0 to {seq - 1} for each of {prompts} prompts, got {end.tolist()}"
        )
    return end.to(tokens.device)


def check_heads(model: "TransformerBridge | Transformer", heads: Iterable[Head]) -> None:
    """Refuse heads that the model does not have.

    Raises:
        ValueError: naming the first one.
    """
    size = getattr(model, "cfg", model)
    for layer, head in heads:
        if not (0 <= layer < size.n_layers and 0 <= head < size.n_heads):
            raise ValueError(
                f"There is no head {(layer, head)}: this model has layers 0 to {size.n_layers - 1}, "
                f"each with heads 0 to {size.n_heads - 1}. A head is written (layer, head)."
            )


def check_mlp(model: "TransformerBridge", layer: int) -> None:
    """Refuse an MLP that the model does not have.

    Raises:
        ValueError: if there is no such layer, or it has no MLP.
    """
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(f"There is no layer {layer}: this model has layers 0 to {model.cfg.n_layers - 1}.")
    if not hasattr(model.blocks[layer], "mlp"):
        raise ValueError(f"Layer {layer} has no MLP: this model has attention only.")


def sender_grid(model: "TransformerBridge | Transformer", senders: str) -> tuple[int, ...]:
    """The shape of results for one kind of component: [layer, head], [layer] or [].

    Raises:
        ValueError: if there is no such kind, or the model has none.
    """
    size = getattr(model, "cfg", model)
    grids = {"heads": (size.n_layers, size.n_heads), "mlps": (size.n_layers,), "embedding": ()}
    if senders not in grids:
        raise ValueError(f"senders must be one of {', '.join(grids)}, not {senders!r}")
    if senders == "mlps" and not _has_mlps(model):
        raise ValueError("This model has attention only: there are no MLPs to choose.")
    return grids[senders]


def _has_mlps(model: "TransformerBridge | Transformer") -> bool:
    if isinstance(model, Transformer):
        return any(layer.W_in is not None for layer in model.layers)
    return any(hasattr(block, "mlp") for block in model.blocks)


def check_receivers(model: "TransformerBridge | Transformer", receivers: Iterable[Head], receiver_input: str) -> None:
    """Refuse receivers that the model does not have.

    Raises:
        ValueError: if there are none, one does not exist, or ``receiver_input`` is not "q", "k" or "v".
    """
    if receiver_input not in ("q", "k", "v"):
        raise ValueError(f"receiver_input must be 'q', 'k' or 'v', not {receiver_input!r}")
    receivers = list(receivers)
    if not receivers:
        raise ValueError("receivers is empty: name at least one head as (layer, head)")
    check_heads(model, receivers)
