"""How long a piece of work takes."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds and the result: processor time on one CPU thread, which other programs change little, else wall time."""
    on_gpu = torch.cuda.is_available()
    clock = time.process_time if torch.get_num_threads() == 1 and not on_gpu else time.perf_counter
    if on_gpu:
        torch.cuda.synchronize()
    start = clock()
    result = work()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start, result
