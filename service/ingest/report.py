"""What became of a job: counts, failures, rates of its stages, time left."""

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
    """What one stage has done. May be added to from several threads.

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
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def per_second(self) -> float:
        """Items per second of work; 0 before the first."""
        return self.items / self.busy_s if self.busy_s else 0.0

    def add(
        self, items: int = 0, *, busy_s: float = 0.0, waited_s: float = 0.0, size: int = 0
    ) -> None:
        """Count some more work; `size` is in bytes."""
        with self._lock:
            self.items += items
            self.busy_s += busy_s
            self.waited_s += waited_s
            self.bytes += size

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "items": self.items,
            "busy_s": round(self.busy_s, 3),
            "waited_s": round(self.waited_s, 3),
            "bytes": self.bytes,
            "per_second": round(self.per_second, 2),
        }


Stages = dict[str, StageWork]
"""What each of `STAGES` has done."""


def new_stages() -> Stages:
    """Stages that have done nothing yet."""
    return {name: StageWork() for name in STAGES}


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
        notes: what a job does besides coding, in words: the models that it drops.
        listed: items that were listed so far.
        total: items that there are in all; None as long as that is not known.
        seconds: wall time.
        commits: atomic commits.
        stages: what each stage has done.
        state: ``running``, ``done`` (with or without items that failed), ``stopped`` by
            whoever asked for that, or ``failed``: an error ended it, no item could be used, or
            the job is strict and not all could.
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
    total: int | None = None
    seconds: float = 0.0
    commits: int = 0
    stages: Stages = field(default_factory=new_stages)
    state: JobState = "running"
    error: str = ""

    @property
    def done(self) -> int:
        """Items that are through, one way or another."""
        return sum(self.items.values())

    @property
    def failed(self) -> int:
        """Items that failed."""
        return self.items[AddStatus.FAILED]

    @property
    def per_second(self) -> float:
        """Items per second of wall time, without those that were skipped."""
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
        """Seconds that the rest will take at the rate so far; None where that cannot be told."""
        worked = self.done - self.items[AddStatus.SKIPPED]
        if self.total is None or worked <= 0 or self.seconds <= 0:
            return None
        return max(0, self.total - self.done) * self.seconds / worked

    def rates(self) -> dict[str, float]:
        """Items per second of work of each stage that has done some, in their order."""
        return {name: work.per_second for name, work in self.stages.items() if work.per_second}

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        network, left = self.stages["network"], self.left_s
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
                for f in list(self.failures)
            ],
            "commits": self.commits,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second, 2),
            "left_s": None if left is None else round(left, 1),
            "stages": {
                "decode_wait_s": round(network.waited_s, 3),
                "network_s": round(network.busy_s, 3),
                "hash_s": round(self.stages["hash"].busy_s, 3),
                "commit_s": round(self.stages["commit"].busy_s, 3),
                "pieces": network.items,
                **{name: work.to_json() for name, work in self.stages.items()},
            },
        }

    def write(self, path: Path) -> None:
        """Replace the file at `path` by the report as JSON, at once and durably.

        Raises:
            OSError: it cannot be written there.
        """
        replace_file(path, json.dumps(self.to_json(), ensure_ascii=False, indent=1).encode())


OnProgress = Callable[[JobReport], None]
"""Called after every commit, and now and then between; from one thread at a time, which may be
another than the caller's."""
Cancelled = Callable[[], bool]
"""Whether a job is to end now, with what is coded committed. Asked often, from any thread."""


def never() -> bool:
    """A job that nobody stops."""
    return False
