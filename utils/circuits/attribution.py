"""Edge attribution patching: the effect of every edge at once, to first order.

Corrupting an edge changes what its destination reads by the difference between what its source writes on the corrupted
and on the clean prompts. The effect on a metric is close to this difference times the metric's gradient at the
destination. Two runs give all differences, one backward pass gives all gradients.

A destination's gradient is wanted before its layer norm, and for each input of each head by itself, which a backward
pass through the model adds up. So it stops at queries, keys and values, and what is left is done in closed form: back
through the weights of each input, then through the layer norm. All edges into a layer are then one matrix product.

Sources: Syed et al. 2023, https://arxiv.org/abs/2310.10348; Hanna et al. 2024, https://arxiv.org/abs/2403.17806
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.circuits.graph import Graph
from utils.circuits.heads import input_weights
from utils.circuits.patching import source_outputs
from utils.patching.inputs import check_pair, checked_end
from utils.patching.measuring import Metrics, Results, each, measure
from utils.transformer import Activations, Transformer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def eap(
    model: "TransformerBridge | Transformer",
    clean: Int[Tensor, "prompt seq"],
    corrupted: Int[Tensor, "prompt seq"],
    metric: Metrics,
    end: Int[Tensor, "prompt"] | None = None,
) -> Results:
    """Edge attribution patching: the effect of corrupting each edge alone, to first order around the clean run.

    Args:
        model: A model that :class:`utils.transformer.Transformer` covers.
        clean: Prompts. Rows may be padded on the right.
        corrupted: Prompts of the same shape, from which a corrupted edge takes what it carries.
        metric: One metric, or several by name; differentiable, and each prompt's from its own logits alone.
        end: The answering position of each prompt; the last one by default.

    Returns:
        What :func:`utils.circuits.edge_effects` gives, approximately: the change of the metric by corrupting an edge,
        [source, destination, prompt], in the metric's unit; 0 where there is no edge. A dictionary for several metrics.

    Raises:
        NotCovered: if the plain forward pass does not cover the model.
        ValueError: if the prompts do not fit the model or each other.
    """
    return _attribute(model, clean, corrupted, metric, end, [1.0])


def eap_ig(
    model: "TransformerBridge | Transformer",
    clean: Int[Tensor, "prompt seq"],
    corrupted: Int[Tensor, "prompt seq"],
    metric: Metrics,
    end: Int[Tensor, "prompt"] | None = None,
    *,
    steps: int = 5,
) -> Results:
    """Edge attribution patching with integrated gradients, over the model's inputs.

    As :func:`eap`, with the mean of the gradients at ``steps`` points on the way from the corrupted to the clean
    embeddings; the last one is the clean run, so that one step is EAP.

    Raises:
        NotCovered: if the plain forward pass does not cover the model.
        ValueError: if the prompts do not fit the model or each other, or there is no step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return _attribute(model, clean, corrupted, metric, end, [step / steps for step in range(1, steps + 1)])


@torch.enable_grad()
def _attribute(
    model: "TransformerBridge | Transformer",
    clean: Int[Tensor, "prompt seq"],
    corrupted: Int[Tensor, "prompt seq"],
    metric: Metrics,
    end: Int[Tensor, "prompt"] | None,
    shares: list[float],
) -> Results:
    """The mean of the scores at runs whose embeddings are a share clean, the rest corrupted."""
    model = Transformer.from_model(model)
    check_pair(model, clean, corrupted)
    end, graph = checked_end(clean, end), Graph.of(model)
    at_clean = _run_recorded(model, model.embed(clean), end)
    with torch.no_grad():
        run, other = at_clean.run, model.run(corrupted)
        change = source_outputs(model, graph, other) - source_outputs(model, graph, run)
    change = change.transpose(0, 1).flatten(2)  # [prompt, source, seq * d_model]
    total: Results | None = None
    for share in shares:
        embedded = other.pre[0] + share * (run.pre[0] - other.pre[0])
        recorded = at_clean if share == 1 else _run_recorded(model, embedded, end)
        values = each(lambda value: value[0], measure(metric, recorded.logits[None]))
        scores = each(lambda value, at=recorded: _scores(model, graph, change, at, value), values)
        total = scores if total is None else _add(total, scores)
    return each(lambda summed: summed / len(shares), total)


def _add(a: Results, b: Results) -> Results:
    return {name: a[name] + b[name] for name in a} if isinstance(a, dict) else a + b


