"""What the prose of notebook 2.2 says about the shipped models is true of the shipped models."""

import pytest
import torch

from utils import data, load_model
from utils.metrics import log_probability, normalised
from utils.models.untrained import untrained_twin
from utils.models.world.words import NAMES
from utils.patching import patch_heads, patch_residual
from utils.stats import bootstrap_interval

PARTS = ["z", "q", "k", "v", "pattern"]
MODELS = ("tiny-lm", "textbook-ioi")


@pytest.fixture(scope="module")
def models():
    return {name: load_model(name) for name in MODELS}


def pairs_of(model, corruption, n=100):
    template = next(text for text in data.ioi_templates(model.tokenizer) if "gave a {object} to" in text)
    return data.ioi(model.tokenizer, n, corruption, template=template)


@torch.no_grad()
def ends(model, pairs):
    return [pairs.metric()(model(tokens)[:, -1]) for tokens in (pairs.clean, pairs.corrupted)]


def shares(model, pairs, results, direction="denoising"):
    clean, corrupted = (end.mean() for end in ends(model, pairs))
    if direction == "noising":
        clean, corrupted = corrupted, clean
    return normalised(results.mean(-1), corrupted, clean)


@pytest.mark.parametrize("name", MODELS)
def test_what_each_corruption_does_to_the_difference(models, name):
    differences = {}
    for how in ("abc", "swap", "order", "random"):
        clean, corrupted = ends(models[name], pairs_of(models[name], how))
        differences[how] = corrupted.mean().item()
    assert clean.mean() > 8
    assert differences["swap"] < -8  # "turned round"
    assert abs(differences["abc"]) < 1  # "about zero"
    assert abs(differences["random"]) < 1
    assert abs(differences["order"] - clean.mean()) < 0.5  # "as before"


@torch.no_grad()
def test_a_pair_that_differs_after_the_question_does_not_differ(models):
    model = models["tiny-lm"]
    paris, london = (model.to_tokens(f"the Eiffel Tower is in {city}") for city in ("Paris", "London"))
    assert (paris != london)[0].nonzero().flatten().tolist() == [paris.shape[1] - 1]
    torch.testing.assert_close(model(paris)[:, -2], model(london)[:, -2], atol=1e-4, rtol=0)


def test_normalised_without_a_gap_the_effects_are_absurd(models):
    model = models["textbook-ioi"]
    pairs = pairs_of(model, "order")
    found = shares(model, pairs, patch_heads(model, pairs.clean, pairs.corrupted, pairs.metric(), kinds=["z"])[0])
    assert found.abs().max() > 50


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_moves_from_s2_to_the_end_in_layer_2(models, name):
    model = models[name]
    pairs = pairs_of(model, "swap")
    grid = shares(model, pairs, patch_residual(model, pairs.clean, pairs.corrupted, pairs.metric()))
    s2 = int(pairs.positions["S2"][0])
    assert (grid[:3, s2] > 0.95).all()
    assert (grid[:3, -1].abs() < 0.05).all()
    assert (grid[3:, -1] > 0.9).all()
    assert (grid[3:, s2].abs() < 0.1).all()
    others = [position for position in range(grid.shape[1] - 1) if position != s2]
    assert grid[:, others].abs().max() < 0.05


def test_tiny_reads_and_textbook_points(models):
    grids = {}
    for name, model in models.items():
        pairs = pairs_of(model, "swap")
        found = patch_heads(model, pairs.clean, pairs.corrupted, pairs.metric(), kinds=PARTS)
        grids[name] = dict(zip(PARTS, shares(model, pairs, found), strict=True))
    tiny, textbook = grids["tiny-lm"], grids["textbook-ioi"]
    assert tiny["z"].argmax() == 8  # head 2.0
    assert tiny["z"][2, 0] > 0.9
    assert tiny["v"][2, 0] > 0.9
    assert tiny["pattern"].abs().max() < 0.05  # "No head's effect is in where it looks"
    assert sorted((textbook["z"] > 0.3).nonzero().tolist()) == [[0, 0], [2, 0], [2, 1], [3, 0], [3, 1]]
    for layer, head in [(0, 0), (3, 0), (3, 1)]:
        for part in ("q", "pattern"):
            assert abs(textbook[part][layer, head] - textbook["z"][layer, head]) < 0.05
        assert textbook["v"][layer, head].abs() < 0.05
    for head in (0, 1):
        assert abs(textbook["v"][2, head] - textbook["z"][2, head]) < 0.05
        assert textbook["pattern"][2, head].abs() < 0.05
    assert textbook["z"].sum() > 2.5  # "far above 1"


@torch.no_grad()
def test_tinys_head_looks_at_s2_whoever_is_there(models):
    model = models["tiny-lm"]
    pairs = pairs_of(model, "swap")
    for tokens in (pairs.clean, pairs.corrupted):
        pattern = model.run_with_cache(tokens)[1]["pattern", 2][:, 0, -1, int(pairs.positions["S2"][0])]
        assert pattern.min() > 0.9


def test_attention_of_layers_0_and_2_carries_it(models):
    model = models["tiny-lm"]
    pairs = pairs_of(model, "swap")
    added = {
        stream: shares(model, pairs, patch_residual(model, pairs.clean, pairs.corrupted, pairs.metric(), stream=stream))
        for stream in ("attn_out", "mlp_out")
    }
    assert (added["attn_out"].max(1).values > 0.5).nonzero().flatten().tolist() == [0, 2]
    assert added["mlp_out"].argmax() == added["mlp_out"].numel() - 1  # the last layer, at the end
    assert 0.3 < added["mlp_out"].max() < 0.5


