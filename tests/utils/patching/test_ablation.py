"""Ablation: the fast effects against hooks one component at a time, and hooks against values put in by hand."""

from functools import partial

import pytest
import torch
from random_models import random_gpt2, random_native, random_neo, random_tokens

from utils import load_model
from utils.metrics import at_end, log_probability, logit_difference
from utils.patching.ablation import ablate, ablation_effects

MODELS = {
    "GPT-2": lambda: random_gpt2(),
    "GPT-Neo, window 2": lambda: random_neo(window=2),
    "native, attention only": lambda: random_native(normalization_type="LN", attn_only=True),
    "native, no norm": lambda: random_native(normalization_type=None, seed=2, n_layers=2, n_heads=5),
}
WAYS = {
    "zero": {"how": "zero"},
    "mean": {"how": "mean"},
    "mean over positions": {"how": "mean", "per_position": False},
    "resample": {"how": "resample", "seed": 3},
}
END, REFERENCE_END = torch.tensor([8, 4, 6]), torch.tensor([8, 8, 5, 7, 2])


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny-lm")


def hooks_of(model):
    return sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_dict.values())


def metrics(model):
    right = torch.tensor([1, 5, 2])
    return {
        "difference": partial(logit_difference, right=right, wrong=right + 3),
        "log p": partial(log_probability, right=right),
    }


@pytest.mark.parametrize("way", WAYS)
def test_effects_are_those_of_ablating_one_component_at_a_time(model, way):
    tokens, metric = random_tokens(model, seed=1), metrics(model)
    given = WAYS[way]
    if way != "zero":
        given = {**given, "reference": random_tokens(model, prompts=5, seed=2), "reference_end": REFERENCE_END}
    parts = {"heads": range(model.cfg.n_heads)} | ({"mlps": ["mlp"]} if hasattr(model.blocks[0], "mlp") else {})
    for kind, names in parts.items():
        found = ablation_effects(model, tokens, metric, end=END, components=kind, **given)
        in_pieces = ablation_effects(model, tokens, metric, end=END, components=kind, max_bytes=1, **given)
        for name, single in metric.items():
            intact = single(at_end(model(tokens), END))
            for layer in range(model.cfg.n_layers):
                for part in names:
                    with ablate(model, [(layer, part)], **given):
                        expected = single(at_end(model(tokens), END)) - intact
                    for effects in (found[name], in_pieces[name]):
                        one = effects[layer] if part == "mlp" else effects[layer, part]
                        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)


def test_each_way_writes_what_it_says(tiny):
    tokens, reference = random_tokens(tiny, seed=1), random_tokens(tiny, prompts=5, seed=2)
    z = "blocks.1.attn.hook_z"
    read = {"names_filter": z}
    intact, on_reference = (tiny.run_with_cache(t, **read)[1][z] for t in (tokens, reference))
    within = torch.arange(9) <= REFERENCE_END[:, None]
    by_hand = torch.stack([on_reference[within[:, p], p].mean(0) for p in range(9)])
    expected = {
        "zero": torch.zeros_like(intact),
        "mean": by_hand.expand_as(intact),
        "mean over positions": on_reference[within].mean(0).expand_as(intact),
    }
    for way, value in expected.items():
        given = {} if way == "zero" else {"reference": reference, "reference_end": REFERENCE_END}
        with ablate(tiny, [(1, 2), (1, 0)], **WAYS[way], **given) as model:
            written = model.run_with_cache(tokens, **read)[1][z]
        torch.testing.assert_close(written[:, :, [0, 2]], value[:, :, [0, 2]])
        assert torch.equal(written[:, :, [1, 3]], intact[:, :, [1, 3]])


