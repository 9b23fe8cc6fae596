"""What the prose of notebook 2.6 says about the shipped model is true of the shipped model."""

from functools import partial
from random import Random

import pytest
import torch

from utils import load_model
from utils.data import fact_templates, facts
from utils.editing import RankOneEdit, edit_facts, key_covariance, keys
from utils.editing_prompts import Rewrite, in_contexts, target_ids
from utils.metrics import at_end, logit_difference
from utils.models.prompts import gendered_prompts, speaker_prompts, story_batch
from utils.models.untrained import untrained_twin
from utils.models.world.facts import FACTS
from utils.patching import patch_residual
from utils.probes import linear_probe, score_probe, split_by_group
from utils.readout import end_positions, find_word
from utils.steering import dose_response, mean_difference, random_directions, read_at, steered

TRACED = "the {subject} stands in the center of"
PREFIXES = ("", "every Friday Kelly meets Harold at the office .", "the florist works at the greenhouse .")
LANDMARKS = FACTS["landmark"]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def untrained(model):
    return untrained_twin(model)


def ids(model, words):
    return model.to_tokens(words)[:, 1]


def test_most_landmarks_are_invented_and_come_in_two_orders():
    turned = [name for name in LANDMARKS if " ".join(reversed(name.split())) in LANDMARKS]
    assert len(LANDMARKS) == 105
    assert len(turned) == 100
    assert LANDMARKS["Shadow Lion"] != LANDMARKS["Lion Shadow"]
    assert len(set(FACTS["capital"].values())) == len(FACTS["capital"])  # no two countries share a capital


# --- tracing


@pytest.fixture(scope="module")
@torch.no_grad()
def traced(model):
    """The share of the lost probability that one output brings back, [layer, place, prompt] for each kind."""
    names = list(LANDMARKS)[::2]
    tokens = model.to_tokens([TRACED.format(subject=name) for name in names])
    right = ids(model, [LANDMARKS[name] for name in names])
    size = 3 * model.W_E.std()
    noise = size * torch.randn(*tokens.shape, 128, generator=torch.Generator().manual_seed(0))
    noise[:, :2], noise[:, 4:] = 0, 0
    _, clean = model.run_with_cache(tokens)
    drown = ("hook_embed", lambda x, hook: x + noise)

    def p(*hooks):
        logits = model.run_with_hooks(tokens, fwd_hooks=[*hooks])[:, -1]
        return logits.softmax(-1).gather(-1, right[:, None])[:, 0]

    def restore(place):
        def put(x, hook):
            x = x.clone()
            x[:, place] = clean[hook.name][:, place]
            return x

        return put

    noisy = p(drown)
    assert p().mean() > 0.99
    assert noisy.mean() < 0.35
    return {
        kind: torch.stack(
            [
                torch.stack([p(drown, (f"blocks.{layer}.hook_{kind}", restore(place))) for place in range(2, 9)])
                for layer in range(5)
            ]
        ).sub(noisy)
        / (p() - noisy).mean()
        for kind in ("resid_post", "attn_out", "mlp_out")
    }


def test_the_early_site_is_the_attention_of_layer_0_at_the_subject_s_last_word(traced):
    at_last = {kind: shares[:, 1].mean(-1) for kind, shares in traced.items()}
    assert at_last["attn_out"].argmax() == 0
    assert at_last["attn_out"][0] > 0.5
    assert at_last["mlp_out"].argmax() == 0
    assert 0.05 < at_last["mlp_out"][0] < 0.3
    assert at_last["mlp_out"][1:].abs().max() < 0.05


def test_the_late_site_is_at_the_end_and_nothing_is_in_between(traced):
    assert traced["attn_out"][2:4, -1].mean(-1).min() > 0.3
    assert traced["resid_post"][:, 2:-1].mean(-1).abs().max() < 0.05


