"""The fast grids against a loop over ``patch_activation``, on random small models of every kind."""

import random

import pytest
import torch
from random_models import random_gpt2, random_native, random_neo

from utils import load_model
from utils.metrics import log_probability
from utils.patching import patch_activation, patch_heads, patch_residual
from utils.patching.heads import KINDS
from utils.patching.streams import STREAMS
from utils.readout import activation_name


def drawn_model(seed):
    """A model of a random kind and size."""
    draw = random.Random(seed)
    heads, width = draw.randint(1, 3), draw.randint(3, 6)
    sizes = {"layers": draw.randint(1, 3), "heads": heads, "d_model": heads * width, "vocab": draw.randint(7, 30)}
    if seed % 3 == 0:
        return random_gpt2(**sizes, folded=draw.random() < 0.5, seed=seed)
    if seed % 3 == 1:
        return random_neo(**{**sizes, "layers": 2 * draw.randint(1, 2)}, window=draw.randint(1, 4), seed=seed)
    return random_native(
        n_layers=sizes["layers"],
        n_heads=heads,
        d_head=width,
        d_model=draw.randint(5, 14),
        d_mlp=draw.randint(1, 20),
        d_vocab=sizes["vocab"],
        d_vocab_out=draw.randint(2, 9),
        normalization_type=draw.choice([None, "LN", "LNPre"]),
        attn_only=draw.random() < 0.5,
        act_fn=draw.choice(["relu", "gelu_new"]),
        seed=seed,
    )


@pytest.fixture(scope="module", params=range(9))
def case(request):
    """A model, two batches of prompts, their answering positions, a metric and a direction."""
    model, draw = drawn_model(request.param), random.Random(100 + request.param)
    prompts, seq = draw.randint(1, 3), draw.randint(2, 7)
    generator = torch.Generator().manual_seed(request.param)
    clean, corrupted = torch.randint(model.cfg.d_vocab, (2, prompts, seq), generator=generator)
    same = draw.randint(0, seq - 1)
    corrupted[:, :same] = clean[:, :same]
    end = torch.randint(seq, (prompts,), generator=generator) if draw.random() < 0.7 else None
    direction = draw.choice(["denoising", "noising"])

    def metric(logits):
        return log_probability(logits, torch.ones(prompts, dtype=torch.long))

    return model, clean, corrupted, metric, {"end": end, "direction": direction}


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def by_hooks(case, kind, heads=None, positions=None):
    """The grid that a loop of hooks gives, [layer, *head, *position, prompt]."""
    model, clean, corrupted, metric, more = case
    return torch.stack([
        patch_activation(
            model, clean, corrupted, metric, activation_name(layer, kind), head=head, positions=position, **more
        )
        for layer in range(model.cfg.n_layers)
        for head in (range(heads) if heads else [None])
        for position in ([[i] for i in range(positions)] if positions else [None])
    ])  # fmt: skip


def test_residual_patching(case):
    model, clean, corrupted, metric, more = case
    for stream in STREAMS:
        if model.cfg.attn_only and stream in ("resid_mid", "mlp_out"):
            continue  # no such hook
        grid = patch_residual(model, clean, corrupted, metric, stream=stream, **more)
        close(grid.flatten(0, 1), by_hooks(case, stream, positions=clean.shape[1]))


def test_heads_at_all_positions(case):
    model, clean, corrupted, metric, more = case
    grid = patch_heads(model, clean, corrupted, metric, **more)
    for kind, values in zip(KINDS, grid, strict=True):
        close(values.flatten(0, 1), by_hooks(case, kind, heads=model.cfg.n_heads))


def test_heads_at_each_position(case):
    model, clean, corrupted, metric, more = case
    kinds = ("v", "pattern", "z", "k", "q")
    grid = patch_heads(model, clean, corrupted, metric, kinds=kinds, per_position=True, **more)
    for kind, values in zip(kinds, grid, strict=True):
        close(values.flatten(0, 2), by_hooks(case, kind, heads=model.cfg.n_heads, positions=clean.shape[1]))


@pytest.mark.parametrize("name", ["tiny-lm", "textbook-ioi", "modadd-p113"])
def test_shipped_models(name):
    model = load_model(name)
    seq = min(8, model.cfg.n_ctx)
    clean, corrupted = torch.randint(model.cfg.d_vocab, (2, 2, seq), generator=torch.Generator().manual_seed(0))
    case = (model, clean, corrupted, lambda logits: logits[:, 5], {})
    close(patch_residual(*case[:4]).flatten(0, 1), by_hooks(case, "resid_pre", positions=seq))
    heads = patch_heads(*case[:4], kinds=["pattern", "k"])
    close(heads[0].flatten(0, 1), by_hooks(case, "pattern", heads=model.cfg.n_heads))
    close(heads[1].flatten(0, 1), by_hooks(case, "k", heads=model.cfg.n_heads))


def test_a_patch_is_what_it_says():
    """Patching everything that the model reads gives the clean answer; a head or position that it lacks is refused."""
    model = random_gpt2()
    clean, corrupted = torch.randint(37, (2, 2, 6), generator=torch.Generator().manual_seed(0))
    given = (model, clean, corrupted, lambda logits: logits[:, 5])
    close(patch_activation(*given, "blocks.0.hook_resid_pre"), model(clean)[:, -1, 5])
    close(patch_activation(*given, "hook_embed", direction="noising"), model(corrupted)[:, -1, 5])
    for name, more, message in (
        ("blocks.0.hook_residpre", {}, "Near names: blocks.0.hook_resid_pre"),
        ("blocks.3.attn.hook_z", {}, "Near names: blocks.2.attn.hook_z"),
        ("blocks.0.attn.hook_z", {"head": 3}, "no head 3.*0 to 2"),
        ("blocks.0.hook_attn_out", {"head": 0}, "has no heads; these have: hook_q"),
        ("blocks.0.attn.hook_pattern", {"positions": [6]}, r"from 0 to 5, got \[6\]"),
    ):
        with pytest.raises(ValueError, match=message):
            patch_activation(*given, name, **more)
