"""Fast and plain patching agree on models and prompts that hypothesis draws, and shrinks where they do not."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_gpt2, random_native, random_neo

from utils.metrics import log_probability
from utils.patching import ablate, ablation_effects, patch_activation, patch_heads, patch_residual, path_patching
from utils.patching import path_patching_plain as plain
from utils.patching.heads import KINDS
from utils.patching.streams import STREAMS
from utils.readout import activation_name

FEW = settings(max_examples=12, deadline=None, derandomize=True)
SMALL = st.integers(1, 3)


def first_word(logits):
    return log_probability(logits, torch.zeros(len(logits), dtype=torch.long))


@st.composite
def models(draw):
    """Of every architecture that is covered, with sizes down to one."""
    seed, layers, heads, width = draw(st.integers(0, 10**6)), draw(SMALL), draw(SMALL), draw(st.integers(2, 6))
    kind = draw(st.sampled_from(["gpt2", "neo", "native"]))
    if kind == "gpt2":
        return random_gpt2(layers=layers, heads=heads, d_model=heads * width, folded=draw(st.booleans()), seed=seed)
    if kind == "neo":
        window = draw(st.integers(1, 4))
        return random_neo(layers=2, heads=heads, d_model=heads * width, window=window, seed=seed)
    return random_native(
        n_layers=layers,
        n_heads=heads,
        d_head=width,
        d_model=draw(st.integers(4, 13)),
        d_mlp=draw(st.integers(1, 9)),
        normalization_type=draw(st.sampled_from([None, "LN", "LNPre"])),
        attn_only=draw(st.booleans()),
        seed=seed,
    )


@st.composite
def studies(draw):
    """A model, clean and corrupted prompts that share a beginning, and where each prompt answers."""
    model, prompts, seq = draw(models()), draw(SMALL), draw(st.integers(1, 6))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    clean, corrupted = torch.randint(model.cfg.d_vocab, (2, prompts, seq), generator=rng)
    same = draw(st.integers(0, seq))
    corrupted[:, :same] = clean[:, :same]
    return model, clean, corrupted, torch.randint(seq, (prompts,), generator=rng)


def close(given_value, expected):
    torch.testing.assert_close(given_value, expected, atol=1e-4, rtol=1e-4)


@FEW
@given(studies(), st.data())
def test_a_cell_of_the_residual_grid_is_one_patch(study, data):
    model, clean, corrupted, end = study
    stream = data.draw(st.sampled_from(sorted(STREAMS)))
    if model.cfg.attn_only and stream in ("mlp_out", "resid_mid"):
        stream = "resid_pre"
    layer, position = data.draw(st.integers(0, model.cfg.n_layers - 1)), data.draw(st.integers(0, clean.shape[1] - 1))
    grid = patch_residual(model, clean, corrupted, first_word, end, stream)
    name = activation_name(layer, stream)
    close(
        grid[layer, position],
        patch_activation(model, clean, corrupted, first_word, name, positions=[position], end=end),
    )


@FEW
@given(studies(), st.data())
def test_a_cell_of_the_head_grid_is_one_patch(study, data):
    model, clean, corrupted, end = study
    kind, direction = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(["denoising", "noising"]))
    layer, head = data.draw(st.integers(0, model.cfg.n_layers - 1)), data.draw(st.integers(0, model.cfg.n_heads - 1))
    grid = patch_heads(model, clean, corrupted, first_word, end, [kind], direction=direction)
    name = activation_name(layer, kind)
    expected = patch_activation(model, clean, corrupted, first_word, name, head=head, end=end, direction=direction)
    close(grid[0, layer, head], expected)


@FEW
@given(studies(), st.sampled_from(["heads", "embedding"]), st.data())
def test_paths_agree(study, senders, data):
    model, clean, corrupted, end = study
    close(
        path_patching.path_patch_to_logits(model, clean, corrupted, first_word, end, senders=senders),
        plain.path_patch_to_logits(model, clean, corrupted, first_word, end, senders=senders),
    )
    receiver = model.cfg.n_layers - 1, data.draw(st.integers(0, model.cfg.n_heads - 1))
    part = data.draw(st.sampled_from("qkv"))
    close(
        path_patching.path_patch_to_inputs(model, clean, corrupted, [receiver], first_word, part, end),
        plain.path_patch_to_inputs(model, clean, corrupted, [receiver], first_word, part, end),
    )


@FEW
@given(studies(), st.sampled_from(["zero", "mean"]), st.data())
def test_an_effect_is_what_ablating_the_head_changes(study, how, data):
    model, clean, corrupted, end = study
    head = data.draw(st.integers(0, model.cfg.n_layers - 1)), data.draw(st.integers(0, model.cfg.n_heads - 1))
    more = {"how": how, "reference": corrupted} if how == "mean" else {"how": how}
    rows = torch.arange(len(clean))
    with ablate(model, [head], **more):
        without = first_word(model(clean)[rows, end])
    effects = ablation_effects(model, clean, first_word, end=end, **more)
    close(effects[head], without - first_word(model(clean)[rows, end]))
