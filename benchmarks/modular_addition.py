"""One training step of modular addition: the fast path against the plain three-position transformer.

    python -m benchmarks.modular_addition

Both sides take the same AdamW step on the same pairs, in turn. Before they are timed their logits and gradients are
compared in double precision, in which no neuron sits so near zero that rounding decides whether it is on.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.results import Result, devices, show, threads_of
from utils.models.modular_addition import ModularAddition, answer_loss, training_pairs

SHAPES = ((113, 0.3), (59, 0.5))
LARGEST_ERROR = 1e-5
ROUNDS = 25
TARGET = 4.0


def plain_loss(model: ModularAddition, a: Tensor, b: Tensor) -> Tensor:
    """The loss at "=" after a forward pass through all three positions."""
    tokens = torch.stack([a, b, torch.full_like(a, model.p)], 1)
    return F.cross_entropy(model(tokens)[:, -1], (a + b) % model.p)


def fast_loss(model: ModularAddition, a: Tensor, b: Tensor) -> Tensor:
    """The loss that training uses."""
    return answer_loss(model.fast_logits(a, b), (a + b) % model.p)


def largest_gradient_error(model: ModularAddition, a: Tensor, b: Tensor) -> float:
    """The largest difference between the two sides' gradients, relative to each weight's largest gradient."""
    precise = ModularAddition.from_native(model.native_weights()).to(a.device).double().requires_grad_(True)
    plain, fast = (torch.autograd.grad(loss(precise, a, b), precise.parameters()) for loss in (plain_loss, fast_loss))
    return max(((f - p).abs().max() / p.abs().max()).item() for f, p in zip(fast, plain, strict=True))


def seconds_of_a_step(losses: list[Callable], model: ModularAddition, a: Tensor, b: Tensor) -> list[float]:
    """The fewest seconds that a training step took with each loss, measured in turn: other work only adds to them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    times = [[] for _ in losses]
    for _ in range(ROUNDS):
        for loss, taken in zip(losses, times, strict=True):
            start = time.perf_counter()
            optimizer.zero_grad()
            loss(model, a, b).backward()
            optimizer.step()
            if a.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def measure(p: int, share: float, device: str) -> Result:
    """One row of the table.

    Raises:
        AssertionError: if the two sides' gradients differ.
    """
    model = ModularAddition(p, seed=0).to(device)
    a, b = training_pairs(p, share, seed=0).nonzero().T.contiguous().to(device)
    error = largest_gradient_error(model, a, b)
    assert error < LARGEST_ERROR, f"gradients differ by {error:.1e}"
    plain, fast = seconds_of_a_step([plain_loss, fast_loss], model, a, b)
    work = f"modular addition training step, p = {p}, {len(a)} pairs"
    return Result(work, "the plain three-position forward", plain, fast, error, TARGET, threads_of(device))


def run(quick: bool = False) -> list[Result]:
    """Two shapes on the CPU and, where there is one, on a GPU."""
    shapes = SHAPES[1:] if quick else SHAPES
    return [measure(p, share, device) for device in devices() for p, share in shapes]


if __name__ == "__main__":
    show(run())
