"""Causal scrubbing on a model that was planted, on random ones edge by edge, and on a shipped one."""

import random

import pytest
import torch
from plain_edges import SHAPES, random_metric, random_model, random_prompts, run_edge_by_edge

from utils import load_model
from utils.circuits import Graph
from utils.circuits.scrubbing import Claim, scrub
from utils.models.ioi_world.prompts import textbook_ioi_prompts, textbook_ioi_templates
from utils.read_weights import Layer
from utils.transformer import Transformer

SYMBOLS = 5
CASES = [
    (shape, destination)
    for shape in SHAPES
    for destination in ("logits", "a1.h1<q>", "a1.h0<k>", "a1.h1<v>", "m1")
    if "one head" not in shape and not ("attention only" in shape and destination == "m1")
]


def planted() -> Transformer:
    """Head 0 copies the first of two symbols, head 1 the second: logits = 1 x first + 2 x second, one-hot."""
    tokens, places, out = SYMBOLS + 1, 3, 2 * SYMBOLS
    d_model, d_head = tokens + places + out, tokens + places
    W_QKV, W_O = torch.zeros(d_model, 3, 2, d_head), torch.zeros(2, d_head, d_model)
    for head in range(2):
        W_QKV[tokens + 2, 0, head, head] = 100.0  # the query at the last place asks for place ``head``
        for place in range(places):
            W_QKV[tokens + place, 1, head, place] = 1.0
        for symbol in range(SYMBOLS):
            W_QKV[symbol, 2, head, symbol] = 1.0
            W_O[head, symbol, tokens + places + head * SYMBOLS + symbol] = 1.0
    W_U = torch.zeros(d_model, SYMBOLS)
    for symbol in range(SYMBOLS):
        W_U[tokens + places + symbol, symbol], W_U[tokens + places + SYMBOLS + symbol, symbol] = 1.0, 2.0
    heads = Layer(
        W_QKV.flatten(1),
        torch.zeros(6 * d_head),
        W_O.flatten(0, 1),
        torch.zeros(d_model),
        *[None] * 6,
        torch.relu,
        None,
    )
    W_E, W_pos = torch.eye(tokens, d_model), torch.eye(places, d_model).roll(tokens, 1)
    return Transformer(2, d_head, 1e-5, [heads], W_E, W_pos, None, W_U, torch.zeros(SYMBOLS))


@pytest.fixture(scope="module")
def sums():
    tokens = torch.randint(SYMBOLS, (300, 3), generator=torch.Generator().manual_seed(0))
    tokens[:, 2] = SYMBOLS
    first, second = tokens[:, 0].tolist(), tokens[:, 1].tolist()
    rows = torch.arange(300)
    return tokens, first, second, lambda logits: logits[rows, tokens[:, 0]] + 2 * logits[rows, tokens[:, 1]]


def about_heads(*labels) -> Claim:
    return Claim("logits", reads={"in": [Claim(f"a0.h{head}", label) for head, label in enumerate(labels)]})


def test_the_planted_hypothesis_recovers_everything(sums):
    tokens, first, second, metric = sums
    found = scrub(planted(), tokens, about_heads(first, second), metric, progress=False)
    torch.testing.assert_close(found.values, found.model.expand(10, -1))
    assert found.recovered.value == pytest.approx(1)
    assert found.kept == pytest.approx(1 / 60, abs=0.01)  # 60 of the 300 prompts share a symbol


@pytest.mark.parametrize("wrong", ["swapped", "nothing matters", "one head for both"])
def test_a_wrong_hypothesis_recovers_little(sums, wrong):
    tokens, first, second, metric = sums
    none = [0] * len(tokens)
    labels = {"swapped": (second, first), "nothing matters": (none, none), "one head for both": (first,)}[wrong]
    found = scrub(planted(), tokens, about_heads(*labels), metric, progress=False)
    assert found.recovered.value < 0.35
    assert found.recovered.interval.high < 0.4


def test_labels_that_no_two_prompts_share_test_nothing_and_say_so(sums):
    tokens, _, _, metric = sums
    found = scrub(planted(), tokens, about_heads(range(300), range(300)), metric, progress=False)
    assert found.kept == 1


def test_claims_below_a_head_are_tested_too(sums):
    tokens, first, second, metric = sums
    heads = zip((first, second), ("a0.h0", "a0.h1"), strict=True)
    right = [Claim(head, label, {"v": [Claim("input", label)]}) for label, head in heads]
    assert scrub(planted(), tokens, Claim("logits", reads={"in": right}), metric, progress=False).recovered.value == (
        pytest.approx(1)
    )
    wrong = [Claim("a0.h0", first, {"v": [Claim("input", second)]}), right[1]]
    assert scrub(planted(), tokens, Claim("logits", reads={"in": wrong}), metric, progress=False).recovered.value < 0.9
    empty = [Claim("a0.h0", first, {"v": []}), Claim("a0.h1", second, {"v": []})]
    assert scrub(planted(), tokens, Claim("logits", reads={"in": empty}), metric, progress=False).recovered.value < 0.2


