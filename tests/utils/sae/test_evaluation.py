"""Splicing and evaluation on a small random model, where perfect and useless dictionaries are known."""

import pytest
import torch

from utils import load_model
from utils.models.native import save_native
from utils.sae import L1, JumpReLU, Site, TopK, collect_activations, evaluate, spliced
from utils.sae.evaluation import ratio, reconstruction_scale, token_losses, variance_explained

WIDTH, HEADS, VOCABULARY = 8, 2, 20
SITES = [Site.residual(0), Site.mlp_out(1), Site.attention(0)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    rng = torch.Generator().manual_seed(0)
    shapes = {"embed.W_E": (VOCABULARY, WIDTH), "pos_embed.W_pos": (12, WIDTH), "unembed.W_U": (WIDTH, VOCABULARY)}
    for layer in range(2):
        shapes |= {f"blocks.{layer}.attn.W_{matrix}": (HEADS, WIDTH, WIDTH // HEADS) for matrix in "QKV"}
        shapes |= {f"blocks.{layer}.attn.W_O": (HEADS, WIDTH // HEADS, WIDTH)}
        shapes |= {f"blocks.{layer}.mlp.W_in": (WIDTH, 16), f"blocks.{layer}.mlp.W_out": (16, WIDTH)}
        shapes |= {f"blocks.{layer}.ln{norm}.w": (WIDTH,) for norm in (1, 2)}
    shapes["ln_final.w"] = (WIDTH,)
    weights = {name: 0.7 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    config = {
        "d_model": WIDTH,
        "d_head": WIDTH // HEADS,
        "n_heads": HEADS,
        "n_layers": 2,
        "n_ctx": 12,
        "d_vocab": VOCABULARY,
        "d_mlp": 16,
        "act_fn": "gelu",
        "normalization_type": "LN",
    }
    folder = tmp_path_factory.mktemp("model")
    save_native(folder, config, weights, torch.float32)
    return load_model(folder)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(VOCABULARY, (30, 12), generator=torch.Generator().manual_seed(1))


def lossless(site):
    """A dictionary with both signs of every coordinate: it reconstructs exactly."""
    dictionary = L1(WIDTH, 2 * WIDTH)
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    with torch.no_grad():
        dictionary.encoder.copy_(both)
        dictionary.W_dec.copy_(both)
    dictionary.site = site
    return dictionary.eval().requires_grad_(False)


def silent(site, level):
    """A dictionary none of whose latents is ever active: it writes ``level`` whatever it reads."""
    dictionary = JumpReLU(WIDTH, 6, threshold=1e6)
    with torch.no_grad():
        dictionary.b_dec.copy_(level)
    dictionary.site = site
    return dictionary.eval().requires_grad_(False)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_lossless_dictionary_explains_and_recovers_everything(model, tokens, site):
    found = evaluate(model, lossless(site), tokens)
    assert found["fve"].value == pytest.approx(1.0, abs=1e-5)
    assert found["ce_recovered"].value == pytest.approx(1.0, abs=1e-3)
    assert found["ce"].value == pytest.approx(found["ce_spliced"].value, abs=1e-4)
    assert found["l0"].value == pytest.approx(WIDTH, abs=1e-3)
    assert found["dead"].value == 0.0


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_dictionary_that_writes_the_mean_explains_and_recovers_nothing(model, tokens, site):
    level = collect_activations(model, tokens, [site.reads])[site.reads].mean(0)
    found = evaluate(model, silent(site, level), tokens)
    assert found["fve"].value == pytest.approx(0.0, abs=1e-4)
    assert found["ce_recovered"].value == pytest.approx(0.0, abs=1e-3)
    assert (found["l0"].value, found["dead"].value) == (0.0, 1.0)


def test_the_loss_is_that_of_the_model_from_the_second_token_on(model, tokens):
    mean = token_losses(model, tokens).mean()
    log_probabilities = model(tokens).log_softmax(-1)
    by_hand = [-log_probabilities[r, p, tokens[r, p + 1]] for r in range(30) for p in range(1, 11)]
    torch.testing.assert_close(mean, torch.stack(by_hand).mean())


def test_an_exact_transcoder_leaves_the_model_as_it_is(model, tokens):
    """A linear MLP is written exactly by a skip connection."""
    site = Site("blocks.1.ln2.hook_out", "blocks.1.hook_mlp_out")
    dictionary = L1(WIDTH, 4, d_out=WIDTH, skip=True).eval().requires_grad_(False)
    dictionary.site = site
    read = collect_activations(model, tokens, [site.reads, site.target])
    with torch.no_grad():
        dictionary.encoder.zero_()
        matrix = torch.randn(WIDTH, WIDTH)
        dictionary.W_skip.copy_(matrix)
    expected = read[site.reads] @ matrix.T
    seen = {}
    with spliced(model, dictionary, skip=0):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.hook_mlp_out", lambda z, hook: seen.update(z=z))])
    torch.testing.assert_close(seen["z"][:, 1:].flatten(0, 1), expected)


def test_edits_reach_the_model_and_the_error_term_hides_the_reconstruction(model, tokens):
    dictionary = TopK(WIDTH, 24, k=2).eval().requires_grad_(False)
    dictionary.site = Site.residual(0)
    clean = model(tokens)
    with spliced(model, dictionary, keep_error=True):
        torch.testing.assert_close(model(tokens), clean, atol=1e-4, rtol=1e-4)
    with spliced(model, dictionary):
        assert (model(tokens) - clean).abs().max() > 0.1

    def one_more(latents):
        edited = latents.clone()
        edited[..., 5] += 3.0
        return edited

    def by_hand(activation, hook):
        return activation + 3.0 * dictionary.W_dec[5] * (torch.arange(12) > 0)[:, None]

    with spliced(model, dictionary, keep_error=True, edit=one_more):
        edited = model(tokens)
    torch.testing.assert_close(
        edited, model.run_with_hooks(tokens, fwd_hooks=[(Site.residual(0).reads, by_hand)]), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(model(tokens), clean)  # nothing stays behind


def test_activations_leave_out_the_first_position_and_keep_the_order(model, tokens):
    site = Site.attention(0)
    _, cache = model.run_with_cache(tokens)
    read = collect_activations(model, tokens, [site.reads])[site.reads]
    assert read.shape == (30 * 11, WIDTH)
    torch.testing.assert_close(read[11 * 4 + 2], cache[site.reads][4, 3].flatten())


def test_a_wrong_hook_is_refused_with_near_names(model, tokens):
    with pytest.raises(ValueError, match=r"no hook 'blocks\.0\.hook_resid_pots'\. Near names: .*hook_resid_post"):
        collect_activations(model, tokens, ["blocks.0.hook_resid_pots"])


def test_variance_explained_is_one_minus_the_error_share():
    y, error = torch.randn(40, 5), 0.1 * torch.randn(40, 5)
    found = variance_explained(y, y + error, rows=10)
    expected = 1 - error.pow(2).sum() / (y - y.mean(0)).pow(2).sum()
    assert found.value == pytest.approx(expected.item(), abs=1e-6)
    assert found.low < found.value < found.high
    assert found.n == 10


def test_the_scale_of_a_reconstruction_is_one_over_its_best_factor():
    y = torch.randn(50, 6)
    noise = torch.randn(50, 6)
    y, noise = y - y.mean(0), noise - noise.mean(0)
    output = 0.7 * (y + 0.3 * noise)
    factor = torch.linalg.lstsq(output.flatten()[:, None], y.flatten()[:, None]).solution.item()
    found = reconstruction_scale(y, output, rows=10)
    assert found.value == pytest.approx(1 / factor, rel=1e-5)


def test_the_interval_of_a_ratio_covers_the_truth_in_about_95_percent_of_samples():
    covered = 0
    for _ in range(400):
        bottom = 1 + torch.rand(60)
        found = ratio(0.4 * bottom + 0.3 * torch.randn(60), bottom, "ratio")
        covered += found.low <= 0.4 <= found.high
    assert 0.91 <= covered / 400 <= 0.985