@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_twin_has_nothing_to_restore(models, name):
    clean, corrupted = ends(untrained_twin(models[name]), pairs_of(models[name], "swap"))
    assert (clean - corrupted).mean().abs() < 0.5


def both_ways(model, how):
    pairs = pairs_of(model, how)
    return [
        shares(
            model,
            pairs,
            patch_heads(model, pairs.clean, pairs.corrupted, pairs.metric(), kinds=["z"], direction=way)[0],
            way,
        )
        for way in ("denoising", "noising")
    ]


def test_the_directions_agree_under_swap_and_disagree_under_abc(models):
    denoising, noising = both_ways(models["textbook-ioi"], "swap")
    assert (denoising - noising).abs().max() < 0.1
    denoising, noising = both_ways(models["textbook-ioi"], "abc")
    assert (denoising[2, :2] < 0.05).all()
    assert (noising[2, :2] > 0.7).all()


@torch.no_grad()
def test_the_restored_note_points_at_a_name_that_was_not_asked_for(models):
    model = models["textbook-ioi"]
    pairs = pairs_of(model, "abc")
    rows = torch.arange(len(pairs))
    at_io, at_s1 = (pairs.corrupted[rows, pairs.positions[role]] for role in ("IO", "S1"))
    cache = model.run_with_cache(pairs.clean)[1]

    def moved(heads):
        def put_in(z, hook):
            z[:, :, heads] = cache[hook.name][:, :, heads]
            return z

        logits = model.run_with_hooks(pairs.corrupted, fwd_hooks=[("blocks.2.attn.hook_z", put_in)])[:, -1]
        change = logits - model(pairs.corrupted)[:, -1]
        return change[rows, at_io] - change[rows, at_s1], pairs.metric()(change)

    own, asked = moved([0, 1])
    assert own.mean() > 5
    assert asked.mean().abs() < 1  # the metric does not see it
    assert moved([2])[0].mean().abs() < 0.2  # the control
    for head in (0, 1):  # "One of them alone does little"
        assert moved([head])[0].mean() < 0.3 * own.mean()


def test_under_abc_the_first_names_do_opposite_things_to_tiny(models):
    model = models["tiny-lm"]
    lost = {}
    for how in ("abc", "swap"):
        pairs = pairs_of(model, how)
        clean, corrupted = ends(model, pairs)
        noised = patch_residual(model, pairs.clean, pairs.corrupted, pairs.metric(), direction="noising")[0]
        for role in ("IO", "S1"):
            after = noised[pairs.positions[role], torch.arange(len(pairs))]
            lost[how, role] = bootstrap_interval((clean - after) / (clean - corrupted).mean())
    assert lost["abc", "IO"].low > 1  # "more than the whole difference is lost"
    assert lost["abc", "S1"].high < -0.5  # "surer of the answer"
    for role in ("IO", "S1"):  # "no patch can see them"
        assert max(abs(end) for end in lost["swap", role]) < 0.01


@torch.no_grad()
def test_tiny_favours_both_names_and_its_head_tells_them_apart(models):
    model = models["tiny-lm"]
    pairs = pairs_of(model, "abc")
    names, rows = model.tokenizer.convert_tokens_to_ids(list(NAMES)), torch.arange(len(pairs))
    above = {
        "IO": lambda logits: logits[rows, pairs.right] - logits[:, names].mean(1),
        "S": lambda logits: logits[rows, pairs.wrong] - logits[:, names].mean(1),
    }
    noised = patch_heads(model, pairs.clean, pairs.corrupted, above, kinds=["z"], direction="noising")
    without = {role: values[0, 2, 0].mean() for role, values in noised.items()}
    whole = {role: metric(model(pairs.clean)[:, -1]).mean() for role, metric in above.items()}
    assert min(without.values()) > 8  # "high above other names"
    assert abs(without["IO"] - without["S"]) < 1  # "equally high"
    assert whole["IO"] - whole["S"] > 8


@torch.no_grad()
def test_half_a_mixture_hedges(models):
    model = models["textbook-ioi"]
    template = next(text for text in data.ioi_templates(model.tokenizer, "new_openings") if "cleaned" in text)
    pairs = data.ioi(model.tokenizer, 200, "order", template=template, split="new_openings")
    caches = [model.run_with_cache(tokens)[1] for tokens in (pairs.clean, pairs.corrupted)]
    results = {}
    for alpha in (0.0, 0.5, 1.0):

        def mixture(stream, hook, alpha=alpha):
            return alpha * caches[0][hook.name] + (1 - alpha) * caches[1][hook.name]

        logits = model.run_with_hooks(pairs.clean, fwd_hooks=[("blocks.3.hook_resid_pre", mixture)])[:, -1]
        right = (logits.argmax(-1) == pairs.right).float()
        results[alpha] = (right, log_probability(logits, pairs.right), logits.softmax(-1).max(-1).values)
    for end in (0.0, 1.0):  # worse than either parent by count, better by log-probability
        fewer = bootstrap_interval(results[end][0] - results[0.5][0])
        higher = bootstrap_interval(results[0.5][1] - results[end][1])
        assert fewer.low > 0.1
        assert higher.low > 0.5
        assert results[0.5][2].mean() < results[end][2].mean()  # "less sure"
    wrong = results[1.0][0] == 0
    assert (results[0.5][1] - results[1.0][1])[wrong].mean() > 3
    assert (results[0.5][1] - results[1.0][1])[~wrong].mean() < -1
