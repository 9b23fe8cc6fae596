"""What the prose of notebook 3.1 says about the shipped models is true of the shipped models."""

from itertools import combinations
from random import Random

import pytest
import torch

from utils import attention, load_model
from utils.composition import HeadWeights
from utils.models import repeat_language
from utils.models.prompts import repeated_tokens, story_batch
from utils.models.untrained import untrained_twin
from utils.models.world.filler import REPEAT_LENGTHS
from utils.patching import ablate
from utils.readout import token_log_probs
from utils.stats import bootstrap_interval

FOUR = [(2, 1), (3, 0), (3, 1), (3, 3)]
LENGTH, LENGTH_2L = 20, 30
TOKENS = repeated_tokens(60, LENGTH, seed=11)
REFERENCE = repeated_tokens(12, LENGTH, seed=12)
TOKENS_2L = repeat_language.repeated_tokens(60, LENGTH_2L, seed=11)
REFERENCE_2L = repeat_language.repeated_tokens(12, LENGTH_2L, seed=12)


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def two_layers():
    return load_model("induction-2l")


def losses(model, tokens):
    return -token_log_probs(model(tokens), tokens)


def copies(values):
    length = values.shape[1] // 2
    return values[:, :length].mean().item(), values[:, length + 1 :].mean().item()


def scores(model, tokens):
    return torch.stack([attention.induction_score(p, tokens) for p in attention.attention_patterns(model, tokens)])


def lost(model, heads, how="mean", tokens=TOKENS, reference=REFERENCE, per_position=False):
    """The share of the copying that is lost, on the notebook's scale."""
    first, second = copies(losses(model, tokens))
    options = {} if how == "zero" else {"reference": reference, "per_position": per_position}
    with ablate(model, list(heads), how, **options):
        return (copies(losses(model, tokens))[1] - second) / (first - second)


def test_the_repeat_is_cheap_for_trained_models_only(tiny, two_layers):
    for model, tokens in ((tiny, TOKENS), (two_layers, TOKENS_2L)):
        first, second = copies(losses(model, tokens))
        twin_first, twin_second = copies(losses(untrained_twin(model), tokens))
        assert second < 0.2
        assert first > twin_first  # "worse than the untrained one"
        assert abs(twin_first - twin_second) < 0.05


def test_the_first_word_of_the_second_copy_lies_in_between(tiny):
    each = losses(tiny, TOKENS)
    first, second = copies(each)
    assert second + 1 < each[:, LENGTH].mean() < first - 1


def test_late_in_the_first_copy_the_model_bets_on_its_end(tiny):
    assert max(REPEAT_LENGTHS) == 14
    bets = tiny(TOKENS).softmax(-1)[:, 1:LENGTH]
    first_word = bets.gather(-1, TOKENS[:, 1:2, None].expand(-1, LENGTH - 1, 1))[..., 0]
    ends = (bets[..., tiny.to_single_token(";")] + first_word).mean(0)
    assert ends[2] < 0.05 < 0.4 < ends[-1]
    each = losses(tiny, TOKENS)[:, :LENGTH].mean(0)
    assert each[14:].mean() > each[2:9].mean() + 1


def test_the_score_misleads_in_both_directions(tiny):
    one_layer = load_model("induction-1l")
    each = losses(one_layer, TOKENS_2L)
    _, high = bootstrap_interval(each[:, 50:60].mean(-1) - each[:, 20:30].mean(-1))
    right = one_layer(TOKENS_2L)[:, LENGTH_2L + 1 : -1].argmax(-1) == TOKENS_2L[:, LENGTH_2L + 2 :]
    assert high < -0.5
    assert right.float().mean() < 0.05
    stories = story_batch(200, seed=13).tokens
    each = losses(tiny, stories)
    low, high = bootstrap_interval(each[:, 50:60].mean(-1) - each[:, 10:20].mean(-1))
    assert low < 0 < high


def test_four_heads_stand_out_on_every_length(tiny):
    for length in (8, LENGTH, 31):
        found = scores(tiny, repeated_tokens(60, length, seed=11))
        assert [tuple(at) for at in (found > 0.5).nonzero().tolist()] == FOUR
    on_stories = scores(tiny, story_batch(100, seed=13).tokens)
    assert sorted(divmod(i, 4) for i in on_stories.flatten().topk(4).indices.tolist()) == FOUR
    assert 0.2 < min(on_stories[at] for at in FOUR) <= max(on_stories[at] for at in FOUR) < 0.4
    assert scores(untrained_twin(tiny), TOKENS).max() < 0.05
    assert int(scores(tiny, TOKENS).argmax()) == 2 * 4 + 1  # 2.1 looks best


def copied(model, layer, head, words, ids):
    heads = HeadWeights.of(model)
    return ((words @ heads.W_V[layer, head] @ heads.W_O[layer, head] @ heads.W_U).argmax(-1) == ids).float().mean()


