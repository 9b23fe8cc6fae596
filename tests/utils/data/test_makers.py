"""Every maker, for every tokenizer that it is made for: tokens, positions, answers, seeds and refusals."""

import pytest
import torch

from utils import data, load_model
from utils.data.drafts import fill, question
from utils.metrics import at_end
from utils.models.ioi_world.prompts import textbook_ioi_prompts
from utils.models.world.facts import FACTS
from utils.models.world.words import FEMALE_NAMES

MAKERS = {
    "ioi": data.ioi,
    "greater_than": data.greater_than,
    "gendered_pronoun": data.gendered_pronoun,
    "facts": data.facts,
    "repeated_tokens": data.repeated_tokens,
}


def words_at(tokenizer, pairs, side, name):
    """The words at a named position, one a prompt."""
    ids = getattr(pairs, side).gather(1, pairs.positions[name][:, None])[:, 0]
    return [tokenizer.decode([i]).strip() for i in ids.tolist()]


def tokens_of(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    return ids if ids[0] == tokenizer.bos_token_id else [tokenizer.bos_token_id, *ids]


@pytest.mark.parametrize("maker", MAKERS)
class TestEveryMaker:
    def test_the_seed_decides_and_more_pairs_begin_with_the_same(self, maker, reader):
        first, again, other = (MAKERS[maker](reader, 12, seed=seed) for seed in (0, 0, 1))
        assert first.texts == again.texts != other.texts
        assert torch.equal(first.corrupted, again.corrupted)
        assert MAKERS[maker](reader, 5).texts == first.texts[:5]

    def test_tokens_are_those_of_the_texts_and_end_is_the_last(self, maker, reader):
        pairs = MAKERS[maker](reader, 12)
        if maker == "repeated_tokens":  # random words, which are not spelled as a text
            return
        for row in range(12):
            stop = pairs.end[row] + 1
            assert pairs.clean[row, :stop].tolist() == tokens_of(reader, pairs.texts[row])
            assert pairs.corrupted[row, :stop].tolist() == tokens_of(reader, pairs.corrupted_texts[row])
        assert torch.equal(pairs.positions["END"], pairs.end)

    def test_answers_are_tokens_that_go_on_where_the_text_stops(self, maker, reader):
        pairs = MAKERS[maker](reader, 12)
        if pairs.right.ndim == 1:
            for side, answers in ((pairs.right, pairs.answers), (pairs.wrong, pairs.wrong_answers)):
                assert [reader.decode([i]).strip() for i in side.tolist()] == list(answers)

    def test_none_is_refused(self, maker, reader):
        with pytest.raises(ValueError, match="n must be at least 1"):
            MAKERS[maker](reader, 0)


class TestIOI:
    @pytest.mark.parametrize("corruption", data.IOI_CORRUPTIONS)
    def test_the_names_are_where_the_corruption_puts_them(self, ioi_reader, corruption):
        pairs = data.ioi(ioi_reader, 16, corruption)
        sides = [[words_at(ioi_reader, pairs, side, r) for r in ("IO", "S1", "S2")] for side in ("clean", "corrupted")]
        rows = zip(
            pairs.answers, pairs.wrong_answers, zip(*sides[0], strict=True), zip(*sides[1], strict=True), strict=True
        )
        for right, wrong, clean, (io, s1, s2) in rows:
            assert clean == (right, wrong, wrong)
            if corruption == "abc":
                assert len({io, s1, s2, right, wrong}) == 5
            elif corruption == "swap":
                assert (io, s1, s2) == (right, wrong, right)
            elif corruption == "order":
                assert (io, s1, s2) == (wrong, right, wrong)
            elif corruption == "names":
                assert s1 == s2
                assert len({io, s1, right, wrong}) == 4
            else:
                assert s2 in (io, s1)
                assert len({io, s1, right, wrong}) == 4

    @pytest.mark.parametrize("corruption", ["abc", "swap", "order", "names"])
    def test_nothing_but_names_differs(self, ioi_reader, corruption):
        pairs = data.ioi(ioi_reader, 16, corruption)
        allowed = torch.zeros_like(pairs.clean, dtype=torch.bool)
        for role in ("IO", "S1", "S2"):
            allowed.scatter_(1, pairs.positions[role][:, None], True)
        assert not ((pairs.clean != pairs.corrupted) & ~allowed).any()

    def test_clean_prompts_are_the_same_for_every_corruption(self, ioi_reader):
        assert len({data.ioi(ioi_reader, 6, corruption).texts for corruption in data.IOI_CORRUPTIONS}) == 1

    def test_orders_come_in_turn_or_as_asked(self, ioi_reader):
        def receiver_first(order):
            places = data.ioi(ioi_reader, 6, order=order).positions
            return (places["IO"] < places["S1"]).tolist()

        assert receiver_first(None) == [True, False] * 3
        assert receiver_first("ABBA") == [True] * 6
        assert receiver_first("BABA") == [False] * 6

    def test_one_template_has_one_length(self, ioi_reader):
        pairs = data.ioi(ioi_reader, 30, template=data.ioi_templates(ioi_reader)[7])
        assert pairs.same_length
        assert torch.equal(pairs.positions["S1+1"], pairs.positions["S1"] + 1)

    def test_textbook_pairs_are_those_of_the_model_card(self, textbook):
        pairs, corrupted = data.ioi(textbook, 9, "swap", seed=3), textbook_ioi_prompts(9, 3, corruption="swap")
        assert torch.equal(pairs.clean, textbook_ioi_prompts(9, 3).tokens)
        assert torch.equal(pairs.corrupted, corrupted.tokens)

    def test_a_name_of_several_tokens_is_refused_by_name(self, bpe):
        with pytest.raises(data.NotOneToken, match=r"'Leonard' must be one token, and is [2-9]"):
            data.ioi(bpe, 3, names=["Mary", "John", "Leonard", "Anna", "Paul"])
        pairs = data.ioi(bpe, 20, names=["Mary", "John", "Anna", "Paul", "Mark"])
        assert {*pairs.answers, *pairs.wrong_answers} <= {"Mary", "John", "Anna", "Paul", "Mark"}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"corruption": "ABC"}, "must be one of abc, swap, order, names, random, not 'ABC'"),
            ({"order": "AB"}, "ABBA, BABA or None"),
            ({"template": "when {A} met {B} ,"}, "not one of ioi_templates"),
            ({"names": ["Mary"]}, "names cannot be chosen"),
            ({"split": "test"}, "held_out"),
        ],
    )
    def test_refuses(self, tiny, settings, message):
        with pytest.raises(ValueError, match=message):
            data.ioi(tiny, 3, **settings)

    def test_a_tokenizer_of_other_texts_is_refused(self):
        from utils import load_tokenizer

        with pytest.raises(data.NotOneToken, match="0 of 160 names"):
            data.ioi(load_tokenizer("protein-like"), 3)

    def test_tiny_lm_tells_clean_from_corrupted(self, tiny):
        model, pairs = load_model("tiny-lm"), data.ioi(tiny, 60, "swap")
        clean, corrupted = (pairs.metric()(at_end(model(t), pairs.end)) for t in (pairs.clean, pairs.corrupted))
        assert (clean > 0).double().mean() > 0.8
        assert (corrupted < 0).double().mean() > 0.8


