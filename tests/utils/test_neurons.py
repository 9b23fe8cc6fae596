"""What excites a neuron: places in a corpus, their contexts, the words that a neuron raises, and labels."""

import pytest
import torch

from utils import load_model, neurons
from utils.models import story_batch


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def corpus():
    return story_batch(7, seed=3).tokens


def all_places(activations):
    """Every place but [BOS] with its activation, largest first."""
    texts, seq = activations.shape
    places = [(float(activations[t, p]), (t, p)) for t in range(texts) for p in range(1, seq)]
    return [place for _, place in sorted(places, reverse=True)]


def test_activations_in_batches_are_those_of_one_run(model, corpus):
    _, cache = model.run_with_cache(corpus)
    for layer in (0, model.cfg.n_layers - 1):
        in_batches = neurons.corpus_activations(model, corpus, layer, batch=3)
        assert torch.allclose(in_batches, cache["post", layer], atol=1e-5)


def test_a_layer_that_does_not_exist_is_named(model, corpus):
    with pytest.raises(ValueError, match="no layer 5: this model has layers 0 to 4"):
        neurons.corpus_activations(model, corpus, 5)


def test_a_model_without_neurons_is_refused(corpus):
    with pytest.raises(ValueError, match="no neurons"):
        neurons.corpus_activations(load_model("induction-2l"), corpus, 0)


@pytest.mark.parametrize("shape", [(6, 5), (4, 9)])
def test_top_examples_are_the_best_place_of_each_text(shape):
    activations = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    activations[:, 0] = 9.0
    expected = list({text: (text, position) for text, position in reversed(all_places(activations))}.values())
    expected = sorted(expected, key=lambda place: -float(activations[place]))
    assert neurons.top_examples(activations, 3) == expected[:3]
    assert neurons.top_examples(activations, 99) == expected


def test_random_examples_keep_to_the_band_and_to_one_a_text():
    activations = torch.rand(40, 9, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        places = neurons.random_examples(activations, 0.3, 0.6, 12, seed)
        assert len(places) == len({text for text, _ in places}) == 12
        assert all(position > 0 and 0.3 <= activations[text, position] < 0.6 for text, position in places)
    assert places == neurons.random_examples(activations, 0.3, 0.6, 12, seed)


def test_random_examples_reach_every_place_equally_often():
    activations = torch.ones(2, 5)
    drawn = [neurons.random_examples(activations, 0.5, 2, 1, seed)[0] for seed in range(800)]
    counts = [drawn.count((text, position)) for text in range(2) for position in range(1, 5)]
    assert sum(counts) == 800
    assert all(60 < count < 140 for count in counts), counts  # 100 expected, deviation 9.4


def test_no_examples_in_an_empty_band():
    assert neurons.random_examples(torch.zeros(3, 4), 0.5, 1.0, 5) == []


def test_a_window_is_cut_at_the_ends_of_its_text():
    words = ["a", "b", "c", "d", "e"]
    assert neurons.context_window(words, 2, 1) == (["b", "c", "d"], 1)
    assert neurons.context_window(words, 0, 2) == (["a", "b", "c"], 0)
    assert neurons.context_window(words, 4, 9) == (words, 4)
    with pytest.raises(IndexError, match="5 words has no position 5"):
        neurons.context_window(words, 5, 1)


def test_logit_weights_are_what_a_unit_of_activation_adds(model):
    """Without the layer norm's division, adding a neuron's output to a stream moves the centred logits by them."""
    stream = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0)).double()
    W_U, w_out = model.W_U.double(), model.W_out[1][7].double()

    def logits(vector):
        read = (vector - vector.mean()) @ W_U
        return read - read.mean()

    expected = logits(stream + w_out) - logits(stream)
    assert torch.allclose(neurons.logit_weights(w_out, W_U), expected, atol=1e-6)
    assert torch.allclose(neurons.logit_weights(model.W_out[1][5:9], model.W_U)[2].double(), expected, atol=1e-4)


def test_the_best_label_fits_and_is_the_rarest_that_does():
    holds = torch.zeros(10, 4, dtype=torch.bool)
    holds[:, 0] = True
    holds[1:, 1] = True
    holds[2:, 2] = True
    base = torch.tensor([0.8, 0.3, 0.01, 0.001])
    assert neurons.best_label(holds, base) == 1
    assert neurons.best_label(holds, base, at_least=0.8) == 2
    assert neurons.best_label(holds[:, 3:], base[3:]) is None
