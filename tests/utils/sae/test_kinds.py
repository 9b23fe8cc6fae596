"""Every kind of dictionary against its definition, and its training against SAELens's own."""

import pytest
import torch
from planted import MAKERS, planted_activations, randomised

from utils.sae import L1, BatchTopK, Gated, JumpReLU, Matryoshka, TopK

D, N = 16, 40


def by_hand(dictionary, x):
    """The latents of every kind in evaluation mode, written from the papers' formulas, one row at a time."""
    rows = []
    for row in x:
        centred = row if dictionary.is_transcoder else row - dictionary.b_dec
        pre = torch.stack([centred @ reader for reader in dictionary.encoder])
        if isinstance(dictionary, Gated):
            on = pre + dictionary.b_gate > 0
            rows.append(torch.where(on, torch.relu(dictionary.r_mag.exp() * pre + dictionary.b_mag), 0.0))
            continue
        pre = pre + dictionary.b_enc
        if isinstance(dictionary, BatchTopK | JumpReLU):
            rows.append(torch.where(pre > dictionary.threshold, pre, 0.0))
        elif isinstance(dictionary, TopK):
            cut = pre.sort(descending=True).values[dictionary.k - 1]
            rows.append(torch.where(pre >= cut, pre.clamp(min=0), 0.0))
        else:
            rows.append(pre.clamp(min=0))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("options", [{}, {"d_out": 11}, {"d_out": 11, "skip": True}])
def test_latents_and_output_follow_the_definition(kind, options):
    dictionary = randomised(MAKERS[kind](D, N, **options)).eval()
    x = torch.randn(7, 3, D)
    latents = dictionary.encode(x)
    torch.testing.assert_close(latents.flatten(0, 1), by_hand(dictionary, x.flatten(0, 1)))
    expected = latents @ dictionary.W_dec + dictionary.b_dec
    if options.get("skip"):
        expected = expected + torch.einsum("bci,oi->bco", x, dictionary.W_skip)
    torch.testing.assert_close(dictionary(x), expected)


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka"])
@pytest.mark.parametrize("latents", [N, 200])
@pytest.mark.parametrize("options", [{}, {"d_out": 11, "skip": True}])
def test_training_on_active_pairs_gives_the_dense_gradients(kind, options, latents):
    x = torch.randn(23, D)
    y = torch.randn(23, options.get("d_out", D))
    gradients = []
    for dense in (False, True):
        dictionary = randomised(MAKERS[kind](D, latents, **options)).train()
        if dictionary.entries_at_once:
            dictionary.entries_at_once = 9 * dictionary.n_latents
        passed = super(TopK, dictionary).training_pass(x) if dense else dictionary.training_pass(x)
        sum((output - y).pow(2).sum() for output in passed.outputs).backward()
        gradients.append({name: p.grad for name, p in dictionary.named_parameters()} | {"fired": passed.fired})
    assert gradients[0].keys() == gradients[1].keys()
    for name, fast in gradients[0].items():
        torch.testing.assert_close(fast, gradients[1][name], atol=1e-4, rtol=1e-4, msg=name)


def test_topk_keeps_at_most_k_and_batch_topk_k_on_average():
    x = torch.randn(50, D)
    assert (TopK(D, N, k=3).encode(x) > 0).sum(1).max() <= 3
    dictionary = BatchTopK(D, N, k=3).train()
    assert (dictionary.encode(x) > 0).sum() == 150
    assert (dictionary.encode(x) > 0).sum(1).float().std() > 0


def test_matryoshka_levels_are_the_reconstructions_of_the_first_latents():
    dictionary = randomised(Matryoshka(D, N, k=3, widths=(5, 20))).train()
    x = torch.randn(9, D)
    latents = dictionary.encode(x)
    outputs = dictionary.training_pass(x).outputs
    assert len(outputs) == 3
    for width, output in zip((5, 20, N), outputs, strict=True):
        torch.testing.assert_close(output, latents[:, :width] @ dictionary.W_dec[:width] + dictionary.b_dec)


def test_the_gate_learns_through_a_frozen_decoder():
    dictionary = randomised(Gated(D, N))
    through_gate, full = dictionary.training_pass(torch.randn(9, D)).outputs
    through_gate.sum().backward(retain_graph=True)
    assert dictionary.W_dec.grad is None
    assert dictionary.b_gate.grad.abs().sum() > 0
    full.sum().backward()
    assert dictionary.W_dec.grad.abs().sum() > 0


