"""Two ways to show examples of what a neuron does: words on a coloured ground, and a map of several examples."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from utils.neurons import Place

POSITIVE, NEGATIVE, STRONGEST = "224, 123, 57", "59, 125, 216", 0.75
CELLS = [[0.0, "#f4f4f2"], [1.0, "#e07b39"]]


def coloured_text(words: Sequence[str], values: Float[Tensor, "word"], limit: float | None = None) -> str:
    """Words on a coloured ground as HTML: orange where a value is positive, blue where it is negative.

    Args:
        words: The words, as they are; they are escaped here.
        values: One number for each word.
        limit: The size at which the colour is strongest; the largest of ``values`` by default. Give several texts
            the same limit and their colours can be compared.

    Raises:
        ValueError: if there is not one value for each word.
    """
    values = [float(value) for value in values]
    if len(values) != len(words):
        raise ValueError(f"Expected one value for each of {len(words)} words, got {len(values)}.")
    limit = limit or max(map(abs, values), default=0) or 1.0
    spans = []
    for word, value in zip(words, values, strict=True):
        strength = STRONGEST * min(abs(value) / limit, 1.0)
        ground = f"rgba({POSITIVE if value > 0 else NEGATIVE}, {strength:.3f})"
        style = f"background-color: {ground}; padding: 1px 2px; border-radius: 3px"
        spans.append(f'<span style="{style}" title="{value:.2f}">{html.escape(word)}</span>')
    return " ".join(spans)


def example_map(
    texts: Sequence[Sequence[str]],
    values: Sequence[Float[Tensor, "seq"]],
    places: Sequence[Place],
    title: str,
    limit: float | None = None,
    before: int = 9,
    after: int = 3,
) -> go.Figure:
    """Examples below each other, the chosen word of each in one column, coloured by activation.

    Args:
        texts: The words of every text of the corpus.
        values: A neuron's activation on each of them.
        places: The examples.
        title: The finding.
        limit: The activation at which the colour is strongest; the largest one shown by default. Give several maps
            the same limit and their colours can be compared.
        before: How many words to show before the chosen one.
        after: How many words to show after it.
    """
    columns = list(range(-before, after + 1))
    shown: list[list[str]] = []
    colours: list[list[float | None]] = []
    for text, position in places:
        at = [position + offset if 0 <= position + offset < len(texts[text]) else None for offset in columns]
        shown.append(["" if i is None else texts[text][i] for i in at])
        colours.append([None if i is None else float(values[text][i]) for i in at])
    trace = go.Heatmap(
        z=colours, x=columns, y=list(range(1, len(places) + 1)), text=shown, texttemplate="%{text}",
        colorscale=CELLS, zmin=0, zmax=limit, textfont={"size": 10},
        colorbar={"title": {"text": "activation", "side": "right"}, "thickness": 14},
        hovertemplate="%{text}: %{z:.2f}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(trace).update_layout(title=title, width=900, height=150 + 27 * max(len(places), 1))
    figure.update_xaxes(title="words before and after", dtick=1, showgrid=False)
    return figure.update_yaxes(title="example", autorange="reversed", dtick=1, showgrid=False)
