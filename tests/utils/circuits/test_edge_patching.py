"""Edge patching against a forward pass that computes every edge on its own."""

import pytest
import torch
from plain_edges import SHAPES, random_metric, random_model, random_prompts, run_edge_by_edge

from utils import load_model
from utils.circuits import Circuit, Graph, edge_effects, patch_edges
from utils.circuits.known import edge_of
from utils.circuits.patching import EdgePatcher
from utils.metrics import at_end, logit_difference, normalised
from utils.models.ioi_world.prompts import textbook_ioi_prompts
from utils.models.known_circuit import known_circuit

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def random_masks(graph: Graph, n: int, share: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return (torch.rand(n, *graph.exists.shape, generator=generator) < share) & graph.exists


def logits_edge_by_edge(model, clean, corrupted, end, circuit: Circuit) -> torch.Tensor:
    """The definition: along the circuit's edges, what their sources wrote on the corrupted prompts."""
    _, other = run_edge_by_edge(model, model.embed(corrupted), end)
    carry = lambda edge, x: other[edge.source] if edge in circuit else x  # noqa: E731
    return run_edge_by_edge(model, model.embed(clean), end, carry)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_any_set_of_edges_can_be_corrupted(shape):
    model = random_model(**SHAPES[shape])
    clean, corrupted, end = random_prompts(seed=1)
    graph = Graph.of(model)
    masks = random_masks(graph, 3)
    expected = [logits_edge_by_edge(model, clean, corrupted, end, Circuit.from_mask(graph, mask)) for mask in masks]
    found = EdgePatcher(model, clean, corrupted, end)
    torch.testing.assert_close(found.logits(masks), torch.stack(expected), **CLOSE)
    circuit = Circuit.from_mask(graph, masks[1])
    torch.testing.assert_close(patch_edges(model, clean, corrupted, circuit, end), expected[1], **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_edges_or_none_give_the_corrupted_or_the_clean_run(shape):
    model = random_model(**SHAPES[shape])
    clean, corrupted, end = random_prompts(seed=2)
    for circuit, tokens in ((Circuit(Graph.of(model)), clean), (Circuit.full(Graph.of(model)), corrupted)):
        expected = at_end(model.unembed(model.run(tokens).post), end)
        torch.testing.assert_close(patch_edges(model, clean, corrupted, circuit, end), expected, **CLOSE)


def test_runs_do_not_depend_on_how_they_are_cut_into_batches():
    model = random_model()
    clean, corrupted, end = random_prompts()
    masks = random_masks(Graph.of(model), 6)
    whole, cut = (EdgePatcher(model, clean, corrupted, end, max_bytes=size).logits(masks) for size in (1 << 30, 1))
    torch.testing.assert_close(whole, cut, **CLOSE)
    grid = EdgePatcher(model, clean, corrupted, end).logits(masks.view(2, 3, *masks.shape[1:]))
    torch.testing.assert_close(grid.flatten(0, 1), whole, **CLOSE)


@pytest.mark.parametrize("seed", range(4))
def test_edges_on_no_path_from_input_to_logits_do_not_matter(seed):
    model = random_model(seed=seed, windows=(None, None, None))
    clean, corrupted, end = random_prompts(seed=seed)
    circuit = Circuit.from_mask(Graph.of(model), random_masks(Graph.of(model), seed + 1, 0.15)[0])
    assert circuit.pruned() != circuit
    whole, pruned = (
        patch_edges(model, clean, corrupted, edges.complement(), end) for edges in (circuit, circuit.pruned())
    )
    torch.testing.assert_close(whole, pruned, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_effect_of_every_edge_is_that_of_corrupting_it_alone(shape):
    model = random_model(**SHAPES[shape])
    clean, corrupted, end = random_prompts(seed=3)
    metric, graph = random_metric(), Graph.of(model)
    patcher = EdgePatcher(model, clean, corrupted, end)
    alone = torch.stack([graph.mask([edge]) for edge in graph.edges])
    expected = patcher.measure(alone, metric) - patcher.measure(Circuit(graph), metric)
    found = edge_effects(model, clean, corrupted, metric, end, max_bytes=10_000, progress=False)
    assert found.shape == (*graph.exists.shape, len(clean))
    assert not found[~graph.exists].any()
    torch.testing.assert_close(torch.stack([found[graph.place(edge)] for edge in graph.edges]), expected, **CLOSE)


def test_several_metrics_are_measured_at_once():
    model = random_model()
    clean, corrupted, end = random_prompts()
    metrics = {"a": random_metric(1), "b": random_metric(2)}
    found = edge_effects(model, clean, corrupted, metrics, end, progress=False)
    for name, metric in metrics.items():
        torch.testing.assert_close(found[name], edge_effects(model, clean, corrupted, metric, end, progress=False))


def test_effects_on_textbook_ioi_are_those_that_its_card_records():
    """The recorded effects were measured by another program, on these prompts."""
    model, known = load_model("textbook-ioi"), known_circuit("textbook-ioi")
    clean, corrupted = (textbook_ioi_prompts(100, split="train", corruption=c) for c in (None, known.corruption))
    end, answers = clean.positions["END"], {"right": clean.answer_ids, "wrong": clean.wrong_ids}
    patcher, graph = EdgePatcher(model, clean.tokens, corrupted.tokens, end), Graph.of(model)
    edges = [edge_of(edge) for edge in known.edges]
    masks = [Circuit(graph), Circuit.full(graph), *(Circuit(graph, frozenset([edge])) for edge in edges)]
    difference = patcher.measure(
        torch.stack([circuit.mask for circuit in masks]), lambda logits: logit_difference(logits, **answers)
    ).mean(-1)
    lost = 1 - normalised(difference[2:], corrupted=difference[1], clean=difference[0])
    torch.testing.assert_close(lost, torch.tensor(list(known.edges.values())), atol=1e-3, rtol=0)


def test_an_interrupted_run_keeps_what_it_has(monkeypatch):
    model = random_model()
    clean, corrupted, end = random_prompts()
    graph, metric, calls = Graph.of(model), random_metric(), []

    def interrupted(logits):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return metric(logits)

    with pytest.warns(UserWarning, match="not reached are NaN"):
        found = edge_effects(model, clean, corrupted, interrupted, end, progress=False)
    whole = edge_effects(model, clean, corrupted, metric, end, progress=False)
    reached = ~found.isnan()
    assert 0 < reached[graph.exists].float().mean() < 1
    torch.testing.assert_close(found[reached], whole[reached])


def test_bad_input_is_refused_with_what_was_expected():
    model = random_model()
    clean, corrupted, end = random_prompts()
    graph = Graph.of(model)
    with pytest.raises(ValueError, match="same length"):
        patch_edges(model, clean, corrupted[:, 1:], Circuit(graph), end)
    with pytest.raises(ValueError, match="vocabulary"):
        patch_edges(model, clean + 100, corrupted, Circuit(graph), end)
    with pytest.raises(ValueError, match="one position"):
        patch_edges(model, clean, corrupted, Circuit(graph), end + 10)
    with pytest.raises(ValueError, match="the model has"):
        patch_edges(model, clean, corrupted, Circuit(Graph(5, 2)), end)
    with pytest.raises(ValueError, match=r"circuit\.mask"):
        patch_edges(model, clean, corrupted, graph.exists.float(), end)
    with pytest.raises(ValueError, match=r"graph\.exists"):
        patch_edges(model, clean, corrupted, torch.ones_like(graph.exists), end)