def test_the_threshold_s_gradient_is_that_of_a_smoothed_cost():
    """The straight-through estimate equals the slope of the mean L0, where pre-activations are spread evenly."""
    dictionary = JumpReLU(1, 1, threshold=0.5, bandwidth=0.2)
    with torch.no_grad():
        dictionary.encoder.fill_(1.0)
    x = torch.linspace(0, 1, 2001)[:, None]
    dictionary.training_pass(x).cost.backward()
    slope = ((x > 0.55).float().mean() - (x > 0.45).float().mean()) / 0.1
    assert dictionary.threshold.grad.item() == pytest.approx(slope.item(), rel=0.01)


@pytest.mark.parametrize("kind", MAKERS)
def test_rescaling_changes_the_units_and_nothing_else(kind):
    dictionary = randomised(MAKERS[kind](D, N, d_out=11, skip=True)).eval()
    x = torch.randn(20, D)
    latents, output = dictionary.encode(3 * x), dictionary(3 * x)
    dictionary.rescale_(3.0, 0.5)
    torch.testing.assert_close(dictionary.encode(x), latents / 0.5)
    torch.testing.assert_close(dictionary(x), output / 0.5)


def saelens_step(sae, x):
    from sae_lens.saes.sae import TrainStepInput

    coefficients = {name: 0.3 for name in sae.get_coefficients()}
    step = TrainStepInput(x, coefficients, torch.zeros(N, dtype=torch.bool), 0, False)
    output = sae.training_forward_pass(step)
    output.loss.backward()
    return output.loss.item(), {name: p.grad for name, p in sae.named_parameters()}


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka", "l1", "jumprelu"])
def test_loss_and_gradients_are_those_of_saelens(kind):
    import sae_lens as lens

    same = {"d_in": D, "d_sae": N, "device": "cpu", "dtype": "float32"}
    top = {**same, "k": 3, "rescale_acts_by_decoder_norm": False}
    nested = {**top, "matryoshka_widths": [10, 20, N]}
    sae = {
        "topk": lambda: lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(**top)),
        "batchtopk": lambda: lens.BatchTopKTrainingSAE(lens.BatchTopKTrainingSAEConfig(**top)),
        "matryoshka": lambda: lens.MatryoshkaBatchTopKTrainingSAE(lens.MatryoshkaBatchTopKTrainingSAEConfig(**nested)),
        "l1": lambda: lens.StandardTrainingSAE(lens.StandardTrainingSAEConfig(**same)),
        "jumprelu": lambda: lens.JumpReLUTrainingSAE(lens.JumpReLUTrainingSAEConfig(**same)),
    }[kind]()
    dictionary = randomised(MAKERS[kind](D, N)).train()
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(getattr(dictionary, name))
    x = torch.randn(31, D)
    passed = dictionary.training_pass(x)
    loss = sum((output - x).pow(2).sum(1).mean() for output in passed.outputs) + dictionary.sparsity * passed.cost
    loss.backward()
    theirs, gradients = saelens_step(sae, x)
    assert loss.item() == pytest.approx(theirs, rel=1e-5)
    for name, gradient in gradients.items():
        ours = dictionary.encoder.grad.T if name == "W_enc" else getattr(dictionary, name).grad
        torch.testing.assert_close(ours, gradient, atol=1e-4, rtol=1e-4, msg=name)


def test_l1_shrinks_what_it_codes_and_topk_does_not():
    """One feature, once learnt: the L1 price lowers its activation by half the price, TopK leaves it alone."""
    x = torch.zeros(64, 4)
    x[:, 0] = 2.0
    for dictionary, expected in ((L1(4, 1, sparsity=0.5), 2.0 - 0.25), (TopK(4, 1, k=1), 2.0)):
        with torch.no_grad():
            dictionary.encoder.copy_(torch.eye(4)[:1])
            dictionary.W_dec.copy_(torch.eye(4)[:1])
        optimizer = torch.optim.SGD([dictionary.b_enc], lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            passed = dictionary.training_pass(x)
            (((passed.outputs[0] - x) ** 2).sum(1).mean() + dictionary.sparsity * passed.cost).backward()
            optimizer.step()
        assert dictionary.encode(x).mean().item() == pytest.approx(expected, abs=1e-3)


def test_wrong_shapes_are_refused_with_what_was_expected():
    with pytest.raises(ValueError, match="k must be between 1 and the 40 latents, got 41"):
        TopK(D, N, k=41)
    with pytest.raises(ValueError, match="widths must ascend"):
        Matryoshka(D, N, k=3, widths=(20, 10))
    with pytest.raises(ValueError, match="only a transcoder"):
        L1(D, N, skip=True)
    with pytest.raises(ValueError, match="positive widths"):
        L1(0, N)


def test_planted_activations_are_what_they_say():
    x, codes, directions = planted_activations(100)
    torch.testing.assert_close(x, codes @ directions + 0.7)
    assert (codes > 0).float().mean().item() == pytest.approx(0.08, abs=0.02)