class TestGreaterThan:
    def test_masks_split_the_years(self, reader):
        pairs = data.greater_than(reader, 20)
        for row, first in enumerate(words_at(reader, pairs, "clean", "YY")):
            later, earlier = (
                {reader.decode([i]).strip() for i in m[row].nonzero()[:, 0]} for m in (pairs.right, pairs.wrong)
            )
            assert min(later) > first
            assert max(earlier) == first
            assert len(later | earlier) >= 95

    def test_the_corrupted_year_is_early_and_nothing_else_differs(self, reader):
        pairs = data.greater_than(reader, 20)
        assert set(words_at(reader, pairs, "corrupted", "YY")) <= {"01", "02"}
        assert words_at(reader, pairs, "clean", "XX") == words_at(reader, pairs, "clean", "END")
        assert ((pairs.clean != pairs.corrupted).sum(1) == 1).all()

    def test_one_template_has_one_length(self, reader):
        assert data.greater_than(reader, 40, template=data.year_templates(reader)[0]).same_length

    def test_tiny_lm_knows_later_from_earlier(self, tiny):
        model, pairs = load_model("tiny-lm"), data.greater_than(tiny, 60)
        clean, corrupted = (pairs.metric()(at_end(model(t), pairs.end)) for t in (pairs.clean, pairs.corrupted))
        assert clean.mean() > 0.5 > corrupted.mean()


class TestGenderedPronoun:
    def test_the_name_decides_and_is_all_that_differs(self, reader):
        pairs = data.gendered_pronoun(reader, 40)
        names, others = (words_at(reader, pairs, side, "NAME") for side in ("clean", "corrupted"))
        assert [name in FEMALE_NAMES for name in names] == [answer == "she" for answer in pairs.answers]
        assert [name in FEMALE_NAMES for name in others] == [answer == "she" for answer in pairs.wrong_answers]
        assert ((pairs.clean != pairs.corrupted).sum(1) == 1).all()
        assert 10 < pairs.answers.count("she") < 30

    def test_one_template_has_one_length(self, reader):
        assert data.gendered_pronoun(reader, 30, template=data.pronoun_templates(reader)[1]).same_length


