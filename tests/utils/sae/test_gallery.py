"""Galleries and dashboards against the latents themselves."""

import pytest
import torch

from utils import load_model
from utils.models import story_batch
from utils.sae import Dashboard, Gallery, Site, TopK, collect_activations


@pytest.fixture(scope="module")
def gallery():
    model = load_model("tiny-lm")
    dictionary = TopK(model.cfg.d_model, 60, k=3).eval().requires_grad_(False)
    dictionary.site = Site.residual(1)
    return Gallery(model, dictionary, story_batch(40, 5).tokens)


@pytest.fixture(scope="module")
def latents(gallery):
    """Every latent on the whole text, [batch, position, latent]; zero at the first position."""
    x = collect_activations(gallery.model, gallery.tokens, [gallery.site.reads])[gallery.site.reads]
    batch, positions = gallery.tokens.shape
    encoded = gallery.dictionary.encode(x).view(batch, positions - 1, -1)
    return torch.cat([torch.zeros(batch, 1, encoded.shape[-1]), encoded], 1)


def busiest(latents):
    return int((latents > 0).sum((0, 1)).argmax())


def test_it_holds_every_firing_of_every_latent(gallery, latents):
    torch.testing.assert_close(torch.stack([gallery.activations(f) for f in range(60)], -1), latents)
    torch.testing.assert_close(gallery.frequency, (latents[:, 1:] > 0).float().mean((0, 1)))
    torch.testing.assert_close(gallery.largest, latents.amax((0, 1)))


def test_the_first_example_is_the_strongest_and_rows_do_not_repeat(gallery, latents):
    feature = busiest(latents)
    examples = gallery.examples(feature, 8, around=(3, 2))
    first = examples[0]
    assert latents[first.row, first.position, feature] == latents[..., feature].max()
    assert max(first.activations) == pytest.approx(latents[..., feature].max().item())
    assert len({example.row for example in examples}) == len(examples)
    peaks = [latents[example.row, example.position, feature].item() for example in examples]
    assert peaks == sorted(peaks, reverse=True)
    words = gallery.model.to_str_tokens(gallery.tokens[first.row], prepend_bos=False)
    assert list(first.words) == words[max(0, first.position - 3) : first.position + 3]


def test_lower_quantiles_give_weaker_examples(gallery, latents):
    feature = busiest(latents)
    strong, weak = (gallery.examples(feature, 5, quantile=quantile) for quantile in (1.0, 0.1))
    assert max(weak[0].activations) < max(strong[-1].activations)


def test_logit_weights_are_the_direct_path_to_the_vocabulary(gallery):
    weights = gallery.logit_weights(7)
    expected = gallery.dictionary.W_dec[7] @ gallery.model.W_U
    torch.testing.assert_close(weights, expected - expected.mean())
    word, value = gallery.promoted(7)[0]
    assert value == pytest.approx(weights.max().item())
    assert gallery.model.to_single_token(word) == weights.argmax()
    assert gallery.promoted(7, -3)[0][1] == pytest.approx(weights.min().item())


def test_the_latents_of_a_word_are_found(gallery, latents):
    word = gallery.model.to_str_tokens(gallery.tokens[0, 5:6], prepend_bos=False)[0]
    on_word = gallery.tokens == gallery.tokens[0, 5]
    share = (latents * on_word[..., None]).sum((0, 1)) / latents.sum((0, 1)).clamp(min=1e-9)
    found = gallery.fires_most([word], 3)
    assert [value for _, value in found] == pytest.approx(share.topk(3).values.tolist())
    with pytest.raises(ValueError, match="has latents 0 to 59, not 60"):
        gallery.activations(60)


def test_a_dashboard_shows_numbers_examples_and_words(gallery, latents):
    feature = busiest(latents)
    dashboard = Dashboard(gallery, feature, examples=2)
    assert len(dashboard.values) == (latents[..., feature] > 0).sum()
    figure = dashboard.figure()
    assert sum(figure.data[0].y) == len(dashboard.values)
    page = dashboard._repr_html_()
    assert dashboard.title in page.replace("&#x27;", "'")
    assert page.count("<div>") >= 4
    assert str(dashboard).startswith(f"Latent {feature} fires on")
