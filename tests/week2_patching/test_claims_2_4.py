"""What the prose of notebook 2.4 says about the shipped model is true of the shipped model."""

from itertools import pairwise

import pytest
import torch

from utils import data, load_model
from utils.circuits import Circuit, EdgePatcher, faithfulness
from utils.circuits.graph import node_of
from utils.metrics import at_end, normalised
from utils.models.untrained import untrained_twin
from utils.models.world.words import CENTURIES
from utils.patching import patch_heads, patch_residual
from utils.stats import bootstrap_interval
from utils.transformer import Transformer

READERS, LAYERS, D_MLP = [(2, 1), (2, 3)], (2, 3, 4), 256
YEARS = torch.arange(3, 98)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def pairs(model):
    return data.greater_than(model.tokenizer, 200)


@pytest.fixture(scope="module")
def year_tokens(model):
    return torch.tensor(model.tokenizer.convert_tokens_to_ids([f"{year:02d}" for year in range(100)]))


def ask(century, year, answer_century=None):
    return f"the war lasted from {century} {year:02d} to {answer_century or century}"


def at(stream, end):
    return stream[torch.arange(len(end)), end]


@torch.no_grad()
def answers(model, year_tokens, texts):
    return model(model.to_tokens(texts))[:, -1].softmax(-1)[:, year_tokens]


@torch.no_grad()
def ends_of_the_scale(model, pairs):
    metric = pairs.metric()
    return [metric(at_end(model(side), pairs.end)).mean() for side in (pairs.corrupted, pairs.clean)]


@torch.no_grad()
def test_behaviour_and_controls(model, pairs):
    values = pairs.metric()(at_end(model(pairs.clean), pairs.end))
    trained = data.greater_than(model.tokenizer, 200, split="train")
    on_trained = trained.metric()(at_end(model(trained.clean), trained.end))
    assert 0.89 < values.mean() < 0.93
    assert 0 < on_trained.mean() - values.mean() < 0.02  # held-out pairs do almost as well
    untrained = pairs.metric()(at_end(untrained_twin(model)(pairs.clean), pairs.end))
    assert abs(untrained.mean()) < 0.05
    assert pairs.metric()(at_end(model(pairs.corrupted), pairs.end)).mean() < 0.05


@torch.no_grad()
def test_a_ramp_and_not_a_step(model, year_tokens):
    texts = [ask(century, int(year)) for century in CENTURIES for year in YEARS]
    found, first = answers(model, year_tokens, texts), YEARS.repeat(len(CENTURIES))
    rows = torch.arange(len(first))
    sharpness = found[rows, first + 1] - found[rows, first - 1]
    assert bootstrap_interval(sharpness).low > 0
    assert sharpness.mean() < 0.6 * (1 / (99 - first)).mean()  # well below that of a flat, exact answer
    middle = (first >= 20) & (first <= 80)
    one = [found[middle, first[middle] + step].mean() for step in (1, -1)]
    assert 1.2 < one[0] / one[1] < 3  # "not a step"


@torch.no_grad()
def test_two_readers_bring_the_year_to_the_end(model, pairs):
    scale = ends_of_the_scale(model, pairs)
    grid = patch_heads(model, pairs.clean, pairs.corrupted, pairs.metric(), pairs.end, ["z"])[0]
    grid = normalised(grid.mean(-1), *scale)
    assert grid.flatten().argsort(descending=True)[:3].tolist() == [2, 9, 11]  # 0.2, 2.1, 2.3
    (_, clean), (_, corrupted) = model.run_with_cache(pairs.clean), model.run_with_cache(pairs.corrupted)
    rows, year_at = torch.arange(len(pairs)), pairs.positions["YY"]
    looks = torch.stack([clean["pattern", layer][rows, :, pairs.end, year_at].mean(0) for layer in range(5)])
    assert looks[2, 1] > 0.95
    assert looks[2, 3] > 0.9
    assert looks[0, 2] < 0.05
    assert max(looks[i, j] for i in range(2, 5) for j in range(4) if (i, j) not in READERS) < 0.4
    change = (clean["pattern", 2] - corrupted["pattern", 2])[rows, :, pairs.end]
    assert change[:, [1, 3]].abs().amax(-1).mean() < 0.1  # "their attention is the same in both runs"

    def restored(heads):
        def put_in(z, hook):
            for layer, head in heads:
                z[rows, pairs.end, head] = clean["z", layer][rows, pairs.end, head]
            return z

        logits = model.run_with_hooks(pairs.corrupted, fwd_hooks=[("blocks.2.attn.hook_z", put_in)])
        return normalised(pairs.metric()(logits[rows, pairs.end]).mean(), *scale)

    assert restored(READERS) > 0.9
    assert all(0.4 < restored([head]) < 0.6 for head in READERS)  # "each alone brings about half"


