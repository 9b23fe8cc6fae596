"""Attribution: parts that add up to the logit difference, and estimates against finite differences."""

from functools import partial

import pytest
import torch
from random_models import random_gpt2, random_native, random_neo, random_tokens

from utils import load_model
from utils.attribution import (
    attribute_components,
    attribute_heads,
    attribute_neurons,
    attribute_sources,
    logit_lens,
)
from utils.attribution_patching import HEAD_KINDS, STREAMS, attribution_patching
from utils.metrics import at_end, log_probability, logit_difference
from utils.patching import patch_heads, patch_residual
from utils.readout import activation_name, stream_points

MODELS = {
    "tiny-lm": lambda: load_model("tiny-lm"),
    "GPT-2": lambda: random_gpt2(),
    "GPT-2, norms not folded": lambda: random_gpt2(folded=False, seed=1),
    "GPT-Neo, window 2": lambda: random_neo(window=2),
    "native": lambda: random_native(normalization_type="LN", d_vocab_out=11),
    "native, attention only": lambda: random_native(normalization_type="LNPre", attn_only=True),
    "native, no norm": lambda: random_native(normalization_type=None, seed=2),
    "native, RMS norm, rotary": lambda: random_native(normalization_type="RMS", positional_embedding_type="rotary"),
}
END = torch.tensor([8, 4, 6])
RIGHT, WRONG = torch.tensor([1, 5, 2]), torch.tensor([4, 7, 9])


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def has_mlps(model):
    return hasattr(model.blocks[0], "mlp")


def test_components_add_up_to_the_logit_difference(model):
    tokens = random_tokens(model, seed=1)
    logits = at_end(model(tokens), END)
    close(attribute_components(model, tokens, RIGHT, WRONG, END).total, logit_difference(logits, RIGHT, WRONG))
    close(attribute_components(model, tokens, RIGHT, end=END).total, logits[torch.arange(3), RIGHT])


def test_heads_neurons_and_sources_add_up(model):
    tokens = random_tokens(model, seed=1)
    given = (model, tokens, RIGHT, WRONG, END)
    parts, heads = attribute_components(*given), attribute_heads(*given)
    close(heads.sum(1), parts.attention)
    close(attribute_sources(*given).sum(2), heads)
    neurons = attribute_neurons(*given)
    close(neurons.sum(1), parts.mlp)
    assert neurons.shape[1] > 0 if has_mlps(model) else neurons.shape[1] == 0


def test_a_head_s_part_is_its_derivative_at_a_frozen_scale(model):
    """How fast the logit difference grows with one head's output, plus what the growing scale takes back."""
    tokens, given = random_tokens(model, seed=1), (RIGHT, WRONG, END)
    final_name = activation_name(model.cfg.n_layers - 1, "resid_post")
    for layer, head in ((0, 1), (model.cfg.n_layers - 1, 0)):
        names = (activation_name(layer, "z"), final_name)
        _, cache = model.run_with_cache(tokens, names_filter=lambda name, names=names: name in names)
        final = at_end(cache[final_name], END)
        written = at_end(cache[names[0]], END)[:, head] @ model.W_O[layer, head]

        def read(stream):
            return logit_difference(model.unembed(model.ln_final(stream)), RIGHT, WRONG)

        _, growth = torch.func.jvp(read, (final,), (written,))
        above_bias = read(final) - read(torch.zeros_like(final))
        expected = growth + _growth_of_scale(model, final, written) * above_bias
        close(attribute_heads(model, tokens, *given)[layer, head], expected)


def _growth_of_scale(model, final, written):
    """By which share the final norm's scale grows with ``written``."""
    kind = type(getattr(model.ln_final, "original_component", model.ln_final)).__name__
    if kind == "Identity":
        return torch.zeros(len(final))
    if "RMS" not in kind:
        final, written = (x - x.mean(-1, keepdim=True) for x in (final, written))
    return (final * written).mean(-1) / (final.pow(2).mean(-1) + model.cfg.eps)


def test_a_source_is_its_attention_times_what_its_value_writes(model):
    tokens, layer, head = random_tokens(model, seed=1), 1, 0
    names = [activation_name(layer, kind) for kind in ("v", "pattern")]
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)
    sources, heads = (f(model, tokens, RIGHT, WRONG, END)[layer, head] for f in (attribute_sources, attribute_heads))
    for prompt, end in enumerate(END.tolist()):
        assert sources[end + 1 :, prompt].abs().sum() == 0
        pattern, value = cache[names[1]][prompt, head, end], cache[names[0]][prompt, :, head]
        moved = (pattern[:, None] * value) @ model.W_O[layer, head]  # [source, d_model]
        # all sources are read along one direction, the one along which the whole head is read
        direction = torch.linalg.lstsq(moved, sources[:, prompt, None]).solution
        close(moved @ direction, sources[:, prompt, None])
        close((moved.sum(0) @ direction)[0], heads[prompt])


def test_the_logit_lens_reads_every_point_and_ends_at_the_model_s_logits(model):
    tokens = random_tokens(model, seed=1)
    lens = logit_lens(model, tokens, END)
    expected = [p for p in stream_points(model.cfg.n_layers) if has_mlps(model) or not p.endswith("MLP")]
    assert list(lens) == expected
    close(lens[expected[-1]], at_end(model(tokens), END))
    close(lens["embedding"], at_end(model.unembed(model.ln_final(_resid_pre(model, tokens))), END))


def _resid_pre(model, tokens):
    name = activation_name(0, "resid_pre")
    return model.run_with_cache(tokens, names_filter=name)[1][name]


