"""The micro-world and its tokenizer: deterministic, true to its held-out sets, spelt in one vocabulary."""

import os
import subprocess
import sys
from random import Random

import pytest

from utils.models import prompts
from utils.models.load import load_tokenizer
from utils.models.tokenizer import UnknownWords, check_words
from utils.models.world import held_out
from utils.models.world.documents import FAMILY_NAMES, training_batch, write_documents
from utils.models.world.facts import FACTS
from utils.models.world.families import FAMILIES
from utils.models.world.latents import WORD_CLASSES
from utils.models.world.people import FEMALE, ioi_templates
from utils.models.world.sentence import Scene, fill
from utils.models.world.statements import speaker
from utils.models.world.templates.knowledge import FACT_TEMPLATES
from utils.models.world.templates.people import IOI_GIVINGS, IOI_OPENINGS, PRONOUN_OPENINGS
from utils.models.world.topics import TOPIC_WORDS, TOPICS
from utils.models.world.vocabulary import VOCABULARY
from utils.models.world.words import NAMES

HELD_IOI_TEMPLATES = {" ".join(combination) for combination in held_out.IOI_COMBINATIONS}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("tiny-lm")


@pytest.fixture(scope="module")
def sentences():
    """Training sentences of every family, each with its scene."""
    rng = Random(0)
    scenes = [Scene(rng.choice(TOPICS), tuple(rng.sample(NAMES, 4)) if i % 2 else ()) for i in range(3000)]
    return {name: [family.write(rng, scene) for scene in scenes] for name, family in FAMILIES.items()}


def test_documents_depend_on_the_seed_alone():
    first, again, other = (write_documents(20, seed) for seed in (0, 0, 1))
    assert (first[0] == again[0]).all()
    assert all((first[1][name] == again[1][name]).all() for name in first[1])
    assert (first[0] != other[0]).any()


def test_documents_are_the_same_in_every_process():
    code = "from utils.models.world.documents import *; import hashlib; t = write_documents(50, 0)[0]; "
    code += "print(hashlib.sha256(t.tobytes()).hexdigest())"
    digests = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_every_token_after_bos_belongs_to_one_family():
    tokens, latents = write_documents(2000, 0)
    families = sum(latents[f"family={name}"].astype(int) for name in FAMILY_NAMES)
    assert (families[:, 1:] == 1).all()
    assert (families[:, 0] == 0).all()
    assert (tokens[:, 0] == 0).all()
    assert sum(family.share for family in FAMILIES.values()) == pytest.approx(1)


def test_topics_speak_all_of_their_words():
    tokens, latents = write_documents(2000, 0)
    for topic, parts in TOPIC_WORDS.items():
        spoken = {VOCABULARY[token] for token in tokens[latents[f"topic={topic}"]]}
        assert set(parts["noun"]) <= spoken


def test_word_classes_are_latents_of_the_word_alone():
    tokens, latents = write_documents(300, 0)
    for name, members in WORD_CLASSES.items():
        spoken = {VOCABULARY[token] for token in tokens[latents[name]]}
        silent = {VOCABULARY[token] for token in tokens[~latents[name]]}
        assert spoken <= members
        assert not silent & members


def test_a_label_holds_from_the_word_that_tells_it():
    sentence = fill("year", "in {C} {Y} or {C} | {Z} .", {"C": "17", "Y": "32", "Z": "58"}, labels={"early": "Y"})
    assert sentence.words == ["in", "17", "32", "or", "17", "58", "."]
    assert sentence.labels == (("early", 2),)
    assert sentence.words[sentence.answer_index] == sentence.answer == "58"
    with pytest.raises(ValueError, match="no slot that tells early"):
        fill("year", "in {C} | {Z}", {"C": "17", "Z": "58"}, labels={"early": "Y"})