def test_nobody_copies_from_the_embedding_and_four_do_from_the_stream(tiny, two_layers):
    tokens = repeated_tokens(200, LENGTH, seed=11)
    ids, which = tokens[:, 1 : LENGTH + 1].unique(return_inverse=True)
    _, cache = tiny.run_with_cache(tokens)
    embedded = HeadWeights.of(tiny).W_E[ids]
    found = {}
    for layer in range(tiny.cfg.n_layers):
        streams = cache["resid_pre", layer][:, 1 : LENGTH + 1].flatten(0, 1)
        words = torch.zeros(len(ids), 128).index_add_(0, which.flatten(), streams)
        words = words / which.flatten().bincount()[:, None]
        for head in range(4):
            assert copied(tiny, layer, head, embedded, ids) < 0.01
            found[layer, head] = copied(tiny, layer, head, words, ids).item()
    assert {at for at, share in found.items() if share > 0.5} == {(3, 0), (3, 1), (3, 3), (4, 3)}
    assert 0.2 < found[2, 1] < 0.45  # "about one word in three"
    every = torch.arange(1, 128)
    words = HeadWeights.of(two_layers).W_E[every]
    assert copied(two_layers, 1, 1, words, every) > 0.95
    assert copied(two_layers, 1, 3, words, every) > 0.5


def test_in_action_three_heads_copy_and_4_3_does_not(tiny):
    _, cache = tiny.run_with_cache(TOKENS)
    heads = HeadWeights.of(tiny)
    shares = {}
    for layer, head in [*FOUR, (4, 3)]:
        raised = (cache["z", layer][:, :, head] @ heads.W_O[layer, head] @ heads.W_U).argmax(-1)
        looked_at = TOKENS.gather(1, cache["pattern", layer][:, head].argmax(-1))
        shares[layer, head] = (raised == looked_at)[:, LENGTH + 1 :].float().mean().item()
    assert min(shares[3, head] for head in (0, 1, 3)) > 0.6
    assert shares[2, 1] < 0.4
    assert shares[4, 3] < 0.1


def test_two_heads_break_one_model_and_not_the_other(tiny, two_layers):
    for how in ("mean", "zero"):
        assert lost(two_layers, [(1, 1), (1, 3)], how, TOKENS_2L, REFERENCE_2L) >= 0.99
        assert 0.3 < lost(tiny, [(2, 1), (3, 3)], how) < 0.48
        for third in ((3, 0), (3, 1)):  # their scores are as good as equal
            assert 0.55 < lost(tiny, [(2, 1), (3, 3), third], how) < 0.72
        assert lost(tiny, FOUR, how) == pytest.approx(1, abs=0.05)


def test_heads_stand_in_for_each_other(tiny):
    alone = {at: lost(tiny, [at]) for at in FOUR}
    assert max(alone[3, head] for head in (0, 1, 3)) < 0.04
    assert 0.15 < alone[2, 1] == max(alone.values())
    assert sum(alone.values()) < 0.35
    for at in FOUR:
        assert lost(tiny, [other for other in FOUR if other != at]) > 0.5


def test_the_mean_of_each_position_gives_part_of_it_away(tiny):
    assert lost(tiny, [(2, 1)], per_position=True) < 0.02
    assert lost(tiny, [(2, 1), (3, 3)], per_position=True) < 0.15


def test_random_sets_of_any_heads_do_as_much(two_layers):
    every = list(combinations([(layer, head) for layer in range(2) for head in range(4)], 2))
    tokens, reference = TOKENS_2L[:8], REFERENCE_2L[:8]
    damage = {heads: lost(two_layers, heads, "mean", tokens, reference) for heads in every}
    as_much = sum(value >= damage[(1, 1), (1, 3)] for value in damage.values())
    assert as_much / len(every) > 0.05  # the exact p-value
    worse = {heads for heads, value in damage.items() if value > damage[(1, 1), (1, 3)]}
    assert sum((0, 2) in heads for heads in worse) >= 0.75 * len(worse)  # most hold the previous-token head


def test_the_worst_pairs_hold_one_of_two_early_heads(tiny):
    every = list(combinations([(layer, head) for layer in range(5) for head in range(4)], 2))
    tokens, reference = TOKENS[:8], REFERENCE[:8]
    damage = {heads: lost(tiny, heads, "mean", tokens, reference) for heads in Random(2).sample(every, 80)}
    early = {heads for heads in damage if (0, 1) in heads or (0, 2) in heads}
    assert min(damage[heads] for heads in early) > 0.75
    assert max(value for heads, value in damage.items() if heads not in early) < 0.5


def test_among_heads_of_the_same_depth_they_stand_out(tiny):
    upper = [(layer, head) for layer in range(2, 5) for head in range(4)]
    tokens, reference = TOKENS[:8], REFERENCE[:8]
    for chosen, most in (([(2, 1), (3, 3)], 3), (FOUR, 0)):
        sets = [heads for heads in combinations(upper, len(chosen)) if set(heads) != set(chosen)]
        sets = Random(1).sample(sets, 60)
        observed = lost(tiny, chosen, "mean", tokens, reference)
        assert sum(lost(tiny, heads, "mean", tokens, reference) >= observed for heads in sets) <= most


def test_early_heads_break_everything_and_the_four_break_repeats(tiny):
    stories, reference = story_batch(150, seed=13), story_batch(60, seed=14).tokens
    repeats = stories.families[:, 1:] == stories.family_names.index("repeat")
    intact = losses(tiny, stories.tokens)
    cost = {}
    for name, heads in {"four": FOUR, "0.1": [(0, 1)], "0.2": [(0, 2)]}.items():
        with ablate(tiny, heads, "mean", reference=reference):
            change = losses(tiny, stories.tokens) - intact
        cost[name] = change[~repeats].mean().item(), change[repeats].mean().item()
        assert lost(tiny, heads) > 0.85
    assert cost["four"][0] < 0.2 < 2 < cost["four"][1]
    assert cost["0.1"][0] > 2.5 * cost["four"][0]
    assert cost["0.2"][0] > 5 * cost["four"][0]  # "several times as large"
