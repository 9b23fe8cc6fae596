"""The edge graph and circuits, against loops over nodes and the counts of the literature."""

import itertools

import networkx
import pytest
import torch

from utils import load_model
from utils.circuits import Circuit, Edge, Graph, recorded_circuit
from utils.circuits.graph import node_of
from utils.models.known_circuit import known_circuit

SHAPES = [(1, 1, True), (1, 1, False), (2, 3, True), (3, 2, False), (4, 5, True)]


def brute_force_edges(n_layers: int, n_heads: int, has_mlps: bool) -> set[Edge]:
    """Every pair of a node and a later node's input, from the steps at which nodes run."""
    runs_at = {"input": 0, "logits": 2 * n_layers + 1}
    for layer in range(n_layers):
        runs_at |= {f"a{layer}.h{head}": 2 * layer + 1 for head in range(n_heads)}
        runs_at |= {f"m{layer}": 2 * layer + 2} if has_mlps else {}
    pairs = ((s, d) for s, d in itertools.product(runs_at, runs_at) if runs_at[s] < runs_at[d])
    inputs = {name: [f"{name}<{c}>" for c in "qkv"] if name[0] == "a" else [name] for name in runs_at}
    return {Edge(s, place) for s, d in pairs for place in inputs[d]}


def random_circuit(graph: Graph, share: float, seed: int) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    return Circuit.from_mask(graph, (torch.rand(graph.exists.shape, generator=generator) < share) & graph.exists)


def test_gpt2_small_has_the_number_of_edges_that_papers_report():
    graph = Graph(12, 12)
    assert graph.n_edges == len(graph.edges) == len(set(graph.edges)) == 32_491
    assert len(graph.nodes) == 158


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_all_pairs_of_a_node_and_a_later_input(shape):
    graph = Graph(*shape)
    assert set(graph.edges) == brute_force_edges(*shape)
    assert graph.n_edges == len(graph.edges) == int(graph.exists.sum())


@pytest.mark.parametrize(("n_layers", "n_heads"), [(2, 4), (5, 3)])
def test_attention_only_count_has_a_closed_form(n_layers, n_heads):
    """Each head's three inputs read the input and every head below; the logits read all."""
    lower = n_heads * n_layers * (n_layers - 1) // 2
    expected = 3 * n_heads * (n_layers + lower) + 1 + n_heads * n_layers
    assert Graph(n_layers, n_heads, has_mlps=False).n_edges == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_places_ranges_and_names_agree(shape):
    graph = Graph(*shape)
    for layer in range(graph.n_layers):
        heads = [f"a{layer}.h{head}" for head in range(graph.n_heads)]
        assert list(graph.sources[graph.head_sources(layer)]) == heads
        inputs = [f"{head}<{channel}>" for channel in "qkv" for head in heads]
        assert list(graph.destinations[graph.head_inputs(layer)]) == inputs
    for place, name in enumerate(graph.destinations):
        layer, head, channel = graph.reader(place)
        node = "logits" if layer == graph.n_layers else f"m{layer}" if head is None else f"a{layer}.h{head}"
        assert name == (node if channel is None else f"{node}<{'qkv'[channel]}>")
    for edge in graph.edges:
        source, destination = graph.place(edge)
        assert (graph.sources[source], graph.destinations[destination]) == edge
        assert Edge.parse(str(edge)) == edge
    assert tuple(graph.edges_of(graph.exists)) == graph.edges


def test_the_graph_of_a_model_is_that_of_its_configuration():
    assert Graph.of(load_model("tiny-lm")).has_mlps
    assert Graph.of(load_model("textbook-ioi")) == Graph(4, 4, has_mlps=False)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (("a9.h0", "logits"), "'a9.h0' is not a source"),
        (("a0.h0", "a1.h0"), "Near names: a1.h0<"),
        (("m1", "a0.h0<q>"), "does not come after"),
        (("a0.h0", "a0.h1<q>"), "does not come after"),
    ],
)
def test_an_edge_that_is_not_there_is_refused_by_name(edge, message):
    with pytest.raises(ValueError, match=message):
        Circuit(Graph(2, 2), frozenset([edge]))


