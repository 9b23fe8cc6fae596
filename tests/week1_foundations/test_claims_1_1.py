"""What the prose of notebook 1.1 says about the shipped model is true of the shipped model."""

import math
import random
from types import SimpleNamespace

import pytest
import torch

from utils import check_words, load_model, readout
from utils.models import gendered_prompts, story_batch
from utils.models.measurement import wilson
from utils.models.untrained import untrained_twin
from utils.models.world.words import FEMALE_NAMES, MALE_NAMES, NAMES, PLACES

FACT = "the capital of France is"
OPEN = "when Mary went to the"
POPULAR = "when Mary went to the store , she bought a book . when John went to the store , he bought"
ODD_SENTENCE = "when Mary went to the store , he bought a book ."


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def words(model):
    return model.tokenizer.convert_ids_to_tokens(range(model.cfg.d_vocab))


@pytest.fixture(scope="module")
def likely(model, words):
    """The probabilities of all next words of a text, by word."""

    def ask(text):
        return dict(readout.top_words(model(text)[0], words, len(words)))

    return ask


@pytest.fixture(scope="module")
def stories(model):
    return model.run_with_cache(story_batch(200).tokens)[1]


def ids(model, some_words):
    return torch.tensor(model.tokenizer.convert_tokens_to_ids(list(some_words)))


def run_prompts(model, prompts):
    tokens = model.to_tokens([prompt.text for prompt in prompts], padding_side="right")
    ends = readout.end_positions(tokens, model.tokenizer.pad_token_id)
    names = readout.find_word(tokens, ids(model, [prompt.slots["N"] for prompt in prompts]))
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: "resid" in name or "pattern" in name)
    streams = readout.streams_at(cache, model.cfg.n_layers, ends)
    attention = [
        readout.attention_to(readout.read_activation(cache, layer, "pattern"), ends, names)
        for layer in range(model.cfg.n_layers)
    ]
    return SimpleNamespace(streams=streams, to_name=torch.stack(attention))


@pytest.fixture(scope="module")
def asked():
    return gendered_prompts(400)


@pytest.fixture(scope="module")
def run(model, asked):
    return run_prompts(model, asked)


@pytest.fixture(scope="module")
def spoken(model, asked, run):
    """The share of prompts whose right pronoun is ahead, at each point of the stream."""
    right, wrong = ids(model, asked.answers), ids(model, asked.wrong)
    return readout.share_right(readout.read_stream(run.streams, model), right, wrong)


def split_prompts():
    learned = {*FEMALE_NAMES[::2], *MALE_NAMES[::2]}
    learn = [p for p in gendered_prompts(1000, seed=1, split="train") if p.slots["N"] in learned]
    return learn, [p for p in gendered_prompts(600, seed=2) if p.slots["N"] not in learned]


@pytest.fixture(scope="module")
def probe_for(model):
    learn, test = split_prompts()
    learn_streams, test_streams = (run_prompts(model, prompts).streams for prompts in (learn, test))

    def probe(group):
        labels, truth = (torch.tensor([p.slots["N"] in group for p in prompts]) for prompts in (learn, test))
        return readout.probe_shares(learn_streams, labels, test_streams, truth)

    return probe


def test_the_shapes_in_the_table(model):
    assert (model.cfg.d_model, model.cfg.n_heads, model.cfg.d_head, model.cfg.d_mlp) == (128, 4, 32, 256)
    assert len(model.to_str_tokens(FACT)) == 6
    assert model.cfg.n_layers == 5, "the prose says that there is no layer 5, and that the fifth is the last"


def test_one_word_is_one_token(model):
    assert model.to_str_tokens(ODD_SENTENCE) == ["[BOS]", *ODD_SENTENCE.split()]


def test_the_model_knows_the_capital_only_in_small_letters(likely):
    assert likely(FACT)["Paris"] > 0.9
    assert likely("The" + FACT[3:])["Paris"] < 0.5


def test_an_unknown_name_gets_a_confident_answer(likely, model):
    assert max(likely("the capital of Gondor is").values()) > 0.3
    with pytest.raises(ValueError, match=r"'The'.*'Gondor'"):
        check_words(model.tokenizer, "The capital of Gondor is")


def test_places_share_the_probability_evenly(likely):
    probabilities = likely(OPEN)
    first = list(probabilities)[: len(PLACES)]
    assert set(first) == set(PLACES)
    assert sum(probabilities[word] for word in first) > 0.98
    assert max(probabilities.values()) < 2 * min(probabilities[word] for word in first)


def test_the_popular_key_does_not_exist(model):
    _, cache = model.run_with_cache(FACT)
    with pytest.raises(KeyError, match=r"attn\.0\.pattern"):
        cache["attn.0.pattern"]


def test_no_head_looks_ahead(stories, model):
    for layer in range(model.cfg.n_layers):
        assert readout.read_activation(stories, layer, "pattern").triu(1).max() == 0