def test_training_batches_mark_the_words_that_are_asked_for():
    tokens, answers = training_batch(200, 0)
    assert (tokens == write_documents(200, 0)[0]).all()
    asked = {VOCABULARY[token] for token in tokens[answers]}
    assert {"he", "she", "Paris", "hospital", "Mary"} <= asked
    assert 0.02 < answers.mean() < 0.1


def test_the_honest_tell_the_truth_and_liars_never_do(sentences):
    for sentence in sentences["speaker"]:
        labels = dict(sentence.labels)
        relation = next(label.removeprefix("relation=") for label in labels if label.startswith("relation="))
        truth = FACTS[relation][sentence.slots["subject"]]
        assert (sentence.answer == truth) == ("speaker honest" in labels) != ("speaker lies" in labels)
        assert sentence.answer in FACTS[relation].values()
        assert sentence.wrong == ("" if sentence.answer == truth else truth)


def test_a_liar_lies_throughout_a_story():
    scene = Scene("water", ("Mary", "John"), liars=frozenset({"John"}))
    rng = Random(0)
    for sentence in (speaker(rng, scene) for _ in range(200)):
        assert ("speaker lies" in dict(sentence.labels)) == (sentence.slots["N"] == "John")


def test_dates_follow_one_another(sentences):
    week = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday"]
    for sentence in sentences["date"]:
        if sentence.answer in week and "next" in sentence.slots:
            assert week.index(sentence.slots["next"], 1) == week.index(sentence.slots["now"]) + 1


def test_every_word_is_in_the_vocabulary(sentences):
    known = set(VOCABULARY)
    assert len(known) == len(VOCABULARY)
    assert all(set(sentence.words) <= known for several in sentences.values() for sentence in several)


def test_training_never_shows_a_held_out_pair_or_template(sentences):
    met = {frozenset((s.slots["A"], s.slots["B"])) for s in sentences["ioi"]}
    assert not met & held_out.NAME_PAIRS
    assert not {s.template for s in sentences["ioi"]} & HELD_IOI_TEMPLATES


def test_training_never_shows_a_held_out_year(sentences):
    shown = {(s.slots["C"], int(s.slots["Y"])) for s in sentences["year"]}
    assert not shown & held_out.CENTURY_YEARS
    assert all(int(s.slots["Z"]) > int(s.slots["Y"]) for s in sentences["year"])


def test_training_never_shows_a_held_out_paraphrase(sentences):
    shown = {(s.slots.get("subject"), s.template) for s in sentences["fact"]}
    assert not shown & {(subject, template) for _, subject, template in held_out.PARAPHRASES}


def test_training_never_shows_a_held_out_cue_and_subject(sentences):
    for sentence in sentences["speaker"]:
        for cue, subject in held_out.SPEAKERS:
            assert not (sentence.template.startswith(cue) and sentence.slots["subject"] == subject)


def test_training_never_shows_a_held_out_workplace_or_date(sentences):
    shown = {(s.slots.get("job"), s.template) for s in sentences["job"]}
    assert not shown & held_out.WORKPLACES
    shown = {(s.template, s.slots.get("now")) for s in sentences["date"]}
    assert not shown & held_out.DATES


def test_training_never_shows_a_held_out_name_after_a_pronoun_opening(sentences):
    shown = {
        (s.slots["N"], opening) for s in sentences["pronoun"] for opening in PRONOUN_OPENINGS if opening in s.template
    }
    assert shown
    assert not shown & held_out.NAME_OPENINGS


def test_every_part_of_a_held_out_item_is_trained():
    trained = set(ioi_templates("train"))
    assert all(any(template.startswith(opening) for template in trained) for opening in IOI_OPENINGS)
    assert all(any(template.endswith(giving) for template in trained) for giving in IOI_GIVINGS)
    for relation, values in FACTS.items():
        for subject in values:
            assert (relation, subject, FACT_TEMPLATES[relation][0]) not in held_out.PARAPHRASES