@torch.no_grad()
def test_attention_at_two_places_and_mlps_at_the_end(model):
    one = data.greater_than(model.tokenizer, 100, template=data.year_templates(model.tokenizer)[1])
    scale = ends_of_the_scale(model, one)
    attention, mlps = (
        normalised(patch_residual(model, one.clean, one.corrupted, one.metric(), one.end, stream).mean(-1), *scale)
        for stream in ("attn_out", "mlp_out")
    )
    assert min(attention[0, 6], attention[2, 8]) > 0.9
    assert attention.flatten().sort().values[-3] < 0.1
    torch.testing.assert_close(mlps[2:, 8], torch.tensor([0.6, 0.6, 0.4]), atol=0.05, rtol=0)  # a review card says so
    assert mlps[:2].max() < 0.1


class Above:
    """The 768 neurons of the MLPs of layers 2 to 4 at the end, and what becomes of the metric when they change."""

    def __init__(self, model, pairs):
        self.model, self.plain, self.pairs = model, Transformer.from_model(model), pairs
        self.run = self.plain.run(pairs.clean)
        self.clean, self.corrupted = (self.neurons(tokens) for tokens in (pairs.clean, pairs.corrupted))

    def neurons(self, tokens):
        _, cache = self.model.run_with_cache(tokens, names_filter=lambda name: name.endswith("mlp.hook_post"))
        return torch.cat([at(cache[f"blocks.{layer}.mlp.hook_post"], self.pairs.end) for layer in LAYERS], 1)

    def measure(self, neurons):
        """The metric for given activations of the neurons, with the clean run's attention."""
        end, stream = self.pairs.end, at(self.run.pre[2], self.pairs.end)
        for layer, post in zip(LAYERS, neurons.split(D_MLP, 1), strict=True):
            weights = self.plain.layers[layer]
            stream = stream + at(self.run.mid[layer] - self.run.pre[layer], end) + post @ weights.W_out + weights.b_out
        return self.pairs.metric()(self.plain.unembed(stream))

    def kept(self, neurons):
        """The mean metric in a run in which all other neurons write what they write on the corrupted prompts."""
        mask, rows = torch.zeros(len(LAYERS) * D_MLP, dtype=torch.bool), torch.arange(len(self.pairs))
        mask[neurons] = True

        def hold(index, layer):
            part = slice(index * D_MLP, (index + 1) * D_MLP)

            def put_in(post, hook):
                post[rows, self.pairs.end] = torch.where(mask[part], at(post, self.pairs.end), self.corrupted[:, part])
                return post

            return f"blocks.{layer}.mlp.hook_post", put_in

        hooks = [hold(index, layer) for index, layer in enumerate(LAYERS)]
        logits = self.model.run_with_hooks(self.pairs.clean, fwd_hooks=hooks)
        return self.pairs.metric()(logits[rows, self.pairs.end]).mean()


@torch.no_grad()
def test_fifteen_neurons_are_many_for_their_number_and_not_all(model, pairs):
    chosen = Above(model, data.greater_than(model.tokenizer, 300, split="train", seed=5))
    clean, corrupted = chosen.clean, chosen.corrupted
    total = torch.zeros_like(clean)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        point = torch.lerp(corrupted, clean, share).requires_grad_()
        with torch.enable_grad():
            total += torch.autograd.grad(chosen.measure(point).sum(), point)[0] / 5
    ranking = ((clean - corrupted) * total).mean(0).argsort(descending=True)
    held_out = Above(model, pairs)
    ends = {above: (above.kept([]), above.kept(ranking)) for above in (held_out, chosen)}

    def share(above, neurons):
        return normalised(above.kept(neurons), *ends[above])

    assert 0.4 < share(held_out, ranking[:15]) < 0.55  # "about half of what the MLPs add"
    for size in (15, 50, 100):
        assert abs(share(held_out, ranking[:size]) - share(chosen, ranking[:size])) < 0.06  # nearly the same curve
    draws = [torch.randperm(768, generator=torch.Generator().manual_seed(seed))[:15] for seed in range(5)]
    assert max(share(held_out, drawn) for drawn in draws) < 0.15
    assert share(held_out, ranking[:60]) < 0.9 < share(held_out, ranking[:120])  # "several times as many"
    assert 0.5 < share(held_out, ranking[15:]) < 0.7  # without the fifteen: "more than half"


@torch.no_grad()
def test_each_mlp_above_is_needed_for_a_part_and_without_all_nearly_a_third_is_left(model, pairs):
    rows, scale = torch.arange(len(pairs)), ends_of_the_scale(model, pairs)
    _, corrupted = model.run_with_cache(pairs.corrupted)

    def left(layers):
        def hold(layer):
            def put_in(written, hook):
                written[rows, pairs.end] = corrupted["mlp_out", layer][rows, pairs.end]
                return written

            return f"blocks.{layer}.hook_mlp_out", put_in

        logits = model.run_with_hooks(pairs.clean, fwd_hooks=[hold(layer) for layer in layers])
        return normalised(pairs.metric()(logits[rows, pairs.end]).mean(), *scale)

    assert left([0, 1]) > 0.98
    assert all(0.4 < left([layer]) < 0.9 for layer in LAYERS)
    assert 0.25 < left(LAYERS) < 0.33


