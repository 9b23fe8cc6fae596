"""What the prose of notebook 1.3 says about the shipped model is true of the shipped model."""

import pytest
import torch

from course.solutions import solution_of
from utils import load_model, metrics, neurons, readout
from utils.models import story_batch
from utils.models.measurement import mean
from utils.models.untrained import untrained_twin

BANDS = ((3 / 4, float("inf")), (1 / 2, 3 / 4), (1 / 4, 1 / 2), (1 / 10, 1 / 4))


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def corpus():
    return story_batch(300, seed=1)


@pytest.fixture(scope="module")
def fresh():
    return story_batch(300, seed=2)


def streams_of(model, tokens):
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: "resid" in name)
    after = [cache[f"resid_{at}", layer] for layer in range(model.cfg.n_layers) for at in ("mid", "post")]
    return torch.stack([cache["resid_pre", 0], *after])[:, :, 1:]


def distance(logits, truth):
    return mean(metrics.kl_divergence(logits, truth).mean(-1), "")


@pytest.fixture(scope="module")
def streams(model, corpus, fresh):
    """Of the corpus and of 100 fresh stories: [point, story, position, d_model]."""
    return streams_of(model, corpus.tokens), streams_of(model, fresh.tokens[:100])


def kl_of_lens_and_of_blind(model, streams):
    learnt, judged = streams
    truth = readout.read_stream(judged[-1], model)
    lens = [distance(readout.read_stream(stream, model), truth) for stream in judged]
    blind = solution_of("blind_guess")(readout.read_stream(learnt[-1], model))
    return lens, distance(blind.expand_as(truth), truth).value


def test_at_the_embedding_the_lens_says_the_word_that_was_read(model, fresh, streams):
    said = readout.read_stream(streams[1][0], model).argmax(-1)
    assert (said == fresh.tokens[:100, 1:]).float().mean() > 0.98


def test_the_lens_is_worse_than_a_blind_guess_before_the_mlp_of_layer_1(model, streams):
    lens, blind = kl_of_lens_and_of_blind(model, streams)
    points = readout.stream_points(model.cfg.n_layers)
    turn = points.index("1 MLP")
    assert all(m.low > blind for m in lens[:turn])
    assert all(m.high < blind for m in lens[turn:])
    assert lens[0].value > 5 * blind, "confidently wrong: the axis must be logarithmic"


def test_corrections_help_and_the_translator_helps_most_even_at_the_embedding(model, streams):
    (learnt, judged), (lens, blind) = streams, kl_of_lens_and_of_blind(model, streams)
    truth, late = readout.read_stream(judged[-1], model), learnt[-1].flatten(0, 1)
    shuffled = late[torch.randperm(len(late), generator=torch.Generator().manual_seed(0))]
    match, fit = solution_of("match_moments"), solution_of("fit_translator")
    for point in range(0, len(judged) - 1, 3):
        early = learnt[point].flatten(0, 1)
        matched = distance(readout.read_stream(match(judged[point], early, late), model), truth)
        matrix, bias = fit(early, late)
        translated = distance(readout.read_stream(judged[point] @ matrix + bias, model), truth)
        matrix, bias = fit(early, shuffled)
        control = distance(readout.read_stream(judged[point] @ matrix + bias, model), truth)
        assert translated.high < matched.low <= matched.high < lens[point].low
        assert translated.high < blind < control.low
        assert control.value < 1.3 * blind, "a little above the blind guess"


def test_an_untrained_lens_looks_hundreds_of_times_better_and_is_not(model, corpus, fresh, streams):
    twin = untrained_twin(model, seed=0)
    both = streams_of(twin, corpus.tokens[:60]), streams_of(twin, fresh.tokens[:60])
    lens, blind = kl_of_lens_and_of_blind(twin, both)
    trained, _ = kl_of_lens_and_of_blind(model, streams)
    ratios = [a.value / b.value for a, b in zip(trained[:-1], lens[:-1], strict=True)]
    assert min(ratios) > 100, ratios
    assert lens[0].value > blind


