"""ACDC: the fast version against the published algorithm, and both against circuits that are known."""

import pytest
import torch
from plain_edges import SHAPES, random_metric, random_model, random_prompts

from utils import load_model
from utils.circuits import Circuit, Graph, acdc, acdc_sequential, recorded_circuit, shuffled_order
from utils.circuits.discovery import reverse_order
from utils.circuits.graph import node_of
from utils.circuits.patching import EdgePatcher
from utils.metrics import kl_divergence
from utils.models.ioi_world.prompts import textbook_ioi_prompts

QUIET = {"progress": False}


def assert_same_run(fast, plain):
    assert [(d.edge, d.removed) for d in fast.decisions] == [(d.edge, d.removed) for d in plain.decisions]
    changes = (torch.tensor([d.change for d in run.decisions]) for run in (fast, plain))
    torch.testing.assert_close(*changes, atol=1e-4, rtol=1e-4)
    assert fast.loss == pytest.approx(plain.loss, abs=1e-4)
    assert fast.circuit == plain.circuit


@pytest.mark.parametrize("share", [0.02, 0.2])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_version_takes_the_decisions_of_the_published_algorithm(shape, share):
    model = random_model(**SHAPES[shape], dtype=torch.float64)
    clean, corrupted, end = random_prompts(seed=6)
    patcher = EdgePatcher(model, clean, corrupted, end)
    logits = [patcher.logits(circuit) for circuit in (Circuit.full(patcher.graph), Circuit(patcher.graph))]
    threshold = share * kl_divergence(*logits).mean().item()
    fast, plain = (find(model, clean, corrupted, threshold, end, **QUIET) for find in (acdc, acdc_sequential))
    assert 0 < len(fast.circuit) < fast.graph.n_edges
    assert_same_run(fast, plain)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_edges_gives_the_same_decisions_in_both(seed):
    model = random_model(seed=seed, windows=(None, 3, None))
    clean, corrupted, end = random_prompts(seed=seed)
    graph = Graph.of(model)
    anything = [graph.edges[i] for i in torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(seed))]
    for order in (shuffled_order(graph, seed), anything[:60]):
        runs = [find(model, clean, corrupted, 0.02, end, order=order, **QUIET) for find in (acdc, acdc_sequential)]
        assert_same_run(*runs)


def test_any_loss_and_any_memory_give_the_same_decisions():
    model = random_model(seed=3)
    clean, corrupted, end = random_prompts(seed=3)
    lost = lambda logits: -random_metric()(logits)  # noqa: E731
    plain = acdc_sequential(model, clean, corrupted, 0.02, end, loss=lost, **QUIET)
    assert_same_run(acdc(model, clean, corrupted, 0.02, end, loss=lost, **QUIET), plain)
    assert_same_run(acdc(model, clean, corrupted, 0.02, end, loss=lost, max_bytes=1, **QUIET), plain)


def test_it_works_on_a_shipped_model_with_local_attention():
    model, (clean, corrupted, _) = load_model("tiny-lm"), random_prompts(prompts=2, seq=7, vocab=600)
    order = reverse_order(Graph.of(model))[:60]
    runs = [find(model, clean, corrupted, 0.003, order=order, **QUIET) for find in (acdc, acdc_sequential)]
    assert_same_run(*runs)


def test_the_reported_loss_is_that_of_the_circuit():
    model = random_model(seed=1)
    clean, corrupted, end = random_prompts(seed=1)
    run = acdc(model, clean, corrupted, 0.05, end, **QUIET)
    patcher = EdgePatcher(model, clean, corrupted, end)
    reference = patcher.logits(Circuit(run.graph))
    loss = patcher.measure(run.circuit.complement(), lambda logits: kl_divergence(logits, reference)).mean()
    assert run.loss == pytest.approx(loss.item(), abs=1e-4)
    assert run.circuit.pruned() <= run.circuit


def test_orders_hold_every_edge_once_and_go_down_from_the_logits():
    graph = Graph(3, 2)
    step = {"logits": 0} | {f"m{layer}": 5 - 2 * layer for layer in range(3)}
    step |= {f"a{layer}.h{head}": 6 - 2 * layer for layer in range(3) for head in range(2)}
    for order in (reverse_order(graph), shuffled_order(graph, 0), shuffled_order(graph, 1)):
        assert len(order) == graph.n_edges
        assert set(order) == set(graph.edges)
        steps = [step[node_of(edge.destination)] for edge in order]
        assert steps == sorted(steps)
    assert shuffled_order(graph, 0) == shuffled_order(graph, 0) != shuffled_order(graph, 1)


def test_an_interrupted_run_keeps_its_decisions():
    model = random_model()
    clean, corrupted, end = random_prompts()
    whole = acdc(model, clean, corrupted, 0.02, end, **QUIET)
    reference = EdgePatcher(model, clean, corrupted, end).logits(Circuit(whole.graph))
    for find in (acdc, acdc_sequential):
        calls = []

        def interrupted(logits, calls=calls):
            calls.append(1)
            if len(calls) > 15:
                raise KeyboardInterrupt
            return kl_divergence(logits, reference)

        with pytest.warns(UserWarning, match="Interrupted"):
            part = find(model, clean, corrupted, 0.02, end, loss=interrupted, **QUIET)
        assert not part.complete
        assert "interrupted after" in str(part)
        assert 0 < len(part.decisions) < len(whole.decisions)
        assert [d.removed for d in part.decisions] == [d.removed for d in whole.decisions[: len(part.decisions)]]
        assert whole.circuit <= part.circuit
    assert whole.complete
    assert str(whole).startswith(f"ACDC at threshold 0.02: {len(whole.circuit)} of ")


def test_it_finds_edges_of_the_circuit_that_textbook_ioi_is_known_to_have():
    model = load_model("textbook-ioi")
    clean, corrupted = (textbook_ioi_prompts(20, corruption=corruption) for corruption in (None, "swap"))
    run = acdc(model, clean.tokens, corrupted.tokens, 0.1, clean.positions["END"], **QUIET)
    known = recorded_circuit("textbook-ioi", run.graph)
    assert len(run.circuit) < 40
    assert len(run.circuit & known) >= 6
    assert run.runs < run.graph.n_edges * 3


def test_bad_input_is_refused_with_what_was_expected():
    model = random_model()
    clean, corrupted, end = random_prompts()
    for find in (acdc, acdc_sequential):
        with pytest.raises(ValueError, match="above 0"):
            find(model, clean, corrupted, 0.0, end)
        with pytest.raises(ValueError, match="not a source"):
            find(model, clean, corrupted, 0.1, end, order=[("a7.h0", "logits")])
        with pytest.raises(ValueError, match="twice"):
            find(model, clean, corrupted, 0.1, end, order=[("m0", "logits")] * 2)
        with pytest.raises(ValueError, match="same length"):
            find(model, clean, corrupted[:, 1:], 0.1, end)
