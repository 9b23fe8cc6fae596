"""The Activation Explorer without a browser: set what a learner would set, read what they would see."""

import re

import pytest
import torch

from utils import load_model, neurons
from utils.example_views import coloured_text, example_map
from utils.explorer import Explorer
from utils.models import story_batch

PROMPT = "when Mary went to the store , she bought a book ."


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def corpus():
    return story_batch(12, seed=3).tokens


@pytest.fixture
def explorer(model, corpus):
    return Explorer(model, corpus, PROMPT, layer=1, head=2, neuron=30)


def plotted(explorer):
    (output,) = explorer.pattern.outputs
    return output["data"]["application/vnd.plotly.v1+json"]


def words_in(html):
    return re.findall(r"<span[^>]*>([^<]*)</span>", html)


def test_shows_the_pattern_the_activations_and_the_examples(explorer, model):
    assert explorer.message.value == ""
    assert plotted(explorer)["layout"]["title"]["text"] == "Where head 1.2 looks"
    assert words_in(explorer.text.value) == model.to_str_tokens(PROMPT)
    assert explorer.examples.value.count("<li>") == 10
    assert "neuron 1.30" in explorer.examples.value


def test_the_pattern_is_the_chosen_heads(explorer, model, monkeypatch):
    shown = []
    monkeypatch.setattr("utils.explorer.attention_pattern", lambda pattern, *_: shown.append(pattern) or 1 / 0)
    explorer.layer.value, explorer.head.value = 3, 1
    _, cache = model.run_with_cache(PROMPT)
    assert torch.allclose(shown[-1], cache["pattern", 3][0, 1], atol=1e-6)
    assert "ZeroDivisionError" in explorer.message.value, "what goes wrong is said, and nothing crashes"


def test_a_new_prompt_is_shown(explorer):
    explorer.prompt.value = "the capital of France is"
    assert words_in(explorer.text.value) == ["[BOS]", "the", "capital", "of", "France", "is"]


def test_values_and_examples_follow_the_neuron(explorer, model, corpus):
    explorer.layer.value, explorer.neuron.value = 4, 200
    values = neurons.corpus_activations(model, corpus, 4)[..., 200]
    largest = [f"{values[place]:.2f}" for place in neurons.top_examples(values, 10)]
    assert re.findall(r"<li>(\S+) ", explorer.examples.value) == largest


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("the capital of Gondor is", "Gondor"),
        ("   ", "Type a sentence"),
        ("book " * 80, "64 tokens at most, and this text has 81"),
        ("<script>", "&lt;"),
    ],
)
def test_a_prompt_that_cannot_be_read_gets_a_sentence(explorer, typed, said):
    explorer.prompt.value = typed
    assert said in explorer.message.value
    assert "<script>" not in explorer.message.value
    assert explorer.pattern.outputs == ()
    assert explorer.examples.value.count("<li>") == 10, "the examples need no prompt"
    explorer.prompt.value = PROMPT
    assert explorer.message.value == ""
    assert explorer.pattern.outputs != ()


def test_numbers_out_of_range_go_to_the_nearest_that_exists(explorer):
    explorer.layer.value, explorer.head.value, explorer.neuron.value = 99, 99, 9999
    assert (explorer.layer.value, explorer.head.value, explorer.neuron.value) == (4, 3, 255)
    explorer.layer.value = -3
    assert explorer.layer.value == 0


def test_uses_the_functions_that_it_is_given(model, corpus):
    explorer = Explorer(model, corpus, PROMPT, top_examples=lambda values, k: [(2, 5)])
    assert explorer.examples.value.count("<li>") == 1


def broken(*_):
    raise ValueError("no idea")


def not_written(*_):
    raise NotImplementedError


@pytest.mark.parametrize(
    "name", ["coloured_text", "top_examples", "context_window", "logit_weights", "corpus_activations"]
)
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (not_written, "is not written yet"),
        (broken, "raised ValueError: no idea"),
        (lambda *_: None, "returned None"),
    ],
)
def test_a_part_that_fails_is_named_and_the_rest_is_shown(model, corpus, name, function, said):
    explorer = Explorer(model, corpus, PROMPT, **{name: function})
    assert said in explorer.message.value
    assert explorer.pattern.outputs != (), "the head needs none of these functions"


@pytest.mark.parametrize("name", ["coloured_text", "top_examples", "context_window", "corpus_activations"])
def test_a_result_of_the_wrong_kind_gets_a_sentence(model, corpus, name):
    explorer = Explorer(model, corpus, PROMPT, **{name: lambda *_: 3.5})
    assert "could not be shown" in explorer.message.value or "coloured_text returned a float" in explorer.message.value
    assert explorer.pattern.outputs != ()


def test_a_neuron_that_never_fires_is_shown_without_colour(model, corpus):
    silent = lambda model, tokens, layer: torch.full((*tokens.shape, model.cfg.d_mlp), -0.0)  # noqa: E731
    explorer = Explorer(model, corpus, PROMPT, corpus_activations=silent)
    assert explorer.message.value == ""
    assert {*re.findall(r"rgba\([^)]*, ([^)]*)\)", explorer.text.value)} == {"0.000"}


def test_a_part_that_does_not_exist_is_refused(model, corpus):
    with pytest.raises(TypeError, match=r"no part called 'colored_text'.*coloured_text"):
        Explorer(model, corpus, PROMPT, colored_text=coloured_text)


def test_each_layer_of_the_corpus_is_run_once(model, corpus):
    runs = []

    def counting(model, tokens, layer):
        runs.append((len(tokens), layer))
        return neurons.corpus_activations(model, tokens, layer)

    explorer = Explorer(model, corpus, PROMPT, corpus_activations=counting)
    for neuron in (3, 4, 5):
        explorer.neuron.value = neuron
    assert runs.count((len(corpus), 0)) == 1


def test_a_page_without_a_kernel_has_text_and_one_with_it_has_widgets(explorer, monkeypatch):
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype+png")
    still = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" not in still
    assert "Top examples of neuron 1.30" in still["text/html"]


def test_coloured_text_tells_sign_and_size_and_escapes():
    text = coloured_text(["<b>", "x", "y"], torch.tensor([2.0, -1.0, 0.0]))
    assert words_in(text) == ["&lt;b&gt;", "x", "y"]
    assert re.findall(r"rgba\(([^)]*)\)", text) == ["224, 123, 57, 0.750", "59, 125, 216, 0.375", "59, 125, 216, 0.000"]
    assert "0.375" in coloured_text(["x"], torch.tensor([2.0]), limit=4.0)
    assert "0.750" in coloured_text(["x"], torch.tensor([9.0]), limit=4.0)


def test_coloured_text_survives_zeros_and_refuses_a_mismatch():
    assert "0.000" in coloured_text(["x"], torch.zeros(1))
    assert coloured_text([], torch.zeros(0)) == ""
    with pytest.raises(ValueError, match="one value for each of 2 words, got 3"):
        coloured_text(["a", "b"], torch.zeros(3))


def test_example_map_puts_the_chosen_words_in_one_column():
    texts, values = [["a", "b", "c"], ["d", "e"]], torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    (trace,) = example_map(texts, values, [(0, 1), (1, 0)], "title", limit=8.0, before=1, after=1).data
    assert [list(row) for row in trace.text] == [["a", "b", "c"], ["", "d", "e"]]
    assert [list(row) for row in trace.z] == [[1, 2, 3], [None, 4, 5]]
    assert (trace.zmin, trace.zmax) == (0, 8)
