"""The first week on one page: what a look inside a small language model shows, computed anew."""

from typing import TYPE_CHECKING

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from utils import attention, readout
from utils.models.prompts import gendered_prompts, repeated_tokens, story_batch
from utils.models.untrained import untrained_twin
from utils.plots import COLORS, GREY, SEQUENTIAL
from utils.superposition import train_toy_models
from utils.superposition_geometry import features_kept

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Curve = tuple[list, list]
STORIES, PROMPTS = 60, 200
SPARSITIES = (0.0, 0.8, 0.95)
IMPORTANCES = tuple(0.9**i for i in range(5))
TRAINED, CONTROL = {"color": COLORS[0]}, {"color": GREY, "dash": "dash"}


@torch.no_grad()
def first_week_page(model: "TransformerBridge", scale: float = 1.0) -> go.Figure:
    """Six panels: stream norms, logit lens, head scores, repeated text, superposition, and the loss of every word.

    Dashed lines are the same model before training.

    Args:
        model: ``load_model("tiny-lm")`` or a sibling: it has to know the words of the micro-world.
        scale: The size of the page, relative to one that fits a notebook.
    """
    tested = {"trained": (model, TRAINED), "untrained": (untrained_twin(model), CONTROL)}
    curves = {name: [_stream(one), _lens(one), _repeated(one), _losses(one)] for name, (one, _) in tested.items()}
    toys = train_toy_models(5, 2, SPARSITIES, IMPORTANCES, steps=1000, batch=256, progress=False).best()
    titles = _findings(*curves["trained"], features_kept(toys.W).tolist())
    page = make_subplots(2, 3, subplot_titles=titles, horizontal_spacing=0.09, vertical_spacing=0.2)
    for name, (_, line) in tested.items():
        for (x, y), (row, column) in zip(curves[name], ((1, 1), (1, 2), (2, 1), (2, 3)), strict=True):
            first = (row, column) == (1, 1)
            page.add_scatter(x=x, y=y, name=name, line=line, mode="lines", showlegend=first, row=row, col=column)
    page.add_trace(_heads(model), row=1, col=3)
    for arrow in _arrows(toys.W):
        page.add_trace(arrow, row=2, col=2)
    axes = {
        (1, 1): ("layers passed", "mean length"),
        (1, 2): ("layers passed", "right pronoun ahead"),
        (1, 3): ("head", "layer"),
        (2, 1): ("position", "loss, nats"),
        (2, 2): (f"sparsity {', '.join(f'{s:g}' for s in SPARSITIES)}", ""),
        (2, 3): ("share of words", "loss, nats"),
    }
    for (row, column), (x_title, y_title) in axes.items():
        page.update_xaxes(title={"text": x_title, "font": {"size": 13}}, row=row, col=column)
        page.update_yaxes(title={"text": y_title, "font": {"size": 13}}, row=row, col=column)
    page.update_yaxes(autorange="reversed", dtick=1, row=1, col=3)
    page.update_xaxes(dtick=1, row=1, col=3)
    page.update_xaxes(showticklabels=False, showgrid=False, row=2, col=2)
    page.update_yaxes(showticklabels=False, showgrid=False, scaleanchor="x5", row=2, col=2)
    page.update_annotations(font_size=13)
    title = f"{model.cfg.model_name} on a page: {model.cfg.n_layers} layers of {model.cfg.n_heads} heads"
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.14}
    return page.update_layout(
        title=title, width=1000 * scale, height=620 * scale, legend=legend, margin={"t": 110, "b": 60}
    )


def _stream(model: "TransformerBridge") -> Curve:
    _, cache = model.run_with_cache(story_batch(STORIES).tokens, names_filter=lambda name: "resid" in name)
    norms = readout.stream_norms(cache, model.cfg.n_layers)
    return list(range(len(norms))), norms.tolist()


def _lens(model: "TransformerBridge") -> Curve:
    prompts = gendered_prompts(PROMPTS)
    tokens = model.to_tokens(prompts.texts, padding_side="right")
    ends = readout.end_positions(tokens, model.tokenizer.pad_token_id)
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: "resid" in name)
    logits = readout.read_stream(readout.streams_at(cache, model.cfg.n_layers, ends)[::2], model)
    right, wrong = (torch.tensor(model.tokenizer.convert_tokens_to_ids(w)) for w in (prompts.answers, prompts.wrong))
    return list(range(len(logits))), readout.share_right(logits, right, wrong).tolist()


def _repeated(model: "TransformerBridge") -> Curve:
    tokens = repeated_tokens(PROMPTS)
    losses = -readout.token_log_probs(model(tokens), tokens).mean(0)
    return list(range(1, tokens.shape[1])), losses.tolist()


def _losses(model: "TransformerBridge") -> Curve:
    tokens = story_batch(STORIES).tokens
    losses = -readout.token_log_probs(model(tokens), tokens).flatten().sort().values
    at = torch.linspace(0, len(losses) - 1, 200).long()
    return (at / (len(losses) - 1)).tolist(), losses[at].tolist()


def _heads(model: "TransformerBridge") -> go.Heatmap:
    tokens = repeated_tokens(PROMPTS)
    names = ("previous", "first", "duplicate", "induction")
    scores: list[Tensor] = []
    for pattern in attention.attention_patterns(model, tokens):
        scores.append(
            torch.stack(
                [
                    attention.previous_token_score(pattern),
                    attention.first_token_score(pattern),
                    attention.duplicate_token_score(pattern, tokens),
                    attention.induction_score(pattern, tokens),
                ]
            )
        )
    best = torch.stack(scores).max(1)  # [layer, head]
    text = [
        [f"{names[i]}<br>{v:.2f}" if v >= 0.4 else "" for v, i in zip(*row, strict=True)]
        for row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return go.Heatmap(
        z=best.values.tolist(),
        text=text,
        texttemplate="%{text}",
        textfont_size=10,
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=1,
        showscale=False,
        hovertemplate="head %{y}.%{x}: %{z:.2f}<extra></extra>",
    )


def _arrows(W: Float[Tensor, "panel 2 feature"]) -> list[go.Scatter]:
    arrows = []
    for panel, matrix in enumerate(W):
        for feature, (x, y) in enumerate(matrix.T.tolist()):
            line, left = {"color": COLORS[feature], "width": 3}, 3 * panel
            arrows.append(
                go.Scatter(x=[left, left + x], y=[0, y], mode="lines", line=line, showlegend=False, hoverinfo="skip")
            )
    return arrows


def _findings(stream: Curve, lens: Curve, repeated: Curve, losses: Curve, kept: list[int]) -> list[str]:
    """A title for each panel, from its numbers."""
    says = readout.first_layer_above(lens[1], 0.9)
    second = sum(repeated[1][-19:]) / 19
    sure = sum(loss < 0.1 for loss in losses[1]) / len(losses[1])
    return [
        f"The stream grows {stream[1][-1] / stream[1][0]:.0f}-fold",
        "The answer is never ahead in 90 %" if says is None else f"The answer is said after {says} layers",
        "Heads differ: the largest of four scores",
        f"Words seen before cost {second:.2f} nats: induction",
        f"Two dimensions keep {' or '.join(map(str, sorted(set(kept))))} of 5 features",
        f"{sure:.0%} of all words are no surprise",
    ]