def test_resampling_takes_whole_prompts_and_the_seed_decides_which(tiny):
    tokens, reference = random_tokens(tiny, seed=1), random_tokens(tiny, prompts=5, seed=2)
    names = ["blocks.0.attn.hook_z", "blocks.3.hook_mlp_out"]
    _, there = tiny.run_with_cache(reference, names_filter=lambda name: name in names)
    drawn = []
    for seed in range(8):
        with ablate(tiny, [(0, 1), (3, "mlp")], "resample", reference=reference, seed=seed):
            _, here = tiny.run_with_cache(tokens, names_filter=lambda name: name in names)
        rows = [
            [next(j for j in range(5) if torch.equal(h, t[j])) for h in changed]
            for changed, t in (
                (here[names[0]][:, :, 1], there[names[0]][:, :, 1]),
                (here[names[1]], there[names[1]]),
            )
        ]
        assert rows[0] == rows[1]
        drawn.append(tuple(rows[0]))
    assert len(set(drawn)) > 1


def test_no_hook_is_left_behind_and_others_stay(tiny):
    tokens = random_tokens(tiny)
    tiny.add_hook("blocks.2.attn.hook_z", lambda z, hook: z)
    before, logits, inside = hooks_of(tiny), tiny(tokens), []

    def fail():
        inside.extend([hooks_of(tiny), tiny(tokens)])
        raise RuntimeError("in the body")

    with pytest.raises(RuntimeError, match="in the body"), ablate(tiny, [(2, 0), (1, "mlp")]):
        fail()
    assert inside[0] > before
    assert not torch.allclose(inside[1], logits)
    assert hooks_of(tiny) == before
    assert torch.equal(tiny(tokens), logits)
    tiny.reset_hooks()


def test_a_dead_component_has_no_effect(model):
    """A head that writes nothing loses nothing: its output weights are zero."""
    layer, head = model.cfg.n_layers - 1, 1
    tokens = random_tokens(model, seed=1)
    silent = ablation_effects(_without_output(model, layer, head), tokens, metrics(model))
    assert silent["log p"][layer, head].abs().max() == 0
    assert silent["log p"][layer, 0].abs().min() > 0


def _without_output(model, layer, head):
    from dataclasses import replace

    from utils.transformer import Transformer

    plain = Transformer.from_model(model)
    W_O = plain.layers[layer].W_O.clone()
    W_O[head * plain.d_head : (head + 1) * plain.d_head] = 0
    layers = [*plain.layers[:layer], replace(plain.layers[layer], W_O=W_O), *plain.layers[layer + 1 :]]
    return replace(plain, layers=layers)


def test_a_model_that_the_plain_pass_does_not_cover_is_ablated_with_hooks():
    model = random_native(positional_embedding_type="rotary", d_head=4)
    tokens = random_tokens(model)
    with pytest.warns(UserWarning, match="uses hooks instead"):
        effects = ablation_effects(model, tokens, metrics(model))["difference"]
    assert effects.shape == (3, 3, 3)
    assert effects.abs().min() > 0


@pytest.mark.parametrize(
    ("components", "given", "message"),
    [
        ([(9, 0)], {}, r"no head \(9, 0\).*layers 0 to 4"),
        ([(0, 4)], {}, r"no head \(0, 4\).*heads 0 to 3"),
        ([(5, "mlp")], {}, "no layer 5"),
        ([(0, "attn")], {}, r"A component is \(layer, head\)"),
        ([(0, 0)], {"how": "median"}, "how must be 'zero', 'mean' or 'resample'"),
        ([(0, 0)], {"how": "mean"}, "needs prompts to take from"),
        ([(0, 0)], {"how": "mean", "reference": torch.tensor([[9999]])}, "reference holds the id 9999"),
    ],
)
def test_wrong_arguments_are_named(tiny, components, given, message):
    with pytest.raises(ValueError, match=message), ablate(tiny, components, **given):
        pass


def test_a_reference_that_is_too_short_is_refused(tiny):
    with pytest.raises(ValueError, match="per_position=False"):
        ablation_effects(tiny, random_tokens(tiny), metrics(tiny), "mean", reference=random_tokens(tiny, seq=5))


def test_attention_only_has_no_mlps():
    model = random_native(attn_only=True)
    with pytest.raises(ValueError, match="attention only"):
        ablation_effects(model, random_tokens(model), metrics(model), components="mlps")
    with pytest.raises(ValueError, match="attention only"), ablate(model, [(0, "mlp")]):
        pass
