"""How good a dictionary is as a stand-in for the activations: FVE, L0, dead latents, loss recovered."""

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from utils.models.measurement import Z_95, Measurement, mean, proportion
from utils.sae.activations import BATCH, SKIP, Site, check_hooks, collect_activations, spliced
from utils.sae.dictionary import Dictionary

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def evaluate(
    model: "TransformerBridge",
    dictionary: Dictionary,
    tokens: Int[Tensor, "batch position"],
    site: Site | None = None,
    *,
    ablation: Literal["mean", "zero"] = "mean",
) -> dict[str, Measurement]:
    """Measure a dictionary on text. Intervals take a row of tokens as one observation.

    Args:
        model: The model that it was trained on.
        dictionary: In the activations' own units.
        tokens: Text that was not trained on; each row starts with the token that training left out.
        site: By default the dictionary's own.
        ablation: What the loss is compared with: the activation replaced by its mean, or by zero.

    Returns:
        "fve": the fraction of variance explained; "l0": active latents per token; "dead": the share of latents that
        never fired; "scale": the length of the reconstruction, below 1 where it shrinks; "ce": the model's next-token
        loss in nats; "ce_spliced": the loss on the reconstruction; "ce_recovered": the share of the loss added by
        ablation that the reconstruction avoids.
    """
    site = site or dictionary.site
    read = collect_activations(model, tokens, [site.reads, site.target])
    x, y = read[site.reads], read[site.target]
    latents = dictionary.encode(x)
    output = dictionary.decode(latents) + dictionary.skipped(x)
    active = latents > 0
    level = y.mean(0) if ablation == "mean" else torch.zeros_like(y.mean(0))
    clean = token_losses(model, tokens)
    with spliced(model, dictionary, site):
        replaced = token_losses(model, tokens)
    with ablated(model, site, level):
        without = token_losses(model, tokens)
    return {
        "fve": variance_explained(y, output, len(tokens)),
        "l0": _by_row(active.sum(1).float(), len(tokens), "active latents per token"),
        "dead": proportion(~active.any(0), f"latents that never fire on {len(x)} tokens"),
        "scale": reconstruction_scale(y, output, len(tokens)),
        "ce": mean(clean.mean(1), "next-token loss of the model, nats"),
        "ce_spliced": mean(replaced.mean(1), "next-token loss on the reconstruction, nats"),
        "ce_recovered": ratio((without - replaced).sum(1), (without - clean).sum(1), f"loss recovered ({ablation})"),
    }


def variance_explained(y: Float[Tensor, "token d"], output: Float[Tensor, "token d"], rows: int) -> Measurement:
    """1 - squared error / variance, over all tokens and dimensions together.

    Args:
        y: Activations, row after row.
        output: Their reconstructions.
        rows: How many rows of text they come from.
    """
    error = (y - output).pow(2).sum(1).view(rows, -1).sum(1)
    variance = (y - y.mean(0)).pow(2).sum(1).view(rows, -1).sum(1)
    missed = ratio(error, variance, "fraction of variance explained")
    return Measurement(1 - missed.value, 1 - missed.high, 1 - missed.low, missed.n, missed.what)


def reconstruction_scale(y: Float[Tensor, "token d"], output: Float[Tensor, "token d"], rows: int) -> Measurement:
    """By which factor reconstructions are too short (below 1) or too long: 1 / the best factor to multiply them with.

    Args:
        y: Activations, row after row.
        output: Their reconstructions.
        rows: How many rows of text they come from.

    Source: Rajamanoharan et al. 2024, https://arxiv.org/abs/2404.16014, section 2.2 (relative reconstruction bias)
    """
    y, output = y - y.mean(0), output - y.mean(0)
    length = output.pow(2).sum(1).view(rows, -1).sum(1)
    agreement = (output * y).sum(1).view(rows, -1).sum(1)
    return ratio(length, agreement, "length of the reconstruction relative to the best length")


def ratio(top: Float[Tensor, "n"], bottom: Float[Tensor, "n"], what: str, **bars: float | None) -> Measurement:
    """The ratio of two sums over independent rows, with the interval of its linear approximation."""
    top, bottom = top.double(), bottom.double()
    value = (top.sum() / bottom.sum()).item()
    half = Z_95 * ((top - value * bottom).std() / len(top) ** 0.5 / bottom.mean().abs()).item()
    return Measurement(value, value - half, value + half, len(top), what, **bars)


def _by_row(values: Float[Tensor, "token"], rows: int, what: str) -> Measurement:
    return mean(values.view(rows, -1).mean(1), what)


def token_losses(model: "TransformerBridge", tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch next"]:
    """Next-token loss in nats at every position that a dictionary reads, except the last, which predicts nothing."""
    losses = []
    for rows in tokens.split(BATCH):
        logits = model(rows)[:, SKIP:-1]
        losses.append(F.cross_entropy(logits.transpose(1, 2), rows[:, SKIP + 1 :], reduction="none"))
    return torch.cat(losses)


def ablated(model: "TransformerBridge", site: Site, level: Float[Tensor, "d"]):
    """A context in which the site's activation is the same vector at every position but the first."""
    check_hooks(model, (site.target,))

    def replace(activation: Tensor, hook: object) -> Tensor:
        constant = level.expand_as(activation.flatten(2)).view_as(activation)
        return torch.cat([activation[:, :SKIP], constant[:, SKIP:]], 1)

    return model.hooks(fwd_hooks=[(site.target, replace)])
