"""The judges of a mystery: they agree with a network whose circuit is known by construction."""

from dataclasses import replace
from random import Random

import pytest
import torch

from utils.models.measurement import proportion
from utils.models.mystery import behaviour_score, score
from utils.models.mystery import truth as truth_module
from utils.models.mystery.ablation import answers
from utils.models.mystery.families import Deck
from utils.models.mystery.families.most_frequent import MostFrequent
from utils.models.mystery.network import Network, Shape, open_network
from utils.models.mystery.pool import INPUTS, Mystery
from utils.models.mystery.score import held_out_inputs
from utils.models.native import save_native

PLANTED = ("0.2", "1.mlp")


@pytest.fixture(scope="module")
def task():
    return MostFrequent.draw(Deck(Random(1)))


@pytest.fixture(scope="module")
def mystery(task, tmp_path_factory):
    """A random network in which all components but two write nothing."""
    from safetensors.torch import save_file

    network = Network(Shape(), seed=4).requires_grad_(False)
    for component in network.shape.components:
        layer, part = component.split(".")
        block = network.blocks[int(layer)]
        written = block.mlp.W_out if part == "mlp" else block.attn.W_O[int(part)]
        written.mul_(8 if component in PLANTED else 0)
    network.ln_final.b.zero_()
    folder = tmp_path_factory.mktemp("pool") / "mystery-01"
    save_native(folder, network.shape.config, network.state_dict())
    save_file({"tokens": task.sample(400, torch.Generator().manual_seed(0)).to(torch.uint8)}, folder / INPUTS)
    nothing = proportion(torch.tensor([True]), "not measured")
    truth_module.seal_truth(truth_module.Truth(task, nothing, PLANTED, 1, 0, 0, 1, True, {}, (), 0, 0, 0.0), folder)
    return Mystery(folder)


@pytest.fixture(scope="module")
def program(mystery):
    """What the network answers, computed outside of PyTorch's modules from a table of the held-out inputs."""
    tokens = held_out_inputs(mystery, 500, seed=7)
    table = dict(zip(map(tuple, tokens.tolist()), answers(mystery.network, tokens).tolist(), strict=True))
    return lambda row: table[tuple(row)]


def component_score(components, mystery):
    return score.component_score(components, mystery, n=60)


class TestBehaviourScore:
    def test_a_program_that_says_what_the_model_says_scores_one(self, mystery, program):
        judged = behaviour_score(program, mystery, n=500, seed=7)
        assert judged.agreement.value == judged.score == 1
        assert judged.wrong == ()
        assert judged.beats_constant

    def test_the_best_constant_scores_zero(self, mystery, program):
        tokens = held_out_inputs(mystery, 500, seed=7)
        commonest = answers(mystery.network, tokens).mode().values.item()
        judged = behaviour_score(lambda row: commonest, mystery, n=500, seed=7)
        assert judged.score == 0
        assert judged.agreement.value == judged.constant.value
        assert not judged.beats_constant

    def test_a_program_that_is_right_half_of_the_time_lies_between(self, mystery, program):
        judged = behaviour_score(lambda row: program(row) if sum(row) % 2 else -1, mystery, n=500, seed=7)
        odd = (held_out_inputs(mystery, 500, seed=7).sum(1) % 2).float().mean().item()
        assert judged.agreement.value == pytest.approx(odd)
        row, its, mine = judged.wrong[0]
        assert (program(row), mine) == (its, -1)

    def test_the_inputs_are_held_out_and_different(self, mystery, task):
        tokens = held_out_inputs(mystery, 700, seed=1)
        rows = set(map(tuple, tokens.tolist()))
        assert len(rows) == 700
        assert not rows & set(map(tuple, mystery.inputs.tolist()))
        assert torch.equal(tokens, held_out_inputs(mystery, 700, seed=1))
        assert not torch.equal(tokens, held_out_inputs(mystery, 700, seed=2))

    def test_asking_the_network_is_refused(self, mystery):
        for network in (mystery.network, mystery.model):
            with pytest.raises(RuntimeError, match="ran a network"):
                behaviour_score(lambda row, network=network: network(torch.tensor([row])), mystery, n=5)
        mystery.network(mystery.inputs[:1])  # and afterwards networks run again

    @pytest.mark.parametrize("said", [1.5, True, None, "7"])
    def test_an_answer_that_is_no_token_is_explained(self, mystery, said):
        with pytest.raises(TypeError, match=r"has to return one token id.*returned"):
            behaviour_score(lambda row: said, mystery, n=5)

    def test_numbers_of_other_libraries_are_tokens_too(self, mystery, program):
        import numpy as np

        for kind in (np.int64, torch.tensor, float):
            assert behaviour_score(lambda row, kind=kind: kind(program(row)), mystery, n=500, seed=7).score == 1


