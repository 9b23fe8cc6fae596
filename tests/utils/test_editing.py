"""Rank-one editing: the closed form, exact undoing, and what a bad request is told."""

import pytest
import torch

from utils import load_model
from utils.editing import (
    RankOneEdit,
    edit_facts,
    find_changes,
    key_covariance,
    keys,
    output_matrix,
    rank_one_edit,
)
from utils.editing_prompts import Rewrite, in_contexts, subject_end, target_ids
from utils.models.prompts import story_batch
from utils.models.tokenizer import UnknownWords

LAYER = 0
REWRITE = Rewrite("Eiffel Tower", "the {subject} is in", "Rome")


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def covariance(model):
    return key_covariance(model, LAYER, story_batch(40, seed=11).tokens)


def random_problem(d_mlp: int = 11, d_model: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(d_mlp, 3 * d_mlp, generator=generator, dtype=torch.float64)
    key = torch.randn(d_mlp, generator=generator, dtype=torch.float64)
    change = torch.randn(d_model, generator=generator, dtype=torch.float64)
    return key, change, spread @ spread.mT / spread.shape[1]


def test_the_key_s_output_changes_by_exactly_what_was_asked():
    key, change, covariance = random_problem()
    assert torch.allclose(key @ rank_one_edit(0, key, change, covariance).update, change)


def test_no_other_update_that_does_it_is_smaller_under_the_covariance():
    # brute force: whiten the keys, then the pseudo-inverse gives the least-norm solution of key @ update = change
    key, change, covariance = random_problem()
    root = torch.linalg.cholesky(covariance)  # covariance = root @ root.T
    whitened = torch.linalg.solve_triangular(root, key[:, None], upper=False).mT
    least = torch.linalg.solve_triangular(root.mT, torch.linalg.pinv(whitened) @ change[None], upper=True)
    assert torch.allclose(rank_one_edit(0, key, change, covariance).update, least)


def test_a_white_covariance_gives_the_plain_outer_product():
    key, change, _ = random_problem()
    update = rank_one_edit(0, key, change, torch.eye(len(key), dtype=key.dtype)).update
    assert torch.allclose(update, torch.outer(key, change) / key.square().sum())


def test_a_zero_key_is_refused():
    with pytest.raises(ValueError, match="zero"):
        rank_one_edit(0, torch.zeros(3), torch.ones(2), torch.eye(3))


@pytest.mark.parametrize("layer", [0, 3])
def test_keys_times_the_output_matrix_are_what_the_mlp_writes(model, layer):
    tokens = model.to_tokens(["the Golden Lion is in", "the Lion Golden is in"])
    name = f"blocks.{layer}.hook_mlp_out"
    written = model.run_with_cache(tokens, names_filter=name)[1][name]
    own = keys(model, layer, tokens) @ output_matrix(model, layer) + model.b_out[layer]
    assert torch.allclose(own, written, atol=1e-4)


def test_the_covariance_is_the_mean_of_the_keys_outer_products(model):
    tokens = story_batch(3, seed=1).tokens
    seen = keys(model, 1, tokens)[:, 1:].reshape(-1, model.cfg.d_mlp).double()
    expected = sum(torch.outer(key, key) for key in seen) / len(seen)
    assert torch.allclose(key_covariance(model, 1, tokens, ridge=0.0), expected)


def test_an_edit_makes_the_model_say_the_new_word_and_is_undone_exactly(model, covariance):
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    (edit,) = edit_facts(model, LAYER, [REWRITE], covariance)
    tokens = model.to_tokens(REWRITE.prompt)
    assert model.tokenizer.decode(model(tokens)[0, -1].argmax()) == "Paris"
    with edit.applied(model):
        assert model.tokenizer.decode(model(tokens)[0, -1].argmax()) == "Rome"
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_an_edit_is_undone_after_an_error(model):
    before = output_matrix(model, 1).clone()
    edit = RankOneEdit(1, torch.ones(model.cfg.d_mlp), torch.ones(model.cfg.d_model))

    def fail_inside():
        with edit.applied(model):
            assert torch.allclose(output_matrix(model, 1), before + 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_inside()
    assert torch.equal(output_matrix(model, 1), before)


def test_rewrites_found_together_are_those_found_alone(model):
    both = [REWRITE, Rewrite("Trevi Fountain", "the way to the {subject} leads through", "Oslo")]
    prefixes = ("", "it was Monday .")
    targets = target_ids(model, [rewrite.target for rewrite in both])
    together = find_changes(model, LAYER, in_contexts(model, both, prefixes), targets, steps=4)
    for i, rewrite in enumerate(both):
        alone = find_changes(model, LAYER, in_contexts(model, [rewrite], prefixes), targets[i : i + 1], steps=4)
        assert torch.allclose(together[i], alone[0], atol=1e-3)


def test_the_subject_ends_at_its_last_word_s_last_mention(model):
    text = "the Golden Lion is in Rome . the Golden Lion is in"
    assert model.to_str_tokens(text)[subject_end(model, text, "Golden Lion")] == "Lion"
    assert subject_end(model, text, "Golden Lion") == 10


@pytest.mark.parametrize(
    ("rewrite", "error", "says"),
    [
        (Rewrite("Eiffel Tower", "the {subject} is in", "Atlantis"), UnknownWords, "Atlantis"),
        (Rewrite("Eiffel Turm", "the {subject} is in", "Rome"), UnknownWords, "Turm"),
        (Rewrite("Eiffel Tower", "the Golden Lion is in", "Rome"), ValueError, "'Eiffel Tower' is not in the text"),
        (Rewrite("Eiffel Tower", "the {subject} is in", "New Delhi"), ValueError, "New"),
        (Rewrite("Eiffel Tower", "the {subject} is in", "the capital"), ValueError, "one token"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(model, covariance, rewrite, error, says):
    with pytest.raises(error, match=says):
        edit_facts(model, LAYER, [rewrite], covariance)


@pytest.mark.parametrize("layer", [-1, 5])
def test_a_layer_that_does_not_exist_is_named_with_those_that_do(model, covariance, layer):
    with pytest.raises(ValueError, match=f"between 0 and 4, not {layer}"):
        edit_facts(model, layer, [REWRITE], covariance)


def test_a_model_without_mlps_is_refused():
    with pytest.raises(ValueError, match="no MLP"):
        output_matrix(load_model("induction-2l"), 0)


def test_no_rewrite_is_refused(model, covariance):
    with pytest.raises(ValueError, match="at least one"):
        edit_facts(model, LAYER, [], covariance)
