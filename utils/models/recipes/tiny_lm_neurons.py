"""Neurons of a language model of the micro-world that react to words of two unrelated topics.

Elhage et al. 2022 say why there may be such neurons, https://arxiv.org/abs/2209.10652. The test corrects for all
neurons and topics at once with the largest statistic of each permutation: Westfall and Young 1993.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.models.measurement import Findings, Table, proportion
from utils.models.prompts import Stories, story_batch
from utils.models.world.latents import WORD_CLASSES
from utils.models.world.topics import TOPICS
from utils.models.world.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STORIES, SEED = 600, 3
PERMUTATIONS, LEVEL = 300, 0.01
SHOWN, EXAMPLES = 8, 3


@dataclass(frozen=True)
class WordActivations:
    """What each neuron does on each word that belongs to one topic alone.

    Attributes:
        words: The words' token ids [word].
        topics: Index into ``TOPICS`` of each word [word].
        values: Mean activation over the words' occurrences in topic sentences [word, neuron]; neurons of layer 0 first.
    """

    words: Int[Tensor, "word"]
    topics: Int[Tensor, "word"]
    values: Float[Tensor, "word neuron"]


@torch.no_grad()
def word_activations(model: "TransformerBridge", stories: Stories) -> WordActivations:
    """Mean activation of every neuron on every word of one topic alone that occurs in the stories."""
    _, cache = model.run_with_cache(stories.tokens, names_filter=lambda name: name.endswith("mlp.hook_post"))
    topic_of = torch.full((len(VOCABULARY),), -1)
    for index, topic in enumerate(TOPICS):
        topic_of[[VOCABULARY.index(word) for word in WORD_CLASSES[f"word of {topic} alone"]]] = index
    seen = (topic_of[stories.tokens] >= 0) & (stories.topics == topic_of[stories.tokens])
    words, row = stories.tokens[seen].unique(return_inverse=True)
    neurons = torch.cat([cache["post", layer][seen] for layer in range(model.cfg.n_layers)], -1)
    sums = torch.zeros(len(words), neurons.shape[1]).index_add_(0, row, neurons)
    return WordActivations(words, topic_of[words], sums / row.bincount()[:, None])


def topic_statistics(
    values: Float[Tensor, "word neuron"], topics: Int[Tensor, "word"]
) -> Float[Tensor, "topic neuron"]:
    """Mean over a topic's words less the mean over all other words, in standard errors under no effect (a z score)."""
    values = (values - values.mean(0)) / values.std(0)
    members = torch.nn.functional.one_hot(topics, len(TOPICS)).to(values.dtype)  # [word, topic]
    inside = members.sum(0)[:, None]
    outside = len(values) - inside
    sums = members.mT @ values  # the values' mean is zero: the sum outside is -sums
    return sums * (1 / inside + 1 / outside) / (1 / inside + 1 / outside).sqrt()


def largest_by_chance(seen: WordActivations, permutations: int = PERMUTATIONS, seed: int = 0) -> Float[Tensor, "draw"]:
    """The largest statistic of any neuron and topic when the words' topics are shuffled, in each permutation."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = (seen.topics[torch.randperm(len(seen.topics), generator=generator)] for _ in range(permutations))
    return torch.stack([topic_statistics(seen.values, topics).max() for topics in shuffled])


def random_directions(seen: WordActivations, n_layers: int, seed: int = 0) -> WordActivations:
    """The control: each layer's neurons replaced by as many random directions of the same space."""
    generator = torch.Generator().manual_seed(seed)
    layers = seen.values.chunk(n_layers, 1)
    turned = [v @ torch.linalg.qr(torch.randn(v.shape[1], v.shape[1], generator=generator)).Q for v in layers]
    return WordActivations(seen.words, seen.topics, torch.cat(turned, 1))


def _words_that_excite(seen: WordActivations, neuron: int, topic: int) -> str:
    values = seen.values[:, neuron].masked_fill(seen.topics != topic, -torch.inf)
    return " ".join(VOCABULARY[seen.words[i]] for i in values.topk(EXAMPLES).indices)


def measure_neurons(model: "TransformerBridge") -> Findings:
    """How many neurons react to the words of exactly two topics, and which do so most."""
    seen = word_activations(model, story_batch(STORIES, SEED))
    directions = random_directions(seen, model.cfg.n_layers)
    found, counts = {}, {}
    for key, several, of in (("neurons", seen, "neurons"), ("directions", directions, "random directions")):
        threshold = largest_by_chance(several).quantile(1 - LEVEL)
        statistics = topic_statistics(several.values, several.topics)
        counts[key] = statistics, statistics > threshold
        what = f"share of {of} that react to words of"
        found[f"polysemantic_{key}"] = proportion(counts[key][1].sum(0) == 2, f"{what} exactly two topics")
        found[f"monosemantic_{key}"] = proportion(counts[key][1].sum(0) == 1, f"{what} exactly one topic")
    statistics, above = counts["neurons"]
    second = statistics.topk(2, 0).values[1].masked_fill(above.sum(0) != 2, -torch.inf)
    rows = []
    for neuron in second.topk(SHOWN).indices.tolist():
        if second[neuron] == -torch.inf:
            break
        layer, index = divmod(neuron, model.cfg.d_mlp)
        row: list[str | float] = [f"{layer}.{index}"]
        for topic in statistics[:, neuron].topk(2).indices.tolist():
            examples = _words_that_excite(seen, neuron, topic)
            row += [f"{TOPICS[topic]}: {examples}", round(statistics[topic, neuron].item(), 2)]
        rows.append(row)
    columns = ("neuron", "first topic: its words that excite it most", "z", "second topic", "z of second")
    title = f"Neurons that react to words of two topics (permutation test over all neurons and topics, p < {LEVEL})"
    return Findings(found, {"polysemantic_neurons": Table(title, columns, rows, 0.1)})