def test_wrong_masks_texts_and_sizes_are_refused():
    graph = Graph(2, 2)
    with pytest.raises(ValueError, match="source, destination"):
        graph.edges_of(graph.exists.T)
    with pytest.raises(ValueError, match=r"graph\.exists"):
        graph.edges_of(torch.ones_like(graph.exists))
    with pytest.raises(ValueError, match=r"a0\.h1->a2\.h0<q>"):
        Edge.parse("a0.h1")
    with pytest.raises(ValueError, match="at least one layer"):
        Graph(0, 2)
    with pytest.raises(ValueError, match=f"{graph.n_edges}"):
        Circuit.top(graph, torch.zeros(graph.exists.shape), graph.n_edges + 1)
    with pytest.raises(ValueError, match="different graphs"):
        Circuit(graph) | Circuit(Graph(2, 3))


def test_circuits_are_sets_of_edges():
    graph = Graph(2, 3)
    a, b = random_circuit(graph, 0.5, 0), random_circuit(graph, 0.5, 1)
    assert (a | b).edges == a.edges | b.edges
    assert (a & b).edges == a.edges & b.edges
    assert (a - b).edges == a.edges - b.edges
    assert a & b <= a
    assert not a <= b
    assert a.complement() == Circuit.full(graph) - a
    assert len(a) == len(list(a)) == int(a.mask.sum())
    assert Circuit.from_mask(graph, a.mask) == a
    assert Circuit(graph, frozenset(tuple(edge) for edge in a)) == a


def test_top_takes_the_largest_scores_of_either_sign():
    graph = Graph(2, 2)
    scores = torch.randn(graph.exists.shape, generator=torch.Generator().manual_seed(0)) * 10
    by_size = sorted(graph.edges, key=lambda edge: -scores[graph.place(edge)].abs())
    assert Circuit.top(graph, scores, 7).edges == set(by_size[:7])
    assert Circuit.top(graph, scores, graph.n_edges) == Circuit.full(graph)


@pytest.mark.parametrize("seed", range(6))
def test_pruning_keeps_exactly_the_edges_on_a_path_from_input_to_logits(seed):
    graph = Graph(3, 2, has_mlps=bool(seed % 2))
    circuit = random_circuit(graph, 0.12, seed)
    network = networkx.DiGraph((edge.source, node_of(edge.destination)) for edge in circuit)
    network.add_nodes_from(["input", "logits"])
    below = networkx.descendants(network, "input") | {"input"}
    above = networkx.ancestors(network, "logits") | {"logits"}
    expected = {edge for edge in circuit if edge.source in below and node_of(edge.destination) in above}
    assert circuit.pruned().edges == expected
    assert circuit.pruned().pruned() == circuit.pruned()


def test_a_circuit_survives_being_saved(tmp_path):
    circuit = random_circuit(Graph(3, 2), 0.2, 0)
    circuit.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json") == circuit


def test_a_circuit_prints_its_destinations_the_logits_first():
    circuit = Circuit(Graph(2, 2), frozenset([("m1", "logits"), ("input", "a0.h0<q>"), ("a0.h0", "logits")]))
    assert str(circuit).splitlines() == [
        "Circuit of 3 of 46 edges, 4 nodes",
        "    logits <- a0.h0, m1",
        "  a0.h0<q> <- input",
    ]


@pytest.mark.parametrize("name", ["textbook-ioi", "textbook-ioi-emergent"])
def test_the_recorded_circuit_of_a_model_is_one_of_its_graph(name):
    circuit = recorded_circuit(name, Graph.of(load_model(name)))
    assert len(circuit) == len(known_circuit(name).edges)
    assert circuit.pruned() <= circuit
