"""Rows of the table of ratios: what was measured, against what, and what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bittern.benchmarks.speed.report import Table
from bittern.benchmarks.speed.timing import Spread


@dataclass(frozen=True)
class Ratio:
    """One row.

    Attributes:
        what: what was measured.
        against: what its value is divided by.
        value: the ratio, over the rounds.
        wanted: what it is to reach; None where nothing is wanted.
        at_least: whether more is better.
        raw: the single values that it was taken from, by name.
    """

    what: str
    against: str
    value: Spread
    wanted: float | None = None
    at_least: bool = False
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """What is wanted, as it is printed."""
        if self.wanted is None:
            return ""
        return f"{'>=' if self.at_least else '<='} {self.wanted:g}"

    def cells(self) -> list[str]:
        """Against what, the ratio, and what is wanted, as they are printed."""
        return [self.against, self.value.text(), self.target]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "what": self.what,
            "against": self.against,
            "ratio": self.value.to_json(),
            "wanted": self.wanted,
            "at_least": self.at_least,
            "raw": self.raw,
        }


HEADS = ("", "against", "ratio", "wanted")


def ratio_table(title: str, ratios: Sequence[Ratio], notes: Sequence[str] = ()) -> Table:
    """The rows as they are printed."""
    rows = [[ratio.what, *ratio.cells()] for ratio in ratios]
    return Table(title, list(HEADS), rows, notes)


def short(rows: int) -> str:
    """100k, 2M: a number of rows."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if rows >= size and rows % (size // 10) == 0:
            return f"{rows / size:g}{letter}"
    return str(rows)


def once(value: float) -> Spread:
    """A value that was measured once."""
    return Spread(value, value, value)
