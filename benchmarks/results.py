"""What a benchmark reports: one piece of work, done by a peer and by this library in the same run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        work: What was computed, with its size.
        peer: Who else computed it.
        peer_seconds: Wall seconds of the peer.
        seconds: Wall seconds of this library.
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
