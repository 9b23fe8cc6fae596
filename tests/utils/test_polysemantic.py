"""The hunt for polysemantic neurons: its statistics against brute force, and its verdicts where the truth is planted."""

import itertools
import math

import pytest
import torch

from utils.polysemantic import (
    best_pairs,
    hunt,
    largest_by_chance,
    pair_p_value,
    random_basis,
    separation,
    split_words,
    topic_scores,
)

TOPICS, WORDS_EACH = 6, 20


def planted(kinds, seed=0, effect=2.0):
    """Activations in two sets of texts; a neuron of kind (1, 4) reacts to topics 1 and 4, of kind () to none."""
    generator = torch.Generator().manual_seed(seed)
    topics = torch.arange(TOPICS).repeat_interleave(WORDS_EACH)
    truth = torch.zeros(len(topics), len(kinds))
    for neuron, kind in enumerate(kinds):
        for topic in kind:
            truth[topics == topic, neuron] += effect
    truth += torch.randn(truth.shape, generator=generator)
    noise = [0.3 * torch.randn(truth.shape, generator=generator) for _ in range(2)]
    return truth + noise[0], truth + noise[1], topics


def test_scores_match_a_loop():
    torch.manual_seed(0)
    values, topics = torch.randn(14, 3) * 4 + 2, torch.tensor([0, 1, 2, 2, 2, 1, 0, 2, 2, 1, 1, 0, 2, 2])
    found = topic_scores(values, topics, 3)
    for topic, neuron in itertools.product(range(3), range(3)):
        inside, outside = values[topics == topic, neuron], values[topics != topic, neuron]
        error = values[:, neuron].std() * math.sqrt(1 / len(inside) + 1 / len(outside))
        assert found[topic, neuron].item() == pytest.approx(((inside.mean() - outside.mean()) / error).item(), rel=1e-4)


def test_a_neuron_that_never_changes_scores_zero():
    values = torch.stack([torch.full((9,), 3.0), torch.arange(9.0)], dim=1)
    assert topic_scores(values, torch.arange(9) % 3, 3)[:, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        (torch.zeros(8, dtype=torch.long), "none can have all"),
        (torch.tensor([0, 0, 1, 1, 0, 0, 1, 5]), "needs words"),
        (torch.zeros(3, dtype=torch.long), "topic for each of 8 words"),
    ],
)
def test_topics_that_make_no_sense_are_refused(topics, message):
    with pytest.raises(ValueError, match=message):
        topic_scores(torch.randn(8, 2), topics, 2)


def test_best_pairs_are_the_two_largest():
    scores = torch.tensor([[1.0, 5.0], [4.0, -1.0], [3.0, 2.0]])
    second, pairs = best_pairs(scores)
    assert second.tolist() == [3.0, 2.0]
    assert pairs.tolist() == [[1, 2], [0, 2]]


def test_the_bar_of_chance_is_passed_by_noise_as_rarely_as_it_says():
    passed = 0
    for seed in range(40):
        values, _, topics = planted([()] * 10, seed)
        generator = torch.Generator().manual_seed(seed)
        bar = largest_by_chance(values, topics, TOPICS, 60, generator).quantile(0.9)
        passed += bool(topic_scores(values, topics, TOPICS).max() > bar)
    assert passed <= 13  # expected 4; more has a probability below 1e-4


def test_p_values_are_those_of_counting_all_orders():
    torch.manual_seed(2)
    topics = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    values = torch.randn(9) + 1.2 * (topics < 2)
    expected = []
    for topic, size in ((0, 3), (1, 2)):
        observed = values[topics == topic].sum()
        sums = [values[list(rows)].sum() for rows in itertools.combinations(range(9), size)]
        expected.append(sum(bool(s >= observed - 1e-6) for s in sums) / len(sums))
    found = pair_p_value(values, topics, (0, 1), 20_000, torch.Generator().manual_seed(0))
    assert found == pytest.approx(max(expected), abs=0.02)


def test_one_topic_is_not_enough_and_p_is_never_zero():
    values, _, topics = planted([(2,), (2, 5)], effect=6.0)
    assert pair_p_value(values[:, 0], topics, (2, 5), 999, torch.Generator().manual_seed(0)) > 0.05
    assert pair_p_value(values[:, 1], topics, (2, 5), 999, torch.Generator().manual_seed(0)) == pytest.approx(1 / 1000)
    with pytest.raises(ValueError, match="words of both topics"):
        pair_p_value(values[:, 0], topics, (2, 9))


def test_separation_counts_comparisons_and_halves_ties():
    values, inside = torch.tensor([3.0, 1.0, 1.0, 0.0]), torch.tensor([True, True, False, False])
    assert separation(values, inside) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    with pytest.raises(ValueError, match="words outside"):
        separation(values, torch.ones(4, dtype=torch.bool))


def test_the_split_takes_half_of_every_topic():
    topics = torch.tensor([0] * 9 + [1] * 4 + [2] * 6)
    chosen = split_words(topics, seed=1)
    assert [int(chosen[topics == t].sum()) for t in range(3)] == [4, 2, 3]
    assert torch.equal(chosen, split_words(topics, seed=1))
    assert not torch.equal(chosen, split_words(topics, seed=2))


def test_a_random_basis_keeps_lengths_within_each_layer():
    values = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    turned = random_basis(values, 3)
    for before, after in zip(values.chunk(3, 1), turned.chunk(3, 1), strict=True):
        torch.testing.assert_close(before @ before.T, after @ after.T)
    assert not torch.allclose(values, turned)


def test_the_hunt_confirms_what_was_planted_and_nothing_else():
    kinds = [(1, 4), (0, 5), (2,), (3,)] + [()] * 60
    choose_on, test_on, topics = planted(kinds, effect=3.0)
    found = hunt(choose_on, test_on, topics, TOPICS, candidates=8)
    assert {suspect.neuron: set(suspect.pair) for suspect in found.confirmed} == {0: {1, 4}, 1: {0, 5}}
    assert [s.chosen_on for s in found.suspects] == sorted((s.chosen_on for s in found.suspects), reverse=True)
    assert len(found.suspects) == 8


def test_the_hunt_finds_nothing_in_noise_or_in_neurons_of_one_topic():
    for seed in range(5):
        kinds = [(topic,) for topic in range(TOPICS)] + [()] * 60
        choose_on, test_on, topics = planted(kinds, seed)
        assert not hunt(choose_on, test_on, topics, TOPICS, candidates=8, draws=2000).confirmed


def test_the_hunt_chooses_without_the_words_that_it_tests_on():
    choose_on, test_on, topics = planted([(1, 4)] + [()] * 20)
    hidden = choose_on.clone()
    hidden[~split_words(topics)] = torch.nan
    kept = test_on.clone()
    kept[split_words(topics)] = torch.nan
    assert hunt(hidden, kept, topics, TOPICS, draws=200) == hunt(choose_on, test_on, topics, TOPICS, draws=200)
    with pytest.raises(ValueError, match="choose_on has the shape"):
        hunt(choose_on[:, :3], test_on, topics, TOPICS)
