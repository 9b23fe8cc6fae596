"""The shipped mysteries: they open, they are what their sealed truth says, and nothing in sight gives that away."""

import json
import re
import shutil
from collections import Counter

import pytest
import torch

from utils.models.load import CARD, DamagedModel, sha256
from utils.models.mystery import __main__ as command
from utils.models.mystery import load_mystery, make, measure_pool, mystery_names, unseal
from utils.models.mystery.ablation import answers
from utils.models.mystery.circuits import set_effects
from utils.models.mystery.families import FAMILIES
from utils.models.mystery.network import Shape
from utils.models.mystery.pool import POOL, SEAL, Mystery, assigned_name
from utils.models.mystery.score import component_score, held_out_inputs
from utils.models.mystery.truth import to_record

MYSTERIES = [Mystery(POOL / name) for name in mystery_names()]


def files(pool=POOL):
    return [file for file in pool.rglob("*") if file.is_file()]


@pytest.fixture(scope="module")
def card():
    return json.loads((POOL / CARD).read_text(encoding="utf-8"))


@pytest.fixture
def exam(tmp_path):
    """A pool of two whose truth lies with the instructor."""
    truths = {}
    for mystery in MYSTERIES[:2]:
        shutil.copytree(mystery.folder, tmp_path / "pool" / mystery.name)
        (tmp_path / "pool" / mystery.name / SEAL).unlink()
        truths[mystery.name] = to_record(unseal(mystery))
    (tmp_path / "truths.json").write_text(json.dumps(truths), encoding="utf-8")
    return tmp_path


class TestWhatIsInSight:
    def test_there_are_24_of_one_shape_within_3_megabytes(self):
        assert len(MYSTERIES) == 24
        assert {mystery.network.shape for mystery in MYSTERIES} == {Shape()}
        assert sum(file.stat().st_size for file in files()) <= 3e6

    def test_all_mysteries_look_the_same_from_outside(self):
        kinds = Counter((file.name, file.stat().st_size) for m in MYSTERIES for file in m.folder.iterdir())
        assert len(kinds) == 4
        assert set(kinds.values()) == {24}
        assert len({sha256(mystery.folder / "config.json") for mystery in MYSTERIES}) == 1

    def test_no_file_names_a_family_or_a_task(self):
        names = [family.__name__ for family in FAMILIES]
        words = {*names, *(re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in names)}
        words |= {unseal(mystery).task.truth.split(",")[0] for mystery in MYSTERIES}
        for file in files():
            content = file.read_bytes()
            assert not [word for word in words if word.encode() in content], file

    def test_a_mystery_says_only_its_name(self):
        assert repr(MYSTERIES[2]) == "<mystery-03, sealed>"

    def test_the_pool_is_not_among_the_models_that_load_model_lists(self):
        from utils import available_models

        assert not [name for name in available_models() if "mystery" in name]


class TestWhatIsSealed:
    def test_the_tasks_are_different_and_of_many_families(self):
        truths = [unseal(mystery) for mystery in MYSTERIES]
        assert len({truth.task for truth in truths}) == 24
        assert len({type(truth.task) for truth in truths}) >= 8
        assert max(truth.cpu_seconds for truth in truths) < 60

    @pytest.mark.parametrize("mystery", MYSTERIES, ids=lambda mystery: mystery.name)
    def test_the_model_does_what_its_truth_says_by_the_circuit_that_it_names(self, mystery):
        truth, tokens = unseal(mystery), held_out_inputs(mystery, 400, seed=11)
        assert (answers(mystery.network, tokens) == truth.task.answer(tokens)).float().mean() >= 0.985
        (kept, removed), (floor, intact) = set_effects(mystery.network, tokens, [truth.circuit, ()])
        assert kept >= 0.95
        assert removed <= floor + 0.3 * (intact - floor)
        assert truth.accuracy.value >= 0.99
        assert {c for c, effect in truth.effects.items() if effect.value > 0.05} <= set(truth.circuit)

    @pytest.mark.parametrize("mystery", MYSTERIES[::8], ids=lambda mystery: mystery.name)
    def test_the_causal_test_accepts_the_circuit_and_rejects_the_rest(self, mystery):
        circuit = unseal(mystery).circuit
        assert component_score(circuit, mystery, n=100).holds
        rest = [component for component in mystery.components if component not in circuit][: len(circuit)]
        assert not component_score(rest, mystery, n=100).holds

    def test_the_inputs_that_come_with_a_mystery_are_valid(self):
        for mystery in MYSTERIES:
            right = answers(mystery.network, mystery.inputs[:300]) == unseal(mystery).task.answer(mystery.inputs[:300])
            assert right.float().mean() >= 0.98

    def test_the_bridge_answers_as_the_network_does(self):
        mystery = MYSTERIES[5]
        tokens = mystery.sample_inputs(50)
        torch.testing.assert_close(mystery.model(tokens)[:, -1], mystery.network(tokens), atol=1e-4, rtol=0)