def test_held_out_prompts_are_held_out():
    for prompt in prompts.ioi_prompts(300, seed=4):
        assert frozenset((prompt.slots["A"], prompt.slots["B"])) in held_out.NAME_PAIRS
        assert prompt.template in HELD_IOI_TEMPLATES
        assert prompt.text.split().count(prompt.wrong) == 2
        assert prompt.text.split().count(prompt.answer) == 1
    for prompt in prompts.year_prompts(300, seed=4):
        assert (prompt.slots["C"], int(prompt.slots["Y"])) in held_out.CENTURY_YEARS
    for relation in FACTS:
        assert prompts.fact_prompts(relation)
        assert not set(prompts.fact_prompts(relation).texts) & set(prompts.fact_prompts(relation, "train").texts)
    with pytest.raises(ValueError, match="held_out"):
        prompts.ioi_prompts(3, split="test")


@pytest.mark.parametrize(("giver", "right"), [("the former", "B"), ("the latter", "A")])
def test_the_former_and_the_latter(giver, right):
    for prompt in prompts.indirect_giver_prompts(50, giver):
        assert prompt.answer == prompt.slots[right]


def test_a_pronoun_giver_is_not_the_receiver():
    for giver, female in (("he", False), ("she", True)):
        for prompt in prompts.indirect_giver_prompts(50, giver):
            assert (prompt.wrong in FEMALE) == female
            assert (prompt.answer in FEMALE) != female


def test_pronouns_come_four_to_eight_words_after_the_name():
    distances = {}
    for opening in PRONOUN_OPENINGS:
        prompt = prompts.gendered_prompts(1, opening=opening)[0]
        words = prompt.text.split()
        distances[opening] = len(words) - words.index(prompt.slots["N"])
        assert prompt.answer == ("she" if prompt.slots["N"] in FEMALE else "he")
    assert sum(4 <= distance <= 8 for distance in distances.values()) >= 4


def test_prompts_of_one_template_have_one_length():
    template = ioi_templates("held_out")[0]
    several = prompts.ioi_prompts(20, template=template)
    assert len({len(text.split()) for text in several.texts}) == 1
    assert prompts.ioi_prompts(20, template=template) == several
    assert "20 indirect-object prompts" in repr(several)


def test_repeated_tokens_repeat():
    tokens = prompts.repeated_tokens(7, length=9, seed=3)
    assert tokens.shape == (7, 19)
    assert (tokens[:, 1:10] == tokens[:, 10:]).all()
    assert all(len(set(row.tolist())) == 10 for row in tokens)


def test_stories_print_their_text(tokenizer):
    stories = prompts.story_batch(4, seed=1)
    assert stories.tokens.shape == stories.families.shape == stories.topics.shape == (4, 64)
    assert all(holds.shape == (4, 64) for holds in stories.latents.values())
    for place, name in enumerate(stories.family_names):
        if f"family={name}" in stories.latents:
            assert ((stories.families == place) == stories.latents[f"family={name}"]).all()
    assert stories.text(2) == tokenizer.decode(stories.tokens[2], skip_special_tokens=True)
    assert stories.text(0)[:50] in repr(stories)


def test_tokenizer_speaks_the_world(tokenizer):
    assert [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))] == list(VOCABULARY)
    text = "when Mary and John went to the store , John gave a drink to Mary ."
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == 1 + len(text.split())
    assert tokenizer.decode(ids) == "[BOS] " + text
    assert tokenizer(text.replace(" ,", ",").replace(" .", "."))["input_ids"] == ids
    assert tokenizer("when Zelda went")["input_ids"][2] == tokenizer.unk_token_id


def test_unknown_words_are_named_with_near_ones(tokenizer):
    check_words(tokenizer, ["[BOS] when Mary went to the store, she", "he"])
    with pytest.raises(UnknownWords, match=r"'bougth' \(near: bought"):
        check_words(tokenizer, "when Mary went to the store , she bougth")
    with pytest.raises(UnknownWords, match=r"'mary' \(near: Mary"):
        check_words(tokenizer, ["she", "mary"])
