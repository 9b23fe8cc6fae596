"""Judgements of circuits against closed forms, on a model whose heads add up, and on a shipped model's known circuit.

In one layer without layer norm every head reads the input alone, and the logits are a sum over heads. The part of a
head in the metric is then what it writes on the clean prompt less what it writes on the corrupted one.
"""

import itertools

import pytest
import torch
from plain_edges import random_metric, random_model, random_prompts, run_edge_by_edge

from utils import load_model
from utils.circuits import Circuit, Graph, eap
from utils.circuits.completeness import completeness, least_complete, minimality, random_nodes, without_nodes
from utils.circuits.evaluation import SHARES, circuit_values, faithfulness, faithfulness_curve
from utils.circuits.known import recorded_circuit
from utils.circuits.overlap import edge_overlap, node_overlap, roc
from utils.circuits.patching import EdgePatcher
from utils.models.ioi_world.prompts import textbook_ioi_prompts

HEADS = [f"a0.h{head}" for head in range(4)]
N = 12


def close(found, expected):
    torch.testing.assert_close(
        torch.as_tensor(found).double(), torch.as_tensor(expected).double(), atol=1e-4, rtol=1e-4
    )


@pytest.fixture(scope="module")
def additive():
    """A model whose heads add up: its patcher, the metric, and the part of each source, [prompt]."""
    model = random_model(3, windows=(None,), n_heads=4, d_mlp=None, norm=None)
    clean, corrupted, end = random_prompts(prompts=N)
    metric = random_metric(prompts=N)
    written = [run_edge_by_edge(model, model.embed(tokens), end)[1] for tokens in (clean, corrupted)]
    parts = {}
    for source in written[0]:
        change = (written[0][source] - written[1][source])[torch.arange(N), end] @ model.W_U
        parts[source] = metric(change)
    return EdgePatcher(model, clean, corrupted, end), metric, parts


def circuit_of(graph: Graph, heads) -> Circuit:
    """The direct path, and these heads with all that they read."""
    edges = {("input", "logits")} | {(head, "logits") for head in heads}
    return Circuit(graph, edges | {("input", f"{head}<{channel}>") for head in heads for channel in "qkv"})


def test_faithfulness_is_the_share_of_the_parts_that_a_circuit_has(additive):
    patcher, metric, parts = additive
    whole = sum(part.mean() for part in parts.values())
    for heads in ([], HEADS[:1], HEADS[1:3], HEADS):
        found = faithfulness(patcher, circuit_of(patcher.graph, heads), metric)
        close(found.value, (parts["input"] + sum(parts[head] for head in heads)).mean() / whole)
        assert found.interval.low <= found.value <= found.interval.high
    assert faithfulness(patcher, Circuit.full(patcher.graph), metric).value == pytest.approx(1)
    assert faithfulness(patcher, Circuit(patcher.graph), metric).value == pytest.approx(0)


def test_faithfulness_does_not_depend_on_where_the_metric_has_its_zero(additive):
    patcher, metric, _ = additive
    circuit = circuit_of(patcher.graph, HEADS[:2])
    shifted = faithfulness(patcher, circuit, lambda logits: 5 - 3 * metric(logits))
    close(shifted.value, faithfulness(patcher, circuit, metric).value)


def test_completeness_is_off_by_the_parts_that_the_circuit_lacks(additive):
    patcher, metric, parts = additive
    circuit = circuit_of(patcher.graph, HEADS[:3])
    found = completeness(patcher, circuit, metric, [[], ["a0.h0"], ["a0.h0", "a0.h2"]])
    close(found.model - found.circuit, parts["a0.h3"].expand(3, N))
    close(found.gaps, parts["a0.h3"].mean().abs().expand(3))
    full = completeness(patcher, Circuit.full(patcher.graph), metric, random_nodes(circuit, 4))
    close(full.gaps, torch.zeros(4))


