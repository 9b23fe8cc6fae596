"""Path patching: what one component tells another, with everything that does not lie on the way held still.

The method is that of Wang et al. 2022, "Interpretability in the Wild", https://arxiv.org/abs/2211.00593, appendix B.
There are two batches of prompts. The model runs on ``original``; one *sender* writes what it writes on ``new``. Between
sender and receiver **every attention head keeps its output of the original run** (what it adds to the residual stream,
so patterns and values too), while **MLPs and layer norms are recomputed**: a path goes through residual connections and
MLPs, not through other heads.

* :func:`path_patch_to_logits`: the receiver is the final residual stream.
* :func:`path_patch_to_inputs`: the receivers are the queries, keys or values of some heads. A second run on
  ``original`` gives the receivers the inputs that they had in the first; nothing is frozen in it.

With attention frozen nothing crosses positions. All senders therefore ride in one batch, which grows by one layer's
senders at each layer, and a path to the logits needs a single position of each prompt. Senders share every step, and
none is computed below the layer where it sends. :mod:`utils.patching.path_patching_plain` does the same with hooks.
"""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from utils.patching import path_patching_plain
from utils.patching.answers import answer
from utils.patching.inputs import Head, check_pair, check_receivers, checked_end, sender_grid
from utils.patching.measuring import Metrics, Results, each
from utils.patching.prompt_batches import GIBIBYTE, prompt_batches
from utils.patching.runs import Runs
from utils.patching.wavefront import Senders, inputs_of_receivers, run_with_inputs, streams_with_frozen_attention
from utils.transformer import NotCovered, Transformer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def path_patch_to_logits(
    model: "TransformerBridge | Transformer",
    original: Int[Tensor, "prompt seq"],
    new: Int[Tensor, "prompt seq"],
    metric: Metrics,
    end: Int[Tensor, "prompt"] | None = None,
    *,
    senders: Senders = "heads",
    max_bytes: int = GIBIBYTE,
) -> Results:
    """The metric when one sender's direct path to the logits carries what it would on ``new``.

    Frozen to ``original``: the output of every head but the sender. Recomputed: MLPs, and all layer norms, above it.

    Args:
        original: Prompts that the model runs on. Rows may be padded on the right.
        new: Prompts of the same shape, from which senders take their output; for example other names.
        metric: One metric, or several by name.
        end: The answering position of each prompt; the last one by default.
        senders: "heads"; "mlps", with the output on ``new`` of one layer's MLP; or "embedding", token and position.
        max_bytes: Memory that the batch of senders may take. At least one prompt is worked on at a time.

    Returns:
        The metric after patching, [layer, head, prompt] for heads, [layer, prompt] for MLPs, [prompt] for the
        embedding; a dictionary of these for several metrics.

    Raises:
        ValueError: if the prompts do not fit the model or each other, or an argument is not one of those named.
    """
    check_pair(model, original, new)
    grid, end = sender_grid(model, senders), checked_end(original, end)
    weights = _weights_of(model)
    if weights is None:
        return path_patching_plain.path_patch_to_logits(model, original, new, metric, end, senders=senders)
    final = []
    for rows in prompt_batches(weights, original, math.prod(grid), 1, max_bytes, "path patching"):
        runs = Runs.of(weights, original[rows], new[rows], end[rows])
        *_, streams = streams_with_frozen_attention(runs, senders, partial(runs.at_end, start=0))
        final.append(streams)
    return each(lambda r: r.view(*grid, -1), answer(weights, torch.cat(final, 1), metric))


@torch.no_grad()
def path_patch_to_inputs(
    model: "TransformerBridge | Transformer",
    original: Int[Tensor, "prompt seq"],
    new: Int[Tensor, "prompt seq"],
    receivers: Sequence[Head],
    metric: Metrics,
    receiver_input: Literal["q", "k", "v"] = "q",
    end: Int[Tensor, "prompt"] | None = None,
    *,
    senders: Senders = "heads",
    max_bytes: int = GIBIBYTE,
) -> Results:
    """The metric when one sender's direct paths to some heads' queries, keys or values carry what it would on ``new``.

    Step one, up to the receivers: frozen to ``original`` is the output of every head but the sender, at all positions;
    MLPs and layer norms are recomputed; the named input of every receiver is read. Step two, from the receivers on:
    the model runs on ``original`` with these inputs, and everything else is recomputed. A sender that is not below a
    receiver has no path to it, and changes nothing there.

    Args:
        original: Prompts that the model runs on. Rows may be padded on the right.
        new: Prompts of the same shape, from which senders take their output.
        receivers: Heads as (layer, head); all of them receive at once.
        metric: One metric, or several by name.
        receiver_input: Which input of the receivers.
        end: The answering position of each prompt; the last one by default.
        senders: "heads"; "mlps", with the output on ``new`` of one layer's MLP; or "embedding", token and position.
        max_bytes: Memory that the batch of senders may take. At least one prompt is worked on at a time.

    Returns:
        The metric after patching, [layer, head, prompt] for heads, [layer, prompt] for MLPs, [prompt] for the
        embedding; a dictionary of these for several metrics.

    Raises:
        ValueError: if the prompts do not fit the model or each other, a receiver does not exist, or an argument is not
            one of those named.
    """
    check_pair(model, original, new)
    check_receivers(model, receivers, receiver_input)
    grid, end = sender_grid(model, senders), checked_end(original, end)
    weights = _weights_of(model)
    if weights is None:
        plain = path_patching_plain.path_patch_to_inputs
        return plain(model, original, new, receivers, metric, receiver_input, end, senders=senders)
    n_senders, final = math.prod(grid), []
    for rows in prompt_batches(weights, original, n_senders, original.shape[1], max_bytes, "path patching"):
        runs = Runs.of(weights, original[rows], new[rows], end[rows])
        start = min(runs.first, int(runs.end.min()))
        sent = streams_with_frozen_attention(runs, senders, lambda x, start=start: x[:, start:])
        inputs = inputs_of_receivers(weights, sent, receivers, receiver_input)
        final.append(torch.cat([run_with_inputs(runs, inputs, start), runs.unpatched()[None]]))
    results = answer(weights, torch.cat(final, 1), metric)
    reaching = len(final[0]) - 1
    row_of = torch.arange(n_senders, device=end.device).clamp(max=reaching)  # the last row is for all that reach none
    return each(lambda r: r[row_of].view(*grid, -1), results)


def _weights_of(model: "TransformerBridge | Transformer") -> Transformer | None:
    try:
        return Transformer.from_model(model)
    except NotCovered as reason:
        warnings.warn(f"{reason} Path patching uses hooks instead, which is slower.", stacklevel=3)
        return None
