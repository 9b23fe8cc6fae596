"""The search in half precision, against the whole product in single. It must hold on every CPU, fast there or not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.sae import TopK
from utils.sae.largest import largest
from utils.sae.screening import largest_error, largest_of_product, screening_pays


def problem(seed: int, rows: int, d_in: int, latents: int, spread: float, bias: float):
    """Inputs and an encoder; the sizes of its rows vary with ``spread``."""
    rng = torch.Generator().manual_seed(seed)
    sizes = (torch.randn(latents, 1, generator=rng) * spread).exp()
    encoder = torch.randn(latents, d_in, generator=rng) * sizes
    return torch.randn(rows, d_in, generator=rng), encoder, torch.randn(latents, generator=rng) * bias


def assert_same(x, encoder, b_enc, k):
    """The same entries, but for those whose difference rounding can turn round."""
    precise = torch.addmm(b_enc, x, encoder.T)
    expected, expected_places = largest(precise, k)
    values, places = largest_of_product(x, encoder, b_enc, k)
    rounding = (x.shape[1] + 4) * 2.0**-24 * (x.norm(dim=1).max() * encoder.norm(dim=1).max() + b_enc.abs().max())
    torch.testing.assert_close(values, precise.flatten()[places], rtol=0, atol=rounding.item())
    missed = set(expected_places.tolist()) ^ set(places.tolist())
    kth = precise.topk(k).values[:, -1]
    for place in missed:
        assert abs(precise.flatten()[place] - kth[place // len(encoder)]) <= 2 * rounding
    assert len(missed) <= 0.01 * len(expected) + 1


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([1, 7, 64, 300]), st.data())
def test_it_finds_what_the_whole_product_has(seed, rows, d_in, data):
    latents = data.draw(st.integers(1, 400))
    k = data.draw(st.integers(1, latents))
    spread, bias = data.draw(st.sampled_from([0.0, 0.5, 2.0])), data.draw(st.sampled_from([0.0, 1.0, 100.0]))
    assert_same(*problem(seed, rows, d_in, latents, spread, bias), k)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_size_does_not_matter(scale):
    x, encoder, b_enc = problem(0, 8, 256, 4096, 0.3, 0.1)
    assert_same(x * scale, encoder, b_enc * scale, 32)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rounding_that_turns_the_order_round(sign):
    """The numbers of the four largest rows round down, those of the sixty others up, and these then seem larger."""
    half, little = 256, 2.0**-14
    up, down, below_one = 1 + 2**-8 + little, 1 + 2**-8 - little, 1 - 2**-9 + little
    x = torch.tensor([up] * half + [down] * half).repeat(2, 1) * sign
    rows = [[down] * 2 * half] * 4 + [[up] * half + [below_one] * half] * 60
    encoder = torch.tensor(rows) * sign
    assert ((x.bfloat16() @ encoder.bfloat16().T).topk(4).indices >= 4).all()
    values, places = largest_of_product(x, encoder, torch.zeros(64), 4)
    assert places.tolist() == [0, 1, 2, 3, 64, 65, 66, 67]
    torch.testing.assert_close(values, (x @ encoder.T).flatten()[places])


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 5.0]))
def test_no_error_near_the_largest_is_larger_than_its_bound(seed, spread, bias):
    x, encoder, b_enc = problem(seed, 4, 128, 512, spread, bias)
    rough = (x.bfloat16() @ encoder.bfloat16().T).float() + b_enc
    kth = rough.topk(8).values[:, -1]
    bound = largest_error(x, encoder, b_enc, kth)[:, None]
    near = (rough - kth[:, None]).abs() <= 2 * bound
    error = (rough.double() - (x.double() @ encoder.double().T + b_enc.double())).abs()
    assert (error[near] <= bound.expand_as(error)[near]).all()


def test_few_entries_are_left_to_compute(monkeypatch):
    """Of 6,144 latents and 32 active ones fewer than 200 are looked at again."""
    import utils.sae.screening as screening

    looked_at = []
    precise = screening.entries_of_product
    monkeypatch.setattr(
        screening, "entries_of_product", lambda *given: looked_at.append(len(given[2])) or precise(*given)
    )
    largest_of_product(*problem(0, 64, 768, 6144, 0.0, 0.0), 32)
    assert 32 * 64 <= looked_at[0] < 200 * 64


def test_training_is_the_same_with_and_without(monkeypatch):
    torch.manual_seed(0)
    dictionary, x = TopK(256, 1024, k=8), torch.randn(40, 256)
    passes = []
    for pays in (True, False):
        monkeypatch.setattr("utils.sae.topk.screening_pays", lambda *sizes, pays=pays: pays)
        dictionary.zero_grad()
        passed = dictionary.training_pass(x)
        passed.outputs[-1].square().sum().backward()
        passes.append((passed.outputs[-1].detach(), dictionary.encoder.grad.clone(), dictionary.W_dec.grad.clone()))
    for screened, plain in zip(*passes, strict=True):
        torch.testing.assert_close(screened, plain, rtol=1e-4, atol=1e-5)


def test_small_dictionaries_are_not_screened():
    assert not screening_pays(128, 100_000, 8)
    assert not screening_pays(768, 1000, 32)
