"""The plain forward pass against the models that it was read from: logits and every activation."""

import dataclasses

import pytest
import torch
from random_models import random_gpt2, random_native, random_neo, random_tokens

from utils import load_model
from utils.transformer import NotCovered, Transformer

CASES = {
    "tiny-lm": lambda: load_model("tiny-lm"),
    "textbook-ioi": lambda: load_model("textbook-ioi"),
    "induction-2l": lambda: load_model("induction-2l"),
    "modadd-p113": lambda: load_model("modadd-p113"),
    "GPT-2": lambda: random_gpt2(),
    "GPT-2 unfolded": lambda: random_gpt2(folded=False, seed=1),
    "GPT-2 exact gelu": lambda: random_gpt2(activation_function="gelu", heads=7),
    "GPT-Neo": lambda: random_neo(),
    "GPT-Neo unfolded": lambda: random_neo(folded=False, window=1),
    "native": lambda: random_native(normalization_type="LN", d_vocab_out=11),
    "native without norm weights": lambda: random_native(normalization_type="LNPre"),
    "native attention only": lambda: random_native(normalization_type="LN", attn_only=True),
    "native without norm": lambda: random_native(normalization_type=None, seed=2),
    "native of one layer": lambda: random_native(n_layers=1, n_heads=1, d_head=5, d_mlp=1, act_fn="gelu"),
}


@pytest.fixture(scope="module", params=CASES)
def model(request):
    return CASES[request.param]()


@pytest.fixture(scope="module")
def plain(model):
    return Transformer.from_model(model)


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def test_logits_and_activations_are_the_models(model, plain):
    tokens = random_tokens(model, seq=min(10, model.cfg.n_ctx))
    logits, cache = model.run_with_cache(tokens)
    run = plain.run(tokens)
    close(plain.unembed(run.post), logits)
    close(run.post, cache["resid_post", plain.n_layers - 1])
    for layer in range(plain.n_layers):
        close(run.pre[layer], cache["resid_pre", layer])
        close(run.z[layer], cache["z", layer].view_as(run.z[layer]))
        close(run.mid[layer], cache["resid_pre", layer] + cache["attn_out", layer])
        close(plain.attention_out(layer, run.z[layer]), cache["attn_out", layer])
        for kind, vectors in zip("kv", run.qkv[layer].unbind(2)[1:], strict=True):
            close(vectors, cache[kind, layer].view_as(vectors))
        q, k, _ = run.qkv[layer].unbind(2)
        where = torch.arange(tokens.shape[1])
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).masked_fill(~plain.mask(layer, where, where), -torch.inf)
        close(scores.softmax(-1), cache["pattern", layer])
        if "mlp" in dict(model.blocks[layer].named_children()):
            close(plain.mlp(layer, run.mid[layer]), cache["mlp_out", layer])
        else:
            assert not plain.mlp(layer, run.mid[layer]).any()


def test_sizes_are_the_models(model, plain):
    cfg = model.cfg
    assert (plain.n_layers, plain.n_heads, plain.d_model) == (cfg.n_layers, cfg.n_heads, cfg.d_model)
    assert (plain.d_head, plain.d_vocab, plain.eps) == (cfg.d_head, cfg.d_vocab, cfg.eps)


def test_some_columns_of_the_logits(plain):
    x, columns = torch.randn(2, 3, plain.d_model), torch.tensor([5, 0, 5])
    close(plain.unembed(x, columns), plain.unembed(x)[..., columns])


def test_queries_may_be_at_the_last_positions_alone(model, plain):
    run = plain.run(random_tokens(model, seq=min(10, model.cfg.n_ctx)))
    for layer in range(plain.n_layers):
        q, k, v = run.qkv[layer].unbind(2)
        close(plain.attend(layer, q[:, -2:], k, v), run.z[layer][:, -2:])


def test_more_batch_dimensions_give_the_same(model, plain):
    tokens = random_tokens(model, prompts=6, seq=min(10, model.cfg.n_ctx))
    whole, folded = plain.run(tokens), plain.run_from(plain.embed(tokens).unflatten(0, (2, 3)))
    close(folded.post.flatten(0, 1), whole.post)
    close(folded.z[0].flatten(0, 1), whole.z[0])


