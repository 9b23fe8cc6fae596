"""What is put in the place of an ablated component's output."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from utils.patching.inputs import checked_end

How = Literal["zero", "mean", "resample"]


@dataclass(frozen=True)
class Replacement:
    """What an ablated component writes instead.

    Attributes:
        how: "zero"; "mean" over the reference prompts; or "resample", the output on one of them, drawn for each prompt.
        reference: The prompts that "mean" and "resample" take from [reference, seq]; for "resample" others than those
            that are ablated, for a prompt may draw itself.
        reference_end: The last position of each reference prompt, where rows are padded; later ones are not read.
        per_position: Whether "mean" is taken at each position apart, or over all positions of all prompts together.
        seed: Of "resample". A prompt's components all come from the same reference prompt.

    Raises:
        ValueError: if ``how`` is not known, or there is no reference where one is needed.
    """

    how: How = "zero"
    reference: Int[Tensor, "reference seq"] | None = None
    reference_end: Int[Tensor, "reference"] | None = None
    per_position: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in ("zero", "mean", "resample"):
            raise ValueError(f"how must be 'zero', 'mean' or 'resample', not {self.how!r}")
        if self.how != "zero" and self.reference is None:
            raise ValueError(f"{self.how} ablation needs prompts to take from: reference=tokens")

    def of(self, like: Tensor, on_reference: Tensor | None, drawn: Int[Tensor, "prompt"]) -> Tensor:
        """What is written in place of ``like``.

        Args:
            like: A component's output [prompt, seq, *rest].
            on_reference: The same component's output on the reference [reference, seq, *rest]; None for "zero".
            drawn: :meth:`drawn_rows` of these prompts.

        Raises:
            ValueError: if there is a position that no reference prompt has.
        """
        if on_reference is None:
            return torch.zeros_like(like)
        if self.how == "mean" and not self.per_position:
            return on_reference[self._within()].mean(0).expand_as(like)
        seq = like.shape[1]
        if seq > int(self._last().max()) + 1:
            raise ValueError(
                f"the prompts have {seq} positions, and the longest reference prompt {int(self._last().max()) + 1}: "
                "give reference prompts of the same length, or take the mean over positions, per_position=False"
            )
        if self.how == "mean":
            within = self._within().view(*self.reference.shape, *[1] * (like.ndim - 2))[:, :seq]
            return ((on_reference[:, :seq] * within).sum(0) / within.sum(0)).expand_as(like)
        return on_reference[drawn, :seq]

    def drawn_rows(self, prompts: int) -> Int[Tensor, "prompt"]:
        """The reference prompt that each prompt takes from when it is resampled."""
        choices = 1 if self.reference is None else len(self.reference)
        return torch.randint(choices, (prompts,), generator=torch.Generator().manual_seed(self.seed))

    def _last(self) -> Int[Tensor, "reference"]:
        return checked_end(self.reference, self.reference_end)

    def _within(self) -> Bool[Tensor, "reference seq"]:
        return torch.arange(self.reference.shape[1], device=self.reference.device) <= self._last()[:, None]
