"""What the prose of notebook 1.5 says about toys and about the shipped model is true of them, on other seeds."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from utils import load_model, polysemantic, superposition, superposition_geometry
from utils.models.untrained import untrained_twin
from utils.models.world.topics import TOPICS
from utils.stats import wilson_interval

NOTEBOOK = Path(__file__).parents[2] / "solutions/week1_foundations/1_5_superposition_zoo.py"
SETTINGS = (
    "shared",
    "pairs",
    "vocabulary_of",
    "N_TOPICS",
    "D_MLP",
    "N_LAYERS",
    "model",
    "(D_MLP, N_LAYERS)",
    "PROMISED",
)
N = len(TOPICS)
TRAINING = {"restarts": 4, "steps": 1200, "batch": 256, "progress": False, "seed": 5}
SPARSITIES = [0.0, 0.6, 0.8, 0.9, 0.97]


@lru_cache
def notebook():
    """The notebook's functions and settings, without its measurements and figures."""
    body = ast.parse(NOTEBOOK.read_text(encoding="utf-8")).body
    definitions = [
        node
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in SETTINGS)
    ]
    namespace = {"__name__": "notebook_1_5"}
    exec(compile(ast.Module(definitions, []), NOTEBOOK.name, "exec"), namespace)
    return namespace


@lru_cache
def data(name="tiny-lm"):
    model = untrained_twin("tiny-lm", seed=3) if name == "untrained" else load_model(name)
    return notebook()["read_words"](model)


@lru_cache
def toys(relu):
    importance = 0.9 ** torch.arange(5)
    return superposition.train_toy_models(5, 2, SPARSITIES, importance, relu=relu, **TRAINING).best()


# ---------------------------------------------------------------------------------------------- the toy


def test_dense_features_are_dropped_and_sparse_ones_share():
    kept = superposition_geometry.features_kept(toys(True).W).tolist()
    assert (kept[0], kept[-1]) == (2, 5)


def test_the_staircase_has_flat_steps():
    names = [[shape.name for shape in superposition_geometry.arrangement(W)] for W in toys(True).W]
    assert names[1] == names[2] == ["antipodal pair"] * 2
    assert names[3] == names[4] == ["pentagon"]


def test_without_a_relu_two_dimensions_keep_two_features():
    assert superposition_geometry.features_kept(toys(False).W).tolist() == [2] * len(SPARSITIES)


def test_three_formulas_predict_almost_the_whole_map_and_differ_at_its_borders():
    density, relative = torch.logspace(-1.6, 0, 6), torch.logspace(-1, 1, 6)
    settings = {"restarts": 8, "steps": 800, "batch": 256, "progress": False, "seed": 4}
    trained = superposition_geometry.phase_diagram(1 - density, relative, **settings)
    losses = superposition_geometry.pair_losses(density[:, None], relative)
    stacked = torch.stack([losses["first"], losses["second"], losses["pair"]])
    wrong = stacked.argmin(0) != trained.phase
    assert wrong.float().mean() < 0.15
    best, second = stacked.sort(0).values[:2]
    margin = (second - best) / best
    assert not wrong.any() or margin[wrong].median() < 0.5 * margin[~wrong].median()


def test_two_features_with_room_enough_are_not_superposed_and_most_neurons_carry_both():
    settings = {"restarts": 60, "steps": 800, "batch": 256, "progress": False, "seed": 8}
    W = superposition.train_toy_models(2, 2, [0.9], **settings).W[0]
    assert superposition_geometry.feature_dimensionality(W).mean() > 0.97
    assert wilson_interval(W.abs().amin(-1) > 0.3).low > 0.5


# ----------------------------------------------------------------------------------------------- the hunt


def test_a_threshold_of_two_finds_polysemantic_neurons_in_noise():
    found, naive = data(), notebook()["naive_finds"]
    counts = []
    for seed in range(5):
        order = torch.randperm(len(found.topics), generator=torch.Generator().manual_seed(seed + 10))
        counts.append(naive(found.choose_on, found.topics[order]))
    untrained = data("untrained")
    assert 10 <= sum(counts) / 5 <= 60
    assert naive(untrained.choose_on, untrained.topics) >= 10
    assert naive(found.choose_on, found.topics) > 5 * max(counts)


def test_words_of_several_tokens_are_read_at_their_last():
    read, model = notebook()["read_in_frame"], load_model("tiny-lm")
    together = read(model, ["river", "the old river", "loan"], "Mary took the {word}")
    alone = torch.cat([read(model, [word], "Mary took the {word}") for word in ("river", "the old river", "loan")])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


@lru_cache
def hunted(name, seed=0, shuffle=False):
    found = data(name)
    order = torch.randperm(len(found.topics), generator=torch.Generator().manual_seed(seed + 20))
    topics = found.topics[order] if shuffle else found.topics
    return polysemantic.hunt(found.choose_on, found.test_on, topics, N, seed=seed)


@pytest.mark.parametrize("name", ["tiny-lm", "tiny-lm-seed2", "tiny-lm-seed3"])
@pytest.mark.parametrize("seed", [0, 1])
def test_polysemantic_neurons_are_real_on_every_seed_of_the_model(name, seed):
    found = hunted(name, seed)
    assert len(found.confirmed) >= 8
    drop = torch.tensor([suspect.chosen_on - suspect.tested_on for suspect in found.suspects])
    assert drop.mean() > 0, "what is chosen for its score scores less on other words"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_controls_find_nothing(seed):
    assert not hunted("untrained", seed).confirmed
    assert not hunted("tiny-lm", seed, shuffle=True).confirmed


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_promised_neurons_exist_whatever_the_split(seed):
    found = data()
    chosen = polysemantic.split_words(found.topics, seed)
    scores = polysemantic.topic_scores(found.choose_on[chosen], found.topics[chosen], N)
    for names in notebook()["PROMISED"]:
        pair = tuple(TOPICS.index(name) for name in names)
        neuron = int(scores[list(pair)].amin(0).argmax())
        generator = torch.Generator().manual_seed(seed)
        values, labels = found.test_on[~chosen, neuron], found.topics[~chosen]
        p = polysemantic.pair_p_value(values, labels, pair, 4999, generator)
        assert p < 0.025, f"{names}, two tests"


