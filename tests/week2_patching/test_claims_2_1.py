"""What the prose of notebook 2.1 says about the shipped models is true of the shipped models."""

from types import SimpleNamespace

import pytest
import torch

from utils import data, load_model
from utils.attribution import attribute_components, attribute_heads, attribute_neurons, attribute_sources
from utils.metrics import at_end
from utils.models.ioi_world.prompts import textbook_ioi_prompts
from utils.models.known_circuit import known_circuit
from utils.models.untrained import untrained_twin
from utils.patching import ablate, ablation_effects
from utils.stats import bootstrap_interval, spearman, spearman_interval

MOVERS = [(3, 0), (3, 1)]
QUIET = [(2, 1), (3, 0), (3, 1), (3, 3), (4, 0), (4, 3)]


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny():
    model = load_model("tiny-lm")
    pairs = data.ioi(model.tokenizer, 200, "abc")
    bystander = pairs.right.roll(1)
    for shift in range(2, 20):
        taken = (bystander == pairs.right) | (bystander == pairs.wrong)
        bystander = torch.where(taken, pairs.right.roll(shift), bystander)
    asked = (model, pairs.clean, pairs.right)
    return SimpleNamespace(
        model=model,
        pairs=pairs,
        heads=attribute_heads(*asked, pairs.wrong, pairs.end),
        parts=attribute_components(*asked, pairs.wrong, pairs.end),
        right_raised=attribute_heads(*asked, bystander, pairs.end),
        wrong_raised=attribute_heads(model, pairs.clean, pairs.wrong, bystander, pairs.end),
        difference=pairs.metric()(at_end(model(pairs.clean), pairs.end)),
    )


@pytest.fixture(scope="module")
def book():
    model = load_model("textbook-ioi")
    pairs = data.ioi(model.tokenizer, 200, "abc")
    heads = attribute_heads(model, pairs.clean, pairs.right, pairs.wrong, pairs.end)
    difference = pairs.metric()(at_end(model(pairs.clean), pairs.end))
    return SimpleNamespace(model=model, pairs=pairs, heads=heads, difference=difference)


def mean_instead(pairs):
    return {"reference": pairs.corrupted, "reference_end": pairs.end, "per_position": False}


def test_the_untrained_twin_prefers_neither_name(tiny):
    pairs = tiny.pairs
    each = pairs.metric()(at_end(untrained_twin(tiny.model)(pairs.clean), pairs.end))
    low, high = bootstrap_interval(each)
    assert low < 0 < high
    assert (tiny.difference > 0).all()


def test_two_parts_write_nearly_everything_and_one_head_of_twenty_is_loud(tiny):
    parts = tiny.parts
    torch.testing.assert_close(parts.total, tiny.difference, atol=1e-4, rtol=1e-4)
    two = parts.attention[2].mean() + parts.mlp[4].mean()
    assert parts.attention[2].mean() > parts.mlp[4].mean() > 0.75 * parts.attention[2].mean()
    assert two / tiny.difference.mean() > 0.9
    for layer in (3, 4):  # "next to nothing on average, and a lot on single prompts"
        assert parts.attention[layer].mean() < 0.1 * parts.attention[2].mean() + 0.1
        assert parts.attention[layer].abs().mean() > 3
        assert 0.2 < (parts.attention[layer] > 0).float().mean() < 0.8
    assert (tiny.heads.mean(-1) > 0.5).nonzero().tolist() == [[2, 0]]
    assert tiny.heads[2, 0].mean() / tiny.difference.mean() == pytest.approx(0.49, abs=0.03)


def test_head_2_0_reads_s2_and_writes_against_it(tiny):
    pairs, rows = tiny.pairs, torch.arange(200)
    sources = attribute_sources(tiny.model, pairs.clean, pairs.right, pairs.wrong, pairs.end)[2, 0]
    assert sources[pairs.positions["S2"], rows].mean() / tiny.heads[2, 0].mean() > 0.99
    assert tiny.wrong_raised[2, 0].mean() < -4
    assert tiny.right_raised[2, 0].mean() < 0.5


def test_neurons_cancel_and_change_from_prompt_to_prompt(tiny):
    pairs = tiny.pairs
    neurons = attribute_neurons(tiny.model, pairs.clean, pairs.right, pairs.wrong, pairs.end)[4]
    five = neurons.topk(5, dim=0).values.sum(0).mean()
    assert five / neurons.sum(0).mean() == pytest.approx(0.92, abs=0.01)
    assert neurons.clamp(min=0).sum(0).mean() > 2 * neurons.sum(0).mean()
    assert len(neurons.argmax(0).unique()) > 20


def test_the_mlp_only_passes_on_what_the_head_found(tiny):
    pairs = tiny.pairs
    left = []
    for head in (0, 1):
        with ablate(tiny.model, [(2, head)], "mean", **mean_instead(pairs)):
            parts = attribute_components(tiny.model, pairs.clean, pairs.right, pairs.wrong, pairs.end)
            left.append(parts.mlp[4].mean())
    assert abs(left[0]) < 0.3
    assert left[1] > 3


