"""Native models and live attention: equal to HookedTransformer, weights, hooks and all."""

import pytest
import torch

from utils.models.checkpoints import save_checkpoints
from utils.models.load import load_model
from utils.models.native import save_native
from utils.models.untrained import untrained_twin

SHAPES = [
    {"normalization_type": "LN", "attn_only": True},
    {"normalization_type": None, "attn_only": False, "d_mlp": 48},
    {"normalization_type": "LN", "attn_only": False, "d_mlp": 24, "attention_dir": "bidirectional"},
]
COMMON = {"d_model": 32, "d_head": 8, "n_heads": 4, "n_layers": 2, "n_ctx": 16, "d_vocab": 20, "d_vocab_out": 19}


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def pair(request, tmp_path_factory):
    """The same random weights in a HookedTransformer and, through a folder, in a bridge."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = {**COMMON, "act_fn": "relu", **request.param}
    with pytest.warns(DeprecationWarning, match="HookedTransformer"):
        hooked = HookedTransformer(HookedTransformerConfig(**config, seed=0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in hooked.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).mul(0.3).half())  # float16 loses nothing
        hooked.unembed.b_U.zero_()
    buffers = ("mask", "IGNORE", "b_U")
    weights = {name: weight for name, weight in hooked.state_dict().items() if not name.endswith(buffers)}
    folder = tmp_path_factory.mktemp("native")
    save_native(folder, config, weights)
    return hooked.requires_grad_(False), load_model(folder), folder, config, weights


TOKENS = torch.randint(20, (3, 9), generator=torch.Generator().manual_seed(1))


def test_a_native_model_computes_what_hooked_transformer_does(pair):
    hooked, bridge, *_ = pair
    torch.testing.assert_close(bridge(TOKENS), hooked(TOKENS), atol=1e-5, rtol=1e-5)
    assert not bridge.training
    for name in ("W_E", "W_Q", "W_K", "W_V", "W_O", "b_Q", "W_U"):
        torch.testing.assert_close(getattr(bridge, name), getattr(hooked, name))


@pytest.mark.parametrize("name", ["q", "v", "z", "attn_scores", "pattern"])
def test_activations_and_interventions_agree_with_hooked_transformer(pair, name):
    hooked, bridge, *_ = pair
    hook = f"blocks.0.attn.hook_{name}"
    for model in (hooked, bridge):
        model.reset_hooks()
    caches = [model.run_with_cache(TOKENS)[1][hook] for model in (hooked, bridge)]
    torch.testing.assert_close(*(cache.nan_to_num(neginf=-1e9) for cache in caches), atol=1e-5, rtol=1e-5)

    def halve(activation, hook):
        return activation * 0.5

    changed = [model.run_with_hooks(TOKENS, fwd_hooks=[(hook, halve)]) for model in (hooked, bridge)]
    torch.testing.assert_close(*changed, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(changed[1], bridge(TOKENS), atol=1e-3)


def test_gradients_reach_the_pattern(pair):
    *_, folder, _, _ = pair
    bridge, gradients = load_model(folder, gradients=True), []
    hook = ("blocks.0.attn.hook_pattern", lambda gradient, hook: gradients.append(gradient))
    with bridge.hooks(bwd_hooks=[hook]):
        bridge(TOKENS)[0, -1, 3].backward()
    assert gradients[0].abs().sum() > 0


def test_checkpoints_open_by_their_step(pair):
    *_, folder, _, weights = pair
    kept = {
        step: {name: (weight * share).half() for name, weight in weights.items()} for step, share in ((0, 0.5), (7, 1))
    }
    save_checkpoints(folder, kept)
    torch.testing.assert_close(load_model(folder, checkpoint=7)(TOKENS), load_model(folder)(TOKENS))
    torch.testing.assert_close(load_model(folder, checkpoint=0).W_E, load_model(folder).W_E / 2)
    with pytest.raises(ValueError, match=r"not kept at step 5: the nearest are 0, 7"):
        load_model(folder, checkpoint=5)


def test_a_model_without_checkpoints_says_so():
    with pytest.raises(ValueError, match="tiny-lm was not kept at step 3: it has no checkpoints"):
        load_model("tiny-lm", checkpoint=3)


def test_weights_that_do_not_fit_are_named(pair, tmp_path):
    *_, config, weights = pair
    with pytest.raises(ValueError, match=r"missing \['tok_embed"):
        save_native(tmp_path, config, {name: weight for name, weight in weights.items() if name != "embed.W_E"})
    with pytest.raises(ValueError, match=r"'W_E' is not a weight of a native model"):
        save_native(tmp_path, config, {**weights, "W_E": weights["embed.W_E"]})
    with pytest.raises(ValueError, match="size mismatch"):
        save_native(tmp_path, config, {**weights, "embed.W_E": weights["embed.W_E"][:, :-1]})
    assert not list(tmp_path.iterdir())


def test_the_untrained_twin_of_a_native_model_has_its_shape_and_other_weights(pair):
    _, bridge, *_ = pair
    twin, again, other = untrained_twin(bridge), untrained_twin(bridge), untrained_twin(bridge, seed=1)
    assert twin(TOKENS).shape == bridge(TOKENS).shape
    torch.testing.assert_close(twin(TOKENS), again(TOKENS))
    assert not torch.allclose(twin(TOKENS), other(TOKENS))


@pytest.mark.parametrize("name", ["pattern", "attn_scores", "v"])
def test_hooks_on_attention_change_a_language_model(name):
    model = load_model("tiny-lm")
    tokens = model.to_tokens("when Mary and John went to the store ,")

    def halve(activation, hook):
        return activation * 0.5

    changed = model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.2.attn.hook_{name}", halve)])
    assert not torch.allclose(changed, model(tokens), atol=1e-3)


def test_attention_scores_of_a_language_model_become_its_pattern():
    model = load_model("tiny-lm")
    _, cache = model.run_with_cache("when Mary and John went to the store ,")
    for layer in range(model.cfg.n_layers):
        torch.testing.assert_close(cache["attn_scores", layer].softmax(-1), cache["pattern", layer])