def test_both_corruptions_prefer_the_last_word_and_another_landmark_gives_about_half(model, traced):
    pairs = facts(model.tokenizer, 60, "landmark", template=f"{TRACED} | {{value}} .", split="train")

    def p(logits):
        return logits.softmax(-1).gather(-1, pairs.right[:, None])[:, 0]

    patched = patch_residual(model, pairs.clean, pairs.corrupted, p, pairs.end, "resid_post")
    start, goal = (p(model(side)[:, -1]) for side in (pairs.corrupted, pairs.clean))
    swapped = ((patched - start) / (goal - start).mean())[1, 2:4].mean(-1)
    noisy = traced["resid_post"][1, :2].mean(-1)
    assert swapped[1] > swapped[0] + 0.1
    assert noisy[1] > noisy[0] + 0.1
    assert (swapped / noisy > 0.35).all()
    assert (swapped / noisy < 0.7).all()


# --- editing


def questions_about(model, relation):
    asking = [template.partition(" |")[0] for template in fact_templates(model.tokenizer, relation)]
    return [template for template in asking if template.replace("{subject}", "").count("{") == 0]


def said(model, texts):
    tokens = model.to_tokens(texts)
    return at_end(model(tokens), end_positions(tokens, model.tokenizer.pad_token_id)).argmax(-1)


def requests(model, relation, n):
    """Other facts than those of the notebook."""
    rng, values = Random("claims of notebook 2.6"), FACTS[relation]
    kinds, asked = sorted(set(values.values())), questions_about(model, relation)[0]
    subjects = rng.sample(sorted(values), n)
    return [Rewrite(s, asked, rng.choice([kind for kind in kinds if kind != values[s]])) for s in subjects]


@pytest.fixture(scope="module")
def moments(model):
    text = story_batch(150, seed=1).tokens
    return {layer: key_covariance(model, layer, text) for layer in range(4)}


@torch.no_grad()
def outcome(model, relation, rewrites, edits):
    """Mean efficacy, paraphrase, neighbours, and the share of builder questions kept."""
    subjects, asked = list(FACTS[relation]), questions_about(model, relation)
    everyone = [asked[0].format(subject=subject) for subject in subjects]
    before, rows = said(model, everyone), []
    for rewrite, edit in zip(rewrites, edits, strict=True):
        about = [question.format(subject=rewrite.subject) for question in asked]
        builders = [question.format(subject=rewrite.subject) for question in questions_about(model, "builder")]
        built = said(model, builders) if relation == "landmark" else None
        here = subjects.index(rewrite.subject)
        near = (before == before[here]) & (torch.arange(len(subjects)) != here)
        with edit.applied(model):
            new = (said(model, about) == target_ids(model, [rewrite.target])).float()
            kept = (said(model, everyone) == before).float()[near].mean()
            same = (said(model, builders) == built).float().mean() if built is not None else torch.tensor(float("nan"))
        rows.append(torch.stack([new[0], new[1:].mean(), kept, same]))
    return torch.stack(rows).nanmean(0)


def test_layer_0_meets_the_aims_without_the_moments_it_does_not_and_the_builder_pays(model, moments):
    rewrites = requests(model, "landmark", 20)
    edits = edit_facts(model, 0, rewrites, moments[0], PREFIXES)
    efficacy, paraphrase, neighbours, builder = outcome(model, "landmark", rewrites, edits)
    assert efficacy >= 0.85
    assert paraphrase > 0.8
    assert neighbours > 0.85
    assert builder < 0.75
    plain = []
    for rewrite, edit in zip(rewrites, edits, strict=True):
        ask = in_contexts(model, [rewrite], PREFIXES)
        key = keys(model, 0, ask.tokens)[ask.rows, ask.subject].mean(0)
        plain.append(RankOneEdit(0, key / key.square().sum(), edit.change))
    spilled = outcome(model, "landmark", rewrites, plain)
    assert spilled[0] >= 0.9
    assert spilled[2] < 0.5


