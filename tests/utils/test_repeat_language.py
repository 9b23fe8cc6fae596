"""The repeat language: what its documents hold, and how often."""

from itertools import pairwise

import pytest
import torch

from utils.models import repeat_language as language


def test_every_word_has_eight_successors_and_the_table_is_a_distribution():
    table = language.bigram_probabilities()
    torch.testing.assert_close(table.sum(1), torch.ones(128))
    assert (table[:, language.BOS] == 0).all()
    assert ((table[1:] > 0).sum(1) == 8).all()
    assert (table[language.BOS, 1:] == 1 / 127).all()


def test_the_entropy_is_that_of_every_row_of_the_table():
    rows = torch.special.entr(language.bigram_probabilities()).sum(1)[1:]
    torch.testing.assert_close(rows, torch.full((127,), language.bigram_entropy()))


def test_documents_are_bigrams_until_a_segment_is_said_over_and_over():
    batch = language.documents(400, seed=1)
    assert batch.tokens.shape == (400, 64)
    assert (batch.tokens[:, 0] == language.BOS).all()
    assert (batch.tokens[:, 1:] > 0).all()
    assert (batch.lengths > 0).sum() == 200
    for tokens, start, length, repeated in zip(
        batch.tokens.tolist(), batch.starts.tolist(), batch.lengths.tolist(), batch.repeated.tolist(), strict=True
    ):
        walk = tokens[1 : start if length else None]
        assert all(b in language.SUCCESSORS[a].tolist() for a, b in pairwise(walk))
        if length:
            segment = tokens[start : start + length]
            assert language.SHORTEST <= length == len(set(segment))
            assert start + 2 * length <= 64
            assert all(token == segment[i % length] for i, token in enumerate(tokens[start:]))
        assert repeated == [bool(length) and place >= start + length for place in range(64)]


def test_successors_are_as_frequent_as_the_table_says():
    tokens = language.documents(1000, seed=2, share_of_repeats=0).tokens
    before, after = tokens[:, 1:-1].flatten(), tokens[:, 2:].flatten()
    ranks = (language.SUCCESSORS[before] == after[:, None]).float().mean(0)
    expected = language.RANK_PROBABILITIES
    error = (ranks - expected) / (expected * (1 - expected) / len(before)).sqrt()
    assert error.abs().max() < 5.5  # a false alarm in two million


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    for draw in (language.documents(5, seed=3).tokens, language.repeated_tokens(5, seed=3)):
        assert not torch.equal(draw[0], draw[1])
    assert torch.equal(language.documents(5, seed=3).tokens, language.documents(5, seed=3).tokens)
    assert not torch.equal(language.documents(5, seed=3).tokens, language.documents(5, seed=4).tokens)
    assert torch.equal(language.repeated_tokens(5, seed=3), language.repeated_tokens(5, seed=3))
    assert not torch.equal(language.repeated_tokens(5, seed=3), language.repeated_tokens(5, seed=4))


@pytest.mark.parametrize("length", [1, 12, 31])
def test_repeated_tokens_are_two_copies_of_different_words(length):
    tokens = language.repeated_tokens(40, length)
    assert tokens.shape == (40, 1 + 2 * length)
    assert torch.equal(tokens[:, 1 : 1 + length], tokens[:, 1 + length :])
    assert all(len(set(row)) == length + 1 for row in tokens.tolist())


def test_segments_may_hold_a_word_twice_when_asked_for():
    tokens = language.repeated_tokens(200, 31, distinct=False)
    assert any(len(set(row)) < 32 for row in tokens.tolist())
    assert (tokens[:, 1:] > 0).all()


@pytest.mark.parametrize("length", [0, 32])
def test_a_length_that_does_not_fit_is_refused_with_the_ones_that_do(length):
    with pytest.raises(ValueError, match="from 1 to 31"):
        language.repeated_tokens(2, length)


def test_a_share_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        language.documents(2, seed=0, share_of_repeats=1.5)
