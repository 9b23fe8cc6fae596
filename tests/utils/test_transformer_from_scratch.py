"""The readable transformer computes what GPT-2 and GPT-Neo of the transformers library compute."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM

from utils.transformer_from_scratch import Config, Transformer, causal_mask
from utils.transformer_weights import config_from_hugging_face, weights_from_hugging_face

ENDS = {"bos_token_id": 0, "eos_token_id": 0}


def random_gpt2(**shape):
    config = {"vocab_size": 61, "n_positions": 24, "n_embd": 24, "n_layer": 3, "n_head": 4} | shape
    return randomised(GPT2LMHeadModel(GPT2Config(**config, **ENDS)))


def random_gpt_neo(windows="llg", window=3):
    kinds = [[["local" if kind == "l" else "global"], 1] for kind in windows]
    config = GPTNeoConfig(
        vocab_size=53,
        max_position_embeddings=20,
        hidden_size=18,
        num_layers=len(windows),
        num_heads=3,
        intermediate_size=40,
        attention_types=kinds,
        window_size=window,
        **ENDS,
    )
    return randomised(GPTNeoForCausalLM(config))


def randomised(model, seed=0):
    """Every weight random, biases and layer norms too: a part that is left out shows."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data.normal_(std=0.7, generator=generator)
    return model.eval().requires_grad_(False)


def rebuilt(theirs):
    config = config_from_hugging_face(theirs.config.to_dict())
    ours = Transformer(config).requires_grad_(False)
    ours.load_state_dict(weights_from_hugging_face(theirs.state_dict(), config))
    return ours


@pytest.mark.parametrize(
    "theirs",
    [
        lambda: random_gpt2(),
        lambda: random_gpt2(n_inner=30, layer_norm_epsilon=0.1),
        lambda: random_gpt_neo(),
        lambda: random_gpt_neo("lgl", window=5),
    ],
    ids=["gpt2", "gpt2 of another MLP width and eps", "gpt-neo", "gpt-neo of another window"],
)
def test_logits_agree_with_transformers(theirs):
    theirs = theirs()
    tokens = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(1))
    ours, expected = rebuilt(theirs)(tokens), theirs(tokens).logits
    assert expected.std() > 1
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_weights_may_come_without_the_prefix_and_in_half_precision():
    theirs = random_gpt2()
    config = config_from_hugging_face(theirs.config.to_dict())
    bare = {name.removeprefix("transformer."): weight.half() for name, weight in theirs.state_dict().items()}
    weights = weights_from_hugging_face(bare, config)
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    Transformer(config).load_state_dict(weights)


def test_gradients_agree_with_transformers():
    theirs = random_gpt2()
    ours = rebuilt(theirs).requires_grad_(True)
    theirs.requires_grad_(True)
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    ours(tokens).logsumexp(-1).mean().backward()
    theirs(tokens).logits.logsumexp(-1).mean().backward()
    torch.testing.assert_close(ours.W_E.grad, theirs.transformer.wte.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.ln_final.w.grad, theirs.transformer.ln_f.weight.grad, atol=1e-5, rtol=1e-4)


def test_a_window_as_long_as_the_text_changes_nothing():
    assert torch.equal(causal_mask(6, 6), causal_mask(6))


def test_too_long_a_text_is_refused():
    model = Transformer(Config(11, 4, 6, 8, 2, 0.5, (None,)))
    with pytest.raises(ValueError, match="reads 4 positions, got 5 tokens"):
        model(torch.zeros(1, 5, dtype=torch.long))


def test_another_architecture_is_refused():
    with pytest.raises(ValueError, match="'gpt2' or 'gpt_neo', got 'llama'"):
        config_from_hugging_face({"model_type": "llama"})


def test_a_seed_decides_the_first_weights():
    config = Config(11, 4, 6, 8, 2, 0.5, (None,))
    first, again, other = (Transformer(config, seed=seed).W_E for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
