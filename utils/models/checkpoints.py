"""The weights of one training run at several steps, stacked in one file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

CHECKPOINTS = "checkpoints.safetensors"
_STEPS = "steps"


def save_checkpoints(
    folder: Path, kept: Mapping[int, Mapping[str, Tensor]], dtype: torch.dtype = torch.float16
) -> None:
    """Write ``checkpoints.safetensors``: for each weight one tensor [step, ...], and the steps.

    Args:
        folder: The model's folder.
        kept: step -> weights, named as in the folder's ``model.safetensors``.
        dtype: How to store them.
    """
    from safetensors.torch import save_file

    steps = sorted(kept)
    stacked = {name: torch.stack([kept[step][name].detach().to(dtype) for step in steps]) for name in kept[steps[0]]}
    save_file({**stacked, _STEPS: torch.tensor(steps)}, folder / CHECKPOINTS)


def steps_of(folder: Path) -> list[int]:
    """The steps at which a folder's model was kept, in order; empty if it has no checkpoints."""
    from safetensors import safe_open

    if not (folder / CHECKPOINTS).is_file():
        return []
    with safe_open(folder / CHECKPOINTS, framework="pt") as file:
        return file.get_tensor(_STEPS).tolist()


def weights_at(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights at one step, float32.

    Raises:
        ValueError: if the model was not kept at this step; the message gives the nearest ones.
    """
    from safetensors import safe_open

    steps = steps_of(folder)
    if step not in steps:
        near = sorted(sorted(steps, key=lambda kept: abs(kept - step))[:4])
        has = f"the nearest are {', '.join(map(str, near))}" if steps else "it has no checkpoints"
        raise ValueError(f"{folder.name} was not kept at step {step}: {has}.")
    row = steps.index(step)
    with safe_open(folder / CHECKPOINTS, framework="pt") as file:
        return {name: file.get_slice(name)[row].float() for name in file.keys() if name != _STEPS}  # noqa: SIM118
