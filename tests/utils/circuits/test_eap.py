"""EAP and EAP-IG against gradients that autograd takes at every edge, and against exact effects."""

import pytest
import torch
from plain_edges import SHAPES, random_metric, random_model, random_prompts, run_edge_by_edge

from utils import load_model
from utils.circuits import Circuit, Graph, eap, eap_ig, edge_effects, recorded_circuit
from utils.metrics import kl_divergence, logit_difference
from utils.models import ioi_prompts
from utils.models.ioi_world.prompts import textbook_ioi_prompts

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def attribution_edge_by_edge(model, clean, corrupted, end, metric, shares=(1.0,)):
    """The definition: what every edge carries is a leaf of its own, whose gradient meets its change."""
    graph = Graph.of(model)
    embedded, other = model.embed(clean), model.embed(corrupted)
    _, before = run_edge_by_edge(model, embedded, end)
    _, after = run_edge_by_edge(model, other, end)
    scores = torch.zeros(*graph.exists.shape, len(clean))
    for share in shares:
        shift = {edge: torch.zeros_like(embedded, requires_grad=True) for edge in graph.edges}
        start = share * embedded + (1 - share) * other
        logits, _ = run_edge_by_edge(model, start, end, lambda edge, x, shift=shift: x + shift[edge])
        gradients = torch.autograd.grad(metric(logits).sum(), list(shift.values()), allow_unused=True)
        for edge, gradient in zip(shift, gradients, strict=True):
            if gradient is not None:
                change = after[edge.source] - before[edge.source]
                scores[graph.place(edge)] += (change * gradient).sum((-1, -2)) / len(shares)
    return scores


@pytest.mark.parametrize("shape", SHAPES)
def test_eap_is_the_gradient_at_every_edge_times_its_change(shape):
    model = random_model(**SHAPES[shape])
    clean, corrupted, end = random_prompts(seed=4)
    expected = attribution_edge_by_edge(model, clean, corrupted, end, random_metric())
    torch.testing.assert_close(eap(model, clean, corrupted, random_metric(), end), expected, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_eap_ig_averages_the_gradient_on_the_way_to_the_clean_embeddings(shape):
    model = random_model(**SHAPES[shape])
    clean, corrupted, end = random_prompts(seed=5)
    expected = attribution_edge_by_edge(model, clean, corrupted, end, random_metric(), (1 / 3, 2 / 3, 1.0))
    torch.testing.assert_close(eap_ig(model, clean, corrupted, random_metric(), end, steps=3), expected, **CLOSE)


def test_one_step_of_eap_ig_is_eap():
    model = random_model()
    clean, corrupted, end = random_prompts()
    one = eap_ig(model, clean, corrupted, random_metric(), end, steps=1)
    torch.testing.assert_close(one, eap(model, clean, corrupted, random_metric(), end))


def test_scores_approach_exact_effects_as_the_corruption_shrinks():
    """A first-order approximation is off by the square of the change: ten times smaller, a hundred times closer."""
    model = random_model(seed=1, dtype=torch.float64, vocab=34)
    clean, _, end = random_prompts()
    corrupted = clean + 17  # a second copy of the vocabulary, embedded nearby
    errors = []
    for size in (1e-2, 1e-3):
        model.W_E[17:] = model.W_E[:17] + size * model.W_E[:17].flip(0)
        exact = edge_effects(model, clean, corrupted, random_metric(), end, progress=False)
        errors.append((eap(model, clean, corrupted, random_metric(), end) - exact).abs().max())
    assert errors[1] < errors[0] / 50


def test_it_works_on_a_shipped_model_with_local_attention_and_a_metric_of_the_whole_distribution():
    model = load_model("tiny-lm")
    prompts = ioi_prompts(4, template=None)
    clean = model.to_tokens(prompts.texts)
    corrupted = clean.flip(0)
    logits = model(clean)[:, -1]
    found = eap(model, clean, corrupted, lambda given: kl_divergence(given, logits))
    assert found.shape == (*Graph.of(model).exists.shape, 4)
    assert found.abs().max() < 1e-3  # where the run is clean, KL from the clean run is at its minimum
    integrated = eap_ig(model, clean, corrupted, lambda given: kl_divergence(given, logits))
    assert integrated.abs().max() > 0.1


@pytest.mark.parametrize("name", ["textbook-ioi", "textbook-ioi-emergent"])
def test_eap_ig_ranks_the_known_circuit_of_textbook_ioi_first_and_eap_does_not(name):
    """Its heads look at one word with all of their attention: there the gradient of the clean run is nearly zero."""
    model = load_model(name)
    clean, corrupted = (textbook_ioi_prompts(40, corruption=corruption) for corruption in (None, "swap"))
    known = recorded_circuit(name, Graph.of(model))

    def difference(logits):
        return logit_difference(logits, clean.answer_ids, clean.wrong_ids)

    def first(method):
        scores = method(model, clean.tokens, corrupted.tokens, difference, clean.positions["END"])
        return Circuit.top(known.graph, scores.mean(-1), len(known))

    assert first(eap_ig) == known
    assert len(first(eap) & known) < len(known)


def test_several_metrics_share_one_run():
    model = random_model()
    clean, corrupted, end = random_prompts()
    metrics = {"a": random_metric(1), "b": random_metric(2)}
    for found in (eap(model, clean, corrupted, metrics, end), eap_ig(model, clean, corrupted, metrics, end, steps=1)):
        for name, metric in metrics.items():
            torch.testing.assert_close(found[name], eap(model, clean, corrupted, metric, end))


def test_gradients_may_be_switched_off_around_it():
    model = random_model()
    clean, corrupted, end = random_prompts()
    with torch.no_grad():
        found = eap(model, clean, corrupted, random_metric(), end)
    assert found.abs().max() > 0
    assert not found.requires_grad


def test_bad_input_is_refused_with_what_was_expected():
    model = random_model()
    clean, corrupted, end = random_prompts()
    with pytest.raises(ValueError, match="at least 1"):
        eap_ig(model, clean, corrupted, random_metric(), end, steps=0)
    with pytest.raises(ValueError, match="same length"):
        eap(model, clean, corrupted[:2], random_metric(), end)
    with pytest.raises(ValueError, match="one number for each"):
        eap(model, clean, corrupted, lambda logits: logits.sum(), end)
