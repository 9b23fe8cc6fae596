"""What a neuron responds to: its activations over a corpus, the examples that excite it, and the words that it writes.

A *place* is a pair ``(text, position)`` in a batch of token ids. Position 0 holds ``[BOS]``, which is not text, and is
never an example. Notebook 1.3 builds these functions one by one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Place = tuple[int, int]


def corpus_activations(
    model: "TransformerBridge", tokens: Int[Tensor, "text seq"], layer: int, batch: int = 50
) -> Float[Tensor, "text seq neuron"]:
    """The activations of all neurons of one layer's MLP, after the nonlinearity, on every token of a corpus.

    Args:
        model: A model that has MLPs.
        tokens: The corpus.
        layer: The layer, from 0.
        batch: How many texts are run at a time.

    Raises:
        ValueError: if the layer does not exist, or the model has no neurons.
    """
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(f"There is no layer {layer}: this model has layers 0 to {model.cfg.n_layers - 1}.")
    if getattr(model.cfg, "attn_only", False):
        raise ValueError("This model has attention layers only: there are no neurons to look at.")
    name = f"blocks.{layer}.mlp.hook_post"
    parts = [model.run_with_cache(some, names_filter=name)[1][name] for some in tokens.split(batch)]
    return torch.cat(parts)


def top_examples(activations: Float[Tensor, "text seq"], k: int) -> list[Place]:
    """The places with the largest activation of one neuron, largest first, at most one in each text.

    Args:
        activations: One neuron's activations on a corpus.
        k: How many places; fewer are returned if there are fewer texts.
    """
    largest, positions = activations[:, 1:].max(dim=-1)
    texts = largest.topk(min(k, len(largest))).indices.tolist()
    return [(text, int(positions[text]) + 1) for text in texts]


def random_examples(
    activations: Float[Tensor, "text seq"], low: float, high: float, k: int, seed: int = 0
) -> list[Place]:
    """Random places whose activation is at least ``low`` and below ``high``, at most one in each text.

    Args:
        activations: One neuron's activations on a corpus.
        low: The smallest activation that counts.
        high: The smallest activation that is too large.
        k: How many places; fewer are returned if there are fewer texts with such a place.
        seed: The same seed gives the same places.
    """
    places = ((activations >= low) & (activations < high)).nonzero()
    places = places[places[:, 1] > 0]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    one_each: dict[int, int] = {}
    for text, position in places[order].tolist():
        one_each.setdefault(text, position)
    return list(one_each.items())[:k]


def context_window(words: Sequence[str], position: int, width: int) -> tuple[list[str], int]:
    """The words around a position: up to ``width`` of them on each side.

    Returns:
        The words, and where among them the word at ``position`` stands.

    Raises:
        IndexError: if the text has no such position.
    """
    if not 0 <= position < len(words):
        raise IndexError(f"A text of {len(words)} words has no position {position}.")
    start = max(0, position - width)
    return list(words[start : position + width + 1]), position - start


def logit_weights(w_out: Float[Tensor, "*neuron d_model"], W_U: Float[Tensor, "d_model vocab"]) -> Tensor:
    """How much one unit of a neuron's activation raises each word's logit, before the final layer norm's scale.

    Layer norm subtracts the stream's mean, and softmax ignores what all logits share: both are taken out here.

    Args:
        w_out: What the neuron writes into the stream: a row of ``model.W_out[layer]``.
        W_U: The unembedding.

    Returns:
        [*neuron, vocab], with mean zero over the vocabulary.
    """
    logits = (w_out - w_out.mean(-1, keepdim=True)) @ W_U
    return logits - logits.mean(-1, keepdim=True)


def best_label(holds: Bool[Tensor, "example label"], base: Float[Tensor, "label"], at_least: float = 0.9) -> int | None:
    """The most specific label that fits a set of examples: of those that fit enough of them, the rarest.

    Args:
        holds: Whether each label is true of each example.
        base: How often each label is true in the whole corpus.
        at_least: The share of the examples that a label must fit.

    Returns:
        The label's index, or None if none fits well enough.
    """
    fitting = (holds.float().mean(0) >= at_least).nonzero()[:, 0]
    return int(fitting[base[fitting].argmin()]) if len(fitting) else None