def test_the_least_complete_nodes_are_those_of_a_full_search(additive):
    model = random_model(1)
    clean, corrupted, end = random_prompts(prompts=N)
    patcher, metric = EdgePatcher(model, clean, corrupted, end), random_metric(prompts=N)
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(patcher.graph.exists.shape, generator=generator) < 0.6) & patcher.graph.exists
    circuit = Circuit.from_mask(patcher.graph, mask)
    found = least_complete(patcher, circuit, metric, 2)
    single = completeness(patcher, circuit, metric, [[node] for node in circuit.nodes[1:-1]])
    assert found.removed[0] == single.removed[int(single.gaps.argmax())]
    assert found.removed[1][:1] == found.removed[0]
    close(found.gaps[0], single.gaps.max())


def test_minimality_is_each_head_s_part_and_a_useless_head_s_is_zero(additive):
    patcher, metric, parts = additive
    whole = sum(part.mean() for part in parts.values())
    for given in (None, {"a0.h1": ["a0.h0", "a0.h2"]}):  # parts add up, so that backups do not matter
        found = minimality(patcher, Circuit.full(patcher.graph), metric, given)
        assert list(found) == HEADS
        for head in HEADS:
            close(found[head].value, parts[head].mean() / whole)
    unread = Circuit.full(patcher.graph) - Circuit(patcher.graph, {("a0.h2", "logits")})
    close(minimality(patcher, unread, metric)["a0.h2"].value, 0.0)


def test_taking_a_node_away_takes_the_edges_at_both_of_its_ends():
    graph = Graph(2, 2)
    left = without_nodes(Circuit.full(graph), ["a0.h1", "m1"])
    touching = [edge for edge in graph.edges if "a0.h1" in edge.source + edge.destination or "m1" in edge]
    assert left.edges == set(graph.edges) - set(touching)


def test_the_areas_are_those_of_the_definition(additive):
    patcher, metric, _ = additive
    graph = patcher.graph
    scores = torch.randn(graph.exists.shape, generator=torch.Generator().manual_seed(0)) * graph.exists
    shares = (0.1, 0.25, 0.5, 1.0)
    for absolute in (True, False):
        found = faithfulness_curve(patcher, scores, metric, absolute=absolute, shares=shares)
        key = (lambda e: -abs(scores[graph.place(e)])) if absolute else (lambda e: -scores[graph.place(e)])
        ranked = sorted(graph.edges, key=key)
        f = []
        for share in shares:
            f.append(faithfulness(patcher, Circuit(graph, ranked[: int(share * graph.n_edges)]), metric).value)
        widths = [b - a for a, b in itertools.pairwise(shares)]
        cpr = sum(w * (a + b) / 2 for w, a, b in zip(widths, f, f[1:], strict=False))
        cmd = sum(w * (abs(1 - a) + abs(1 - b)) / 2 for w, a, b in zip(widths, f, f[1:], strict=False))
        close([point.value for point in found.faithfulness], f)
        assert found.faithfulness[-1].value == pytest.approx(1)
        close(found.cpr.value, cpr)
        close(found.cmd.value, cmd)
        assert found.cmd.interval.low <= found.cmd.value <= found.cmd.interval.high
        assert found.sizes[-1] == graph.n_edges


def test_roc_by_hand_with_a_tie():
    graph = Graph(1, 1, has_mlps=False)  # input -> q, k, v, logits; a0.h0 -> logits
    truth = Circuit(graph, {("a0.h0", "logits"), ("input", "a0.h0<v>")})
    scores = torch.zeros(graph.exists.shape)
    for edge, score in zip(graph.edges, [1.0, 2.0, 3.0, 2.0, 5.0], strict=True):
        scores[graph.place(edge)] = score
    pairs = [(t, f) for t in (3.0, 5.0) for f in (1.0, 2.0, 2.0)]
    assert roc(scores, truth).auc == sum(t > f for t, f in pairs) / len(pairs) == 1
    other = Circuit(graph, {("a0.h0", "logits"), ("input", "a0.h0<k>")})
    found = roc(scores, other)  # 2 against 1, 3, 2 and 5 against all
    assert found.auc == pytest.approx((1 + 0 + 0.5 + 3) / 6)
    assert found.false_positives.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])
    assert found.true_positives.tolist() == pytest.approx([0, 0.5, 0.5, 1, 1])
    assert torch.trapezoid(found.true_positives, found.false_positives).item() == pytest.approx(found.auc)


