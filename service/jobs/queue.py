"""The jobs of a server: written down, run one after another, watched, cancelled, taken up again.

One thread runs them, since they share the networks and the archives' one writer. What it is
doing is written down at every change of state, so a server that ends, however it ends, knows at
its next start what was queued and what was running; both go on.
"""

from __future__ import annotations

import builtins
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bittern.errors import (
    BitternError,
    InternalError,
    JobNotFoundError,
    LimitExceededError,
    ServiceUnavailableError,
)
from bittern.service.ingest.report import JobReport, OnProgress
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.record import JobFolder, JobRecord, JobState, now, progress_of
from bittern.types import AddStatus

MAX_WAITING = 100
"""Most jobs that have not ended."""
MAX_KEPT = 1_000
"""Most jobs of one archive that have ended and are still known."""
MAX_CRASHES = 5
"""A job that was running each of so many times that the server died is not begun again."""
_WRITE_EVERY_S = 2.0
"""Seconds after which progress is written down again."""
_HEARING_S = 0.2
"""A wait without an end would hear no signal."""
_log = logging.getLogger("bittern.jobs")


class Run(Protocol):
    """Runs one job to its end, or until it is cancelled, and commits what is coded."""

    def __call__(
        self, record: JobRecord, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> JobReport:
        """Run a job."""
        ...


class JobQueue:
    """The jobs of the archives that a server serves.

    Args:
        folders: where each archive's jobs are written down, by the archive's name.
        run: runs one.
        ready: whether one can run now; until it can, it waits. Those behind it go on.
        clock: seconds, for what is written down now and then.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        run: Run,
        ready: Callable[[JobRecord], bool] = lambda record: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = {name: JobFolder(folder, name) for name, folder in folders.items()}
        self._run = run
        self._ready = ready
        self._clock = clock
        self._changed = threading.Condition()
        self._records: dict[str, JobRecord] = {}
        self._versions: dict[str, int] = {}
        self._closing = False
        self._last_id = 0
        for folder in self._folders.values():
            for record in folder.read():
                self._records[record.id] = self._taken_up(record)
        self._worker = threading.Thread(target=self._work, name="bittern-jobs", daemon=True)
        self._worker.start()

    # What calls ask for

    def submit(self, archive: str, spec: JobSpec, request_id: str = "") -> JobRecord:
        """Write a job down and queue it.

        Args:
            archive: which archive it fills.
            spec: what it is to do.
            request_id: a submission with the same one returns the job that is there.

        Raises:
            LimitExceededError: too many jobs wait already.
            PreconditionError: the job cannot be written down.
            ServiceUnavailableError: the server is stopping.
        """
        with self._changed:
            if self._closing:
                raise ServiceUnavailableError("the server is stopping; submit the job again later")
            for known in self._records.values():
                if request_id and (known.archive, known.request_id) == (archive, request_id):
                    return known
            waiting = sum(not record.state.ended for record in self._records.values())
            if waiting >= MAX_WAITING:
                raise LimitExceededError(
                    f"{waiting} jobs wait already, the limit is {MAX_WAITING}; submit this one "
                    "when some have ended"
                )
            record = JobRecord(
                self._new_id(), archive, spec, submitted=now(), request_id=request_id
            )
            self._folders[archive].write(record)
            self._set(record)
            return record

    def get(self, id: str) -> JobRecord:  # noqa: A002 - the contract's name
        """One job as it is now.

        Raises:
            JobNotFoundError: there is none of this id.
        """
        with self._changed:
            return self._known(id)

    def list(self, archive: str | None, before: str, count: int) -> builtins.list[JobRecord]:
        """Jobs, the newest first.

        Args:
            archive: of one archive; None for all.
            before: only jobs that were submitted before the one of this id; empty for all.
            count: most jobs.
        """
        with self._changed:
            found = [
                record
                for record in sorted(self._records.values(), key=lambda r: r.id, reverse=True)
                if archive in (None, record.archive) and (not before or record.id < before)
            ]
            return found[:count]

    def watch(self, id: str, gone: Callable[[], bool]) -> Iterator[JobRecord]:  # noqa: A002
        """A job as it is now, and again whenever it has changed, until it has ended.

        Args:
            id: which job.
            gone: whether nobody watches any more; asked now and then.

        Raises:
            JobNotFoundError: there is none of this id.
            ServiceUnavailableError: the server stops first; the job goes on after its restart.
        """
        with self._changed:
            self._known(id)
        seen = -1
        while True:
            with self._changed:
                while self._versions.get(id, 0) == seen and not self._closing and not gone():
                    self._changed.wait(0.5)
                if gone():
                    return
                record, closing = self._known(id), self._closing
                version = self._versions.get(id, 0)
                news, seen = version != seen, version
            if news:
                yield record
            if record.state.ended:
                return
            if closing:
                raise ServiceUnavailableError(
                    "the server is stopping; the job goes on when it is started again"
                )

    def cancel(self, id: str) -> JobRecord:  # noqa: A002
        """Ask a job to end; one that has ended stays as it is.

        Raises:
            JobNotFoundError: there is none of this id.
            PreconditionError: that cannot be written down.
        """
        with self._changed:
            record = self._known(id)
            if record.state is JobState.QUEUED:
                record = replace(record, state=JobState.CANCELLED, ended=now(), cancelling=True)
            elif record.state is JobState.RUNNING:
                record = replace(record, cancelling=True)
            else:
                return record
            self._folders[record.archive].write(record)
            self._set(record)
            return record

    def stop_soon(self) -> None:
        """Begin no further job, and let go of those who watch."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """End: the job that is running commits what it has coded, and goes on at the next start."""
        self.stop_soon()
        while self._worker.is_alive():
            self._worker.join(_HEARING_S)

    # Inside; the lock is held.

    def _known(self, id: str) -> JobRecord:  # noqa: A002
        record = self._records.get(id)
        if record is None:
            raise JobNotFoundError(
                f"there is no job {id[:80]!r} here; ListJobs tells which there are", field="id"
            )
        return record

    def _set(self, record: JobRecord) -> None:
        self._records[record.id] = record
        self._versions[record.id] = self._versions.get(record.id, 0) + 1
        self._changed.notify_all()

    def _new_id(self) -> str:
        """Sorts after all ids before it, whatever the clock does."""
        newest = max((int(record.id.split("-")[0]) for record in self._records.values()), default=0)
        self._last_id = max(int(time.time() * 1e3), self._last_id + 1, newest + 1)
        return f"{self._last_id:015d}-{secrets.token_hex(4)}"

    def _taken_up(self, record: JobRecord) -> JobRecord:
        """A record as it goes on after a restart."""
        if record.state is not JobState.RUNNING:
            return record
        # A server that ends in good order queues what it was running.
        record = replace(record, crashes=record.crashes + 1)
        if record.cancelling:
            record = replace(record, state=JobState.CANCELLED, ended=now())
        elif record.crashes >= MAX_CRASHES:
            error = InternalError(
                f"the server has died {record.crashes} times while it ran this job; look for the "
                "cause in its log (memory, perhaps) before you submit it again"
            )
            record = replace(
                record,
                state=JobState.FAILED,
                ended=now(),
                error=error.message,
                reason=error.reason,
            )
        else:
            record = replace(record, state=JobState.QUEUED)
        self._keep(record)
        return record

    def _keep(self, record: JobRecord) -> None:
        """Write a record down; one that cannot be written goes on unwritten, and that is logged."""
        try:
            self._folders[record.archive].write(record)
        except BitternError as error:
            _log.warning("%s", error)

    # The worker's thread

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._next() is not None)
                record = self._next()
                if self._closing or record is None:
                    return
                record = replace(
                    record,
                    state=JobState.RUNNING,
                    started=record.started or now(),
                    runs=record.runs + 1,
                )
                self._set(record)
                self._keep(record)
            try:
                self._finish(record.id, self._worked(record))
            except BitternError as error:
                self._fail(record.id, error)
            except Exception:
                _log.exception("job %s failed unforeseen", record.id)
                self._fail(record.id, InternalError("the server failed; its log has the cause"))

    def _next(self) -> JobRecord | None:
        queued = [r for r in self._records.values() if r.state is JobState.QUEUED]
        queued = [record for record in queued if self._ready(record)]
        return min(queued, key=lambda r: r.id, default=None)

    def _worked(self, record: JobRecord) -> JobReport:
        written = self._clock()

        def on_progress(report: JobReport) -> None:
            nonlocal written
            # Written under the lock, lest an older record take the place of one that is cancelled.
            with self._changed:
                current = replace(self._records[record.id], progress=progress_of(report))
                self._set(current)
                if self._clock() - written >= _WRITE_EVERY_S:
                    self._keep(current)
                    written = self._clock()

        def cancelled() -> bool:
            return self._closing or self._records[record.id].cancelling

        _log.info("job %s begins: %s into %s", record.id, record.spec.source, record.archive)
        return self._run(record, on_progress, cancelled)

    def _finish(self, id: str, report: JobReport) -> None:  # noqa: A002
        with self._changed:
            record = replace(self._records[id], progress=progress_of(report))
            if record.cancelling:
                record = replace(record, state=JobState.CANCELLED, ended=now())
            elif self._closing:
                record = replace(record, state=JobState.QUEUED)
            elif record.spec.strict and report.items[AddStatus.FAILED]:
                failed = report.items[AddStatus.FAILED]
                record = replace(
                    record,
                    state=JobState.FAILED,
                    ended=now(),
                    error=f"{failed} items could not be used, and the job is strict; all "
                    "others are in the archive",
                    reason="ITEMS_FAILED",
                )
            else:
                record = replace(record, state=JobState.DONE, ended=now())
            self._end(record)

    def _fail(self, id: str, error: BitternError) -> None:  # noqa: A002
        with self._changed:
            self._end(
                replace(
                    self._records[id],
                    state=JobState.FAILED,
                    ended=now(),
                    error=error.message,
                    reason=error.reason,
                )
            )

    def _end(self, record: JobRecord) -> None:
        """Write down how a run has ended; of those that ended long ago, forget the oldest."""
        self._set(record)
        _log.info("job %s: %s", record.id, record.state)
        self._keep(record)
        ended = sorted(
            (r for r in self._records.values() if r.state.ended and r.archive == record.archive),
            key=lambda r: r.id,
        )
        for old in ended[: max(0, len(ended) - MAX_KEPT)]:
            self._folders[old.archive].forget(old)
            self._records.pop(old.id)
            self._versions.pop(old.id, None)
