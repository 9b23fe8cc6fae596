"""Edge methods and ACDC against their definitions, on models that hypothesis draws, and shrinks where they differ."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plain_edges import random_metric, random_model, random_prompts, run_edge_by_edge
from test_acdc import assert_same_run
from test_eap import attribution_edge_by_edge

from utils.circuits import Circuit, Graph, acdc, acdc_sequential, eap, eap_ig
from utils.circuits.patching import EdgePatcher

FEW = settings(max_examples=12, deadline=None, derandomize=True)


@st.composite
def models(draw):
    """Small decoders with and without layer norm and MLPs, with windows, with one head, with odd sizes."""
    return random_model(
        seed=draw(st.integers(0, 10**6)),
        windows=tuple(draw(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=1, max_size=3))),
        n_heads=draw(st.integers(1, 3)),
        d_head=draw(st.integers(2, 5)),
        d_model=draw(st.integers(5, 11)),
        d_mlp=draw(st.sampled_from([None, 1, 7])),
        norm=draw(st.sampled_from(["weights", "folded", None])),
        dtype=torch.float64,
    )


@FEW
@given(models(), st.integers(0, 10**6))
def test_any_set_of_edges_is_patched_as_if_each_were_computed_alone(model, seed):
    clean, corrupted, end = random_prompts(seed=seed)
    patcher, graph = EdgePatcher(model, clean, corrupted, end), Graph.of(model)
    rng = torch.Generator().manual_seed(seed)
    cut = Circuit(graph, frozenset(edge for edge in graph.edges if torch.rand((), generator=rng) > 0.4))
    _, after = run_edge_by_edge(model, model.embed(corrupted), end)

    def carry(edge, x):
        return after[edge.source] if edge in cut.edges else x

    expected, _ = run_edge_by_edge(model, model.embed(clean), end, carry)
    torch.testing.assert_close(patcher.logits(cut), expected, atol=1e-6, rtol=1e-6)


@FEW
@given(models(), st.integers(0, 10**6))
def test_edge_attribution_is_the_gradient_at_every_edge_times_its_change(model, seed):
    clean, corrupted, end = random_prompts(seed=seed)
    metric = random_metric(seed)
    for scores, shares in ((eap, (1.0,)), (eap_ig, (0.2, 0.4, 0.6, 0.8, 1.0))):
        expected = attribution_edge_by_edge(model, clean, corrupted, end, metric, shares)
        torch.testing.assert_close(
            scores(model, clean, corrupted, metric, end), expected.to(torch.float64), atol=1e-4, rtol=1e-4
        )


@FEW
@given(models(), st.integers(0, 10**6), st.sampled_from([1e-4, 3e-3, 0.1]))
def test_acdc_takes_the_decisions_of_the_published_algorithm(model, seed, threshold):
    clean, corrupted, end = random_prompts(seed=seed)
    assume(Graph.of(model).n_edges < 200)
    runs = [find(model, clean, corrupted, threshold, end, progress=False) for find in (acdc, acdc_sequential)]
    assert_same_run(*runs)
