"""The attention-only model: equal to TransformerLens, and blocked where it is told to be."""

from dataclasses import replace

import pytest
import torch

from utils.models import repeat_language as language
from utils.models.attention_only import AttentionOnly, AttentionOnlyConfig, native_config, native_weights, sinusoids
from utils.models.load import load_model
from utils.models.native import save_native

SMALL = AttentionOnlyConfig(vocab_size=128, context=64, n_heads=2, d_model=32)


@pytest.mark.parametrize("shape", [SMALL, replace(SMALL, n_layers=1, n_heads=4)], ids=["two layers", "one layer"])
def test_transformer_lens_computes_the_same_logits_from_the_saved_weights(shape, tmp_path):
    model = AttentionOnly(shape, seed=3)
    save_native(tmp_path, native_config(shape), native_weights(model.state_dict(), shape.n_heads), torch.float32)
    tokens = language.documents(6, seed=5).tokens
    torch.testing.assert_close(load_model(tmp_path)(tokens), model(tokens).detach(), atol=1e-4, rtol=1e-4)


def test_no_position_sees_a_later_one():
    model = AttentionOnly(SMALL, seed=1)
    tokens = language.documents(4, seed=6).tokens
    changed = torch.cat([tokens[:, :40], tokens[:, 40:].flip(1)], dim=1)
    torch.testing.assert_close(model(tokens)[:, :40], model(changed)[:, :40])


def test_with_all_composition_blocked_the_layers_add_up_as_if_they_were_alone():
    model = AttentionOnly(replace(SMALL, composes=""), seed=1)
    tokens = language.documents(4, seed=7).tokens
    embedded = model.embed(tokens) + model.position.weight
    alone = sum(layer(embedded, embedded) for layer in model.layers)
    torch.testing.assert_close(model(tokens), model.unembed(embedded + alone))


@pytest.mark.parametrize("blocked", "qkv")
def test_a_blocked_input_does_not_feel_the_layer_below(blocked):
    layer = AttentionOnly(replace(SMALL, composes="qkv".replace(blocked, "")), seed=1).layers[1]
    seen = {}
    for name in "qkv":
        getattr(layer, name).register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    stream, embedded = torch.randn(2, 1, 5, 32)
    layer(stream, embedded)
    assert {name for name, given in seen.items() if given is embedded} == {blocked}


def test_positions_differ_by_rotations_so_that_products_depend_on_the_distance_alone():
    positions = sinusoids(64, 32)
    products = positions @ positions.T
    for distance in (0, 1, 5):
        torch.testing.assert_close(
            products.diagonal(distance), products[0, distance].expand(64 - distance), atol=1e-3, rtol=0
        )
    torch.testing.assert_close(positions[:, :16].square().mean(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("change", "message"), [({"d_model": 33}, "multiple"), ({"composes": "qx"}, "qkv"), ({"d_model": 8}, "at least 16")]
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_a_model_with_blocked_composition_cannot_be_saved_as_a_plain_one():
    with pytest.raises(ValueError, match="composes"):
        native_config(replace(SMALL, composes="qv"))
