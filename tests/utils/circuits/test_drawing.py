"""Drawings hold every node and edge once, in layers, without one node on another."""

import re
from itertools import combinations, pairwise

import pytest
import torch

from utils.circuits import Circuit, Graph
from utils.circuits.drawing import CHANNEL_COLORS, as_networkx, circuit_dot, draw_circuit
from utils.circuits.graph import node_of
from utils.circuits.layout import NODE_WIDTH, layered_layout


def random_circuit(seed: int, n: int = 30, layers: int = 5) -> tuple[Circuit, torch.Tensor]:
    graph = Graph(layers, 4)
    scores = torch.randn(graph.exists.shape, generator=torch.Generator().manual_seed(seed)) * graph.exists
    return Circuit.top(graph, scores, n), scores


def edge_traces(figure):
    return [trace for trace in figure.data if trace.mode == "lines" and trace.x[0] is not None]


@pytest.mark.parametrize("seed", range(4))
def test_nodes_of_a_layer_stand_side_by_side_and_edges_go_up(seed):
    circuit, _ = random_circuit(seed)
    layout = layered_layout(circuit)
    assert set(layout.nodes) == set(circuit.nodes)
    for (a, (xa, ya)), (b, (xb, yb)) in combinations(layout.nodes.items(), 2):
        assert ya != yb or abs(xa - xb) >= NODE_WIDTH - 1e-6, (a, b)
    for edge in circuit:
        route = layout.routes[edge.source, node_of(edge.destination)]
        assert route[0] == layout.nodes[edge.source]
        assert route[-1] == layout.nodes[node_of(edge.destination)]
        assert all(upper[1] - lower[1] == 1 for lower, upper in pairwise(route))


@pytest.mark.parametrize("seed", range(4))
def test_an_edge_that_passes_a_layer_keeps_off_its_nodes(seed):
    layout = layered_layout(random_circuit(seed)[0])
    for route in layout.routes.values():
        for x, y in route[1:-1]:
            assert all(abs(x - nx) >= NODE_WIDTH / 2 for nx, ny in layout.nodes.values() if ny == y)


def test_layers_without_a_node_are_left_out():
    circuit = Circuit(Graph(12, 12), {("input", "a9.h9<q>"), ("a9.h9", "logits")})
    assert [y for _, y in layered_layout(circuit).nodes.values()] == [0, 1, 2]


def test_every_edge_is_drawn_once_as_wide_as_its_score_and_dashed_where_it_is_negative():
    circuit, scores = random_circuit(0)
    figure = draw_circuit(circuit, "title", scores, unit="nats")
    drawn = {trace.text[0].partition("<br>")[0]: trace for trace in edge_traces(figure)}
    assert sorted(drawn) == sorted(str(edge) for edge in circuit)
    ordered = sorted(circuit, key=lambda edge: abs(scores[circuit.graph.place(edge)]))
    widths = [drawn[str(edge)].line.width for edge in ordered]
    assert widths == sorted(widths)
    for edge in circuit:
        trace, score = drawn[str(edge)], scores[circuit.graph.place(edge)]
        assert (trace.line.dash == "dash") == bool(score < 0)
        channel = edge.destination[-2] if edge.destination.endswith(">") else None
        assert trace.line.color == CHANNEL_COLORS.get(channel, trace.line.color)
        assert f"{float(score):.3g}" in trace.text[0]


def test_every_node_has_its_name_and_its_role_s_colour():
    circuit = Circuit(Graph(2, 2), {("input", "a0.h1<q>"), ("a0.h1", "a1.h0<k>"), ("a1.h0", "logits")})
    figure = draw_circuit(circuit, "title", roles={"previous token": ["a0.h1"], "induction": ["a1.h0"]})
    boxes = {note.text: note.bgcolor for note in figure.layout.annotations}
    assert set(boxes) == {"input", "a0.h1", "a1.h0", "logits"}
    assert len({boxes["a0.h1"], boxes["a1.h0"], boxes["input"]}) == 3
    assert boxes["input"] == boxes["logits"]
    legend = [trace.name for trace in figure.data if trace.x[0] is None]
    assert legend == ["queries", "keys", "previous token", "induction"]


def test_the_text_for_graphviz_has_every_edge_between_declared_nodes():
    circuit, scores = random_circuit(1)
    text = circuit_dot(circuit, scores)
    edges = re.findall(r'^  "(\S+)" -> "(\S+)" \[(.*)\];$', text, re.M)
    assert sorted((a, b) for a, b, _ in edges) == sorted((e.source, node_of(e.destination)) for e in circuit)
    declared = re.findall(r'"([^"]+)"', "".join(re.findall(r"\{rank=same; (.*)\}", text)))
    assert sorted(declared) == sorted(circuit.nodes)
    assert text.count("{") == text.count("}")
    assert sum("dashed" in settings for _, _, settings in edges) == sum(
        float(scores[circuit.graph.place(edge)]) < 0 for edge in circuit
    )


def test_networkx_finds_the_circuit_s_paths():
    import networkx as nx

    circuit = Circuit(Graph(2, 2), {("input", "a0.h1<q>"), ("input", "a0.h1<k>"), ("a0.h1", "logits"), ("input", "m1")})
    graph = as_networkx(circuit)
    assert nx.is_directed_acyclic_graph(graph)
    assert len(list(nx.all_simple_edge_paths(graph, "input", "logits"))) == 2
    assert {channel for _, _, channel in graph.edges(data="channel")} == {"q", "k", ""}
    assert graph.nodes["a0.h1"]["layer"] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: draw_circuit(Circuit(c.graph), "x"), "no edge"),
        (lambda c: circuit_dot(Circuit(c.graph)), "no edge"),
        (lambda c: draw_circuit(c, "x", torch.zeros(2, 2)), "source, destination"),
        (lambda c: draw_circuit(c, "x", roles={"mover": ["3.1"]}), "no node"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_circuit(0)[0])
