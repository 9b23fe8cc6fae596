"""Where the largest entries of a matrix are, found in few passes over it.

Of the pre-activations of 6,144 latents a TopK dictionary keeps 32. Each row is cut into blocks: the k-th largest of the
blocks' maxima bounds the row's k-th largest entry from below, since k blocks reach it. Hardly more than k entries do,
and only among those is the k-th largest looked for. NumPy compares and partitions with the CPU's vector instructions.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

LONGEST_BLOCK = 16
BLOCKS_PER_ENTRY = 4
"""With so many blocks for each of the k entries, two of these seldom share one."""


def largest(matrix: Float[Tensor, "row column"], k: int) -> tuple[Float[Tensor, "entry"], Int[Tensor, "entry"]]:
    """Each row's k largest entries, and their places in the flattened matrix, ascending; of equal k-th ones, all.

    Args:
        matrix: On the CPU.
        k: Between 1 and the number of columns.
    """
    places = that_reach(matrix, lower_bound(matrix, k))
    values = matrix.flatten()[places]
    chosen = largest_in_rows(values, rows_of(places, matrix.shape[1]), k)
    return values[chosen], places[chosen]


def lower_bound(matrix: Float[Tensor, "row column"], k: int) -> Float[Tensor, "row"]:
    """A number for each row that at least k of its entries reach."""
    n_columns = matrix.shape[1]
    length = min(LONGEST_BLOCK, max(1, n_columns // (BLOCKS_PER_ENTRY * k)))
    blocks = n_columns // length  # up to ``length - 1`` last columns are in none
    maxima = matrix[:, : length * blocks].unflatten(1, (length, blocks)).amax(1)
    return torch.from_numpy(_kth_largest(maxima.numpy(), k))


def that_reach(matrix: Float[Tensor, "row column"], bound: Float[Tensor, "row"]) -> Int[Tensor, "entry"]:
    """The places, ascending, of the entries that are no smaller than a number for their row."""
    return torch.from_numpy(np.flatnonzero(matrix.numpy() >= bound.numpy()[:, None]))


def rows_of(places: Int[Tensor, "entry"], n_columns: int) -> Int[Tensor, "entry"]:
    """The rows of places in a flattened matrix. NumPy divides whole numbers several times as fast as PyTorch."""
    return torch.from_numpy(places.numpy() // n_columns)


def largest_in_rows(values: Float[Tensor, "entry"], rows: Int[Tensor, "entry"], k: int) -> Int[Tensor, "chosen"]:
    """Which of some entries are the k largest of their row, where ``rows`` ascends and each row has k entries or more.

    A row without an entry that can be compared, one of NaN, gets none.
    """
    values, rows = values.numpy(), rows.numpy()
    per_row = np.bincount(rows)
    table = np.full((len(per_row), per_row.max(initial=k)), -np.inf, dtype=values.dtype)
    table[np.arange(table.shape[1]) < per_row[:, None]] = values  # each row's entries, and nothing after them
    return torch.from_numpy(np.flatnonzero(values >= _kth_largest(table, k)[rows]))


def _kth_largest(table: np.ndarray, k: int) -> np.ndarray:
    """The k-th largest entry of each row."""
    return np.partition(table, table.shape[1] - k, axis=1)[:, table.shape[1] - k]
