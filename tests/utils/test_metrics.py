"""Metrics against their definitions, one prompt at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from utils import metrics

LOGITS = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
RIGHT, WRONG = torch.tensor([1, 0, 10, 4, 4]), torch.tensor([2, 3, 0, 5, 6])


def test_logit_difference_and_log_probability():
    difference, log_p = metrics.logit_difference(LOGITS, RIGHT, WRONG), metrics.log_probability(LOGITS, RIGHT)
    for i, (r, w) in enumerate(zip(RIGHT.tolist(), WRONG.tolist(), strict=True)):
        assert difference[i] == LOGITS[i, r] - LOGITS[i, w]
        assert log_p[i].item() == pytest.approx(math.log(LOGITS[i].softmax(0)[r].item()), abs=1e-5)


def test_probability_difference_counts_every_right_and_wrong_token():
    right, wrong = torch.rand(5, 11) > 0.5, torch.rand(5, 11) > 0.5
    found = metrics.probability_difference(LOGITS, right, wrong)
    for i in range(5):
        p = LOGITS[i].softmax(0)
        assert found[i].item() == pytest.approx((p[right[i]].sum() - p[wrong[i]].sum()).item(), abs=1e-6)


def test_kl_divergence_is_that_of_torch_and_zero_of_itself():
    other = LOGITS.flip(0)
    expected = F.kl_div(LOGITS.log_softmax(-1), other.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(metrics.kl_divergence(LOGITS, other), expected)
    assert metrics.kl_divergence(LOGITS, LOGITS).abs().max() < 1e-6


def test_the_answer_is_read_where_each_prompt_ends():
    logits = torch.randn(3, 6, 4)
    assert torch.equal(metrics.at_end(logits), logits[:, -1])
    read = metrics.at_end(logits, torch.tensor([5, 0, 2]))
    assert torch.equal(read, torch.stack([logits[0, 5], logits[1, 0], logits[2, 2]]))


def test_normalised_is_zero_and_one_at_the_two_runs_and_refuses_equal_ones():
    assert metrics.normalised(torch.tensor([3.0, 7.0, 5.0]), 3.0, 7.0).tolist() == [0.0, 1.0, 0.5]
    with pytest.raises(ValueError, match="nothing to restore"):
        metrics.normalised(torch.tensor(1.0), torch.tensor([2.0, 1.0]), torch.tensor([2.0, 3.0]))
