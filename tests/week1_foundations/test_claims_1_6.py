"""What the prose of notebook 1.6 says about the shipped model is true of the shipped model."""

import pytest
import torch
from torch import nn

from utils import load_model
from utils.models import story_batch
from utils.models.load import load_tokenizer, model_folder
from utils.readout import token_log_probs
from utils.sae import collect_activations, load_dictionary

TOKENS = story_batch(24).tokens
HEADS = [(layer, head) for layer in range(5) for head in range(4)]


@pytest.fixture(scope="module")
def plain():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder("tiny-lm")).double().eval()


@pytest.fixture(scope="module")
def bridge():
    """A bridge as TransformerLens opens it."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM

    folder = model_folder("tiny-lm")
    inside = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    return TransformerBridge.boot_transformers(str(folder), hf_model=inside, tokenizer=load_tokenizer("tiny-lm")).eval()


@pytest.fixture(scope="module")
def folded():
    return load_model("tiny-lm").double()


@torch.no_grad()
def with_head(model, layer, head, change):
    def hook_function(z, hook):
        z = z.clone()
        z[:, :, head] = change(z[:, :, head])
        return z

    hooks = [(f"blocks.{layer}.attn.hook_z", hook_function)]
    return token_log_probs(model.run_with_hooks(TOKENS, fwd_hooks=hooks), TOKENS)


def zero(z):
    return torch.zeros_like(z)


def mean(z):
    return z.mean((0, 1))


@torch.no_grad()
def test_three_tools_agree_to_the_fifth_decimal(plain, bridge):
    from nnsight import NNsight

    wrapped, width = NNsight(plain), 32
    for layer, head in HEADS:
        part = slice(head * width, (head + 1) * width)
        mask = torch.ones(128, dtype=torch.double)
        mask[part] = 0
        projection = plain.transformer.h[layer].attn.attention.out_proj
        handle = projection.register_forward_pre_hook(lambda module, inputs, mask=mask: (inputs[0] * mask,))
        by_hand = token_log_probs(plain(TOKENS).logits, TOKENS)
        handle.remove()
        with wrapped.trace(TOKENS):
            wrapped.transformer.h[layer].attn.attention.out_proj.input[..., part] = 0
            logits = wrapped.lm_head.output.save()
        torch.testing.assert_close(token_log_probs(logits, TOKENS), by_hand, atol=1e-5, rtol=0)
        torch.testing.assert_close(with_head(bridge, layer, head, zero), by_hand, atol=1e-5, rtol=0)


@torch.no_grad()
def test_folding_changes_zero_ablation_and_not_mean_ablation(bridge, folded):
    untouched = [token_log_probs(model(TOKENS), TOKENS) for model in (bridge, folded)]
    torch.testing.assert_close(*untouched, atol=1e-4, rtol=0)
    gaps = {
        name: max((with_head(bridge, *at, change) - with_head(folded, *at, change)).abs().max().item() for at in HEADS)
        for name, change in {"zero": zero, "mean": mean}.items()
    }
    assert gaps["zero"] > 5  # "this is not rounding"
    assert gaps["mean"] < 1e-3


@torch.no_grad()
def test_the_constant_is_predicted_from_the_weights(plain, bridge, folded):
    (_, as_it_is), (_, moved) = bridge.run_with_cache(TOKENS), folded.run_with_cache(TOKENS)
    for layer, block in enumerate(plain.transformer.h):
        assert isinstance(block.ln_1, nn.LayerNorm)
        constant = block.attn.attention.v_proj(block.ln_1.bias).view(4, 32)
        difference = as_it_is["z", layer] - moved["z", layer]
        torch.testing.assert_close(difference, constant.expand_as(difference), atol=1e-4, rtol=0)
        assert constant.abs().max() > 0.1


@torch.no_grad()
def test_pattern_hooks_do_nothing_as_it_is_and_bite_in_the_course(bridge, folded):
    for kind, expected in {"attn.hook_pattern": False, "attn.hook_attn_scores": False, "attn.hook_z": True}.items():
        hooks = [(f"blocks.2.{kind}", lambda value, hook: torch.zeros_like(value))]
        for model, bites in ((bridge, expected), (folded, True)):
            change = (model.run_with_hooks(TOKENS[:2], fwd_hooks=hooks) - model(TOKENS[:2])).abs().max()
            assert bool(change > 1e-6) == bites


def test_the_latent_of_france_is_about_countries():
    model, dictionary = load_model("tiny-lm"), load_dictionary("tiny-lm-resid2")
    stories = story_batch(200, 5)
    latents = dictionary.encode(
        collect_activations(model, stories.tokens, [dictionary.site.reads])[dictionary.site.reads]
    )
    read = model.tokenizer.convert_ids_to_tokens(stories.tokens[:, 1:].flatten().tolist())
    france = torch.tensor([word == "France" for word in read])
    latent = int((latents[france].mean(0) - latents.mean(0)).argmax())
    strongest = latents[:, latent].topk(100).indices
    countries = stories.latents["country"][:, 1:].flatten()
    assert countries[strongest].float().mean() > 0.9
    assert countries.float().mean() < 0.1
