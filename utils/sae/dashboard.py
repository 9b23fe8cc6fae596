"""One latent on one page: where it fires, how strongly, and what it writes."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from utils.sae.gallery import Example, Gallery

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BINS = 40
BANDS = {"strongest": 1.0, "middling": 0.5, "weak": 0.1}
HIGHLIGHT = "47,158,110"  # readable behind black and behind white text


class Dashboard:
    """A feature dashboard: shown as a page in a notebook, as text elsewhere.

    Args:
        gallery: Of the dictionary.
        feature: The latent.
        examples: How many examples from each band of activation.
    """

    def __init__(self, gallery: Gallery, feature: int, examples: int = 6) -> None:
        self.feature = feature
        values = gallery.activations(feature)
        self.values = values[values > 0]
        self.frequency, self.largest = gallery.frequency[feature].item(), gallery.largest[feature].item()
        self.examples = {band: gallery.examples(feature, examples, quantile=q) for band, q in BANDS.items()}
        self.promoted, self.suppressed = gallery.promoted(feature), gallery.promoted(feature, -8)

    @property
    def title(self) -> str:
        """How often and how strongly the latent fires, in a sentence."""
        return f"Latent {self.feature} fires on {self.frequency:.2%} of tokens, at most {self.largest:.2f}"

    def figure(self) -> "Figure":
        """The histogram of its activations, and the words that it makes more and less likely."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        from utils import plots

        figure = make_subplots(1, 2, column_widths=[0.5, 0.5], horizontal_spacing=0.16)
        counts = torch.histc(self.values, BINS, 0, max(self.largest, 1e-6))
        edges = torch.linspace(0, self.largest, BINS + 1)
        figure.add_trace(go.Bar(x=((edges[1:] + edges[:-1]) / 2).tolist(), y=counts.tolist()), 1, 1)
        words = [*self.promoted, *self.suppressed[::-1]]
        colors = [plots.COLORS[0] if weight > 0 else plots.COLORS[1] for _, weight in words]
        bars = go.Bar(x=[w for _, w in words], y=list(range(len(words))), orientation="h", marker={"color": colors})
        figure.add_trace(bars, 1, 2)
        figure.update_xaxes(title="activation", row=1, col=1)
        figure.update_yaxes(title="tokens", type="log", row=1, col=1)
        figure.update_xaxes(title="added to the logit, per unit of activation", row=1, col=2)
        names = {"tickmode": "array", "tickvals": list(range(len(words))), "ticktext": [word for word, _ in words]}
        figure.update_yaxes(autorange="reversed", row=1, col=2, **names)
        return figure.update_layout(title=self.title, showlegend=False, width=900, height=420)

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html.escape(self.title)}</b></p>"]
        for sign, words in (("raises", self.promoted), ("lowers", self.suppressed)):
            listed = ", ".join(f"{html.escape(word)} ({weight:+.2f})" for word, weight in words)
            parts.append(f"<p>{sign}: {listed}</p>")
        for band, examples in self.examples.items():
            lines = "".join(f"<div>{self._marked(example)}</div>" for example in examples)
            parts.append(f"<p style='margin-bottom:2px'><i>{band}</i></p><div style='line-height:1.7'>{lines}</div>")
        return "".join(parts)

    def _marked(self, example: Example) -> str:
        top = max(self.largest, 1e-6)
        return " ".join(
            f"<span title='{value:.2f}' style='background:rgba({HIGHLIGHT},{0.75 * value / top:.2f});"
            f"border-radius:3px'>{html.escape(word)}</span>"
            for word, value in zip(example.words, example.activations, strict=True)
        )

    def __repr__(self) -> str:
        return "\n".join([self.title, f"raises: {_listed(self.promoted)}", *map(str, self.examples["strongest"])])


def _listed(words: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{word} ({weight:+.2f})" for word, weight in words)
