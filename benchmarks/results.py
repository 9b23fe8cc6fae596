"""What a benchmark reports: one piece of work, done by a peer and by this library in the same run."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        work: What was computed, with its size.
        peer: Who else computed it.
        peer_seconds: Seconds of the peer: processor time on one CPU thread, else wall time.
        seconds: Seconds of this library.
        error: Largest absolute difference between the two results (ACDC: number of decisions that differ).
        target: The ratio to reach, if there is one.
        threads: Torch's threads in this run; 0 on a GPU.
        extrapolated: Whether the peer was timed on a part of the work and scaled up.
    """

    work: str
    peer: str
    peer_seconds: float
    seconds: float
    error: float
    target: float | None = None
    threads: int = 1
    extrapolated: bool = False

    @property
    def ratio(self) -> float:
        """How many times faster this library was."""
        return self.peer_seconds / self.seconds


def devices() -> list[str]:
    """Where to measure: the CPU, and a GPU where there is one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def threads_of(device: str) -> int:
    """Torch's threads on the CPU; 0 on a GPU."""
    return 0 if device == "cuda" else torch.get_num_threads()


def as_markdown(results: Iterable[Result]) -> str:
    """A table of results."""
    columns = ("work", "peer", "where", "peer, s", "ours, s", "ratio", "to reach", "largest error")
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    return head + "".join(_row(result) for result in results)


def show(results: Iterable[Result]) -> None:
    """Print a table of results."""
    print(as_markdown(results))


def _row(result: Result) -> str:
    where = f"CPU, {result.threads} thread{'s' * (result.threads > 1)}" if result.threads else "GPU"
    cells = (
        result.work,
        result.peer,
        where,
        f"{result.peer_seconds:.3g}{' (extrapolated)' if result.extrapolated else ''}",
        f"{result.seconds:.3g}",
        f"**{result.ratio:.1f}x**",
        f"{result.target:g}x" if result.target else "",
        f"{result.error:.0e}",
    )
    return f"| {' | '.join(cells)} |\n"
