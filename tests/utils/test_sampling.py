"""Sampling: temperature, top-k, top-p, draws and the loop, against closed forms and the transformers library."""

import pytest
import torch

from utils.sampling import draw_tokens, generate_tokens, keep_top_k, keep_top_p, temperature_probs


@pytest.fixture
def logits():
    return 3 * torch.randn(5, 4, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.5])
def test_temperature_is_a_power_of_the_probabilities(logits, temperature):
    powered = logits.double().softmax(-1) ** (1 / temperature)
    expected = powered / powered.sum(-1, keepdim=True)
    torch.testing.assert_close(temperature_probs(logits.double(), temperature), expected)


def test_temperature_zero_is_greedy_and_the_limit(logits):
    greedy = temperature_probs(logits, 0)
    assert (greedy.argmax(-1) == logits.argmax(-1)).all()
    assert (greedy.sum(-1) == 1).all()
    assert (greedy.amax(-1) == 1).all()
    torch.testing.assert_close(temperature_probs(logits, 1e-4), greedy)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_top_k_agrees_with_transformers(logits, k):
    from transformers.generation.logits_process import TopKLogitsWarper

    flat = logits.flatten(0, 1)
    assert torch.equal(keep_top_k(flat, k), TopKLogitsWarper(k)(None, flat))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_agrees_with_transformers(logits, p):
    from transformers.generation.logits_process import TopPLogitsWarper

    flat = logits.flatten(0, 1)
    assert torch.equal(keep_top_p(flat, p), TopPLogitsWarper(p)(None, flat.clone()))


def test_top_k_keeps_k_even_among_equal_logits():
    assert keep_top_k(torch.zeros(3, 10), 4).isfinite().sum(-1).tolist() == [4, 4, 4]


def test_top_k_larger_than_the_vocabulary_keeps_everything(logits):
    assert torch.equal(keep_top_k(logits, 1000), logits)


def test_top_p_of_one_keeps_everything():
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    assert torch.equal(keep_top_p(logits, 1.0), logits)


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (temperature_probs, -1.0, "temperature of 0 or more, got -1.0"),
        (keep_top_k, 0, "k of 1 or more, got 0"),
        (keep_top_p, 0.0, "p above 0 and at most 1, got 0.0"),
        (keep_top_p, 1.5, "p above 0 and at most 1, got 1.5"),
    ],
)
def test_values_out_of_range_are_refused(logits, function, value, message):
    with pytest.raises(ValueError, match=message):
        function(logits, value)


def test_draws_follow_the_probabilities():
    """By Hoeffding's inequality each of the 3 frequencies of 20,000 draws errs by more than 0.021 in one of 6e7 runs."""
    probs = torch.tensor([[0.2, 0.7, 0.1, 0.0]]).expand(20_000, 4)
    frequencies = draw_tokens(probs).bincount(minlength=4) / len(probs)
    assert (frequencies - probs[0]).abs().max() < 0.021
    assert frequencies[3] == 0


def test_draws_repeat_with_a_generator():
    probs = torch.full((50, 10), 0.1)
    first, second = (draw_tokens(probs, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_greedy_generation_agrees_with_transformers():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"vocab_size": 30, "n_positions": 20, "n_embd": 16, "n_layer": 2, "n_head": 2}
    gpt2 = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=None, initializer_range=0.5)).eval()
    start = torch.randint(30, (3, 5))
    with torch.no_grad():
        ours = generate_tokens(lambda t: gpt2(t).logits, start, 8, lambda logits: logits.argmax(-1), n_ctx=20)
    theirs = gpt2.generate(
        start, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(start), pad_token_id=0
    )
    assert torch.equal(ours, theirs)


def test_generation_crops_what_the_model_reads_and_keeps_the_text():
    seen = []

    def model(tokens):
        seen.append(tokens)
        return torch.nn.functional.one_hot(tokens, 10).float()

    start = torch.tensor([[1, 2, 3]])
    text = generate_tokens(model, start, 3, lambda logits: (logits.argmax(-1) + 1) % 10, n_ctx=4)
    assert text.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert [tokens.tolist()[0] for tokens in seen] == [[1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
