"""What a model card holds: measured numbers with their intervals, and tables of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

Z_95 = 1.959964


@dataclass(frozen=True)
class Measurement:
    """A measured number with its 95 % interval.

    Attributes:
        value: The number; ``low`` and ``high`` are the ends of its interval.
        n: Over how many items.
        what: What was measured, in words.
        at_least: The bar that the value has to reach, if there is one.
        at_most: The bar that the value must not exceed, if there is one.
        tolerance: How far a second measurement of the same files may differ, on a machine that rounds differently.
    """

    value: float
    low: float
    high: float
    n: int
    what: str
    at_least: float | None = None
    at_most: float | None = None
    tolerance: float = 0.005

    @property
    def holds(self) -> bool:
        """Whether the value keeps to its bars."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def bar(self) -> str:
        """The bars in words, empty where there are none."""
        bars = {"at least": self.at_least, "at most": self.at_most}
        return ", ".join(f"{words} {bar:g}" for words, bar in bars.items() if bar is not None)

    def __str__(self) -> str:
        return f"{self.value:.3f}  [{self.low:.3f}, {self.high:.3f}]  n={self.n:<5}  {self.what}"


@dataclass(frozen=True)
class Table:
    """Measured numbers in rows and columns. ``tolerance`` is as in :class:`Measurement`."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str | float]]
    tolerance: float = 0.01


@dataclass(frozen=True)
class Findings:
    """Everything that was measured on one model."""

    measurements: Mapping[str, Measurement]
    tables: Mapping[str, Table] = field(default_factory=lambda: MappingProxyType({}))

    def __or__(self, other: "Findings") -> "Findings":
        return Findings({**self.measurements, **other.measurements}, {**self.tables, **other.tables})


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927, https://doi.org/10.2307/2276774)."""
    share, spread = successes / n, Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * (share * (1 - share) / n + Z_95**2 / (4 * n**2)) ** 0.5
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def proportion(right: Tensor, what: str, **bars: float | None) -> Measurement:
    """The share of true entries of a boolean tensor of any shape, with Wilson's interval."""
    n, successes = right.numel(), int(right.sum())
    return Measurement(successes / n, *wilson(successes, n), n, what, **bars)


def mean(values: Tensor, what: str, **bars: float | None) -> Measurement:
    """The mean of a tensor [n], with the normal interval of a mean."""
    values = values.double()
    centre, half = values.mean().item(), Z_95 * values.std().item() / len(values) ** 0.5
    return Measurement(centre, centre - half, centre + half, len(values), what, **bars)
