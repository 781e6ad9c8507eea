"""The report of a job: counts, failures, rates of its stages, time left."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bittern.files import replace_file
from bittern.types import AddResult, AddStatus

STAGES = ("list", "read", "decode", "network", "hash", "commit")
FAILURES_KEPT = 10_000
"""Failures that a report names; all are counted."""
JobState = Literal["running", "done", "stopped", "failed"]


@dataclass
class StageWork:
    """The work of one stage. Safe to update from several threads.

    Attributes:
        items: files, or from `decode` on pictures and windows.
        busy_s: seconds of work, added up over its threads.
        waited_s: seconds of waiting for the previous or the next stage.
        bytes: bytes read or written, if any.
    """

    items: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def per_second(self) -> float:
        """Items per second of work; 0 before the first."""
        return self.items / self.busy_s if self.busy_s else 0.0

    def add(
        self, items: int = 0, *, busy_s: float = 0.0, waited_s: float = 0.0, size: int = 0
    ) -> None:
        """Count more work; `size` is in bytes."""
        with self._lock:
            self.items += items
            self.busy_s += busy_s
            self.waited_s += waited_s
            self.bytes += size

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "items": self.items,
            "busy_s": round(self.busy_s, 3),
            "waited_s": round(self.waited_s, 3),
            "bytes": self.bytes,
            "per_second": round(self.per_second, 2),
        }


Stages = dict[str, StageWork]
"""The work of each of `STAGES`."""


def new_stages() -> Stages:
    """Stages without work."""
    return {name: StageWork() for name in STAGES}


@dataclass
class JobReport:
    """The results of a job so far.

    Attributes:
        model: name of the model; empty if nothing could be coded.
        digest: the model's digest.
        items: items by status.
        observations: stored rows.
        failures: items that failed, with their reasons; the first `FAILURES_KEPT`.
        skipped: number of skipped items by reason.
        warnings: for the user.
        notes: what the job does besides coding, such as dropping models.
        listed: items listed so far.
        counted: number of items of the source, perhaps set by another thread; None while unknown.
        complete: whether every item of the source has a result.
        seconds: wall time.
        commits: atomic commits.
        stages: the work of each stage.
        state: ``running``, ``done`` (with or without failed items), ``stopped`` by the user, or
            ``failed``: an error ended it, every item failed, or any item of a strict job.
        error: why a job failed.
    """

    model: str = ""
    digest: str = ""
    items: dict[str, int] = field(default_factory=lambda: dict.fromkeys(AddStatus, 0))
    observations: int = 0
    failures: list[AddResult] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    listed: int = 0
    counted: int | None = None
    complete: bool = False
    seconds: float = 0.0
    commits: int = 0
    stages: Stages = field(default_factory=new_stages)
    state: JobState = "running"
    error: str = ""

    @property
    def done(self) -> int:
        """Items with a result."""
        return sum(self.items.values())

    @property
    def total(self) -> int | None:
        """Number of items of the source; None while unknown."""
        return self.done if self.complete else self.counted

    @property
    def failed(self) -> int:
        """Items that failed."""
        return self.items[AddStatus.FAILED]

    @property
    def per_second(self) -> float:
        """Items per second of wall time, without skipped ones."""
        worked = self.done - self.items[AddStatus.SKIPPED]
        return worked / self.seconds if self.seconds else 0.0

    def count(self, results: Sequence[AddResult]) -> None:
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
        """Estimated seconds for the rest; None where unknown."""
        worked = self.done - self.items[AddStatus.SKIPPED]
        if self.total is None or worked <= 0 or self.seconds <= 0:
            return None
        return max(0, self.total - self.done) * self.seconds / worked

    def rates(self) -> dict[str, float]:
        """Items per second of work, by stage."""
        return {name: work.per_second for name, work in self.stages.items() if work.per_second}

    def to_json(self, failures: int = FAILURES_KEPT) -> dict[str, Any]:
        """As JSON values, with at most so many failures."""
        left = self.left_s
        return {
            "state": self.state,
            "error": self.error,
            "model": self.model,
            "digest": self.digest,
            "items": {str(status): count for status, count in self.items.items()},
            "listed": self.listed,
            "total": self.total,
            "observations": self.observations,
            "skipped": dict(self.skipped),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "failures": [
                {"id": f.occurrence_id, "reason": f.reason, "message": f.message}
                for f in self.failures[:failures]
            ],
            "commits": self.commits,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second, 2),
            "left_s": None if left is None else round(left, 1),
            "stages": {name: work.to_json() for name, work in self.stages.items()},
        }

    def write(self, path: Path) -> None:
        """Write the report as JSON, replacing the file atomically and durably.

        Raises:
            OSError: it cannot be written there.
        """
        replace_file(path, json.dumps(self.to_json(), ensure_ascii=False, indent=1).encode())


OnProgress = Callable[[JobReport], None]
"""Called after every commit and about once a second, from one thread at a time; not always the
caller's."""
Cancelled = Callable[[], bool]
"""Whether to stop the job after a last commit. Called often, from any thread."""


def never() -> bool:
    """A job that is never cancelled."""
    return False
