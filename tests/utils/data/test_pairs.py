"""PromptPairs: what it refuses, how it slices and prints, and the metric that it binds."""

from functools import partial

import pytest
import torch

from utils.data import PromptPairs
from utils.metrics import logit_difference, probability_difference


def pairs(**changed) -> PromptPairs:
    settings = {
        "kind": "test",
        "clean": torch.tensor([[0, 1, 2, 3], [0, 4, 5, 0], [0, 7, 8, 9]]),
        "corrupted": torch.tensor([[0, 6, 2, 3], [0, 4, 6, 0], [0, 6, 8, 9]]),
        "right": torch.tensor([1, 2, 3]),
        "wrong": torch.tensor([4, 5, 6]),
        "end": torch.tensor([3, 2, 3]),
        "positions": {"END": torch.tensor([3, 2, 3]), "NAME": torch.tensor([1, 2, 1])},
        "texts": ("a b c", "d e", "f g h"),
        "corrupted_texts": ("x b c", "d x", "x g h"),
        "answers": ("one", "two", "three"),
        "wrong_answers": ("four", "five", "six"),
        "d_vocab": 10,
    }
    return PromptPairs(**{**settings, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corrupted": torch.zeros(3, 5, dtype=torch.long)}, r"same shape .*\(3, 4\) and \(3, 5\)"),
        ({"clean": torch.full((3, 4), 10)}, "token 10, and the vocabulary ends at 9"),
        ({"corrupted": torch.full((3, 4), -1)}, "token -1"),
        ({"clean": torch.ones(3, 4)}, "token ids, not torch.float32"),
        ({"right": torch.tensor([1, 2, 11])}, "right holds token 11"),
        ({"right": torch.tensor([1, 5, 3])}, r"must differ.*rows \[1\]"),
        ({"right": torch.ones(3, 10) > 0}, "both masks"),
        ({"right": torch.ones(3, 9) > 0, "wrong": torch.zeros(3, 9) > 0}, r"boolean \[prompt, 10\]"),
        ({"right": torch.ones(3, 10) > 0, "wrong": torch.zeros(3, 10) > 0}, "neither be missing"),
        ({"end": torch.tensor([3, 2, 4])}, "position of 'end' must be one of 0 to 3"),
        ({"positions": {"NAME": torch.tensor([0, 1])}}, "position of 'NAME'"),
        ({"texts": ("a", "b")}, "texts has 2 entries for 3 prompts"),
        ({"corrupted": torch.tensor([[0, 6, 2, 3], [0, 4, 5, 1], [0, 6, 8, 9]])}, r"the same in rows \[1\]"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        pairs(**changed)


def test_slices_are_pairs():
    whole = pairs()
    part = whole[1:]
    assert (len(whole), len(part), len(whole[0]), len(whole[-1])) == (3, 2, 1, 1)
    assert torch.equal(part.clean, whole.clean[1:])
    assert torch.equal(part.positions["NAME"], torch.tensor([2, 1]))
    assert part.texts == ("d e", "f g h")
    assert whole[torch.tensor([True, False, True])].answers == whole[[0, 2]].answers == ("one", "three")
    assert [one.texts[0] for one in whole] == list(whole.texts)
    assert not whole.same_length
    assert whole[[0, 2]].same_length
    with pytest.raises(IndexError, match="no number 3"):
        whole[3]


def test_labels_name_the_positions_that_all_prompts_share():
    assert pairs().labels == ["0", "1", "2", "3"]
    assert pairs()[[0, 2]].labels == ["0", "NAME", "2", "END"]


def test_it_prints_what_is_asked():
    text = str(pairs())
    assert text.startswith("3 pairs of test prompts, up to 4 tokens\n")
    assert "'a b c' -> 'one' (not 'four')" in text
    assert "and 1 more" in str(pairs()[[0, 1, 2, 0]])


def test_the_metric_is_the_logit_difference():
    data, logits = pairs(), torch.randn(3, 10)
    torch.testing.assert_close(data.metric()(logits), logit_difference(logits, data.right, data.wrong))
    assert isinstance(data.metric(), partial)


@pytest.mark.parametrize("extra", [0, 6])  # models often have more logits than tokens
def test_the_metric_of_sets_is_the_difference_of_probabilities(extra):
    right, wrong = torch.zeros(2, 3, 10, dtype=torch.bool)
    right[:, :3], wrong[:, 4] = True, True
    data, logits = pairs(right=right, wrong=wrong), torch.randn(3, 10 + extra)
    p = logits.softmax(-1)
    torch.testing.assert_close(data.metric()(logits), p[:, :3].sum(1) - p[:, 4])
    torch.testing.assert_close(data.metric()(logits[:, :10]), probability_difference(logits[:, :10], right, wrong))


def test_it_moves_to_a_device():
    moved = pairs().to("cpu")
    assert moved.clean.device.type == moved.positions["END"].device.type == "cpu"
