"""Graders of notebook 1.7. The right answer to each question is what its experiment gives; no list of them exists."""

import math
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F

from course.graders import Mistake, exercise, points, require

PARTS = {"a": 3, "b": 4, "c": 6, "d": 8}


@lru_cache
def model():
    from utils import load_model

    return load_model("tiny-lm")


@lru_cache
def stories():
    from utils.models import story_batch

    return story_batch(8, 77).tokens


def best(scores):
    """The letter with the largest score."""
    return max(scores, key=scores.get)


# --- the experiments


@torch.no_grad()
def next_token():
    log_probs, tokens = model()(stories()).log_softmax(-1), stories()
    at = torch.arange(1, tokens.shape[1] - 1)
    read = {"a": tokens[:, at - 1], "b": tokens[:, at], "c": tokens[:, at + 1], "d": tokens[:, -1:].expand(-1, len(at))}
    return best({letter: log_probs[:, at].gather(-1, t[..., None]).mean().item() for letter, t in read.items()})


@torch.no_grad()
def ten_times():
    last = 3 * torch.randn(4, model().cfg.d_model)

    def read(stream):
        return model().unembed(model().ln_final(stream[None]))[0]

    once, tenfold = read(last), read(10 * last)
    ratio = (tenfold.std() / once.std()).item()
    moved = (tenfold - once).abs().max().item()
    return best({"a": -abs(ratio - 10), "b": -abs(ratio - 1) - moved, "c": -abs(ratio - 0.1), "d": moved - 1})


@torch.no_grad()
def how_many_parts():
    _, cache = model().run_with_cache(stories()[:1])
    parts = [cache["hook_embed"], cache["hook_pos_embed"]]
    for layer in range(model().cfg.n_layers):
        parts += [cache["attn_out", layer], cache["mlp_out", layer]]
    errors = {n: (sum(parts[:n]) - cache["resid_post", 2]).abs().max().item() for n in PARTS.values()}
    return best({letter: -errors[n] for letter, n in PARTS.items()})


@torch.no_grad()
def loss_before_training():
    size = model().cfg.d_vocab
    logits, targets = 0.05 * torch.randn(500, size), torch.randint(0, size, (500,))
    loss = F.cross_entropy(logits, targets).item()
    return best({"a": -loss, "b": -abs(loss - 1), "c": -abs(loss - math.log(size)), "d": -abs(loss - size / 2)})


@torch.no_grad()
def sees_ahead():
    _, cache = model().run_with_cache(stories())
    largest = max(cache["pattern", layer].triu(1).max().item() for layer in range(model().cfg.n_layers))
    return "a" if largest == 0 else "b"


def previous_token():
    stream, W_V = torch.randn(7, 5), torch.randn(5, 5)
    values, pattern = stream @ W_V, torch.zeros(7, 7)
    pattern[0, 0] = 1
    pattern[torch.arange(1, 7), torch.arange(6)] = 1
    z, mixed = (pattern @ values)[1:], values.cumsum(0)[1:] / torch.arange(2, 8)[:, None]
    guesses = {"a": stream[:-1], "b": values[:-1], "c": values[1:], "d": mixed}
    return best({letter: -(z - guess).norm().item() for letter, guess in guesses.items()})


def weight_and_effect():
    """One counterexample to the other three is enough: the value behind the large weight is nearly zero."""
    pattern, values = torch.tensor([0.9, 0.1]), torch.randn(2, 8)
    values[0] *= 1e-3 / values[0].norm()
    parts = pattern[:, None] * values
    share = parts[0].norm() / parts.sum(0).norm()
    claims = {"a": abs(share - 0.9) < 0.05, "b": share > 0.5, "c": parts[0].norm() > parts[1].norm()}
    return next((letter for letter, holds in claims.items() if holds), "d")


def which_ablation():
    """A constant either in z or, mapped by W_O, in the output bias."""
    z, W_O, constant = torch.randn(30, 6), torch.randn(6, 9), torch.randn(6)

    def written(z, bias, ablated):
        return ablated(z) @ W_O + bias

    def zero(z):
        return torch.zeros_like(z)

    def mean(z):
        return z.mean(0).expand_as(z)

    same = {
        name: torch.allclose(
            written(z + constant, torch.zeros(9), change), written(z, constant @ W_O, change), atol=1e-4
        )
        for name, change in {"zero": zero, "mean": mean}.items()
    }
    return {(True, False): "a", (False, True): "b", (True, True): "c", (False, False): "d"}[same["zero"], same["mean"]]


