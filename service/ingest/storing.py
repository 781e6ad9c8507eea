"""The last stages: hash and commit, in a thread of their own, while the network goes on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

from bittern.service.ingest.items import Embedded
from bittern.service.ingest.report import JobReport, OnProgress
from bittern.types import AddResult, AddStatus

COMMIT_ITEMS = 64
"""Items per atomic commit."""
COMMIT_S = 30.0
"""Seconds after which what is coded is committed, however little that is."""
COMMIT_ROWS = 16_384
"""Rows per atomic commit, where items are long recordings."""
PROGRESS_S = 1.0
_LOOK_UP_S = 0.25

Commit = Callable[[Sequence[Embedded]], list[AddResult]]
"""Hashes embedded items and stores them at once; what became of each, in order."""


@dataclass(frozen=True)
class Pace:
    """When to commit: after so many items or seconds, whichever comes first.

    Attributes:
        items: most items of one commit.
        seconds: most seconds that something coded waits for its commit.
        clock: seconds that never go back.
    """

    items: int = COMMIT_ITEMS
    seconds: float = COMMIT_S
    clock: Callable[[], float] = monotonic


def store_all(
    stream: Iterator[Embedded],
    commit: Commit,
    report: JobReport,
    *,
    pace: Pace | None = None,
    on_progress: OnProgress = lambda report: None,
) -> None:
    """Commit everything that is embedded, in order, until the stream ends.

    Whatever ends the stream, an error too, what was embedded before is committed.

    Args:
        stream: from `bittern.service.ingest.embed_items`.
        commit: what stores.
        report: counted up after each commit.
        pace: when to commit.
        on_progress: called after each commit, and about once a second.

    Raises:
        BaseException: whatever the stream, or a commit, has raised.
    """
    storing = Storing(commit, report, pace or Pace(), on_progress)
    try:
        for embedded in stream:
            storing.put(embedded)
    finally:
        close = getattr(stream, "close", None)
        try:
            if close is not None:
                close()
        finally:
            storing.close()
    storing.check()


class Storing:
    """The thread that stores. Hands back pressure: one commit is under way, one more may wait."""

    def __init__(
        self, commit: Commit, report: JobReport, pace: Pace, on_progress: OnProgress
    ) -> None:
        self._commit, self._report = commit, report
        self._pace, self._on_progress = pace, on_progress
        self._changed = threading.Condition()
        self._waiting: deque[Embedded] = deque()
        self._rows = 0
        self._oldest = 0.0
        self._told = pace.clock()
        self._begun = pace.clock() - report.seconds
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="bittern-store")
        self._thread.start()

    def put(self, embedded: Embedded) -> None:
        """Take over an item; waits while a commit is due that has not begun.

        Raises:
            BaseException: what a commit has raised.
        """
        with self._changed:
            while self._failure is None and self._is_full():
                self._changed.wait()
            self.check()
            if not self._waiting:
                self._oldest = self._pace.clock()
            self._waiting.append(embedded)
            self._rows += len(embedded.embeddings)
            self._changed.notify_all()

    def close(self) -> None:
        """Commit what is left, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def check(self) -> None:
        """Raise what a commit has raised."""
        if self._failure is not None:
            raise self._failure

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._pace.items or self._rows >= COMMIT_ROWS

    def _guarded(self) -> None:
        try:
            while True:
                batch = self._next_batch()
                if batch:
                    self._store(batch)
                elif self._closed:
                    return
                self._tell(after_commit=bool(batch))
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._waiting.clear()
                self._changed.notify_all()

    def _next_batch(self) -> list[Embedded]:
        """What is to be committed now; nothing if it is only time to tell how far things are."""
        with self._changed:
            begun = self._pace.clock()
            while not self._is_due():
                if self._closed or self._pace.clock() - begun >= PROGRESS_S:
                    break
                self._changed.wait(_LOOK_UP_S)
            if not (self._is_due() or self._closed):
                return []
            batch: list[Embedded] = []
            rows = 0
            while self._waiting and len(batch) < self._pace.items and rows < COMMIT_ROWS:
                batch.append(self._waiting.popleft())
                rows += len(batch[-1].embeddings)
            self._rows -= rows
            self._oldest = self._pace.clock()
            self._changed.notify_all()
            return batch

    def _is_due(self) -> bool:
        return bool(self._waiting) and (
            len(self._waiting) >= self._pace.items
            or self._rows >= COMMIT_ROWS
            or self._pace.clock() - self._oldest >= self._pace.seconds
        )

    def _store(self, batch: list[Embedded]) -> None:
        results = self._commit(batch)
        stored = {AddStatus.ADDED, AddStatus.OVERWRITTEN}
        self._report.commits += any(result.status in stored for result in results)
        self._report.count(results)

    def _tell(self, after_commit: bool) -> None:
        now = self._pace.clock()
        self._report.seconds = now - self._begun
        self._report.listed = self._report.stages["list"].items
        if after_commit or now - self._told >= PROGRESS_S:
            self._told = now
            self._on_progress(self._report)
