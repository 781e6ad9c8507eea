"""Times that may be compared: contestants take turns, A B A B, in one process.

What slows the machine down for a while then slows down every contestant. A ratio is the median
of the ratios of each round, with its quartiles; a time is the median over the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import bar

Contestants = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a number measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Spread:
        """Of float [rounds]."""
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(median), float(low), float(high))

    def text(self, form: str = ".2f") -> str:
        """``median (low-high)``."""
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"

    def to_json(self) -> dict[str, float]:
        """As JSON values."""
        return {"median": self.median, "quartile1": self.low, "quartile3": self.high}


@dataclass(frozen=True)
class Rounds:
    """What `interleaved` measured.

    Attributes:
        seconds: per contestant, float64 [rounds].
    """

    seconds: Mapping[str, NDArray[np.float64]]

    def time(self, name: str, scale: float = 1.0) -> Spread:
        """One contestant's time in seconds, times `scale` (1e3 for milliseconds)."""
        return Spread.of(self.seconds[name] * scale)

    def ratio(self, name: str, to: str) -> Spread:
        """How many times as long as `to` it took, round by round."""
        return Spread.of(self.seconds[name] / self.seconds[to])

    def excess(self, name: str, over: str, scale: float = 1.0) -> Spread:
        """How much longer than `over` it took, round by round, in seconds times `scale`."""
        return Spread.of((self.seconds[name] - self.seconds[over]) * scale)

    def to_json(self) -> dict[str, Any]:
        """Every single time, in seconds."""
        return {name: [float(s) for s in times] for name, times in self.seconds.items()}


def interleaved(contestants: Contestants, *, rounds: int, warmup: int = 1) -> Rounds:
    """Time contestants in turns.

    Args:
        contestants: what to time, by name.
        rounds: timed turns of each.
        warmup: turns before those, thrown away.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with bar((warmup + rounds) * len(contestants)) as advance:
        for turn in range(warmup + rounds):
            for name, contestant in contestants.items():
                begun = perf_counter()
                contestant()
                took = perf_counter() - begun
                if turn >= warmup:
                    seconds[name].append(took)
                advance()
    return Rounds({name: np.array(times) for name, times in seconds.items()})
