"""How much of a network's behaviour a set of components carries, by mean ablation."""

from collections.abc import Collection, Iterable
from itertools import combinations
from random import Random

import torch
from torch import Tensor

from utils.models.mystery.ablation import mean_outputs, replace_by
from utils.models.mystery.network import Network

FAITHFUL = 0.95
MINIMALITY_INPUTS = 400


@torch.no_grad()
def set_effects(network: Network, tokens: Tensor, sets: Iterable[Collection[str]]) -> list[tuple[float, float]]:
    """Keep only a set of components, and remove only it: what probability the network's own answers keep.

    Probabilities say more than answers here. Where there are only two answers, the smallest trace of a difference
    between their logits still decides, and a network that all but guesses seems to know.

    Args:
        network: The network.
        tokens: Inputs [batch, n_ctx]; the means are taken over them, at each position.
        sets: Sets of components.

    Returns:
        For each set the mean probability of the intact network's answers with all others mean-ablated, and with the
        set mean-ablated. For the empty set that is without all components, and intact.
    """
    means, own = mean_outputs(network, tokens), network(tokens).argmax(-1, keepdim=True)

    def probability(ablated: Collection[str]) -> float:
        return network(tokens, replace_by(means, ablated)).softmax(-1).gather(1, own).mean().item()

    everything = set(network.shape.components)
    return [(probability(everything - set(chosen)), probability(set(chosen))) for chosen in sets]


def is_minimal(network: Network, tokens: Tensor, circuit: Collection[str]) -> bool:
    """Whether no smaller set of components keeps 95 % of the answers' probability: all of them are tried."""
    tokens, components = tokens[:MINIMALITY_INPUTS], network.shape.components
    smaller = [chosen for size in range(len(circuit)) for chosen in combinations(components, size)]
    (_, intact), *effects = set_effects(network, tokens, [(), *smaller])
    return all(kept < FAITHFUL * intact for kept, _ in effects)


def other_sets(components: Collection[str], chosen: Collection[str], most: int, seed: int) -> list[tuple[str, ...]]:
    """The other sets of the same size: all of them, or ``most`` of them drawn at random."""
    others = [s for s in combinations(sorted(components), len(chosen)) if set(s) != set(chosen)]
    return others if len(others) <= most else Random(seed).sample(others, most)