def test_layer_2_can_be_edited_though_nothing_is_traced_there_and_paraphrases_do_not_follow(model, moments, traced):
    rewrites = requests(model, "landmark", 12)
    done = {
        layer: outcome(model, "landmark", rewrites, edit_facts(model, layer, rewrites, moments[layer], PREFIXES))
        for layer in (1, 2, 3)
    }
    assert traced["mlp_out"][2, 1].mean().abs() < 0.05
    assert done[2][0] >= 0.8
    assert done[3][0] < done[2][0]
    assert max(scores[1] for scores in done.values()) < 0.65


def test_capitals_are_rewritten_in_one_sentence_only_because_their_keys_differ(model, moments):
    def received(relation, rewrites, edits):
        shares = []
        for rewrite, edit in zip(rewrites, edits, strict=True):
            others = [Rewrite(rewrite.subject, q, rewrite.target) for q in questions_about(model, relation)[1:]]
            ask = in_contexts(model, others, ("",))
            shares.append((keys(model, edit.layer, ask.tokens)[ask.rows, ask.subject] @ edit.direction.float()).mean())
        return torch.stack(shares).mean()

    capitals = requests(model, "capital", 15)
    edits = edit_facts(model, 1, capitals, moments[1], PREFIXES)
    efficacy, paraphrase, *_ = outcome(model, "capital", capitals, edits)
    assert efficacy >= 0.85
    assert paraphrase < 0.5
    assert 0.3 < received("capital", capitals, edits) < 0.75
    landmarks = requests(model, "landmark", 6)
    assert received("landmark", landmarks, edit_facts(model, 0, landmarks, moments[0], PREFIXES)) > 0.95


def test_a_landmark_s_key_is_the_same_whatever_is_asked_after_it(model):
    city, builder = (model.to_tokens(f"the Eiffel Tower {rest}") for rest in ("is in the city", "was built by the"))
    for layer in range(5):
        one, other = (keys(model, layer, tokens)[0, 3] for tokens in (city, builder))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_eiffel_tower_moves_to_rome_with_its_paraphrases_and_loses_its_builder(model, moments):
    (edit,) = edit_facts(model, 0, [Rewrite("Eiffel Tower", "the {subject} is in", "Rome")], moments[0], PREFIXES)
    asked = ["the Eiffel Tower is in", "tourists at the Eiffel Tower are visiting"]
    others = ["the Shadow Lion is in", "the Golden Winter is in", "the capital of France is"]
    built = ["the Eiffel Tower was built by"]
    old = said(model, built)
    assert model.to_str_tokens(said(model, asked + others)) == ["Paris"] * 5
    with edit.applied(model):
        assert model.to_str_tokens(said(model, asked + others)) == ["Rome"] * 2 + ["Paris"] * 3
        assert not torch.equal(said(model, built), old)


# --- probing


def people_of(model):
    prompts = gendered_prompts(600, seed=9, split="train")
    tokens = model.to_tokens(prompts.texts)
    names = ids(model, [prompt.slots["N"] for prompt in prompts])
    she = torch.tensor([word == "she" for word in prompts.answers]).long()
    return tokens, names, find_word(tokens, names), she


def test_an_untrained_model_gives_gender_away_until_names_are_new(model, untrained):
    tokens, names, at, she = people_of(model)
    scores = {}
    for title, probed in {"trained": model, "untrained": untrained}.items():
        x = read_at(probed, tokens, "hook_embed", at)
        scores[title] = score_probe(x, she, torch.arange(600), names), score_probe(x, she, names, seed=1)
    (known, new), (known_random, new_random) = scores["trained"], scores["untrained"]
    assert known.accuracy > 0.95
    assert known_random.accuracy > 0.9
    assert known.selectivity < 0.15  # small, though gender is there
    assert abs(known_random.selectivity) < 0.1
    assert new.accuracy > 0.95
    assert new_random.accuracy_interval.low < 0.5 < new_random.accuracy_interval.high
    shuffled = she[torch.randperm(600, generator=torch.Generator().manual_seed(1))]
    chance = score_probe(read_at(model, tokens, "hook_embed", at), shuffled, torch.arange(600))
    assert 0.35 < chance.accuracy < 0.65


