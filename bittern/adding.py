"""The answer to `add`: batches as they are committed, and the totals at the end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Self

from bittern.index.observation import AddResult, AddStatus

MAX_FAILURES_KEPT = 1_000
"""Failures that `AddTotals` keeps word for word; all of them are counted."""


@dataclass(slots=True)
class AddTotals:
    """What became of the items so far.

    Attributes:
        added: items stored.
        overwritten: items stored in place of older ones.
        skipped: items that were there already.
        failed: items that could not be used.
        observations: how many observations the stored items became.
        failures: the first 1,000 failures, with their reasons.
    """

    added: int = 0
    overwritten: int = 0
    skipped: int = 0
    failed: int = 0
    observations: int = 0
    failures: list[AddResult] = field(default_factory=list)

    @property
    def items(self) -> int:
        """How many items have been answered."""
        return self.added + self.overwritten + self.skipped + self.failed

    def count(self, result: AddResult) -> None:
        """Take one more result into account."""
        if result.status is AddStatus.ADDED:
            self.added += 1
        elif result.status is AddStatus.OVERWRITTEN:
            self.overwritten += 1
        elif result.status is AddStatus.SKIPPED:
            self.skipped += 1
            return
        else:
            self.failed += 1
            if len(self.failures) < MAX_FAILURES_KEPT:
                self.failures.append(result)
            return
        self.observations += result.observations

    def __str__(self) -> str:
        """One line, e.g. ``3 added (7 observations), 1 failed``."""
        parts = [f"{self.added} added"]
        if self.overwritten:
            parts.append(f"{self.overwritten} overwritten")
        parts[-1] += f" ({self.observations} observations)"
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        parts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(parts)


class Adding(Iterator[list[AddResult]]):
    """Work that happens while it is iterated: one list of results per committed batch.

    Attributes:
        totals: what became of the items answered so far.
    """

    def __init__(self, batches: Iterator[list[AddResult]]) -> None:
        self._batches = batches
        self.totals = AddTotals()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[AddResult]:
        batch = next(self._batches)
        for result in batch:
            self.totals.count(result)
        return batch

    def wait(self) -> AddTotals:
        """Add everything that is left and return the totals."""
        for _ in self:
            pass
        return self.totals

    def close(self) -> None:
        """Stop before the next batch. What has been answered stays."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def __repr__(self) -> str:
        return f"<Adding: {self.totals}; iterate it, or call wait(), to go on>"