@pytest.mark.parametrize(("shape", "destination"), CASES)
def test_leaving_one_edge_out_of_the_hypothesis_patches_it_from_another_prompt(shape, destination):
    model, n = random_model(**SHAPES[shape]), 5
    graph = Graph.of(model)
    tokens, end = random_prompts(prompts=n)[0], torch.full((n,), 5)
    metric, own = random_metric(prompts=n), list(range(n))
    left_out = "a0.h1"
    node, _, channel = destination.rstrip(">").partition("<")
    readable = graph.sources[: graph.n_readable[graph.destination_place[destination]]]
    below = [Claim(source, own) for source in readable if source != left_out]
    if node == "logits":
        hypothesis = Claim("logits", reads={"in": below})
    else:
        reads = {channel or "in": below}
        claims = [Claim(source, own, reads if source == node else {}) for source in graph.sources]
        hypothesis = Claim("logits", reads={"in": claims})
    found = scrub(model, tokens, hypothesis, metric, progress=False, draws=8)
    clean = run_edge_by_edge(model, model.embed(tokens), end)[1]

    def patched_from(other):
        """One edge carries another prompt's output, and what its node then writes is read by the logits alone."""

        def carry(edge, x):
            if edge == (left_out, destination):
                return clean[left_out][other]
            return clean[node] if edge.source == node and edge.destination != "logits" else x

        return metric(run_edge_by_edge(model, model.embed(tokens), end, carry)[0])

    patched = torch.stack([patched_from(other) for other in range(n)])
    distance = (found.values[:, None] - patched).abs()  # [draw, other prompt, prompt]
    assert distance.amin(1).max() < 1e-4
    used = distance.argmin(1)
    assert len(used.unique()) == n
    assert found.kept == 1


def test_the_textbook_circuit_passes_and_wrong_stories_about_it_fail():
    """Name movers write the receiver's name; their queries read from S-inhibition heads which name came first."""
    prompts = textbook_ioi_prompts(100, template=textbook_ioi_templates()[0])
    order = (prompts.positions["IO"] < prompts.positions["S1"]).tolist()
    shuffled = random.Random(0).sample(order, len(order))
    rows = torch.arange(100)
    metric = lambda logits: logits[rows, prompts.answer_ids] - logits[rows, prompts.wrong_ids]  # noqa: E731

    def recovered(note, inhibition=("a2.h0", "a2.h1"), movers=("a3.h0", "a3.h1"), writes=prompts.answers):
        duplicate = [Claim("a0.h0", note)]
        read = [Claim(head, note, {"v": duplicate}) for head in inhibition]
        claims = [Claim(head, writes, {"q": read}) for head in movers]
        end = int(prompts.positions["END"][0])
        hypothesis = Claim("logits", reads={"in": claims})
        return scrub(model, prompts.tokens, hypothesis, metric, end, draws=4, progress=False).recovered.value

    model = load_model("textbook-ioi")
    assert recovered(order) > 0.9
    assert recovered(shuffled) < 0.6
    assert recovered(order, inhibition=("a1.h0", "a1.h1")) < 0.6
    assert recovered(order, movers=("a3.h2", "a3.h3")) < 0.1
    assert recovered(order, writes=prompts.wrong) < 0.4


@pytest.mark.parametrize(
    ("hypothesis", "message"),
    [
        (Claim("a0.h0", reads={"q": []}), "claim about 'logits'"),
        (Claim("logits"), "reads="),
        (about_heads([0]), "300 labels"),
        (about_heads(None), "300 labels"),
        (Claim("logits", reads={"in": [Claim("a7.h0", range(300))]}), "a7.h0"),
        (Claim("logits", reads={"in": [Claim("a0.h0", range(300), {"in": []})]}), "no channel 'in'"),
        (Claim("logits", reads={"in": [Claim("input", range(300), {"q": []})]}), "no channel 'q', only none"),
        (
            Claim("logits", reads={"in": [Claim("a0.h0", range(300), {"q": [Claim("a0.h1", range(300))]})]}),
            "come after",
        ),
        (Claim("logits", reads={"in": [Claim("a0.h0", range(300))] * 2}), "two claims"),
    ],
)
def test_wrong_hypotheses_are_named(sums, hypothesis, message):
    tokens, _, _, metric = sums
    with pytest.raises(ValueError, match=message):
        scrub(planted(), tokens, hypothesis, metric, progress=False)


def test_the_same_seed_gives_the_same_exchanges(sums):
    tokens, first, _, metric = sums
    runs = [
        scrub(planted(), tokens, about_heads(first), metric, seed=seed, progress=False).values for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_hypothesis_prints_as_a_tree_and_a_result_with_what_it_left_unchanged(sums):
    tokens, first, second, metric = sums
    head = Claim("a0.h0", first, {"v": [Claim("input", first)]})
    hypothesis = Claim("logits", reads={"in": [head, Claim("a0.h1", second)]})
    assert str(hypothesis).splitlines() == [
        "logits",
        "  in <- a0.h0 (5 kinds of prompt)",
        "    v <- input (5 kinds of prompt)",
        "  in <- a0.h1 (5 kinds of prompt)",
    ]
    assert str(scrub(planted(), tokens, hypothesis, metric, progress=False)).startswith("recovered 1.000")
