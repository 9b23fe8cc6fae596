"""Bring dead latents back: the auxiliary loss of TopK, and resampling.

A latent that no input activates gets no gradient and stays dead. Either it is asked to explain what the others leave
over (Gao et al. 2024, https://arxiv.org/abs/2406.04093, appendix A.2), or it starts anew from an input that the
dictionary explains badly (Bricken et al. 2023, https://transformer-circuits.pub/2023/monosemantic-features).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from utils.sae.dictionary import Dictionary

RESAMPLED_ENCODER_NORM = 0.2


def aux_loss(
    dictionary: Dictionary,
    x: Float[Tensor, "batch d_in"],
    residual: Float[Tensor, "batch d_out"],
    dead: Bool[Tensor, "latent"],
) -> Float[Tensor, ""]:
    """The squared error of the dead latents' reconstruction of the residual.

    Args:
        dictionary: Being trained.
        x: The encoder's input.
        residual: What the reconstruction left over.
        dead: Which latents count as dead. The largest d_in / 2 of them take part for each input.
    """
    chosen, bias = dead.nonzero().flatten(), getattr(dictionary, dictionary.encoder_biases[0])
    k = min(dictionary.d_in // 2, len(chosen))
    pre = dictionary.centred(x) @ dictionary.encoder[chosen].T + bias[chosen]
    values, places = pre.topk(k, sorted=False)
    latents = torch.zeros_like(pre).scatter(1, places, values)  # negative ones too: they are what has to change
    return (latents @ dictionary.W_dec[chosen] - residual.detach()).pow(2).sum(1).mean()


@torch.no_grad()
def resample(
    dictionary: Dictionary,
    x: Float[Tensor, "batch d_in"],
    y: Float[Tensor, "batch d_out"],
    dead: Bool[Tensor, "latent"],
    optimizer: torch.optim.Optimizer,
    seed: int = 0,
) -> None:
    """Point each dead latent at an input drawn with probability proportional to its squared error, squared.

    Args:
        dictionary: Its weights are changed in place.
        x: Inputs to draw from.
        y: Their targets.
        dead: Which latents start anew.
        optimizer: Its memory of those latents is cleared.
        seed: Of the draw.
    """
    count = int(dead.sum())
    if not count:
        return
    residual = y - dictionary(x)
    rng = torch.Generator().manual_seed(seed)
    weight = residual.pow(2).sum(1).pow(2).cpu()
    rows = torch.multinomial(weight, count, replacement=True, generator=rng).to(x.device)
    norms = dictionary.encoder.norm(dim=1)
    norm = norms.mean() if dead.all() else norms[~dead].mean()
    read, written = dictionary.centred(x)[rows], (residual if dictionary.is_transcoder else dictionary.centred(x))[rows]
    biases = [getattr(dictionary, bias) for bias in dictionary.encoder_biases]
    dictionary.encoder[dead] = RESAMPLED_ENCODER_NORM * norm * F.normalize(read, dim=1)
    dictionary.W_dec[dead] = F.normalize(written, dim=1)
    for bias in biases:
        bias[dead] = 0.0
    for parameter in (dictionary.encoder, dictionary.W_dec, *biases):
        for memory in ("exp_avg", "exp_avg_sq"):
            if memory in optimizer.state.get(parameter, {}):
                optimizer.state[parameter][memory][dead] = 0.0
    dictionary.idle_steps[dead] = 0.0
