"""What every function of this package asks of its samples."""

from collections.abc import Sequence

import torch
from torch import Tensor


def as_samples(values: Tensor | Sequence[float], name: str, at_least: int) -> Tensor:
    """The values as a tensor of single or double precision.

    Raises:
        ValueError: if there are fewer samples than ``at_least``, or one is not finite.
    """
    values = torch.as_tensor(values).detach()
    values = values if values.dtype in (torch.float32, torch.float64) else values.double()
    if values.ndim == 0 or len(values) < at_least:
        raise ValueError(f"{name} needs at least {at_least} samples along its first dimension: {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"{name} holds {int((~values.isfinite()).sum())} entries that are NaN or infinite.")
    return values


def check_level(level: float) -> None:
    """Raise a ValueError unless the level of an interval is between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1, such as 0.95, not {level!r}")
