"""What became of a job: counts, failures, rates of its stages, time left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from index.observation import AddResult, AddStatus

STAGES = ("list", "read", "decode", "network", "hash", "commit")
FAILURES_KEPT = 10_000
"""Failures that a report names; all are counted."""


@dataclass
class StageWork:
    """What one stage has done.

    Attributes:
        items: things that went through: files, or pieces of them from `decode` on.
        busy_s: seconds of work, added up over its workers.
        waited_s: seconds that it waited for the stage before, or for room in the next.
        bytes: bytes that it has read or written, where that means something.
    """

    items: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    bytes: int = 0

    @property
    def per_second(self) -> float:
        """Items per second of work; 0 before the first."""
        return self.items / self.busy_s if self.busy_s else 0.0


@dataclass
class JobReport:
    """What became of a source so far.

    Attributes:
        model: name of the model that coded it; empty if nothing could be coded.
        digest: the model's digest.
        items: items by status.
        observations: rows that were stored.
        failures: items that failed, with their reasons; the first `FAILURES_KEPT`.
        skipped: how many items were skipped, by reason.
        warnings: what went well now and may be regretted later.
        listed: items that were listed so far.
        total: items that there are in all; None as long as that is not known.
        seconds: wall time.
        commits: atomic commits.
        stages: what each stage has done.
    """

    model: str = ""
    digest: str = ""
    items: dict[str, int] = field(default_factory=lambda: dict.fromkeys(AddStatus, 0))
    observations: int = 0
    failures: list[AddResult] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    listed: int = 0
    total: int | None = None
    seconds: float = 0.0
    commits: int = 0
    stages: dict[str, StageWork] = field(
        default_factory=lambda: {name: StageWork() for name in STAGES}
    )

    @property
    def done(self) -> int:
        """Items that are through, one way or another."""
        return sum(self.items.values())

    def count(self, results: list[AddResult]) -> None:
        """Add the results of one commit."""
        for result in results:
            self.items[result.status] += 1
            self.observations += result.observations
            if result.status == AddStatus.FAILED and len(self.failures) < FAILURES_KEPT:
                self.failures.append(result)
            if result.status == AddStatus.SKIPPED:
                why = result.reason or "IN_ARCHIVE"
                self.skipped[why] = self.skipped.get(why, 0) + 1

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take at the rate so far; None where that cannot be told."""
        worked = self.done - self.items[AddStatus.SKIPPED]
        if self.total is None or worked <= 0 or self.seconds <= 0:
            return None
        return max(0, self.total - self.done) * self.seconds / worked

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        raise NotImplementedError


OnProgress = Callable[[JobReport], None]
"""Called after every commit, and now and then between."""
