"""The generator of tasks: answers agree with a plain rewriting of the rules, inputs are balanced, instances differ."""

import json
from collections import Counter
from random import Random

import pytest
import torch

from utils.models.mystery.families import FAMILIES, Deck
from utils.models.mystery.families.task import BODY, LENGTH, VOCABULARY
from utils.models.mystery.instance import draw_pool, draw_task, task_of, task_record

DRAWS = 6


def tasks_of(family, n=DRAWS):
    return [family.draw(Deck(Random(f"test {i}"))) for i in range(n)]


def sample(task, n=300, seed=0):
    return task.sample(n, torch.Generator().manual_seed(seed))


def pairs(body, swapped):
    both = list(zip(body[::2], body[1::2], strict=True))
    return [(b, a) for a, b in both] if swapped else both


def follow(task, body, last):
    first = body[task.pointers.index(last)]
    return body[task.pointers.index(first)]


def shared(task, body):
    cut = body.index(task.separator)
    (common,) = set(body[:cut]) & set(body[cut + 1 :])
    return common


def asked(task, body, last):
    members = task.classes[task.questions.index(last)]
    found = [token for token in body if token in members]
    return found[0] if task.first else found[-1]


def count(body, ids):
    return sum(token in ids for token in body)


def adjacent(task, body):
    return any(
        body[i] in task.left and body[j] in task.right for i in range(BODY) for j in range(BODY) if j - i == task.gap
    )


def yes_or_no(task, condition):
    return task.yes if condition else task.no


def difference(task, body):
    a, b = task.digits.index(body[task.first]), task.digits.index(body[task.second])
    return task.digits[(a - b) % len(task.digits)]


RULES = {
    "AdjacentPair": lambda t, body, last: yes_or_no(t, adjacent(t, body)),
    "AfterMarker": lambda t, body, last: body[body.index(t.marker) + t.offset],
    "AskedClass": asked,
    "BestOfPairs": lambda t, body, last: max(pairs(body, t.item_first), key=lambda pair: t.numbers.index(pair[0]))[1],
    "ControlSwitch": lambda t, body, last: body[next(t.targets[t.controls.index(x)] for x in body if x in t.controls)],
    "CountAbove": lambda t, body, last: yes_or_no(t, count(body, t.counted) > t.threshold),
    "CountModulo": lambda t, body, last: t.answers[count(body, t.counted) % len(t.answers)],
    "DigitDifference": lambda t, body, last: difference(t, body),
    "ExactlyOne": lambda t, body, last: yes_or_no(t, (count(body, t.left) > 0) + (count(body, t.right) > 0) == 1),
    "MostFrequent": lambda t, body, last: t.answers[
        t.candidates.index(Counter(x for x in body if x in t.candidates).most_common(1)[0][0])
    ],
    "PairLookup": lambda t, body, last: t.code[t.symbols.index(dict(pairs(body, t.value_first))[last])],
    "PointerChase": follow,
    "SamePlaces": lambda t, body, last: yes_or_no(t, body[t.first] == body[t.second]),
    "SharedToken": lambda t, body, last: shared(t, body),
    "WeightedVote": lambda t, body, last: yes_or_no(t, sum(t.weights[t.symbols.index(x)] for x in body) > 1),
}


def foreign(task, other):
    """Whether inputs of one task look unlike those of another: at some position a token the other never has there."""
    mine, its = sample(task, 2000), sample(other, 2000)
    return any(not torch.isin(mine[:, i], its[:, i]).all() for i in range(LENGTH))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
