"""The hunt for neurons that react to two unrelated topics, with the tests that tell a find from a fluke.

A neuron is described by its mean activation on each of many words, and each word belongs to one topic. Thousands of
neurons times dozens of pairs of topics give chance thousands of opportunities, so the hunt chooses its candidates on
one half of every topic's words and tests them on the other.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.stats import holm

CANDIDATES, DRAWS, LEVEL = 20, 9_999, 0.01


def topic_scores(
    values: Float[Tensor, "word neuron"], topics: Int[Tensor, "word"], n_topics: int
) -> Float[Tensor, "topic neuron"]:
    """How much more each topic's words excite each neuron than all other words do, in standard errors.

    The difference of the two means over the standard error that it has if topics do not matter: the neuron's standard
    deviation over all words times sqrt(1 / inside + 1 / outside). A neuron that never changes scores 0.

    Args:
        values: Mean activation of each neuron on each word.
        topics: The topic of each word, from 0; every topic has words, and no topic has all.
        n_topics: How many topics there are.

    Raises:
        ValueError: if a topic has no word or all of them, or there is not one topic for each word.
    """
    if len(topics) != len(values):
        raise ValueError(f"Expected a topic for each of {len(values)} words, got {len(topics)}.")
    counts = torch.bincount(topics, minlength=n_topics)
    if len(counts) > n_topics or not ((counts > 0) & (counts < len(values))).all():
        raise ValueError(f"Each of {n_topics} topics needs words, and none can have all; got {counts.tolist()} words.")
    spread = values.std(0)
    centred = (values - values.mean(0)) / torch.where(spread > 0, spread, 1)
    members = torch.nn.functional.one_hot(topics, n_topics).to(values.dtype)
    inside = counts[:, None].to(values.dtype)
    outside = len(values) - inside
    sums = members.mT @ centred  # over all words the sum is zero, so outside the topic it is -sums
    return sums * (1 / inside + 1 / outside).sqrt()


def largest_by_chance(
    values: Float[Tensor, "word neuron"],
    topics: Int[Tensor, "word"],
    n_topics: int,
    draws: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "draw"]:
    """The largest score of any neuron for any topic when the words' topics are shuffled, in each of several draws.

    All neurons see the same shuffle, so neurons that are alike count as the few tries that they are.
    Source: Westfall & Young 1993, Resampling-Based Multiple Testing.
    """
    shuffled = (topics[torch.randperm(len(topics), generator=generator)] for _ in range(draws))
    return torch.stack([topic_scores(values, labels, n_topics).max() for labels in shuffled])


def best_pairs(scores: Float[Tensor, "topic neuron"]) -> tuple[Float[Tensor, "neuron"], Int[Tensor, "neuron 2"]]:
    """The second largest score of each neuron, and the two topics with its largest scores, the larger first.

    A neuron reacts to two topics only as clearly as to the weaker of the two.
    """
    largest = scores.topk(2, dim=0)
    return largest.values[1], largest.indices.mT


def pair_p_value(
    values: Float[Tensor, "word"],
    topics: Int[Tensor, "word"],
    pair: tuple[int, int],
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
) -> float:
    """Permutation test that a neuron reacts to both topics of a pair: the larger of the two topics' p-values.

    The sceptic's hypothesis is that it reacts to one topic at most, so both have to be shown (an intersection-union
    test: Berger 1982, https://doi.org/10.1080/00401706.1982.10487790).

    Args:
        values: The neuron's mean activation on each word.
        topics: The topic of each word.
        pair: The two topics.
        draws: How many times the topics are shuffled.
        generator: Where the shuffles come from.

    Returns:
        One-sided, and never zero: the observed order counts as one of the draws.

    Raises:
        ValueError: if a topic of the pair has no word.
    """
    members = torch.stack([topics == topic for topic in pair]).to(values.dtype)  # [2, word]
    inside = members.sum(1)
    if not (inside > 0).all():
        raise ValueError(f"Expected words of both topics {pair}, got {inside.int().tolist()} words.")
    order = torch.rand(draws, len(values), generator=generator).argsort(1)
    observed = members @ values  # the mean inside less the mean outside rises with the sum inside
    by_chance = values[order] @ members.mT  # [draw, 2]
    tolerance = 1e-6 * values.abs().max()
    reached = (by_chance >= observed - tolerance).sum(0)
    return ((1 + reached) / (1 + draws)).max().item()


def separation(values: Float[Tensor, "word"], inside: Bool[Tensor, "word"]) -> float:
    """How often a random word inside excites a neuron more than a random word outside; ties count half.

    It is the area under the ROC curve: 1 tells the two groups apart without error, 0.5 is chance.

    Raises:
        ValueError: if either group is empty.
    """
    if inside.all() or not inside.any():
        raise ValueError("separation needs words inside and words outside.")
    gaps = values[inside][:, None] - values[~inside]
    return ((gaps > 0).to(values.dtype) + 0.5 * (gaps == 0).to(values.dtype)).mean().item()


def random_basis(values: Float[Tensor, "word neuron"], n_layers: int, seed: int = 0) -> Float[Tensor, "word neuron"]:
    """The control for "it is the neuron": each layer's neurons replaced by as many random orthogonal directions.

    Args:
        values: The layers' neurons side by side, as many in each.
        n_layers: How many layers.
        seed: The same seed gives the same directions.
    """
    generator = torch.Generator().manual_seed(seed)
    turned = []
    for layer in values.chunk(n_layers, 1):
        gaussian = torch.randn(layer.shape[1], layer.shape[1], generator=generator)
        turned.append(layer @ torch.linalg.qr(gaussian).Q.to(layer))
    return torch.cat(turned, 1)


def split_words(topics: Int[Tensor, "word"], seed: int = 0) -> Bool[Tensor, "word"]:
    """Half of each topic's words, at random: True for those to choose on, False for those to test on."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(topics), dtype=torch.bool)
    for topic in topics.unique():
        words = (topics == topic).nonzero().flatten()
        chosen[words[torch.randperm(len(words), generator=generator)[: len(words) // 2]]] = True
    return chosen


class Suspect(NamedTuple):
    """A neuron that seemed to react to two topics, and what words that had no part in choosing it say.

    Attributes:
        neuron: Its number.
        pair: The two topics, the one with the larger score first.
        chosen_on: The weaker topic's score on the words that it was chosen on.
        tested_on: The weaker topic's score on the other words.
        p: That of :func:`pair_p_value` on the other words, adjusted by Holm for the number of suspects.
    """

    neuron: int
    pair: tuple[int, int]
    chosen_on: float
    tested_on: float
    p: float


@dataclass(frozen=True)
class Hunt:
    """What a hunt found.

    Attributes:
        suspects: The most suspicious neurons first.
        level: The adjusted p-value below which a suspect counts as confirmed.
    """

    suspects: tuple[Suspect, ...]
    level: float

    @property
    def confirmed(self) -> tuple[Suspect, ...]:
        """The suspects that the other words confirm."""
        return tuple(suspect for suspect in self.suspects if suspect.p < self.level)


def hunt(
    choose_on: Float[Tensor, "word neuron"],
    test_on: Float[Tensor, "word neuron"],
    topics: Int[Tensor, "word"],
    n_topics: int,
    candidates: int = CANDIDATES,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Hunt:
    """Search all neurons and pairs of topics on half of the words, and test the best few on the other half.

    Args:
        choose_on: Mean activations on the words; only those of half of each topic's words are read.
        test_on: The same words, possibly in other texts; only the other half is read.
        topics: The topic of each word.
        n_topics: How many topics there are.
        candidates: How many neurons are tested.
        draws: Permutations for each test.
        level: From which adjusted p-value on a neuron is not confirmed.
        seed: Of the split and of the permutations.

    Raises:
        ValueError: if the two sets of activations do not have the same words and neurons.
    """
    if choose_on.shape != test_on.shape:
        raise ValueError(f"choose_on has the shape {list(choose_on.shape)} and test_on {list(test_on.shape)}.")
    chosen = split_words(topics, seed)
    second, pairs = best_pairs(topic_scores(choose_on[chosen], topics[chosen], n_topics))
    neurons = second.topk(min(candidates, len(second))).indices
    values, labels = test_on[~chosen], topics[~chosen]
    scores = topic_scores(values, labels, n_topics)
    generator = torch.Generator().manual_seed(seed)
    named = [tuple(pairs[neuron].tolist()) for neuron in neurons]
    p = [
        pair_p_value(values[:, neuron], labels, pair, draws, generator)
        for neuron, pair in zip(neurons, named, strict=True)
    ]
    adjusted = holm(torch.tensor(p, dtype=torch.float64)).tolist()
    found = [
        Suspect(int(neuron), pair, second[neuron].item(), scores[list(pair), neuron].min().item(), q)
        for neuron, pair, q in zip(neurons, named, adjusted, strict=True)
    ]
    return Hunt(tuple(found), level)