class TestFacts:
    @pytest.mark.parametrize("relation", FACTS)
    def test_micro_world_facts_are_true_of_their_subjects(self, tiny, relation):
        pairs = data.facts(tiny, 30, relation)
        for text, other, right, wrong in zip(
            pairs.texts, pairs.corrupted_texts, pairs.answers, pairs.wrong_answers, strict=True
        ):
            assert any(subject in text and value == right for subject, value in FACTS[relation].items())
            assert any(subject in other and value == wrong for subject, value in FACTS[relation].items())

    @pytest.mark.parametrize("relation", ["capital", "language", "landmark"])
    def test_english_facts_keep_the_length(self, english, relation):
        pairs = data.facts(english, 30, relation)
        assert all(text[0].isupper() and " ," not in text for text in pairs.texts)
        assert (pairs.positions["SUBJECT"] < pairs.end).all()

    def test_refuses(self, tiny, bpe):
        with pytest.raises(ValueError, match="capital, language, landmark, not 'builder'"):
            data.facts(bpe, 3, "builder")
        with pytest.raises(ValueError, match="not one of fact_templates"):
            data.facts(tiny, 3, template="where is {subject}")


class TestRepeatedTokens:
    @pytest.mark.parametrize("corruption", data.REPEAT_CORRUPTIONS)
    def test_what_followed_comes_again(self, reader, corruption):
        pairs = data.repeated_tokens(reader, 9, corruption, length=11)
        at = {name: where[:, None] for name, where in pairs.positions.items()}
        asked = pairs.clean.gather(1, at["END"])
        assert torch.equal(pairs.clean.gather(1, at["FIRST"]), asked)
        assert torch.equal(pairs.clean.gather(1, at["FIRST+1"])[:, 0], pairs.right)
        assert torch.equal(pairs.corrupted.gather(1, at["FIRST+1"])[:, 0], pairs.wrong)
        assert torch.equal(pairs.corrupted.gather(1, at["END"]), asked)
        earlier = (pairs.corrupted[:, :-1] == asked).any(1)
        assert (earlier == (corruption == "answer")).all()
        assert ((pairs.clean != pairs.corrupted).sum(1) == (1 if corruption == "answer" else 11)).all()

    def test_a_model_without_tokenizer_gives_its_ids(self):
        pairs = data.repeated_tokens(range(1, 128), 4, bos=0)
        assert (pairs.clean[:, 0] == 0).all()
        assert (pairs.clean[:, 1:] > 0).all()
        assert pairs.d_vocab == 128
        model = load_model("induction-2l")
        metric = pairs.metric()
        assert (metric(model(pairs.clean)[:, -1]) > 0).all()
        assert (metric(model(pairs.corrupted)[:, -1]) < 0).all()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"corruption": "swap"}, "answer, random"), ({"length": 2}, "at least 3"), ({"length": 70}, "there are 127")],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ValueError, match=message):
            data.repeated_tokens(range(1, 128), 4, **settings)


class TestDocstring:
    @pytest.mark.parametrize("corruption", data.DOCSTRING_CORRUPTIONS)
    def test_arguments_are_where_they_should_be(self, english, corruption):
        pairs = data.docstring(english, 10, corruption)
        clean = {name: words_at(english, pairs, "clean", name) for name in pairs.positions}
        other = {name: words_at(english, pairs, "corrupted", name) for name in pairs.positions}
        assert clean["C_def"] == list(pairs.answers)
        assert (clean["A_def"], clean["B_def"]) == (clean["A_doc"], clean["B_doc"])
        changed = {name for name in clean if any(a != b for a, b in zip(clean[name], other[name], strict=True))}
        expected = {"answer": {"C_def"}, "definition": {f"{x}_def" for x in "ABCD"}, "docstring": {"A_doc", "B_doc"}}
        assert changed == expected[corruption]
        assert all(text.startswith("def ") and text.endswith(":param") for text in pairs.texts)

    def test_a_model_that_never_read_code_is_refused(self, tiny, textbook):
        for tokenizer in (tiny, textbook):
            with pytest.raises(ValueError, match="never read a docstring"):
                data.docstring(tokenizer, 3)


def test_english_spelling():
    template = question("in the {place} sat {A} and {B} . then {S} left , and waved to | {I} .", "English")
    filled = fill(template, {"place": "zoo", "A": "Mary", "B": "John", "S": "Ann"}, capitals=True)
    assert filled.text == "In the zoo sat Mary and John. Then Ann left, and waved to"
    assert filled.text[: filled.stops["S"]].endswith("Ann")