class TestComponentScore:
    def test_the_planted_circuit_holds(self, mystery):
        judged = component_score(PLANTED, mystery)
        assert judged.kept == pytest.approx(judged.intact)
        assert judged.sufficient == judged.necessary == pytest.approx(1)
        assert judged.removed == pytest.approx(judged.floor)
        assert judged.as_good == 0
        assert judged.holds

    def test_order_and_repetition_do_not_matter(self, mystery):
        assert component_score(["1.mlp", "0.2", "0.2"], mystery) == component_score(PLANTED, mystery)

    @pytest.mark.parametrize("components", [("0.0", "1.1"), ("0.1",), ("0.0", "0.1", "0.3", "0.mlp")])
    def test_components_that_do_nothing_fail(self, mystery, components):
        judged = component_score(components, mystery)
        assert max(judged.sufficient, judged.necessary) < 1e-4
        assert not judged.holds

    def test_padding_the_circuit_is_noticed(self, mystery):
        assert component_score((*PLANTED, "0.0", "0.1", "0.3"), mystery).as_good > 0.05
        assert not component_score((*PLANTED, "0.0", "0.1", "0.3"), mystery).holds

    def test_naming_everything_fails(self, mystery):
        assert not component_score(mystery.components, mystery).holds

    def test_the_other_sets_are_judged_like_the_claimed_one(self, mystery):
        """All nine other single components by hand."""
        others = [component_score([c], mystery) for c in mystery.components if c != "0.2"]
        margins = [judged.kept - judged.removed for judged in others]
        assert component_score(["0.2"], mystery).others.value == pytest.approx(sum(margins) / 9)

    def test_an_unknown_component_is_named(self, mystery):
        with pytest.raises(ValueError, match=r"Expected some of 0\.0.*got 2\.0"):
            component_score(["2.0"], mystery)
        with pytest.raises(ValueError, match="got none"):
            component_score([], mystery)


class TestTruth:
    def test_it_survives_the_seal(self, mystery, task):
        truth = truth_module.unseal(mystery)
        assert truth.task == task
        assert truth.circuit == PLANTED

    def test_measured_effects_name_the_planted_components(self, mystery, task):
        """With the model's own answers as the truth of its task, only the planted components cost accuracy."""
        from utils.models.mystery.train import Trained

        network = open_network(mystery.folder)
        trained = Trained(network, PLANTED, 0, 10, 1.0)
        measured = truth_module.measure_truth(network, _Echo(task, network), trained)
        lost = {component for component, effect in measured.effects.items() if effect.low > 0}
        assert lost == set(PLANTED)
        assert measured.accuracy.value == 1
        assert measured.kept == pytest.approx(measured.intact)
        assert measured.removed == pytest.approx(measured.floor)
        assert measured.minimal

    def test_attention_is_between_the_task_s_roles(self, mystery, task):
        from utils.models.mystery.train import Trained

        truth = truth_module.measure_truth(mystery.network, task, Trained(mystery.network, ("0.2",), 0, 10, 1.0))
        parts = {"winner", "losers", "last position"}
        assert truth.attention
        assert all(head == "0.2" and {source, target} <= parts for head, source, target, _ in truth.attention)
        assert all(0.2 <= weight <= 1 for *_, weight in truth.attention)
        tokens = task.sample(truth_module.N_INPUTS, torch.Generator().manual_seed(truth_module.TRUTH_SEED))
        losers = task.roles(tokens)["losers"]
        by_hand = (mystery.network.patterns(tokens)["0.2"][:, -1] * losers).sum(1).mean().item()
        said = {(source, target): weight for _, source, target, weight in truth.attention}
        assert said.get(("last position", "losers"), by_hand) == pytest.approx(by_hand, abs=1e-3)

    def test_a_missing_truth_is_explained(self, mystery, tmp_path):
        (tmp_path / "mystery-09").mkdir()
        with pytest.raises(FileNotFoundError, match="give the file of truths"):
            truth_module.unseal(replace(mystery, folder=tmp_path / "mystery-09"))

    def test_an_instructor_s_file_without_this_mystery_is_explained(self, mystery, tmp_path):
        import json

        file = tmp_path / "truths.json"
        file.write_text(json.dumps({"mystery-02": {}}), encoding="utf-8")
        with pytest.raises(KeyError, match="does not know mystery-01"):
            truth_module.unseal(mystery, file)


class _Echo:
    """A task whose right answer is whatever a network says."""

    def __init__(self, task, network):
        self.sample, self.roles, self._network = task.sample, task.roles, network

    def answer(self, tokens):
        return answers(self._network, tokens)