def test_six_heads_raise_both_names_and_their_loss_raises_the_difference(tiny):
    raised = torch.stack([tiny.right_raised[..., :100].mean(-1), tiny.wrong_raised[..., :100].mean(-1)])
    assert [tuple(at) for at in (raised.min(0).values > 0.5).nonzero().tolist()] == QUIET
    assert all(tiny.heads[at].mean().abs() < 0.15 for at in QUIET)
    test = tiny.pairs[100:]

    def without(removed):
        with ablate(tiny.model, removed, "mean", **mean_instead(test)):
            ends = at_end(tiny.model(test.clean), test.end)
        return test.metric()(ends).mean(), (ends.argmax(-1) == test.right).float().mean()

    everybody, quiet = tiny.difference[100:].mean(), without(QUIET)
    assert quiet[0] > 1.3 * everybody
    assert quiet[1] < 0.3  # "wrong on most prompts"
    scales = []
    for removed in ([], QUIET):
        with ablate(tiny.model, removed, "mean", **mean_instead(test)):
            _, cache = tiny.model.run_with_cache(test.clean, names_filter="blocks.4.hook_resid_post")
        scales.append(at_end(cache["resid_post", 4], test.end).std(-1, correction=0).mean())
    at_old_scale = quiet[0] * scales[1] / scales[0]
    assert at_old_scale - everybody < 0.3 * (quiet[0] - everybody)  # "most of the rise is the norm"
    others = [(layer, head) for layer in (2, 3, 4) for head in range(4) if (layer, head) not in [(2, 0), *QUIET]]
    assert without(others)[1] == 1
    everyone_else = [(layer, head) for layer in range(5) for head in range(4) if (layer, head) not in QUIET]
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        draw = torch.randperm(len(everyone_else), generator=generator)[:6].tolist()
        assert without([everyone_else[i] for i in draw])[0] < everybody


def test_the_norm_pays_back_half_of_one_mover_and_little_of_both(book):
    credit = [book.heads[at].mean() for at in MOVERS]
    assert sum(credit) / book.difference.mean() > 0.95
    assert credit[1] == pytest.approx(4.2, abs=0.05)

    def lost(removed):
        with ablate(book.model, removed, "zero"):
            ends = at_end(book.model(book.pairs.clean), book.pairs.end)
        return (book.difference - book.pairs.metric()(ends)).mean()

    assert 1 - lost([(3, 1)]) / credit[1] == pytest.approx(0.52, abs=0.03)
    assert 1 - lost([(3, 0)]) / credit[0] == pytest.approx(0.38, abs=0.03)
    assert 1 - lost(MOVERS) / sum(credit) < 0.1


@pytest.mark.parametrize("name", ["tiny-lm", "tiny-lm-seed2", "tiny-lm-seed3", "textbook-ioi", "textbook-ioi-emergent"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_head_that_wrote_most_matters_most_in_tiny_lm_only(name, seed):
    model = load_model(name)
    pairs = data.ioi(model.tokenizer, 100, "abc", seed=seed)
    wrote = attribute_heads(model, pairs.clean, pairs.right, pairs.wrong, pairs.end).mean(-1)
    change = ablation_effects(model, pairs.clean, pairs.metric(), "mean", end=pairs.end, **mean_instead(pairs))
    cost = -change.mean(-1)
    same = int(wrote.argmax()) == int(cost.argmax())
    assert same == name.startswith("tiny-lm")
    if not same:
        finder = divmod(int(cost.argmax()), 4)
        assert finder[0] == 0
        assert wrote[finder].abs() < 0.1
        if name == "textbook-ioi":
            assert f"a{finder[0]}.{finder[1]}" in known_circuit(name).heads["duplicate token"]
            assert all(wrote[at] > cost[at] for at in MOVERS)  # "the movers lie below it"
    low, high = spearman_interval(wrote.abs().flatten(), cost.abs().flatten())
    assert high - low > 0.6
    assert spearman(wrote.abs().flatten(), cost.abs().flatten()) < 0.7


def test_movers_are_blamed_and_others_told_them_where_to_look(book):
    prompts = textbook_ioi_prompts(500, 0, "new_openings")
    ends = prompts.positions["END"]
    said = at_end(book.model(prompts.tokens), ends).argmax(-1)
    missed = said != prompts.answer_ids
    assert 0.1 < missed.float().mean() < 0.3  # "often wrong"
    assert (said[missed] == prompts.wrong_ids[missed]).float().mean() < 0.1
    tokens, end, right = prompts.tokens[missed], ends[missed], prompts.answer_ids[missed]
    blame = attribute_heads(book.model, tokens, said[missed], right, end)
    guilty = torch.bincount(blame.flatten(0, 1).argmax(0), minlength=16).view(4, 4) / len(tokens)
    assert {divmod(int(i), 4) for i in guilty.flatten().topk(2).indices} == set(MOVERS)
    assert guilty[2, :2].sum() < 0.1  # "hardly ever blamed"
    rows = torch.arange(len(tokens))
    places = {role: at[missed] for role, at in prompts.positions.items()}

    def repaired(layer, heads, query, key):
        def look(pattern, hook):
            pattern = pattern.clone()
            for head in heads:
                pattern[rows, head, places[query]] = 0
                pattern[rows, head, places[query], places[key]] = 1
            return pattern

        logits = book.model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", look)])
        return (at_end(logits, end).argmax(-1) == right).float().mean()

    assert repaired(3, [0, 1], "END", "IO") > 0.97
    assert repaired(3, [2, 3], "END", "IO") < 0.05
    assert repaired(2, [0, 1], "END", "S2") == pytest.approx(0.42, abs=0.05)
    assert repaired(2, [2, 3], "END", "S2") < 0.2
