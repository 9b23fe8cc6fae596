"""The search for the largest entries, against sorting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.sae.active_pairs import Pairs
from utils.sae.largest import largest


def assert_found(matrix, k):
    """All entries that reach the k-th of their sorted row, and their places."""
    kth = matrix.sort(1, descending=True).values[:, k - 1 : k]
    values, places = largest(matrix, k)
    assert places.equal((matrix >= kth).flatten().nonzero().flatten())
    assert values.equal(matrix[matrix >= kth])


@given(st.data())
def test_they_are_those_that_sorting_finds(data):
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 300))
    k, seed = data.draw(st.integers(1, columns)), data.draw(st.integers(0, 10**6))
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    if data.draw(st.booleans()):
        matrix = matrix.mul(2).round()  # many equal entries
    assert_found(matrix, k)


@pytest.mark.parametrize("matrix", [torch.zeros(3, 200), torch.arange(600.0).view(3, 200), -torch.ones(3, 200)])
def test_equal_entries_and_sorted_rows(matrix):
    assert_found(matrix, 5)


def test_all_of_the_largest_may_stand_in_one_block():
    """The blocks are interleaved: of 640 columns with k = 10, every 40th is in the same."""
    matrix = torch.rand(2, 640)
    matrix[:, ::40] += 2
    assert_found(matrix, 10)


@pytest.mark.parametrize("n_latents", [7, 2**16 + 3])
def test_sums_over_pairs_are_products_with_the_matrix_that_holds_them(n_latents):
    matrix = torch.zeros(5, n_latents)
    matrix[[0, 0, 3, 4], [n_latents - 1, 2, 2, 0]] = torch.tensor([0.5, -1.0, 2.0, 3.0])
    values, pairs = matrix[matrix != 0], Pairs.at(matrix.flatten().nonzero().flatten(), 5, n_latents)
    assert pairs.rows.tolist() == [0, 0, 3, 4]
    latents, rows = torch.randn(n_latents, 3), torch.randn(5, 3)
    torch.testing.assert_close(pairs.sum_in_rows(values, latents), matrix @ latents)
    torch.testing.assert_close(pairs.sum_in_latents(values, rows), matrix.T @ rows)