def test_gradients_reach_the_embeddings_as_in_the_model():
    model = random_neo()
    plain, tokens, grads = Transformer.from_model(model), random_tokens(model), []
    embedded = plain.embed(tokens).requires_grad_()
    plain.unembed(plain.run_from(embedded).post)[:, -1, 3].sum().backward()

    def catch(grad, hook):
        grads.append(grad.clone())

    model.requires_grad_(True)
    with model.hooks(bwd_hooks=[("blocks.0.hook_resid_pre", catch)]):
        model(tokens)[:, -1, 3].sum().backward()
    close(embedded.grad, grads[0])


def test_a_copy_on_another_device_leaves_the_original():
    plain = Transformer.from_model(random_gpt2())
    moved = plain.to("meta")
    assert [moved.device.type, moved.layers[0].W_O.device.type] == ["meta", "meta"]
    assert [plain.device.type, plain.layers[0].W_O.device.type] == ["cpu", "cpu"]
    assert Transformer.from_model(plain) is plain


def test_a_hooked_transformer_is_read_too():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    sizes = {"n_layers": 2, "d_model": 12, "n_heads": 2, "d_head": 5, "n_ctx": 9, "d_vocab": 13, "act_fn": "gelu_new"}
    local = {"use_local_attn": True, "attn_types": ["local", "global"], "window_size": 2, "use_attn_scale": False}
    with pytest.warns(DeprecationWarning, match="HookedTransformer"):
        hooked = HookedTransformer(HookedTransformerConfig(**sizes, **local, normalization_type="LNPre", seed=0))
    plain, tokens = Transformer.from_model(hooked), random_tokens(hooked)
    assert [layer.window for layer in plain.layers] == [2, None]
    close(plain.unembed(plain.run(tokens).post), hooked(tokens))


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"positional_embedding_type": "rotary"}, "rotary positions"),
        ({"gated_mlp": True, "act_fn": "silu"}, "gated MLPs"),
        ({"normalization_type": "RMS"}, "RMS norm"),
        ({"attention_dir": "bidirectional"}, "both directions"),
        ({"n_heads": 4, "n_key_value_heads": 2}, "grouped heads"),
        ({"attn_scores_soft_cap": 5.0}, "soft caps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_covered_is_named(config, names):
    with pytest.raises(NotCovered, match=names):
        Transformer.from_model(random_native(**config))


def test_a_model_that_computes_something_else_is_not_covered():
    with pytest.raises(NotCovered, match="differs from the model's own"):
        Transformer.from_model(random_gpt2(scale_attn_by_inverse_layer_idx=True))


def test_images_are_not_covered():
    with pytest.raises(NotCovered, match="images"):
        Transformer.from_model(load_model("digits-vit"))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([[0, 37]], "from 0 to 36.*given were ids from 0 to 37"), ([[-1, 3]], "-1"), ([[1] * 13], "at most 12.*not 13")],
)
def test_tokens_that_the_model_cannot_read(tokens, message):
    plain = Transformer.from_model(random_gpt2())
    with pytest.raises(ValueError, match=message):
        plain.run(torch.tensor(tokens))


@pytest.mark.parametrize("make", [random_gpt2, random_neo, random_native])
def test_the_model_is_only_read(make):
    """Weights have no gradients, the model keeps its own, and the larger ones are shared with it."""
    model = make().requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = Transformer.from_model(model)
    plain.unembed(plain.run(random_tokens(model)).post)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    fields = [*vars(plain).values(), *(value for layer in plain.layers for value in vars(layer).values())]
    tensors = [value for value in fields if isinstance(value, torch.Tensor)]
    assert tensors
    assert not any(value.requires_grad for value in tensors)
    held = {parameter.data_ptr() for parameter in model.parameters()}
    assert {plain.W_E.data_ptr(), plain.W_U.data_ptr(), plain.layers[0].W_O.data_ptr()} <= held
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.eps = 0