@dataclass(frozen=True)
class _Recorded:
    """A run under autograd.

    Attributes:
        mlp_inputs: What each MLP reads, apart from the residual stream that passes it by.
        logits: The answering logits.
    """

    run: Activations
    mlp_inputs: list[Float[Tensor, "prompt seq d_model"]]
    logits: Float[Tensor, "prompt vocab"]


def _run_recorded(
    model: Transformer, embedded: Float[Tensor, "prompt seq d_model"], end: Int[Tensor, "prompt"]
) -> _Recorded:
    stream, mlp_inputs = embedded.detach().requires_grad_(), []
    pre, qkv, z, mid = [], [], [], []
    for layer in range(model.n_layers):
        pre.append(stream)
        qkv.append(model.qkv(layer, stream))
        z.append(model.attend(layer, *qkv[-1].unbind(-3)))
        mid.append(stream + model.attention_out(layer, z[-1]))
        mlp_inputs.append(mid[-1].view_as(mid[-1]))
        stream = mid[-1] + model.mlp(layer, mlp_inputs[-1])
    answering = stream[torch.arange(len(end), device=end.device), end]
    return _Recorded(Activations(pre, qkv, z, mid, stream), mlp_inputs, model.unembed(answering))


def _scores(
    model: Transformer,
    graph: Graph,
    change: Float[Tensor, "prompt source seq*d_model"],
    recorded: _Recorded,
    value: Float[Tensor, "prompt"],
) -> Float[Tensor, "source destination prompt"]:
    """For every edge, the change that its source would bring times the gradient at its destination."""
    run, mlp_inputs = recorded.run, recorded.mlp_inputs if graph.has_mlps else []
    read = [*run.qkv, *mlp_inputs, run.post]
    gradients = list(torch.autograd.grad(value.sum(), read, retain_graph=True))
    scores = change.new_zeros(len(change), *graph.exists.shape)

    def fill(n_sources: int, columns: slice, gradient: Float[Tensor, "prompt destination seq*d_model"]) -> None:
        torch.bmm(change[:, :n_sources], gradient.mT, out=scores[:, :n_sources, columns])

    for layer in range(graph.n_layers):
        heads, columns = graph.head_sources(layer), graph.head_inputs(layer)
        at_inputs = _through_inputs(model, layer, run.pre[layer].detach(), gradients[layer])
        fill(heads.start, columns, at_inputs)
        if graph.has_mlps:
            at_mlp = gradients[graph.n_layers + layer].flatten(1)[:, None]
            fill(heads.stop, slice(columns.stop, columns.stop + 1), at_mlp)
    fill(len(graph.sources), slice(-1, None), gradients[-1].flatten(1)[:, None])
    return scores.permute(1, 2, 0)


def _through_inputs(
    model: Transformer,
    layer: int,
    stream: Float[Tensor, "prompt seq d_model"],
    gradient: Float[Tensor, "prompt seq 3 head d_head"],
) -> Float[Tensor, "prompt 3*head seq*d_model"]:
    """From the gradient at queries, keys and values to the one at the stream that each of them reads."""
    W, _ = input_weights(model, layer)
    at_made = gradient.flatten(2, 3).movedim(2, 0)  # [3 * head, prompt, seq, d_head]
    at_normed = torch.bmm(at_made.flatten(1, 2), W.mT).unflatten(1, stream.shape[:2])
    ln = model.layers[layer].ln1
    at_stream = at_normed if ln is None else _through_layer_norm(stream, at_normed, ln[0], model.eps)
    return at_stream.transpose(0, 1).flatten(2)


def _through_layer_norm(
    x: Float[Tensor, "prompt seq d_model"],
    gradient: Float[Tensor, "destination prompt seq d_model"],
    gain: Float[Tensor, "d_model"] | None,
    eps: float,
) -> Float[Tensor, "destination prompt seq d_model"]:
    """The backward pass of a layer norm, for many gradients at its output.

    A layer norm takes out the mean and the scale. Its gradient loses the directions in which these change, the constant
    one and that of the normed stream itself, and is divided by the scale.
    """
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
    normed = centred * scale
    gradient = gradient if gain is None else gradient * gain
    along = (gradient * normed).mean(-1, keepdim=True)
    return (gradient - gradient.mean(-1, keepdim=True) - normed * along) * scale