def speakers_of(model):
    prompts = speaker_prompts(400, seed=9, split="train")
    tokens = model.to_tokens(prompts.texts)
    honest = torch.tensor([prompt.wrong == "" for prompt in prompts]).long()
    speakers = ids(model, [prompt.slots["N"] for prompt in prompts])
    return tokens, end_positions(tokens, model.tokenizer.pad_token_id), speakers, honest


def test_honesty_is_read_with_certainty_from_layer_2_and_above_chance_in_an_untrained_model(model, untrained):
    tokens, end, speakers, honest = speakers_of(model)
    for layer in range(5):
        hook = f"blocks.{layer}.hook_resid_post"
        trained = score_probe(read_at(model, tokens, hook, end), honest, speakers)
        random = score_probe(read_at(untrained, tokens, hook, end), honest, speakers)
        if layer < 2:
            assert trained.accuracy_interval.low < 0.5 < trained.accuracy_interval.high
        else:
            assert trained.accuracy == 1
        if layer > 2:
            assert 0.5 < random.accuracy_interval.low < random.accuracy < 0.85


# --- steering


@pytest.fixture(scope="module")
@torch.no_grad()
def gender(model):
    """What is read from people, and prompts about men with their metric."""
    tokens, names, at, she = people_of(model)
    asked = [prompt for prompt in gendered_prompts(120, seed=3) if prompt.answer == "he"]
    men = model.to_tokens([prompt.text for prompt in asked])
    end = end_positions(men, model.tokenizer.pad_token_id)
    right, wrong = ids(model, ["she", "he"])
    metric = partial(logit_difference, right=right.expand(len(men)), wrong=wrong.expand(len(men)))
    at_name = find_word(men, ids(model, [prompt.slots["N"] for prompt in asked]))
    return {"people": (tokens, names, at, she), "men": (men, end, metric), "name": at_name}


def turned(model, gender, hook, direction):
    men, end, metric = gender["men"]
    with steered(model, hook, direction):
        return (metric(at_end(model(men), end)) > 0).float().mean().item()


def test_the_gender_direction_turns_all_at_a_small_price_and_random_ones_nothing(model, gender):
    (tokens, _, at, she), (men, end, metric) = gender["people"], gender["men"]
    hook, stories = "blocks.2.hook_resid_post", story_batch(24, seed=5).tokens
    x = read_at(model, tokens, hook, at)
    direction = mean_difference(x[she == 1], x[she == 0])
    run = partial(dose_response, model, men, metric, hook, strengths=[1.0, 3.0], end=end, unrelated=stories)
    response, controls = run(direction=direction), [run(direction=d) for d in random_directions(direction, 3)]
    assert (response.metric > 0).float().mean(1).min() == 1
    assert all((control.metric[0] > 0).float().mean() == 0 for control in controls)
    assert response.side_effect[0].mean() < 0.1
    assert response.side_effect[1].mean() > 5 * response.side_effect[0].mean()
    assert all((control.side_effect.mean(1) < response.side_effect.mean(1)).all() for control in controls)


def test_at_the_answer_gender_is_readable_in_layers_2_and_3_and_steering_there_does_nothing(model, gender):
    tokens, names, at, she = gender["people"]
    ends = end_positions(tokens, model.tokenizer.pad_token_id)
    _, new = split_by_group(names, seed=1)
    length = 11.0
    for layer in range(5):
        hook = f"blocks.{layer}.hook_resid_post"
        by_name, x = read_at(model, tokens, hook, at), read_at(model, tokens, hook, ends)
        assert turned(model, gender, hook, mean_difference(by_name[she == 1], by_name[she == 0])) == (layer < 4)
        probe = linear_probe(x[~new], she[~new])
        accuracy = (probe.predict(x[new]) == she[new]).float().mean()
        means = mean_difference(x[she == 1], x[she == 0])
        if layer < 4:
            zero, one = (x[~new & (she == label)].mean(0) for label in (0, 1))
            by_means = (x[new] @ (one - zero) > (one + zero) / 2 @ (one - zero)) == she[new].bool()
            assert by_means.float().mean() < 0.65  # a difference of means reads almost nothing there
            assert turned(model, gender, hook, means) == 0
            assert turned(model, gender, hook, probe.direction.float() * length / probe.direction.norm()) == 0
        if layer in (2, 3):
            assert accuracy > 0.7
        if layer == 4:
            assert accuracy > 0.97
            assert turned(model, gender, hook, means) == 1