@pytest.fixture(scope="module")
def parts(model, fresh):
    _, cache = model.run_with_cache(fresh.tokens[:100])
    return solution_of("residual_parts")(cache, model.W_O, model.b_O), cache["resid_post", model.cfg.n_layers - 1]


def test_the_parts_sum_to_the_stream(parts):
    written, last = parts
    assert len(written) == 32
    assert (sum(written.values()) - last).abs().max() < 1e-3


def test_the_last_mlp_is_most_of_the_last_stream_and_a_good_part_of_it_is_a_constant(parts):
    written, last = parts
    along = (last * last).sum(-1)[:, 1:]
    share = {name: ((part * last).sum(-1)[:, 1:] / along).mean().item() for name, part in written.items()}
    assert max(share, key=share.get) == "4 MLP"
    assert 0.5 < share["4 MLP"] < 0.7
    assert share["embedding"] < 0.01
    wrote = written["4 MLP"][:, 1:].flatten(0, 1)
    assert 0.38 < wrote.mean(0).norm() ** 2 / wrote.pow(2).sum(-1).mean() < 0.5


def test_the_embedding_writes_the_word_and_the_last_mlp_takes_most_of_it_out(model, fresh, parts):
    written, last = parts
    tokens = fresh.tokens[:100]
    own = model.W_U.T[tokens[:, 1:]]
    own = own / own.norm(dim=-1, keepdim=True)
    mixed = torch.randperm(own[..., 0].numel(), generator=torch.Generator().manual_seed(1))
    other = own.flatten(0, 1)[mixed].view_as(own)
    extra = {name: mean(((part[:, 1:] * (own - other)).sum(-1)).mean(-1), "") for name, part in written.items()}
    assert max(extra, key=lambda name: extra[name].value) == "embedding"
    assert min(extra, key=lambda name: extra[name].value) == "4 MLP"
    assert extra["4 MLP"].high < -0.5 * extra["embedding"].high
    assert extra["4 MLP"].low > -extra["embedding"].low
    growth = last[:, 1:].norm(dim=-1).mean() / (written["embedding"] + written["position"])[:, 1:].norm(dim=-1).mean()
    assert 40 < growth < 60, "'some fifty times its length'"
    assert (tokens[:, 1:] == tokens[:, :-1]).float().mean() < 0.01, "'a word hardly ever follows itself'"


@pytest.fixture(scope="module")
def labels(corpus, fresh):
    """The names of the labels, and whether each is true of each token of both corpora."""
    return list(corpus.latents), *(torch.stack(list(s.latents.values()), dim=-1) for s in (corpus, fresh))


def test_there_are_77_labels(labels):
    assert len(labels[0]) == 77


def test_neuron_2_55_is_about_liars_at_its_top_and_not_below(model, corpus, fresh, labels):
    names, holds, fresh_holds = labels
    seen, unseen = (neurons.corpus_activations(model, s.tokens, 2)[..., 55] for s in (corpus, fresh))
    top = neurons.top_examples(seen, 10)
    base = holds[:, 1:].float().mean((0, 1))
    label = neurons.best_label(torch.stack([holds[place] for place in top]), base)
    assert names[label] == "speaker lies"
    about_languages = [bool(holds[place][names.index("relation=language")]) for place in top]
    assert sum(about_languages) >= 9
    largest = unseen[:, 1:].max().item()
    band = neurons.random_examples(unseen, largest / 4, largest / 2, 10)
    assert sum(bool(fresh_holds[place][label]) for place in band) == 0
    honest = [bool(fresh_holds[place][names.index("relation=language")]) for place in band]
    assert 0 < sum(honest) < 10, "some are about languages, some about something else"
    raised = neurons.logit_weights(model.W_out[2, 55], model.W_U).topk(4).indices
    languages = {"Arabic", "English", "Hindi", "German", "Chinese", "Polish", "Hungarian", "Spanish"}
    assert {*model.tokenizer.convert_ids_to_tokens(raised.tolist())} <= languages