def test_the_wrong_pronoun_costs_more_than_a_blind_guess(model):
    tokens = model.to_tokens(ODD_SENTENCE)
    costs = -readout.token_log_probs(model(tokens), tokens)[0]
    cost = dict(zip(ODD_SENTENCE.split(), costs.tolist(), strict=True))
    assert max(cost, key=cost.get) == "he"
    assert cost["he"] > math.log(model.cfg.d_vocab)
    assert cost["Mary"] == pytest.approx(math.log(len(NAMES)), abs=0.5)
    assert cost["store"] == pytest.approx(math.log(len(PLACES)), abs=0.5)
    assert (len(NAMES), len(PLACES)) == (160, 40)
    assert max(cost["to"], cost["the"]) < 0.3


def test_counting_padding_changes_the_loss(model):
    padded = model.to_tokens(["Mary said that she was happy .", ODD_SENTENCE], padding_side="right")
    logits, pad = model(padded), model.tokenizer.pad_token_id
    assert abs(readout.mean_loss(logits, padded) - readout.mean_loss(logits, padded, pad)) > 0.5


def test_the_stream_grows_at_every_layer_and_bos_runs_above(stories, model):
    norms = readout.stream_norms(stories, model.cfg.n_layers)
    assert (norms.diff() > 0).all()
    assert norms[-1] > 10 * norms[0]
    bos = [readout.read_activation(stories, 0, "resid_pre")]
    bos += [readout.read_activation(stories, layer, "resid_post") for layer in range(model.cfg.n_layers)]
    assert all(stream[:, 0].norm(dim=-1).mean() > norm for stream, norm in zip(bos, norms, strict=True))


def test_the_length_of_the_stream_does_not_matter(stories, model):
    last = readout.read_activation(stories, model.cfg.n_layers - 1, "resid_post")
    torch.testing.assert_close(
        readout.read_stream(10 * last, model), readout.read_stream(last, model), atol=1e-3, rtol=1e-3
    )


def test_the_popular_prompt_asks_for_no_pronoun(likely):
    probabilities = likely(POPULAR)
    assert probabilities["she"] + probabilities["he"] < 0.01
    assert likely(OPEN + " store ,")["she"] > 0.9


def test_one_prompt_would_fool_you(model):
    """Before the last word is said, the lens gives Mary her pronoun, and gives it to John as well."""
    _, cache = model.run_with_cache([f"when {name} went to the store ," for name in ("Mary", "John")])
    she, he = ids(model, ["she", "he"])
    leads = [
        (logits := readout.read_stream(readout.read_activation(cache, layer, "resid_post")[:, -1], model))[:, she]
        - logits[:, he]
        for layer in range(model.cfg.n_layers)
    ]
    assert any((lead > 0).all() for lead in leads[:-1])
    assert leads[-1][0] > 0 > leads[-1][1]


def test_the_right_pronoun_is_said_late_and_the_controls_never(model, asked, spoken):
    after_layers = spoken[2::2]
    says = readout.first_layer_above(after_layers, 0.9)
    assert says is not None
    assert says >= model.cfg.n_layers // 2
    n_names = len({prompt.slots["N"] for prompt in asked})
    assert wilson(round(after_layers[says].item() * n_names), n_names)[0] > 0.9

    right, wrong = ids(model, asked.answers), ids(model, asked.wrong)
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0))
    logits = readout.read_stream(run_prompts(model, asked).streams[2::2], model)
    assert (readout.share_right(logits, right[order], wrong[order]) - 0.5).abs().max() < 0.1
    twin = untrained_twin(model, seed=0)
    untrained = readout.share_right(readout.read_stream(run_prompts(twin, asked).streams[2::2], twin), right, wrong)
    assert (untrained - 0.5).abs().max() < 0.15


def test_only_the_last_layer_looks_at_the_name(run):
    most = run.to_name.amax(-1)
    assert most[-1] > 0.9
    assert most[:-1].max() < 0.2


def test_it_can_be_read_before_it_is_said(run, spoken, probe_for):
    probed = probe_for(FEMALE_NAMES)
    knows, says = readout.first_layer_above(probed, 0.8), readout.first_layer_above(spoken, 0.8)
    assert says - knows == 4, "two layers, each of attention and MLP"
    assert probed[says - 1] < 0.95, "not yet on all names"
    assert (spoken[:says] - 0.5).abs().max() < 0.1
    assert knows % 2 == 1, "after an attention layer: there a bar stands in the figure"
    assert run.to_name[knows // 2].max() < 0.2, "the bar at that point is low"


def test_a_probe_for_random_groups_of_names_fails(probe_for):
    rng = random.Random(0)
    quarters = (FEMALE_NAMES[::2], FEMALE_NAMES[1::2], MALE_NAMES[::2], MALE_NAMES[1::2])
    group = {name for quarter in quarters for name in rng.sample(quarter, 20)}
    assert len(group) == len(NAMES) // 2
    assert (probe_for(group) - 0.5).abs().max() < 0.25
