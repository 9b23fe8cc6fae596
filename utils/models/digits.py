"""Handwritten digits of 8 x 8 pixels, their split, and the patches that a small vision transformer sees.

The 1,797 images are the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0), in the file that scikit-learn hands out as ``load_digits``. It lies beside
this module, so that the course needs neither scikit-learn nor a network.

Every writer filled in the same form of about 130 digits, and the file holds sheet after sheet: the labels show where
each begins. A random split puts every hand on both sides. Here the last four sheets are never trained on.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

FILE = Path(__file__).with_name("digits.csv.gz")
SIDE, PATCH = 8, 2
GRID = SIDE // PATCH
PATCHES = GRID**2
SHEETS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)
"""The number of the first image of each sheet."""
TRAINED_SHEETS = 10
KEPT_BACK = 200
SPLIT_SEED = 0
SPLITS = ("train", "known hands", "new hands")
PAPER = -1.0
"""The value of a pixel without ink; full ink is 1."""


@dataclass(frozen=True)
class Digits:
    """Images with what they show.

    Attributes:
        images: Pixels from -1 (paper) to 1 (ink), as the model takes them.
        labels: The digit, 0 to 9.
        sheets: The number of the sheet that each stands on, 0 to 13.
    """

    images: Float[Tensor, "image 1 8 8"]
    labels: Int[Tensor, "image"]
    sheets: Int[Tensor, "image"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Int[Tensor, "row"] | slice) -> "Digits":
        return Digits(self.images[rows], self.labels[rows], self.sheets[rows])

    def of(self, digit: int) -> "Digits":
        """The images of one digit."""
        return self[(self.labels == digit).nonzero()[:, 0]]


@cache
def _all_digits() -> Digits:
    table = torch.from_numpy(np.loadtxt(FILE, delimiter=",", dtype=np.float32))
    images = (table[:, :-1] / 8 + PAPER).view(-1, 1, SIDE, SIDE)
    sheets = torch.bucketize(torch.arange(len(table)), torch.tensor(SHEETS), right=True) - 1
    return Digits(images, table[:, -1].long(), sheets)


def load_digits(split: str = "all") -> Digits:
    """The digits of one split, in the file's order.

    Args:
        split: "train"; "known hands", images kept back from the trained sheets; "new hands", the last four sheets; or
            "all".

    Raises:
        ValueError: if there is no such split.
    """
    digits = _all_digits()
    if split == "all":
        return digits
    if split not in SPLITS:
        raise ValueError(f"split must be 'all' or one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    new = digits.sheets >= TRAINED_SHEETS
    order = torch.randperm(int((~new).sum()), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rows = {"known hands": order[:KEPT_BACK], "train": order[KEPT_BACK:], "new hands": new.nonzero()[:, 0]}
    return digits[rows[split].sort().values]


def to_patches(images: Float[Tensor, "image 1 8 8"]) -> Float[Tensor, "image patch 4"]:
    """Cut images into patches of 2 x 2 pixels, row by row. The model reads patch p at position p + 1, after CLS."""
    cut = images.view(-1, GRID, PATCH, GRID, PATCH)
    return cut.transpose(2, 3).reshape(-1, PATCHES, PATCH**2)


def from_patches(patches: Float[Tensor, "image patch 4"]) -> Float[Tensor, "image 1 8 8"]:
    """Put patches together again: the inverse of :func:`to_patches`."""
    return patches.view(-1, GRID, GRID, PATCH, PATCH).transpose(2, 3).reshape(-1, 1, SIDE, SIDE)


def shuffle_patches(images: Float[Tensor, "image 1 8 8"], order: Int[Tensor, "patch"]) -> Float[Tensor, "image 1 8 8"]:
    """Move patches: patch ``order[p]`` of the image comes to place p, in every image alike."""
    return from_patches(to_patches(images)[:, order])


def ink(images: Float[Tensor, "image 1 8 8"]) -> Float[Tensor, "image patch"]:
    """How much of each patch is ink, from 0 to 1."""
    return (to_patches(images).mean(-1) - PAPER) / 2
