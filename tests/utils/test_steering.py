"""Steering and ablation of a direction, against the model's own weights."""

from functools import partial

import pytest
import torch

from utils import load_model
from utils.metrics import logit_difference
from utils.models import gendered_prompts, story_batch
from utils.readout import find_word
from utils.steering import ablated, dose_response, mean_difference, random_directions, read_at, steered

LAST = "blocks.4.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def prompts(model):
    """Tokens, where each answers, and whether the answer is "she"."""
    drawn = gendered_prompts(60, seed=3)
    tokens = model.to_tokens(drawn.texts)
    return tokens, (tokens[:, 1:] != 0).sum(-1), torch.tensor([word == "she" for word in drawn.answers])


def hooks_in(model) -> int:
    return sum(len(point._forward_hooks) for point in model.hook_dict.values())


def test_read_at_gives_the_cache_s_activation(model, prompts):
    tokens, end, _ = prompts
    _, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(read_at(model, tokens, LAST, end), cache[LAST][torch.arange(60), end])
    torch.testing.assert_close(read_at(model, tokens, "blocks.1.hook_mlp_out"), cache["blocks.1.hook_mlp_out"][:, -1])


@torch.no_grad()
def test_steering_adds_the_direction_and_nothing_else(model, prompts):
    tokens, _, _ = prompts
    direction = torch.randn(128, generator=torch.Generator().manual_seed(0))
    _, before = model.run_with_cache(tokens)
    with steered(model, "blocks.2.hook_resid_post", direction, -2.0):
        _, after = model.run_with_cache(tokens)
    torch.testing.assert_close(after["blocks.2.hook_resid_mid"], before["blocks.2.hook_resid_mid"])
    expected = before["blocks.2.hook_resid_post"] - 2.0 * direction
    torch.testing.assert_close(after["blocks.3.hook_resid_pre"], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_steering_at_one_position_leaves_the_earlier_ones_alone(model, prompts):
    tokens, end, _ = prompts
    direction = 5 * torch.randn(128, generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    with steered(model, "blocks.1.hook_resid_post", direction, at=end):
        after = model(tokens)
    positions = torch.arange(tokens.shape[1])
    earlier = positions < end[:, None]
    assert torch.equal(after[earlier], before[earlier])
    assert (after - before)[torch.arange(60), end].abs().amax(-1).min() > 0.1


@torch.no_grad()
def test_no_hook_stays_behind_and_those_of_others_do(model, prompts):
    tokens, direction = prompts[0], torch.ones(128)
    seen = []
    before, hooks = model(tokens), hooks_in(model)
    model.add_hook(LAST, lambda activation, hook: seen.append(hook.name))
    with steered(model, LAST, direction), ablated(model, [LAST, "hook_embed"], direction):
        model(tokens)
    with pytest.raises(RuntimeError), steered(model, LAST, direction):
        raise RuntimeError
    seen.clear()
    model(tokens)
    assert seen
    model.reset_hooks()
    assert hooks_in(model) == hooks
    assert torch.equal(model(tokens), before)


@torch.no_grad()
def test_an_ablated_direction_is_gone_and_the_rest_is_kept(model, prompts):
    tokens = prompts[0]
    direction = torch.randn(128, generator=torch.Generator().manual_seed(1))
    _, before = model.run_with_cache(tokens)
    with ablated(model, LAST, 3 * direction):
        _, after = model.run_with_cache(tokens)
    left, was, unit = after["ln_final.hook_in"], before[LAST], direction / direction.norm()
    assert (left @ unit).abs().max() < 1e-4
    torch.testing.assert_close(left, was - (was @ unit)[..., None] * unit, atol=1e-4, rtol=1e-4)


def test_mean_difference_is_the_difference_of_means():
    having, without = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0]])
    assert mean_difference(having, without).tolist() == [1.0, 2.0]


def test_random_directions_have_the_length_and_no_preferred_sign():
    like = torch.arange(1.0, 401.0)
    drawn = random_directions(like, 50, seed=1)
    torch.testing.assert_close(drawn.norm(dim=-1), like.norm().expand(50))
    assert torch.cosine_similarity(drawn, like[None], dim=-1).abs().max() < 0.25
    assert torch.equal(drawn, random_directions(like, 50, seed=1))


def test_a_difference_of_means_turns_he_into_she_and_a_random_direction_does_not(model, prompts):
    tokens, end, female = prompts
    train = gendered_prompts(200, seed=9, split="train")
    train_tokens = model.to_tokens(train.texts)
    names = find_word(train_tokens, model.to_tokens([prompt.slots["N"] for prompt in train])[:, 1])
    she = torch.tensor([word == "she" for word in train.answers])
    reads = read_at(model, train_tokens, "blocks.2.hook_resid_post", names)
    direction = mean_difference(reads[she], reads[~she])
    ids = model.to_tokens(["she", "he"])[:, 1]
    n = int((~female).sum())
    metric = partial(logit_difference, right=ids[0].expand(n), wrong=ids[1].expand(n))
    measure = partial(
        dose_response, model, tokens[~female], metric, "blocks.2.hook_resid_post", strengths=[-1.0, 0.0, 1.0]
    )
    unrelated = story_batch(20, seed=5).tokens
    response = measure(direction=direction, end=end[~female], unrelated=unrelated)
    assert response.metric.shape == (3, n)
    assert response.side_effect.shape == (3, 20)
    assert (response.metric[1] < 0).all()
    assert (response.metric[2] > 0).float().mean() > 0.9
    assert response.side_effect[2].mean() < 0.2
    assert (response.metric[0] < response.metric[1]).float().mean() > 0.9
    assert response.side_effect[1].abs().max() < 1e-5
    control = torch.stack(
        [measure(direction=other, end=end[~female]).metric[2] for other in random_directions(direction, 5)]
    )
    assert (control > 0).float().mean() < 0.05


@torch.no_grad()
def test_the_side_effect_is_the_kl_from_the_unsteered_model_per_token(model, prompts):
    tokens, direction = prompts[0], torch.randn(128, generator=torch.Generator().manual_seed(2))
    texts = story_batch(4, seed=1).tokens
    response = dose_response(model, tokens, lambda logits: logits[:, 0], LAST, direction, [3.0], unrelated=texts)
    before = model(texts).log_softmax(-1)
    with steered(model, LAST, direction, 3.0):
        after, answers = model(texts).log_softmax(-1), model(tokens)[:, -1, 0]
    expected = torch.nn.functional.kl_div(after, before, log_target=True, reduction="none").sum(-1).mean(-1)
    torch.testing.assert_close(response.side_effect[0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(response.metric[0], answers)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: steered(m, "blocks.9.hook_resid_post", torch.ones(128)).__enter__(), "layers 0 to 4"),
        (lambda m, t: read_at(m, t + 2000, LAST), "vocabulary"),
        (lambda m, t: read_at(m, t, LAST, torch.tensor([99])), "one position"),
        (lambda m, t: ablated(m, LAST, torch.zeros(128)).__enter__(), "length zero"),
        (lambda m, t: mean_difference(torch.ones(2, 3), torch.ones(2, 4)), "one width"),
    ],
)
def test_wrong_input_is_named(model, prompts, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, prompts[0])


def test_a_direction_of_another_width_is_named(model, prompts):
    with pytest.raises(ValueError, match="128"), steered(model, LAST, torch.ones(64)):
        model(prompts[0])
    assert hooks_in(model) == hooks_in(load_model("tiny-lm"))