def test_neuron_2_55_fires_strongly_without_a_liar_and_more_with_one(model):
    told = ("people in Senegal speak", "truthful Mary said that people in Senegal speak")
    lied = "lying Mary said that people in Senegal speak"
    plain, honest, lie = (
        neurons.corpus_activations(model, model.to_tokens(text), 2)[0, -1, 55].item() for text in (*told, lied)
    )
    assert 5 < plain < lie
    assert 5 < honest < lie


@pytest.fixture(scope="module")
def named(model, corpus, fresh, labels):
    """For neurons and for random directions of two layers: how well names fit in each band, and how many have one."""
    _, holds, fresh_holds = labels
    base = holds[:, 1:].float().mean((0, 1))
    rows = {"neurons": [], "directions": []}
    rng = torch.Generator().manual_seed(5)
    for layer in (1, 3):
        seen, unseen = (neurons.corpus_activations(model, s.tokens, layer) for s in (corpus, fresh))
        rotation, _ = torch.linalg.qr(torch.randn(256, 256, generator=rng))
        for kind, turn in (("neurons", torch.eye(256)), ("directions", rotation)):
            for a, b in zip(*((x @ turn).permute(2, 0, 1).contiguous() for x in (seen, unseen)), strict=True):
                label = neurons.best_label(torch.stack([holds[p] for p in neurons.top_examples(a, 10)]), base)
                if label is None:
                    continue
                top = b[:, 1:].max().item()
                groups = [neurons.top_examples(b, 10)]
                groups += [neurons.random_examples(b, low * top, high * top, 10) for low, high in BANDS]
                if all(len(group) >= 5 for group in groups):
                    fits = [torch.stack([fresh_holds[p][label] for p in group]).float().mean() for group in groups]
                    rows[kind].append(torch.stack([*fits, base[label]]))
    return {kind: torch.stack(found) for kind, found in rows.items()}


def test_names_hold_at_the_top_on_new_stories(named):
    for fits in named.values():
        assert mean(fits[:, 0], "").low > 0.85
    assert mean(named["neurons"][:, 1], "").low > 0.75, "'above three quarters of the maximum the names hold well'"


def test_names_fit_a_minority_further_down_but_more_than_chance(named):
    fits = named["neurons"]
    assert mean(fits[:, 3], "").high < 0.5
    assert mean(fits[:, 3], "").low > mean(fits[:, 5], "").high


def test_random_directions_get_names_too_and_keep_less_of_them(named):
    assert 0.6 < len(named["directions"]) / len(named["neurons"]) < 1
    assert abs(named["directions"][:, 0].mean() - named["neurons"][:, 0].mean()) < 0.05
    for band in (2, 3, 4):
        assert mean(named["directions"][:, band], "").high < mean(named["neurons"][:, band], "").low


def test_random_places_get_no_name(labels):
    _, holds, _ = labels
    base, rng = holds[:, 1:].float().mean((0, 1)), torch.Generator().manual_seed(0)
    for _ in range(500):
        texts, positions = torch.randperm(300, generator=rng)[:10], torch.randint(1, 64, (10,), generator=rng)
        assert neurons.best_label(holds[texts, positions], base) is None


def test_most_of_what_neurons_give_off_lies_below_half_of_their_maximum(model, fresh):
    total = below = 0.0
    for layer in range(model.cfg.n_layers):
        positive = neurons.corpus_activations(model, fresh.tokens[:150], layer)[:, 1:].clamp(min=0).flatten(0, 1)
        total += positive.sum().item()
        below += positive[positive < positive.amax(0) / 2].sum().item()
    assert 0.5 < below / total < 0.65
