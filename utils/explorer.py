"""The Activation Explorer: a dashboard that shows what a head looks at and what a neuron responds to.

It is built of small functions, which notebook 1.3 writes one by one: :class:`Explorer` takes a learner's own in place
of those of :mod:`utils.neurons` and :mod:`utils.example_views`. Whatever is typed or passed, it shows a sentence where
something cannot be shown.
"""

import html
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils import neurons
from utils.example_views import coloured_text
from utils.models.tokenizer import check_words
from utils.plots import attention_pattern

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EXAMPLES, WIDTH, WORDS = 10, 8, 8


class CannotShow(Exception):
    """Something that cannot be shown; the message says why, to a learner."""


class Explorer:
    """The dashboard. Its widgets are attributes: set ``prompt.value``, ``layer.value``, ``head.value``,
    ``neuron.value`` and read ``message.value``, ``pattern.outputs``, ``text.value``, ``examples.value``."""

    def __init__(
        self,
        model: "TransformerBridge",
        corpus: Int[Tensor, "text seq"],
        prompt: str,
        layer: int = 0,
        head: int = 0,
        neuron: int = 0,
        **functions: Callable,
    ):
        """
        Args:
            model: A model with MLPs, of one of the formats that ``load_model`` opens.
            corpus: Token ids in which examples are looked for.
            prompt: The text to begin with.
            layer: The layer to begin with.
            head: The head to begin with.
            neuron: The neuron to begin with.
            functions: Replacements, by name, for ``corpus_activations``, ``top_examples``, ``context_window``,
                ``logit_weights`` of ``utils.neurons`` and for ``coloured_text`` of ``utils.example_views``.

        Raises:
            TypeError: if a function is given under a name that the dashboard does not use.
        """
        names = ("corpus_activations", "top_examples", "context_window", "logit_weights")
        self.functions = {name: getattr(neurons, name) for name in names} | {"coloured_text": coloured_text}
        if unused := set(functions) - set(self.functions):
            raise TypeError(
                f"The dashboard has no part called {sorted(unused)[0]!r}: its parts are {[*self.functions]}."
            )
        self.functions |= functions
        self.model, self.corpus = model, corpus
        self._activations: dict[int, Tensor] = {}

        cfg = model.cfg
        wide, low = widgets.Layout(width="95%"), widgets.Layout(width="190px")
        self.prompt = widgets.Text(value=prompt, description="prompt", continuous_update=False, layout=wide)
        self.layer = widgets.BoundedIntText(value=layer, max=cfg.n_layers - 1, description="layer", layout=low)
        self.head = widgets.BoundedIntText(value=head, max=cfg.n_heads - 1, description="head", layout=low)
        self.neuron = widgets.BoundedIntText(value=neuron, max=cfg.d_mlp - 1, description="neuron", layout=low)
        self.message, self.text, self.examples = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.pattern = widgets.Output()
        for control in (self.prompt, self.layer, self.head, self.neuron):
            control.observe(self._update, names="value")
        choices = widgets.HBox([self.layer, self.head, self.neuron])
        shown = [self.prompt, choices, self.message, self.pattern, self.text, self.examples]
        self.widget = widgets.VBox(shown)
        self._update()

    def _update(self, _change: object = None) -> None:
        """Show what the controls say; what cannot be shown is said in the message, and the rest is shown."""
        troubles: list[str] = []

        def shown(part: Callable[[], Any], instead: Any) -> Any:
            try:
                return part()
            except CannotShow as trouble:
                troubles.append(str(trouble))
            except Exception as problem:  # what a learner's function returned may be anything, too
                troubles.append(f"A result could not be shown. {type(problem).__name__}: {problem}")
            return instead

        self.pattern.outputs = shown(self._head_shown, ())
        self.text.value = shown(self._neuron_shown, "")
        self.examples.value = shown(self._examples_shown, "")
        self.message.value = "".join(f"<p>{html.escape(trouble)}</p>" for trouble in dict.fromkeys(troubles))

    def _tokens(self) -> Int[Tensor, "one seq"]:
        """The prompt's tokens, if the model can read it."""
        text = self.prompt.value.strip()
        if not text:
            raise CannotShow("Type a sentence into the field above.")
        try:
            check_words(self.model.tokenizer, text)
        except ValueError as unknown:
            raise CannotShow(str(unknown)) from None
        tokens, most = self.model.to_tokens(text, truncate=False), self.model.cfg.n_ctx
        if tokens.shape[1] > most:
            raise CannotShow(f"The model reads {most} tokens at most, and this text has {tokens.shape[1]}. Shorten it.")
        return tokens

    def _call(self, name: str, *args: Any) -> Any:
        """The result of one of the functions that the dashboard is built of."""
        try:
            result = self.functions[name](*args)
        except NotImplementedError:
            raise CannotShow(
                f"{name} is not written yet. Write it in its exercise, then run this cell again."
            ) from None
        except Exception as problem:  # a learner's function may raise anything, and the dashboard must go on
            raise CannotShow(f"{name} raised {type(problem).__name__}: {problem}") from None
        if result is None:
            raise CannotShow(f"{name} returned None. Is a `return` missing?")
        return result

    def _head_shown(self) -> tuple[dict[str, Any]]:
        tokens, layer, head = self._tokens(), self.layer.value, self.head.value
        name = f"blocks.{layer}.attn.hook_pattern"
        _, cache = self.model.run_with_cache(tokens, names_filter=name)
        words = self.model.to_str_tokens(tokens)
        figure = attention_pattern(cache[name][0, head], words, f"Where head {layer}.{head} looks")
        return (as_output(figure),)

    def _neuron_shown(self) -> str:
        tokens, layer, neuron = self._tokens(), self.layer.value, self.neuron.value
        values = self._call("corpus_activations", self.model, tokens, layer)[0, :, neuron]
        words = self.model.to_str_tokens(tokens)
        return f"<b>Neuron {layer}.{neuron} on the prompt</b><br>{self._coloured(words, values)}"

    def _examples_shown(self) -> str:
        layer, neuron = self.layer.value, self.neuron.value
        values = self._on_corpus()
        lines = []
        for text, position in self._call("top_examples", values, EXAMPLES):
            words = self.model.to_str_tokens(self.corpus[text])
            window, index = self._call("context_window", words, position, WIDTH)
            start = position - index
            coloured = self._coloured(window, values[text, start : start + len(window)])
            lines.append(f"<li>{float(values[text, position]):.2f} &nbsp; {coloured}</li>")
        raised = self._call("logit_weights", self.model.W_out[layer][neuron], self.model.W_U)
        return (
            f"<b>Top examples of neuron {layer}.{neuron} in {len(self.corpus)} texts</b><ol>{''.join(lines)}</ol>"
            f"<b>Raises</b> {self._named(raised)}<br><b>Lowers</b> {self._named(-raised)}"
        )

    def _on_corpus(self) -> Float[Tensor, "text seq"]:
        """The chosen neuron's activations on the corpus; a layer is run once."""
        layer = self.layer.value
        if layer not in self._activations:
            self._activations[layer] = self._call("corpus_activations", self.model, self.corpus, layer)
        return self._activations[layer][..., self.neuron.value]

    def _coloured(self, words: list[str], values: Float[Tensor, "word"]) -> str:
        """Words as HTML; the colour is strongest at the neuron's largest activation in the corpus."""
        text = self._call("coloured_text", words, values, self._on_corpus()[:, 1:].abs().max().item())
        if not isinstance(text, str):
            raise CannotShow(f"coloured_text returned a {type(text).__name__}; a string of HTML was expected.")
        return text

    def _named(self, raised: Float[Tensor, "vocab"]) -> str:
        ids = torch.as_tensor(raised).topk(WORDS).indices.tolist()
        return ", ".join(html.escape(self.model.tokenizer.decode([i])) for i in ids)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """The widgets; for a page that no kernel serves, as on GitHub, its texts."""
        still = {
            "text/plain": "Activation Explorer: run this cell in JupyterLab or Colab to use it.",
            "text/html": f"<div>{self.message.value}{self.text.value}<br>{self.examples.value}</div>",
        }
        if "png" in os.environ.get("PLOTLY_RENDERER", ""):  # pictures are stored beside figures: nobody will click
            return still
        return still | self.widget._repr_mimebundle_()


def as_output(figure: go.Figure) -> dict[str, Any]:
    """A figure as the output of a cell: for JupyterLab, and as HTML for Colab."""
    data = {
        "application/vnd.plotly.v1+json": json.loads(figure.to_json()),
        "text/html": figure.to_html(include_plotlyjs="cdn", full_html=False),
    }
    return {"output_type": "display_data", "data": data, "metadata": {}}