class TestAttributionPatching:
    STEP = 1e-3

    @pytest.fixture(params=[name for name in MODELS if name != "tiny-lm"])
    def precise(self, request):
        """Differences of nearly equal metrics need double precision (GPT-Neo's attention has single precision)."""
        return MODELS[request.param]().to(torch.float64)

    def kinds(self, model):
        return [k for k in (*STREAMS, *HEAD_KINDS) if has_mlps(model) or k not in ("mlp_out", "resid_mid")]

    def test_it_is_the_slope_of_a_small_patch(self, precise):
        """Move one activation a little towards the clean run: the metric moves by the estimate times the step."""
        clean, corrupted = random_tokens(precise, seed=1), random_tokens(precise, seed=2)
        metric = partial(logit_difference, right=RIGHT, wrong=WRONG)
        layer, place, head = 1, 2, 0
        for kind in self.kinds(precise):
            name = activation_name(layer, kind)
            change = self.read(precise, clean, name) - self.read(precise, corrupted, name)
            # a hook on resid_mid reaches the MLP alone; what attention writes also reaches the stream past it
            moved = activation_name(layer, "attn_out") if kind == "resid_mid" else name
            ends = [self.measured(precise, corrupted, metric, moved, kind, s * change) for s in (self.STEP, -self.STEP)]
            slope = (ends[0] - ends[1]) / (2 * self.STEP)
            per_position = {"per_position": True} if kind in HEAD_KINDS else {}
            estimate = attribution_patching(precise, clean, corrupted, metric, END, kind, **per_position)[layer]
            given = estimate[head, place] if kind in HEAD_KINDS else estimate[place]
            torch.testing.assert_close(
                given, slope, rtol=2e-2, atol=3e-4, check_dtype=False, msg=lambda m, k=kind: f"{k}: {m}"
            )
            if kind in HEAD_KINDS:
                together = attribution_patching(precise, clean, corrupted, metric, END, kind)[layer]
                close(together, estimate.sum(1))

    def read(self, model, tokens, name):
        return model.run_with_cache(tokens, names_filter=name)[1][name]

    def measured(self, model, tokens, metric, name, kind, change):
        index = self.index(kind, place=2, head=0)

        def move(activation, hook):
            moved = activation.clone()
            moved[index] += change[index]
            return moved

        return metric(at_end(model.run_with_hooks(tokens, fwd_hooks=[(name, move)]), END))

    def index(self, kind, place, head):
        everything = slice(None)
        if kind == "pattern":
            return everything, head, place
        return (everything, place, head) if kind in HEAD_KINDS else (everything, place)

    def test_it_is_exact_where_the_model_is_linear(self):
        """After the last layer, without a norm, a logit difference is linear in the stream."""
        model = random_native(normalization_type=None, seed=2)
        clean, corrupted = random_tokens(model, seed=1), random_tokens(model, seed=2)
        metric = partial(logit_difference, right=RIGHT, wrong=WRONG)
        found = attribution_patching(model, clean, corrupted, metric, END, "resid_post")[-1]
        expected = metric(at_end(model(clean), END)) - metric(at_end(model(corrupted), END))
        close(found[END, torch.arange(3)], expected)
        close(found.sum(0), expected)

    def test_grids_have_the_shapes_of_patching_and_agree_where_a_patch_acts_alone(self):
        """Values of the last layer enter the stream linearly, and without a norm so does the logit difference."""
        model = random_native(normalization_type=None, seed=2, attn_only=True)
        clean, corrupted = random_tokens(model, seed=1), random_tokens(model, seed=2)
        metric = partial(logit_difference, right=RIGHT, wrong=WRONG)
        given, before = (model, clean, corrupted, metric, END), metric(at_end(model(corrupted), END))
        for per_position in (False, True):
            patched = patch_heads(*given, kinds=["z", "v"], per_position=per_position) - before
            for kind, expected in zip(("z", "v"), patched, strict=True):
                estimate = attribution_patching(*given, kind, per_position=per_position)
                assert estimate.shape == expected.shape
                close(estimate[-1], expected[-1])
        for stream in ("resid_pre", "attn_out", "resid_post"):
            estimate, expected = attribution_patching(*given, stream), patch_residual(*given, stream) - before
            assert estimate.shape == expected.shape
            if stream != "resid_pre":
                close(estimate[-1], expected[-1])

    def test_several_metrics_and_noising(self):
        model = random_gpt2()
        clean, corrupted = random_tokens(model, seed=1), random_tokens(model, seed=2)
        metric = {"log p": partial(log_probability, right=RIGHT), "logit": lambda logits: logits[:, 3]}
        both = attribution_patching(model, clean, corrupted, metric, END, "z")
        for name, single in metric.items():
            close(both[name], attribution_patching(model, clean, corrupted, single, END, "z"))
            noising = attribution_patching(model, corrupted, clean, single, END, "z", direction="noising")
            close(both[name], noising)
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "resid"}, "kind must be one of resid_pre"),
        ({"direction": "up"}, "direction must be"),
        ({"end": torch.tensor([9, 0, 0])}, "one position from 0 to 8"),
    ],
)
def test_wrong_arguments_are_named(given, message):
    model = random_gpt2()
    tokens = random_tokens(model)
    with pytest.raises(ValueError, match=message):
        attribution_patching(model, tokens, tokens, lambda logits: logits[:, 0], **given)


def test_answers_and_prompts_must_fit_the_model():
    model = random_native(attn_only=True)
    tokens = random_tokens(model)
    with pytest.raises(ValueError, match="one token id from 0 to 22 for each of 3 prompts"):
        attribute_heads(model, tokens, torch.tensor([1, 2, 23]))
    with pytest.raises(ValueError, match="vocabulary has ids 0 to 22"):
        logit_lens(model, tokens + 23)
    with pytest.raises(ValueError, match="no mlp_out in this model"):
        attribution_patching(model, tokens, tokens, lambda logits: logits[:, 0], kind="mlp_out")
