"""Training finds planted dictionaries, revives dead latents, and can be interrupted."""

from dataclasses import replace

import pytest
import torch
from planted import MAKERS, planted_activations

from utils.sae import L1, DictionaryTraining, TopK, TrainingSettings, draw_batches, train_dictionary
from utils.sae.revival import aux_loss, resample

SHORT = TrainingSettings(steps=250, batch=128, lr=6e-3, warmup=20)
PRICES = {"l1": 0.8, "gated": 3.0, "jumprelu": 0.8}


def cosines(dictionary, directions):
    """For every true direction, the best cosine with a latent that is ever active."""
    return (torch.nn.functional.normalize(dictionary.W_dec, dim=1) @ directions.T).max(0).values


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_finds_the_planted_directions(kind):
    x, _, directions = planted_activations(3000, d=32)
    dictionary = MAKERS[kind](32, 32)
    dictionary.sparsity = PRICES.get(kind, 0.0)
    trained = train_dictionary(dictionary, x, settings=SHORT)
    assert cosines(trained, directions).median() > (0.9 if kind == "matryoshka" else 0.98)
    error = (trained(x) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert error < 0.12
    torch.testing.assert_close(trained.W_dec.norm(dim=1), torch.ones(32))


def test_a_transcoder_learns_a_map_and_a_skip_connection_its_linear_part():
    x, codes, _ = planted_activations(3000)
    linear = torch.randn(16, 5, generator=torch.Generator().manual_seed(4)) / 4
    y = codes[:, :5].clamp(max=1.2) + x @ linear
    errors = {}
    for skip in (False, True):
        trained = train_dictionary(TopK(16, 48, k=3, d_out=5, skip=skip), x, y, settings=SHORT)
        errors[skip] = ((trained(x) - y).pow(2).sum() / (y - y.mean(0)).pow(2).sum()).item()
    assert errors[True] < errors[False] < 0.5


def test_the_result_does_not_depend_on_the_units_of_the_activations():
    x, _, _ = planted_activations(1000)
    short = TrainingSettings(steps=40, batch=64)
    one = train_dictionary(TopK(16, 32, k=3), x, settings=short)
    thousand = train_dictionary(TopK(16, 32, k=3), 1000 * x, settings=short)
    torch.testing.assert_close(thousand(1000 * x), 1000 * one(x), rtol=1e-3, atol=1.0)


@pytest.mark.parametrize("revive", ["aux", "resample"])
def test_dead_latents_come_back(revive):
    x, _, _ = planted_activations(3000)
    dead = {}
    for how in (None, revive):
        dictionary = L1(16, 64, sparsity=0.5)
        with torch.no_grad():
            dictionary.b_enc[24:] = -6.0  # 40 latents that no input reaches
        trained = train_dictionary(dictionary, x, settings=replace(SHORT, revive=how, dead_after=10))
        dead[how] = (~(trained.encode(x) > 0).any(0)).sum().item()
    assert dead[None] >= 40
    assert dead[revive] < 20


def test_the_aux_loss_is_the_dead_latents_error_on_the_residual():
    dictionary = TopK(16, 40, k=3)
    x, residual = torch.randn(5, 16), torch.randn(5, 16)
    dead = torch.zeros(40, dtype=torch.bool)
    dead[[3, 9, 30]] = True
    pre = ((x - dictionary.b_dec) @ dictionary.W_enc)[:, dead]
    expected = (pre @ dictionary.W_dec[dead] - residual).pow(2).sum(1).mean()
    torch.testing.assert_close(aux_loss(dictionary, x, residual, dead), expected)


def test_resampling_touches_dead_latents_only():
    dictionary = TopK(16, 40, k=3)
    optimizer = torch.optim.Adam(dictionary.parameters())
    x = torch.randn(60, 16)
    (dictionary(x) - x).pow(2).sum().backward()
    optimizer.step()
    before = {name: p.detach().clone() for name, p in dictionary.named_parameters()}
    dead = torch.arange(40) < 7
    resample(dictionary, x, x, dead, optimizer)
    for name in ("encoder", "W_dec", "b_enc"):
        changed = getattr(dictionary, name)
        torch.testing.assert_close(changed[~dead], before[name][~dead])
    assert not torch.equal(dictionary.W_dec[dead], before["W_dec"][dead])
    assert optimizer.state[dictionary.encoder]["exp_avg"][dead].abs().sum() == 0
    assert optimizer.state[dictionary.encoder]["exp_avg"][~dead].abs().sum() > 0


def test_an_interrupted_run_keeps_what_it_has_and_can_go_on():
    x, _, _ = planted_activations(500)
    settings = TrainingSettings(steps=30, batch=64)

    def run():
        return DictionaryTraining(TopK(16, 32, k=3), draw_batches(x, size=64), settings)

    whole, parts = run(), run()
    whole.run()
    real_loss = parts.loss

    def interrupted(step):
        if step == 12:
            parts.loss = real_loss
            raise KeyboardInterrupt
        return real_loss(step)

    parts.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        parts.run()
    assert parts.step == 12
    parts.run()
    torch.testing.assert_close(parts.trained().W_dec, whole.trained().W_dec)


def test_interrupting_train_dictionary_returns_what_was_learnt():
    x, _, _ = planted_activations(500)

    def batches(step):
        if step == 20:
            raise KeyboardInterrupt
        return x[:64], x[:64]

    with pytest.warns(UserWarning, match="Stopped after 20 of 30 steps"):
        trained = train_dictionary(TopK(16, 32, k=3), batches, steps=30)
    assert not trained.training


def test_the_schedule_rises_stays_and_falls_to_zero():
    settings = TrainingSettings(steps=1000, warmup=100, decay_share=0.2)
    assert settings.lr_share(0) == pytest.approx(0.01)
    assert settings.lr_share(99) == settings.lr_share(799) == 1.0
    assert settings.lr_share(900) == pytest.approx(0.5)
    assert settings.lr_share(999) == pytest.approx(0.005)


def test_wrong_activations_are_refused_with_their_widths():
    with pytest.raises(ValueError, match=r"reads width 16 .* have widths 8 and 8"):
        train_dictionary(TopK(16, 32, k=3), torch.randn(10, 8))
    with pytest.raises(ValueError, match="must be the same tokens, got 10 and 9"):
        train_dictionary(TopK(16, 32, k=3, d_out=16), torch.randn(10, 16), torch.randn(9, 16))
    with pytest.raises(ValueError, match="needs the activations that it should write"):
        train_dictionary(TopK(16, 32, k=3, d_out=16), torch.randn(10, 16))