class TestLoading:
    def test_a_learner_always_gets_the_same_mystery(self):
        assert load_mystery("ada") == load_mystery("ada")
        assert assigned_name("ada") in mystery_names()

    def test_learners_are_spread_evenly(self):
        counts = Counter(assigned_name(f"learner {i}") for i in range(2400))
        assert len(counts) == 24
        chi_squared = sum((count - 100) ** 2 / 100 for count in counts.values())
        assert chi_squared < 60  # 23 degrees of freedom: beyond it lies one case in 30,000

    def test_by_number(self):
        assert load_mystery(number=7).name == "mystery-07"

    @pytest.mark.parametrize("number", [0, 25, -1])
    def test_a_number_that_does_not_exist_is_explained(self, number):
        with pytest.raises(ValueError, match="this pool has 1 to 24"):
            load_mystery(number=number)

    def test_a_learner_or_a_number_but_not_both(self):
        for arguments in ({}, {"learner_id": "ada", "number": 1}):
            with pytest.raises(ValueError, match="either a learner's id or a number"):
                load_mystery(**arguments)

    def test_an_empty_pool_is_explained(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no mysteries in"):
            load_mystery("ada", pool=tmp_path)

    def test_sampled_inputs_are_different_rows_of_the_table(self):
        mystery = MYSTERIES[0]
        tokens = mystery.sample_inputs(40, seed=2)
        table = list(map(tuple, mystery.inputs.tolist()))
        assert all(tuple(row) in table for row in tokens.tolist())
        assert torch.equal(tokens, mystery.sample_inputs(40, seed=2))
        assert not torch.equal(tokens, mystery.sample_inputs(40, seed=3))
        assert sorted(mystery.sample_inputs(len(table)).tolist()) == sorted(map(list, table))

    @pytest.mark.parametrize("n", [0, 10**6])
    def test_too_many_inputs_are_refused(self, n):
        with pytest.raises(ValueError, match="expected 1 to"):
            MYSTERIES[0].sample_inputs(n)

    @pytest.mark.parametrize("file", ["model.safetensors", "inputs.safetensors", SEAL])
    def test_damage_is_noticed(self, tmp_path, file):
        shutil.copytree(POOL / "mystery-01", tmp_path / "mystery-01")
        shutil.copy(POOL / CARD, tmp_path)
        with (tmp_path / "mystery-01" / file).open("ab") as damaged:
            damaged.write(b"!")
        with pytest.raises(DamagedModel, match=rf"mystery-01/{file} is missing or damaged"):
            load_mystery(number=1, pool=tmp_path)


class TestCard:
    def test_it_knows_every_file(self, card):
        expected = {file.relative_to(POOL).as_posix(): sha256(file) for m in MYSTERIES for file in m.folder.iterdir()}
        assert card["sha256"] == expected

    def test_every_bar_is_kept(self, card):
        for key, m in card["measurements"].items():
            assert m["at_least"] is None or m["value"] >= m["at_least"], key
            assert m["at_most"] is None or m["value"] <= m["at_most"], key

    def test_measuring_again_gives_its_numbers(self, card, exam):
        found = measure_pool(True, exam / "pool", exam / "truths.json").measurements
        for name in ("mystery-01", "mystery-02"):
            assert found[f"{name}_accuracy"].value == pytest.approx(
                card["measurements"][f"{name}_accuracy"]["value"], abs=0.005
            )


class TestInstructorsPool:
    def test_its_truth_opens_with_the_instructor_s_file_alone(self, exam):
        mystery = load_mystery(number=1, pool=exam / "pool")
        with pytest.raises(FileNotFoundError):
            unseal(mystery)
        assert unseal(mystery, exam / "truths.json") == unseal(MYSTERIES[0])
        assert component_score(unseal(MYSTERIES[0]).circuit, mystery, 50, truths=exam / "truths.json").kept >= 0.95

    def test_a_truth_inside_the_pool_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="write the truth somewhere else"):
            make.make_pool(tmp_path, "secret", 1, tmp_path / "deep" / "truths.json")

    def test_making_goes_on_where_it_was_interrupted(self, exam, monkeypatch):
        made = []

        def fake(folder, task, seed, settings):
            made.append((folder.name, seed))
            return unseal(MYSTERIES[seed - 1])

        monkeypatch.setattr(make, "make_mystery", fake)
        make.make_pool(exam / "pool", "secret", 4, exam / "truths.json")
        assert made == [("mystery-03", 3), ("mystery-04", 4)]
        assert list(json.loads((exam / "truths.json").read_text(encoding="utf-8"))) == mystery_names()[:4]


class TestCommand:
    def test_unseal_prints_the_truth(self, monkeypatch, capsys):
        monkeypatch.setattr("sys.argv", ["mystery", "unseal", "mystery-04"])
        command.main()
        assert capsys.readouterr().out.startswith(unseal(MYSTERIES[3]).task.truth)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [(["unseal", "mystery-99"], "there is no mystery"), (["make", "--pool", "here"], "needs a --secret")],
    )
    def test_mistakes_are_explained(self, arguments, says, monkeypatch, capsys):
        monkeypatch.setattr("sys.argv", ["mystery", *arguments])
        with pytest.raises(SystemExit):
            command.main()
        assert says in capsys.readouterr().err
