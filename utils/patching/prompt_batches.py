"""Work within a memory budget: a few prompts at a time through the layers."""

from collections.abc import Iterator

from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.transformer import Transformer

GIBIBYTE = 2**30


def prompt_batches(
    weights: Transformer, tokens: Int[Tensor, "prompt seq"], copies: int, positions: int, max_bytes: int, what: str
) -> Iterator[slice]:
    """Rows of ``tokens`` that go through the layers together, at least one, so that their copies stay in the budget.

    Args:
        copies: How many differing copies of each prompt there are.
        positions: How many positions of each copy are computed.
        what: The work, for the progress bar.
    """
    hidden = max(weights.d_model, *(0 if layer.b_in is None else len(layer.b_in) for layer in weights.layers))
    floats = copies * positions * (8 * weights.d_model + 2 * hidden)
    size = max(1, max_bytes // (weights.W_E.element_size() * floats))
    for first in tqdm(range(0, len(tokens), size), desc=what, disable=size >= len(tokens), leave=False):
        yield slice(first, first + size)
