"""Replace what components write, by their mean or by what they write on another input."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from utils.models.mystery.network import Edit, Network


@torch.no_grad()
def mean_outputs(network: Network, tokens: Tensor) -> dict[str, Tensor]:
    """What each component writes on average over inputs [batch, n_ctx]: component -> [query, d_model]."""
    means: dict[str, Tensor] = {}

    def keep(component: str, output: Tensor) -> Tensor:
        means[component] = output.mean(0)
        return output

    network(tokens, keep)
    return means


def replace_by(means: Mapping[str, Tensor], components: Collection[str]) -> Edit:
    """An edit that has some components write their mean: mean ablation."""
    return lambda component, output: means[component].expand_as(output) if component in components else output


def average(components: Collection[str]) -> Edit:
    """An edit that has some components write their mean over the batch, as it is after the edits below."""
    return lambda component, output: output.mean(0).expand_as(output) if component in components else output


def swap(components: Collection[str]) -> Edit:
    """An edit that has some components write what they write on the batch's next input: interchange noise."""
    return lambda component, output: output.roll(1, 0) if component in components else output


@torch.no_grad()
def answers(network: Network, tokens: Tensor, edit: Edit | None = None) -> Tensor:
    """The token [batch] that the network finds likeliest at the last position."""
    return network(tokens, edit).argmax(-1)