def test_precision_and_recall_by_hand():
    graph = Graph(2, 2, has_mlps=False)
    truth = Circuit(graph, {("input", "a0.h0<v>"), ("a0.h0", "a1.h1<q>"), ("a1.h1", "logits")})
    found = Circuit(graph, {("input", "a0.h0<v>"), ("a0.h0", "logits")})
    assert (edge_overlap(found, truth).precision, edge_overlap(found, truth).recall) == (1 / 2, 1 / 3)
    assert (node_overlap(found, truth).precision, node_overlap(found, truth).recall) == (1, 1 / 2)
    assert "nan" in str(edge_overlap(Circuit(graph), truth))


@pytest.fixture(scope="module")
def textbook():
    model = load_model("textbook-ioi")
    clean, corrupted = (textbook_ioi_prompts(60, corruption=corruption) for corruption in (None, "swap"))
    end = clean.positions["END"]
    right, wrong = clean.answer_ids, clean.wrong_ids
    rows = torch.arange(len(right))
    metric = lambda logits: logits[rows, right] - logits[rows, wrong]  # noqa: E731
    return (
        EdgePatcher(model, clean.tokens, corrupted.tokens, end),
        metric,
        eap(model, clean.tokens, corrupted.tokens, metric, end).mean(-1),
    )


def test_the_recorded_circuit_is_faithful_and_random_ones_are_not(textbook):
    patcher, metric, _ = textbook
    truth = recorded_circuit("textbook-ioi", patcher.graph)
    generator = torch.Generator().manual_seed(0)
    random = [
        Circuit.top(patcher.graph, torch.rand(patcher.graph.exists.shape, generator=generator), len(truth))
        for _ in range(5)
    ]
    assert faithfulness(patcher, truth, metric).value > 0.8
    assert max(faithfulness(patcher, circuit, metric).value for circuit in random) < 0.2
    parts = minimality(patcher, truth, metric)
    assert parts["a0.h0"].value > 0.7


def test_eap_finds_the_recorded_circuit_and_shuffled_scores_do_not(textbook):
    patcher, metric, scores = textbook
    graph = patcher.graph
    truth = recorded_circuit("textbook-ioi", graph)
    assert roc(scores.abs(), truth).auc > 0.9
    shuffled = torch.zeros_like(scores)
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(0))
    shuffled[graph.exists] = scores[graph.exists][order]
    assert abs(roc(shuffled.abs(), truth).auc - 0.5) < 0.25
    ours, chance = (faithfulness_curve(patcher, s, metric, shares=SHARES[3:]) for s in (scores, shuffled))
    assert ours.cmd.value < chance.cmd.value
    assert ours.cpr.value > chance.cpr.value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, m: faithfulness(p, Circuit(Graph(2, 1)), m), "belongs to"),
        (lambda p, m: completeness(p, Circuit.full(p.graph), m, [["a5.h0"]]), "not a head or MLP of the circuit"),
        (lambda p, m: minimality(p, Circuit.full(p.graph), m, {"m0": []}), "not a head or MLP of the circuit"),
        (lambda p, m: faithfulness(p, Circuit.full(p.graph), lambda logits: logits[:, 0] * 0), "nothing to restore"),
        (lambda p, m: roc(torch.zeros(2, 2), Circuit.full(p.graph)), "source, destination"),
        (lambda p, m: roc(torch.zeros(p.graph.exists.shape), Circuit.full(p.graph)), "in and out"),
        (lambda p, m: node_overlap(Circuit(p.graph), Circuit(Graph(3, 3))), "different graphs"),
    ],
)
def test_wrong_input_is_named(additive, call, message):
    with pytest.raises(ValueError, match=message):
        call(*additive[:2])


def test_values_are_the_metric_with_all_other_edges_corrupted(additive):
    patcher, metric, _ = additive
    circuit = circuit_of(patcher.graph, HEADS[:1])
    close(circuit_values(patcher, [circuit], metric)[0], metric(patcher.logits(circuit.complement())))
