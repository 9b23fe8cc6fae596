"""Matryoshka: nested dictionaries, each of which must do without the rest (Bussmann et al. 2025).

Source: https://arxiv.org/abs/2503.17547
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from utils.sae.active_pairs import Pairs, decode_pairs
from utils.sae.batch_topk import BatchTopK


class Matryoshka(BatchTopK):
    """A BatchTopK dictionary whose first latents also reconstruct the input on their own.

    The first latents have to stay general. In a plain dictionary a specific latent ("elephant") may take over what a
    general one ("starts with e") stands for, which is called absorption.

    Args:
        d_in: Width of the activations that are read.
        n_latents: Number of latents.
        k: How many latents are active on average.
        widths: How many latents each level has, ascending; the whole dictionary is added as the last level.
        options: As in :class:`Dictionary`.

    Raises:
        ValueError: if the widths do not ascend, or exceed the number of latents.
    """

    kind = "matryoshka"

    def __init__(self, d_in: int, n_latents: int, *, k: int, widths: Sequence[int], **options: Any) -> None:
        super().__init__(d_in, n_latents, k=k, **options)
        self.widths = tuple(widths) if widths and widths[-1] == n_latents else (*widths, n_latents)
        if list(self.widths) != sorted(set(self.widths)) or not 0 < self.widths[0] <= self.widths[-1] <= n_latents:
            raise ValueError(f"Matryoshka widths must ascend from 1 to {n_latents} at most, got {list(widths)}.")

    def reconstructions(
        self, pre: Float[Tensor, "batch latent"], latents: Float[Tensor, "batch latent"]
    ) -> list[Float[Tensor, "batch d_out"]]:
        return self._nested(latents[:, start:end] @ self.W_dec[start:end] for start, end in self._levels())

    def reconstructions_of_pairs(self, values: Float[Tensor, "pair"], pairs: Pairs) -> list[Tensor]:
        inside = [(pairs.latents >= start) & (pairs.latents < end) for start, end in self._levels()]
        return self._nested(decode_pairs(values[level], pairs.where(level), self.W_dec) for level in inside)

    def _levels(self) -> list[tuple[int, int]]:
        return list(zip((0, *self.widths), self.widths, strict=False))

    def _nested(self, parts) -> list[Tensor]:
        outputs = [self.b_dec]
        for part in parts:
            outputs.append(outputs[-1] + part)
        return outputs[1:]