@torch.no_grad()
def test_the_readers_copy_and_the_mlps_do_not(model, year_tokens):
    tokens = model.to_tokens([ask(century, int(year)) for century in CENTURIES for year in YEARS])
    first = YEARS.repeat(len(CENTURIES))
    _, cache = model.run_with_cache(tokens)
    written = [sum(cache["z", i][:, -1, j] @ model.W_O[i, j] for i, j in READERS)]
    written += [cache[f"blocks.{i}.hook_mlp_out"][:, -1] for i in LAYERS]
    inside = (first >= 30) & (first <= 69)
    spikes, steps = [], []
    for out in written:
        logits = ((out - out.mean(0)) @ model.W_U[:, year_tokens])[inside]
        curve = logits.gather(1, first[inside, None] + torch.arange(-30, 31)).mean(0)
        spikes.append((curve[30] - (curve[29] + curve[31]) / 2).item())
        steps.append((curve[31:].mean() - curve[:30].mean()).item())
    assert spikes[0] > 3
    assert max(map(abs, spikes[1:])) < 0.5
    assert min(steps) > 5  # all of them are higher after the year, the readers too


@torch.no_grad()
def test_circuit(model):
    pairs = data.greater_than(model.tokenizer, 60, seed=1)
    patcher = EdgePatcher(model, pairs.clean, pairs.corrupted, pairs.end)
    nodes = {"a0.h0", "a0.h2", "a0.h3", "m1", "a2.h1", "a2.h3", "m2", "m3", "m4"}

    def within(nodes):
        inside = {"input", "logits", *nodes}
        edges = [e for e in patcher.graph.edges if e.source in inside and node_of(e.destination) in inside]
        return Circuit(patcher.graph, frozenset(edges))

    circuit = within(nodes)
    whole = faithfulness(patcher, circuit, pairs.metric())
    assert whole.interval.low > 0.85
    for role in ({"a0.h0", "a0.h2", "a0.h3", "m1"}, {"a2.h1", "a2.h3"}, {"m2", "m3", "m4"}):
        assert faithfulness(patcher, within(nodes - role), pairs.metric()).value < 0.4
    values_only = {e for e in circuit if not e.destination.startswith("a2.h") or e.destination.endswith("<v>")}
    without = faithfulness(patcher, Circuit(patcher.graph, frozenset(values_only)), pairs.metric())
    assert abs(without.value - whole.value) < 0.03  # "nothing happens"


@torch.no_grad()
def test_halfway_codes_beat_a_blend(model, year_tokens):
    tokens = model.to_tokens([ask(century, int(year)) for century in CENTURIES for year in YEARS])
    codes = model.run_with_cache(tokens)[1]["z", 2][:, -1, [1, 3]].view(len(CENTURIES), len(YEARS), 2, -1).mean(0)
    earliest = model.to_tokens([ask(century, 2) for century in CENTURIES])

    def answers_to(codes):
        def write(z, hook):
            z[:, -1, [1, 3]] = codes.repeat_interleave(len(CENTURIES), 0)
            return z

        logits = model.run_with_hooks(earliest.repeat(len(codes), 1), fwd_hooks=[("blocks.2.attn.hook_z", write)])
        return logits[:, -1].softmax(-1)[:, year_tokens].view(len(codes), len(CENTURIES), 100).mean(1)

    def away(a, b):
        return (a - b).abs().sum(-1) / 2

    own, means = answers_to(codes), {}
    for distance in (2, 5, 10, 20, 30):
        truth, before, after = own[distance:-distance], own[: -2 * distance], own[2 * distance :]
        halfway = away(answers_to((codes[: -2 * distance] + codes[2 * distance :]) / 2), truth)
        blend = away((before + after) / 2, truth)
        assert halfway.mean() < blend.mean()
        if distance >= 5:
            assert bootstrap_interval(blend - halfway).low > 0  # beyond doubt
        means[distance] = halfway.mean()
    assert means[10] < 0.1 < means[20] < means[30]  # "farther apart it gets worse"


@torch.no_grad()
def test_it_knows_no_century_and_ends_where_training_ends(model, year_tokens):
    for year in (10, 30, 58, 70, 90):
        same = answers(model, year_tokens, [ask(c, year) for c in CENTURIES[:-1]])
        following = answers(model, year_tokens, [ask(now, year, then) for now, then in pairwise(CENTURIES)])
        assert abs(following[:, : year + 1].sum(-1).mean() - same[:, : year + 1].sum(-1).mean()) < 0.01
    ends = [answers(model, year_tokens, [ask(c, y) for c in CENTURIES])[:, y + 1 :].sum(-1).mean() for y in (97, 98)]
    assert ends[0] > 0.95
    assert ends[1] < 0.5