@lru_cache
def five_in_two():
    """Full batches of a small toy model, trained here, with importances that fall by a tenth."""
    kept = []
    for sparsity in (0.0, 0.95):
        rng = torch.Generator().manual_seed(0)
        W = (0.6 * torch.randn(4, 2, 5, generator=rng)).requires_grad_()  # four first weights side by side
        b = torch.zeros(4, 1, 5, requires_grad=True)
        optimizer = torch.optim.Adam([W, b], lr=2e-2)
        importance = 0.9 ** torch.arange(5)
        for _ in range(500):
            x = torch.rand(512, 5, generator=rng) * (torch.rand(512, 5, generator=rng) >= sparsity)
            error = importance * ((x @ W.mT @ W + b).relu() - x).pow(2)
            losses = error.sum(-1).mean(-1)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
        kept.append(int((W[losses.argmin()].norm(dim=0) > 0.5).sum()))
    return {(2, 2): "a", (2, 5): "b", (5, 2): "c", (5, 5): "d"}[tuple(kept)]


def false_alarms():
    """1,000 t-tests of two samples from one distribution."""
    from scipy.stats import ttest_ind

    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1000, 20, generator=rng).numpy() for _ in range(2))
    found = int((ttest_ind(a, b, axis=1).pvalue < 0.05).sum())
    return best({"a": -found, "b": -abs(found - 5), "c": -abs(found - 50), "d": -abs(found - 1000)})


def probe_and_use():
    """A model whose stream holds gender in a direction that its output does not read."""
    gender = (torch.arange(40) % 2).float()
    stream = torch.randn(40, 6)
    stream[:, 0] = 2 * gender - 1
    readout = torch.randn(6, 10)
    readout[0] = 0
    flipped = stream * torch.tensor([-1.0, 1, 1, 1, 1, 1])
    readable = bool(((stream[:, 0] > 0) == gender.bool()).all())
    used = not torch.allclose(stream @ readout, flipped @ readout)
    return "c" if readable and not used else "a"


def temperature_zero():
    logits = torch.randn(50)
    p, flat = (logits / 1e-3).softmax(-1), torch.full((50,), 1 / 50)
    one_hot = F.one_hot(logits.argmax(), 50).float()
    least = F.one_hot(logits.argmin(), 50).float()
    guesses = {"a": flat, "b": one_hot, "c": logits.softmax(-1), "d": least}
    return best({letter: -(p - guess).abs().sum().item() for letter, guess in guesses.items()})


# --- the marker


class Quiz:
    """One question at a time, so that each right answer counts."""

    def mark(self, answer, name, truth):
        given = answer()
        if not isinstance(given, dict):
            raise Mistake(f"Return a dictionary from questions to letters, not {type(given).__name__}.")
        require(name in given, f"Your dictionary has no answer to {name!r}.")
        letter = str(given[name]).strip().lower().rstrip(").:")
        require(letter in tuple("abcd"), f"The answer to {name!r} is one of the letters a to d, not {given[name]!r}.")
        require(letter == truth(), f"{name}: the experiment gives another answer than {letter!r}.")


def answers(**changed):
    """A function that answers everything by its experiment, but for what is changed."""

    def quiz():
        return {name: changed.get(name, truth()) for name, truth in TRUTHS[changed["quiz"]].items()}

    return quiz


TRUTHS = {
    "stream": {
        "next_token": next_token,
        "ten_times": ten_times,
        "how_many_parts": how_many_parts,
        "loss_before_training": loss_before_training,
    },
    "attention": {
        "sees_ahead": sees_ahead,
        "previous_token": previous_token,
        "weight_and_effect": weight_and_effect,
        "which_ablation": which_ablation,
    },
    "evidence": {
        "five_in_two": five_in_two,
        "false_alarms": false_alarms,
        "probe_and_use": probe_and_use,
        "temperature_zero": temperature_zero,
    },
}


def wrong(quiz, **changed):
    return answers(quiz=quiz, **changed)