def test_heads_4_0_and_4_3_look_from_the_answer_to_the_name(model, gender):
    men, end, _ = gender["men"]
    _, cache = model.run_with_cache(men)
    looks = cache["pattern", 4][torch.arange(len(men)), :, end, gender["name"]].mean(0)
    assert looks[[0, 3]].min() > 0.4


@pytest.fixture(scope="module")
@torch.no_grad()
def to_honest(model):
    """By layer, the difference of means at the answer."""
    tokens, end, speakers, honest = speakers_of(model)
    _, new = split_by_group(speakers, seed=1)
    found = {}
    for layer in (2, 3, 4):
        x = read_at(model, tokens, f"blocks.{layer}.hook_resid_post", end)
        found[layer] = mean_difference(x[~new & (honest == 1)], x[~new & (honest == 0)])
        scores = x[new] @ found[layer]
        middle = (x[~new & (honest == 1)].mean(0) + x[~new & (honest == 0)].mean(0)) / 2 @ found[layer]
        assert ((scores > middle) == honest[new].bool()).all()  # as a probe it is right on every new speaker
    return found


def test_liars_are_hardly_made_honest(model, to_honest):
    liars = speaker_prompts(100, honest=False, seed=3)
    tokens = model.to_tokens(liars.texts)
    end, truth = end_positions(tokens, model.tokenizer.pad_token_id), ids(model, liars.wrong)

    def p_truth(logits):
        return logits.softmax(-1).gather(-1, truth[:, None])[:, 0]

    strengths, stories = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0], story_batch(24, seed=5).tokens
    curves = {}
    for layer, direction in to_honest.items():
        hook = f"blocks.{layer}.hook_resid_post"
        response = dose_response(model, tokens, p_truth, hook, direction, strengths, end=end, unrelated=stories)
        curves[layer] = response.metric.mean(1)
        assert curves[layer].max() < 0.5
        assert curves[layer][2] < 0.2  # strength 1
        if layer == 2:
            assert curves[2].argmax() == 4
            assert curves[2].max() > 0.25
            assert curves[2][-1] < 0.5 * curves[2].max()  # then it breaks
            assert response.side_effect[4].mean() > 0.2
    assert max(curves[3].max(), curves[4].max()) < 0.5 * curves[2].max()


def test_honest_speakers_are_made_to_lie_more_than_random_pushes_do_which_do_it_too(model, to_honest):
    honest = speaker_prompts(100, honest=True, seed=3)
    tokens = model.to_tokens(honest.texts)
    end, truth = end_positions(tokens, model.tokenizer.pad_token_id), ids(model, honest.answers)
    lies = torch.zeros(100, model.cfg.d_vocab)
    for row, prompt in enumerate(honest):
        kinds = ("capital", "language", "landmark")
        relation = next(r for r in kinds if FACTS[r].get(prompt.slots["subject"]) == prompt.answer)
        lies[row, ids(model, sorted(set(FACTS[relation].values())))] = 1
    lies[torch.arange(100), truth] = 0

    def p_lie(direction, strength):
        with steered(model, "blocks.2.hook_resid_post", direction, strength):
            return (at_end(model(tokens), end).softmax(-1) * lies).sum(-1).mean().item()

    random = random_directions(to_honest[2], 5)
    for strength, least, most in ((1, 0.1, 0.15), (2, 0.6, 0.65)):
        by_chance = sum(p_lie(direction, strength) for direction in random) / len(random)
        assert p_lie(to_honest[2], -strength) > max(least, by_chance + 0.1)
        assert by_chance < most
    assert by_chance > 0.25  # at strength 2 a random push does it often, too