class TestFamily:
    def test_answers_agree_with_the_rule_written_plainly(self, family):
        for task in tasks_of(family):
            tokens = sample(task)
            expected = [RULES[family.__name__](task, row[:-1], row[-1]) for row in tokens.tolist()]
            assert task.answer(tokens).tolist() == expected

    def test_inputs_are_tokens_of_the_shared_vocabulary_and_length(self, family):
        for task in tasks_of(family):
            tokens = sample(task, 37)
            assert tokens.shape == (37, LENGTH)
            assert tokens.dtype == torch.long
            assert tokens.min() >= 0
            assert max(tokens.max(), task.answer(tokens).max()) < VOCABULARY

    def test_no_answer_is_common(self, family):
        for task in tasks_of(family):
            answers = task.answer(sample(task, 20_000)).bincount()
            assert answers.max() / answers.sum() <= 1.25 / (answers > 0).sum()

    def test_no_single_position_gives_the_answer_away(self, family):
        """The best table from the token at one position to an answer, fitted and judged on different inputs."""
        for task in tasks_of(family):
            fitted, judged = sample(task, 4000, seed=1), sample(task, 1000, seed=2)
            answers, truth = task.answer(fitted), task.answer(judged)
            counts = torch.zeros(LENGTH, VOCABULARY, VOCABULARY)
            place = torch.arange(LENGTH)[:, None].expand(LENGTH, len(fitted))
            counts.index_put_((place, fitted.T, answers.expand(LENGTH, -1)), torch.ones(()), accumulate=True)
            guesses = counts.argmax(2).gather(1, judged.T)  # [position, input]
            assert (guesses == truth).float().mean(1).max() < 0.8

    def test_sampling_depends_on_the_generator_alone(self, family):
        task = tasks_of(family, 1)[0]
        assert torch.equal(sample(task, seed=3), sample(task, seed=3))
        assert not torch.equal(sample(task, seed=3), sample(task, seed=4))

    def test_roles_are_positions_of_the_body(self, family):
        for task in tasks_of(family):
            tokens = sample(task)
            for mask in task.roles(tokens).values():
                assert mask.shape == tokens.shape
                assert mask.dtype == torch.bool
                assert not mask[:, -1].any()

    def test_where_one_position_is_called_answer_it_holds_the_answer(self, family):
        for task in tasks_of(family):
            tokens = sample(task)
            for name in ("answer", "letter", "its item", "in the first list"):
                mask = task.roles(tokens).get(name)
                if mask is not None:
                    assert torch.equal(tokens[mask], task.answer(tokens))

    def test_a_record_survives_json(self, family):
        for task in tasks_of(family):
            assert task_of(json.loads(json.dumps(task_record(task)))) == task

    def test_the_truth_is_one_sentence_about_these_parameters(self, family):
        sentences = {task.truth for task in tasks_of(family, 20)}
        assert len(sentences) > 1 or family.__name__ == "SharedToken"
        assert all(sentence.endswith(".") and "\n" not in sentence for sentence in sentences)

    def test_different_tasks_ask_for_different_behaviour(self, family):
        tasks = tasks_of(family, 12)
        for i, task in enumerate(tasks):
            for other in tasks[:i]:
                tokens = sample(task, 500)
                same = not foreign(task, other) and torch.equal(task.answer(tokens), other.answer(tokens))
                assert not same, f"{task} and {other} are the same task"


def test_thousands_of_numbers_give_as_many_tasks():
    tasks = [draw_task(number) for number in range(5000)]
    assert len(set(tasks)) == 5000
    assert {type(task) for task in tasks} == set(FAMILIES)
    assert min(Counter(type(task) for task in tasks).values()) > 250


def test_each_family_alone_gives_thousands_of_tasks():
    for family in FAMILIES:
        random = Random(0)
        assert len({family.draw(Deck(random)) for _ in range(2000)}) == 2000


def test_a_pool_spreads_the_families_evenly_and_belongs_to_its_secret():
    pool = draw_pool("a", 40)
    counts = Counter(type(task) for task in pool)
    assert set(counts) == set(FAMILIES)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert pool == draw_pool("a", 40)
    assert not set(pool) & set(draw_pool("b", 40))


def test_digits_that_subtract_alike_are_one_task():
    """Multiplying all digits by a factor with an inverse changes no difference's token."""
    from utils.models.mystery.families.digit_difference import first_scaling

    digits = (9, 4, 7, 1, 5, 2, 8)
    for factor in range(1, 7):
        scaled = tuple(digits[factor * digit % 7] for digit in range(7))
        assert first_scaling(scaled) == first_scaling(digits)
    assert first_scaling((9, 4, 1, 7, 5, 2, 8)) != first_scaling(digits)


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match=r"no family 'Sorting'.*AfterMarker"):
        task_of({"family": "Sorting", "parameters": {}})
