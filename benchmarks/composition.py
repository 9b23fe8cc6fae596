"""K-composition scores of all pairs of heads, at GPT-2 small's shape: this library against two peers.

    python -m benchmarks.composition

The first peer multiplies whole matrices of d_model x d_model, one pair at a time; it is timed on every ``STRIDE``-th
pair and scaled up, and the same pairs are compared. The second is TransformerLens's ``all_composition_scores``, on a
model with fewer layers, because it holds the small matrices of all pairs at once.
"""

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.gpt2_shape import gpt2_shape
from benchmarks.results import Result
from utils.composition import HeadWeights, composition_scores

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STRIDE, ROUNDS = 97, 3
VOCABULARY = 1000
LENS_LAYERS = 6


def run(quick: bool = False) -> list[Result]:
    """Time both sides on random weights; ``quick`` takes a smaller model."""
    shape = {"d_model": 192, "layers": 4} if quick else {}
    model = gpt2_shape(vocab=VOCABULARY, **shape)
    few = gpt2_shape(vocab=VOCABULARY, **{**shape, "layers": LENS_LAYERS})
    return [against_whole_matrices(HeadWeights.of(model)), against_transformer_lens(few)]


def against_whole_matrices(heads: HeadWeights) -> Result:
    """All pairs here, some pairs there."""
    seconds, scores = timed(lambda: composition_scores(heads, "K"), ROUNDS)
    everyone = list(itertools.product(range(heads.n_layers), range(heads.n_heads)))
    pairs = [(sender, receiver) for sender in everyone for receiver in everyone if sender[0] < receiver[0]]
    some = pairs[::STRIDE]
    peer_seconds, expected = timed(lambda: torch.stack([whole_matrices(heads, *pair) for pair in some]), 1)
    found = torch.stack([scores[sender + receiver] for sender, receiver in some])
    return Result(
        work=f"K-composition, {len(pairs)} pairs of {len(everyone)} heads",
        peer="a loop over whole matrices",
        peer_seconds=peer_seconds * len(pairs) / len(some),
        seconds=seconds,
        error=(found - expected).abs().max().item(),
        threads=torch.get_num_threads(),
        extrapolated=True,
    )


def against_transformer_lens(model: "TransformerBridge") -> Result:
    """The same function of TransformerLens; reading the model's weights counts on both sides."""
    seconds, scores = timed(lambda: composition_scores(model, "K"), ROUNDS)
    peer_seconds, expected = timed(lambda: model.all_composition_scores("K").scores, 1)
    return Result(
        work=f"K-composition, {model.cfg.n_layers} layers of {model.cfg.n_heads} heads",
        peer="transformer_lens.all_composition_scores",
        peer_seconds=peer_seconds,
        seconds=seconds,
        error=(scores - expected).abs().max().item(),
        threads=torch.get_num_threads(),
    )


def whole_matrices(heads: HeadWeights, sender: tuple[int, int], receiver: tuple[int, int]) -> Tensor:
    """The definition, with every matrix made whole."""
    written = heads.W_V[sender] @ heads.W_O[sender]
    read = heads.W_K[receiver] @ heads.W_Q[receiver].T
    return (written @ read).norm() / (written.norm() * read.norm())


def timed(work: Callable[[], Tensor], rounds: int) -> tuple[float, Tensor]:
    """The shortest of several times, and the result."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


if __name__ == "__main__":
    for result in run():
        print(f"{result.work}: {result.ratio:.0f}x faster than {result.peer}, error {result.error:.1g}")
