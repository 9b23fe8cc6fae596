"""The network that mysteries are trained as: it is the model that learners open, and its ablations are the field's."""

from random import Random

import pytest
import torch

from utils.models.load import load_model
from utils.models.mystery.ablation import answers, mean_outputs, replace_by, swap
from utils.models.mystery.circuits import is_minimal, other_sets, set_effects
from utils.models.mystery.families import Deck
from utils.models.mystery.families.count_above import CountAbove
from utils.models.mystery.network import Network, Shape, open_network
from utils.models.mystery.train import Run, Settings, train_network
from utils.models.native import save_native

SHAPE = Shape(d_model=20, n_layers=3, n_heads=2, d_head=6, d_mlp=14, d_vocab=11, n_ctx=7)
SMALL = Shape(d_model=24, n_layers=1, n_heads=2, d_head=8, d_mlp=24)
QUICK = Settings(shape=SMALL, batch=64, check_inputs=128, learn_steps=400, prune_steps=40, polish_steps=60)


@pytest.fixture(scope="module")
def network():
    """A network with every weight and bias random."""
    network = Network(SHAPE, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 or ".b_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    save_native(folder, SHAPE.config, network.state_dict(), dtype=torch.float32)
    return folder


@pytest.fixture(scope="module")
def bridge(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(SHAPE.d_vocab, (9, SHAPE.n_ctx), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def task():
    """An easy task, so that training on it is quick."""
    return CountAbove.draw(Deck(Random(0)))


def hook_name(component):
    layer, part = component.split(".")
    return f"blocks.{layer}.hook_mlp_out" if part == "mlp" else f"blocks.{layer}.attn.hook_z"


def ablate_in_bridge(bridge, tokens, components):
    """Mean ablation with TransformerLens's own hooks: means of z or of the MLP's output at each position."""
    _, cache = bridge.run_with_cache(tokens)

    def hook_for(component):
        part = component.split(".")[1]
        mean = cache[hook_name(component)].mean(0, keepdim=True)

        def replace(value, hook):
            value = value.clone()
            if part == "mlp":
                value[:] = mean
            else:
                value[:, :, int(part)] = mean[:, :, int(part)]
            return value

        return replace

    hooks = [(hook_name(component), hook_for(component)) for component in components]
    return bridge.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]


def test_the_last_position_s_logits_are_the_bridge_s(network, bridge, tokens):
    torch.testing.assert_close(network(tokens), bridge(tokens)[:, -1], atol=1e-5, rtol=0)


def test_a_saved_network_opens_as_it_was(network, folder, tokens):
    opened = open_network(folder)
    assert opened.shape == SHAPE
    torch.testing.assert_close(opened(tokens), network(tokens), atol=0, rtol=0)


def test_the_names_of_components_are_those_of_the_shape():
    assert Shape(n_layers=2, n_heads=2).components == ("0.0", "0.1", "0.mlp", "1.0", "1.1", "1.mlp")


@pytest.mark.parametrize("components", [{"0.1"}, {"1.mlp"}, {"2.0", "2.mlp"}, {"0.0", "0.mlp", "1.1", "2.1"}])
def test_mean_ablation_is_the_bridge_s(network, bridge, tokens, components):
    ablated = network(tokens, replace_by(mean_outputs(network, tokens), components))
    torch.testing.assert_close(ablated, ablate_in_bridge(bridge, tokens, components), atol=1e-5, rtol=0)
    assert (ablated - network(tokens)).abs().max() > 1e-3


def test_swapped_components_write_what_they_write_on_the_next_input(network, tokens):
    heads = {c for c in SHAPE.components if c.startswith("2.") and not c.endswith("mlp")}
    written = {}

    def record(component, output):
        written[component] = output
        return output

    network(tokens, record)
    by_hand = network(tokens, lambda c, output: written[c].roll(1, 0) if c in heads else output)
    torch.testing.assert_close(network(tokens, swap(heads)), by_hand, atol=0, rtol=0)
    torch.testing.assert_close(network(tokens, swap(())), network(tokens), atol=0, rtol=0)


def test_patterns_are_the_bridge_s(network, bridge, tokens):
    _, cache = bridge.run_with_cache(tokens)
    for component, pattern in network.patterns(tokens).items():
        layer, head = component.split(".")
        expected = cache["pattern", int(layer)][:, int(head)]
        torch.testing.assert_close(pattern, expected[:, -pattern.shape[1] :], atol=1e-6, rtol=0)


def test_keeping_everything_and_removing_nothing_leave_the_intact_probability(network, tokens):
    [(kept, _), (_, removed)] = set_effects(network, tokens, [SHAPE.components, ()])
    intact = network(tokens).softmax(-1).max(-1).values.mean().item()
    assert kept == removed == pytest.approx(intact, rel=1e-5)


def test_keeping_nothing_equals_removing_everything(network, tokens):
    [(kept, _), (_, removed)] = set_effects(network, tokens, [(), SHAPE.components])
    assert kept == removed


def test_other_sets_are_all_the_others_or_a_sample_of_them():
    from math import comb

    every = other_sets(SHAPE.components, ("0.0", "1.1"), most=10_000, seed=0)
    assert len(every) == len(set(every)) == comb(9, 2) - 1
    assert ("0.0", "1.1") not in every
    few = other_sets(SHAPE.components, ("1.1", "0.0"), most=10, seed=0)
    assert len(set(few)) == 10
    assert set(few) < set(every)


def test_a_circuit_that_needs_nothing_is_not_minimal(network, tokens):
    """With the outputs of all components at zero, the empty set keeps every answer."""
    silent = Network(SHAPE, seed=1).requires_grad_(False)
    for block in silent.blocks:
        block.attn.W_O.zero_()
        block.mlp.W_out.zero_()
    assert not is_minimal(silent, tokens, ("0.0",))
    assert is_minimal(silent, tokens, ())


def test_training_learns_then_names_a_circuit_that_suffices(task):
    trained = train_network(task, 0, QUICK)
    tokens = task.sample(500, torch.Generator().manual_seed(9))
    right = answers(trained.network, tokens) == task.answer(tokens)
    assert right.float().mean() >= 0.97
    assert set(trained.circuit) < set(SMALL.components)
    [(kept, removed)] = set_effects(trained.network, tokens, [trained.circuit])
    assert kept >= 0.95
    assert removed <= 0.75


def test_training_gives_the_same_weights_again(task):
    weights = []
    for _ in range(2):
        run = Run(task, 5, QUICK)
        run.train(8, ["0.1"])
        weights.append(torch.cat([p.flatten() for p in run.network.parameters()]))
    assert torch.equal(*weights)


def test_a_component_that_cannot_be_spared_goes_back_into_service(task, monkeypatch):
    run = Run(task, 0, QUICK)
    before = {name: weight.clone() for name, weight in run.network.state_dict().items()}
    monkeypatch.setattr(run, "accuracy", lambda idle: 0.0)
    assert not run._recovers(["0.0"])
    assert all(torch.equal(weight, before[name]) for name, weight in run.network.state_dict().items())


def test_a_network_that_can_do_without_its_circuit_is_trained_to_guess_without_it(task, monkeypatch):
    run, forgotten = Run(task, 0, QUICK), []
    run.idle = ["0.1", "0.mlp"]
    monkeypatch.setattr(run, "train", lambda steps, idle, share, forget_without=(): forgotten.append(forget_without))
    monkeypatch.setattr(run, "needs", lambda circuit: len(forgotten) > 1)
    monkeypatch.setattr(run, "accuracy", lambda idle: 1.0)
    assert run.polish()
    assert forgotten == [(), ["0.0"]]


def test_training_to_guess_leaves_no_trace_of_the_answer(task):
    """Both heads know the answer. Head 0.0 is called the circuit: without it the network comes to guess."""
    run = Run(task, 3, QUICK)
    assert run.learn()
    before = set_effects(run.network, run.tokens, [["0.0", "0.mlp"]])[0][1]
    run.train(120, [], 0.0, forget_without=["0.0", "0.mlp"])
    [(_, removed)] = set_effects(run.network, run.tokens, [["0.0", "0.mlp"]])
    assert 0.44 < removed < min(0.56, before - 0.1)
    assert run.accuracy([]) >= 0.95


def test_a_task_that_is_not_learned_is_tried_again_and_then_given_up(task):
    hopeless = Settings(shape=SMALL, batch=8, check_inputs=64, learn_steps=2, check_every=1, attempts=2, learned=1.01)
    with pytest.raises(RuntimeError, match="this one was not learned to 101% in 2 attempts"):
        train_network(task, 0, hopeless, "this one")
