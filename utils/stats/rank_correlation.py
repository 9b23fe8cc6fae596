"""Whether two quantities put the same items in the same order."""

import torch
from jaxtyping import Float
from torch import Tensor

from utils.stats.intervals import Interval
from utils.stats.samples import check_level


def ranks(values: Float[Tensor, "*rest item"]) -> Float[Tensor, "*rest item"]:
    """The rank of each item along the last dimension, from 1; equal items share their mean rank."""
    from scipy.stats import rankdata

    values = torch.as_tensor(values)
    return torch.from_numpy(rankdata(values.detach().cpu().numpy(), axis=-1)).to(values.device)


def spearman(a: Float[Tensor, "*rest item"], b: Float[Tensor, "*rest item"]) -> Float[Tensor, "*rest"]:
    """Spearman's rank correlation along the last dimension; the others broadcast.

    NaN where all items of ``a``, or of ``b``, are equal.

    Raises:
        ValueError: if ``a`` and ``b`` have different numbers of items.
    """
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if a.shape[-1:] != b.shape[-1:]:
        raise ValueError(f"spearman pairs the items of a and b: {a.shape[-1]} and {b.shape[-1]} do not pair.")
    a, b = (ranked - ranked.mean(-1, keepdim=True) for ranked in (ranks(a), ranks(b)))
    correlation = (a * b).sum(-1) / ((a**2).sum(-1) * (b**2).sum(-1)).sqrt()
    return correlation.clamp(-1, 1).to(torch.get_default_dtype())


def spearman_interval(a: Float[Tensor, "*rest item"], b: Float[Tensor, "*rest item"], level: float = 0.95) -> Interval:
    """The interval of Spearman's correlation, over items; for one over prompts, bootstrap the prompts' correlations.

    Fisher's transformation with the standard error of Bonett & Wright, https://doi.org/10.1007/BF02294183.

    Raises:
        ValueError: if there are fewer than four items, or ``level`` is not between 0 and 1.
    """
    check_level(level)
    r, n = spearman(a, b), torch.as_tensor(a).shape[-1]
    if n < 4:
        raise ValueError(f"an interval of a rank correlation needs at least four items, not {n}.")
    half = torch.special.ndtri(torch.tensor((1 + level) / 2)) * ((1 + r**2 / 2) / (n - 3)).sqrt()
    return Interval((r.atanh() - half).tanh(), (r.atanh() + half).tanh())