def test_both_promised_neurons_have_a_third_topic_that_shares_a_pun_with_the_two():
    found = data()
    chosen = polysemantic.split_words(found.topics)
    values, labels = found.test_on[~chosen], found.topics[~chosen]
    expected = {(2, 142): ("water", "finance", "cooking", "rose"), (2, 70): ("sports", "war", "law", "won")}
    scores = polysemantic.topic_scores(found.choose_on[chosen], found.topics[chosen], N)
    for pair, ((layer, place), (*topics, pun)) in zip(notebook()["PROMISED"], expected.items(), strict=True):
        neuron = int(scores[[TOPICS.index(topic) for topic in pair]].amin(0).argmax())
        assert divmod(neuron, 256) == (layer, place)
        generator = torch.Generator().manual_seed(3)
        p = [polysemantic.pair_p_value(values[:, neuron], labels, (t, t), 4999, generator) for t in range(N)]
        assert {TOPICS[topic] for topic in range(N) if 10 * p[topic] < 0.05} == set(topics)
        assert all(pun in notebook()["vocabulary_of"][topic] for topic in topics)


def test_one_neuron_is_hardly_missed():
    loss_without, story_batch = notebook()["loss_without"], notebook()["story_batch"]
    finance_and_water = {suspect.neuron for suspect in hunted("tiny-lm").suspects if set(suspect.pair) == {0, 1}}
    assert finance_and_water
    stories = story_batch(300, seed=9)
    for neuron in list(finance_and_water)[:2]:
        rise = loss_without(neuron, stories.tokens)
        assert rise[torch.isin(stories.topics[:, :-1], torch.tensor([0, 1]))].mean().abs() < 0.05
        assert rise.mean().abs() < 0.01


@pytest.mark.parametrize("name", ["tiny-lm", "tiny-lm-seed2", "tiny-lm-seed3"])
def test_topics_that_share_words_share_neurons_and_directions(name):
    found, correlation = data(name), notebook()["pun_correlation"]
    for values in (found.choose_on, polysemantic.random_basis(found.choose_on, 5, seed=7)):
        r, p = correlation(values, found.topics)
        assert r > 0.15
        assert p < 0.1
    assert correlation(data().choose_on, data().topics)[1] < 0.02


@pytest.mark.parametrize("name", ["tiny-lm", "tiny-lm-seed2", "tiny-lm-seed3"])
def test_random_directions_are_more_polysemantic_than_neurons(name):
    found = data(name)

    def share(values):
        generator = torch.Generator().manual_seed(1)
        chance = polysemantic.largest_by_chance(values, found.topics, N, 100, generator)
        beats = polysemantic.topic_scores(values, found.topics, N) > chance.quantile(0.99)
        return wilson_interval(beats.sum(0) >= 2)

    assert share(found.choose_on).high < share(polysemantic.random_basis(found.choose_on, 5, seed=7)).low


def test_most_silent_neurons_are_not_dead():
    found, model = data(), load_model("tiny-lm")
    silent = (found.choose_on <= 0).all(0) & (found.test_on <= 0).all(0)
    tokens = notebook()["story_batch"](300, seed=9).tokens
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("mlp.hook_post"))
    loudest = torch.cat([cache["post", layer][:, 1:].amax((0, 1)) for layer in range(model.cfg.n_layers)])
    assert silent.sum() > 10
    assert (loudest[silent] > 0.5).float().mean() > 0.6


# ----------------------------------------------------------------------------------------------- at scale


def test_the_section_at_scale_runs_on_gpt2s_shape_and_finds_nothing_in_random_weights():
    import tempfile

    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = load_model("tiny-lm").tokenizer
    config = GPT2Config(n_layer=2, n_head=4, n_embd=32, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        weights = GPT2LMHeadModel._from_config(config, attn_implementation="eager")
        model = TransformerBridge.boot_transformers(folder, hf_model=weights, tokenizer=tokenizer)
    model.enable_compatibility_mode()
    model.requires_grad_(False).eval()
    real, control = notebook()["hunt_in_frames"](model, ("Mary took the {word}", "John likes the {word}"))
    assert not real.confirmed
    assert not control.confirmed
    assert len(real.suspects) == 20


def test_the_section_at_scale_finds_neurons_in_a_trained_model():
    frames = ("Mary took the {word}", "the {word}")
    real, control = notebook()["hunt_in_frames"](load_model("tiny-lm"), frames)
    assert len(real.confirmed) >= 3
    assert not control.confirmed


# ------------------------------------------------------------------------------------------------ the prose


def test_every_exercise_leaves_the_next_one_standing():
    """No solution calls the function of another exercise: one failed cell must not sink the rest."""
    source = NOTEBOOK.read_text(encoding="utf-8")
    names = re.findall(r"^# ### Exercise · `(\w+)`", source, flags=re.M)
    solutions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, flags=re.S)
    assert len(names) == len(solutions) >= 10
    for own, solution in zip(names, solutions, strict=True):
        called = {
            node.func.id
            for node in ast.walk(ast.parse("def f():\n" + solution))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & (set(names) - {own}), own