def shouting(quiz):
    return lambda: {name: f" {truth().upper()}) " for name, truth in TRUTHS[quiz].items()}


@exercise("quiz_stream")
class TestQuizStream(Quiz):
    @points(1, hint="Which logits did you shift by one in 1.1 to get a loss?")
    def test_next_token(self, answer):
        self.mark(answer, "next_token", next_token)

    @points(1, hint="What does the final layer norm do to the length of a vector?")
    def test_ten_times(self, answer):
        self.mark(answer, "ten_times", ten_times)

    @points(1, hint="Two embeddings; then two parts for each of the layers 0, 1 and 2.")
    def test_how_many_parts(self, answer):
        self.mark(answer, "how_many_parts", how_many_parts)

    @points(1, hint="A fair guess gives each of V words the probability 1/V.")
    def test_loss_before_training(self, answer):
        self.mark(answer, "loss_before_training", loss_before_training)

    mutants = {
        "reads the logits as scores of the current token": wrong("stream", next_token="b"),
        "forgets the final layer norm": wrong("stream", ten_times="a"),
        "forgets the two embeddings": wrong("stream", how_many_parts="c"),
        "forgets the logarithm": wrong("stream", loss_before_training="d"),
        "answers nothing": dict,
    }
    alternatives = {"capitals and brackets": shouting("stream"), "by experiment": answers(quiz="stream")}


@exercise("quiz_attention")
class TestQuizAttention(Quiz):
    @points(1, hint="What is the softmax of minus infinity?")
    def test_sees_ahead(self, answer):
        self.mark(answer, "sees_ahead", sees_ahead)

    @points(1, hint="z is an average of value vectors, weighted by the pattern's row.")
    def test_previous_token(self, answer):
        self.mark(answer, "previous_token", previous_token)

    @points(1, hint="What if the value vector behind the large weight is tiny?")
    def test_weight_and_effect(self, answer):
        self.mark(answer, "weight_and_effect", weight_and_effect)

    @points(1, hint="Move a constant from z to the bias, and ask what each ablation then removes.")
    def test_which_ablation(self, answer):
        self.mark(answer, "which_ablation", which_ablation)

    mutants = {
        "takes rounding for attention": wrong("attention", sees_ahead="b"),
        "takes the stream for the values": wrong("attention", previous_token="a"),
        "takes attention for contribution": wrong("attention", weight_and_effect="b"),
        "trusts zero ablation": wrong("attention", which_ablation="c"),
        "answers nothing": dict,
    }
    alternatives = {"capitals and brackets": shouting("attention"), "by experiment": answers(quiz="attention")}


@exercise("quiz_evidence")
class TestQuizEvidence(Quiz):
    @points(1, hint="Features that are always present collide at every step; sparse ones hardly ever meet.")
    def test_five_in_two(self, answer):
        self.mark(answer, "five_in_two", five_in_two)

    @points(1, hint="When nothing is there, p < .05 still happens in one test out of twenty.")
    def test_false_alarms(self, answer):
        self.mark(answer, "false_alarms", false_alarms)

    @points(1, hint="Imagine a direction in the stream that no later weight reads.")
    def test_probe_and_use(self, answer):
        self.mark(answer, "probe_and_use", probe_and_use)

    @points(1, hint="Divide the logits by 0.001 and take the softmax.")
    def test_temperature_zero(self, answer):
        self.mark(answer, "temperature_zero", temperature_zero)

    mutants = {
        "expects superposition of dense features": wrong("evidence", five_in_two="d"),
        "takes five per cent for five": wrong("evidence", false_alarms="b"),
        "takes readable for used": wrong("evidence", probe_and_use="a"),
        "takes temperature zero for temperature one": wrong("evidence", temperature_zero="c"),
        "answers nothing": dict,
    }
    alternatives = {"capitals and brackets": shouting("evidence"), "by experiment": answers(quiz="evidence")}


@pytest.mark.parametrize("name", [name for quiz in TRUTHS.values() for name in quiz])
def test_an_experiment_gives_the_same_answer_every_time(name):
    truth = next(quiz[name] for quiz in TRUTHS.values() if name in quiz)
    assert len({truth() for _ in range(20)}) == 1
