"""The jobs of a server: recorded, run one after another, watched, cancelled, resumed.

One thread runs them, since they share the networks and each archive's one writer. Every change of
state is written to disk, so a restarted server continues queued and running jobs.
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

from bittern.errors import (
    BitternError,
    InternalError,
    JobNotFoundError,
    LimitExceededError,
    ServiceUnavailableError,
)
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.record import JobFolder, JobRecord, JobState, Progress, now

MAX_WAITING = 100
"""Most queued and running jobs."""
MAX_ENDED = 1_000
"""Most ended jobs of one archive; older ones are removed."""
MAX_CRASHES = 5
"""A job that was running at this many crashes of the server is not started again."""
_WRITE_EVERY_S = 2.0
"""Seconds between two writes of the progress."""
_JOIN_S = 0.2
"""Signals are handled between waits."""
_log = logging.getLogger("bittern.jobs")


Run = Callable[[JobRecord, OnProgress, Cancelled], JobReport]
"""Runs one job until it ends or is cancelled; commits all coded items."""


class JobQueue:
    """The jobs of the archives that a server serves.

    Args:
        folders: of the records, by archive name.
        run: runs one job.
        ready: whether a job can run now; otherwise it waits, and later ones run first.
        clock: monotonic seconds.
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
                self._records[record.id] = self._resumed(record)
        self._worker = threading.Thread(target=self._work, name="bittern-jobs", daemon=True)
        self._worker.start()

    # For callers

    def submit(self, archive: str, spec: JobSpec, request_id: str = "") -> JobRecord:
        """Record a job and queue it.

        Args:
            archive: name of the archive.
            spec: the job.
            request_id: if a job of the archive has it already, that job is returned.

        Raises:
            LimitExceededError: too many jobs wait already.
            PreconditionError: the job cannot be written to disk.
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
        """The current record of a job.

        Raises:
            JobNotFoundError: unknown id.
        """
        with self._changed:
            return self._known(id)

    def list(self, archive: str | None, before: str, count: int) -> builtins.list[JobRecord]:
        """Jobs, the newest first.

        Args:
            archive: name of an archive; None for all.
            before: only jobs that were submitted before the one with this id; empty for all.
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
        """The record of a job, now and after each change, until it has ended.

        Args:
            id: of the job.
            gone: whether the caller has cancelled; called now and then.

        Raises:
            JobNotFoundError: unknown id.
            ServiceUnavailableError: the server stops first; the job continues after a restart.
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
                    "the server is stopping; the job continues when it is started again"
                )

    def cancel(self, id: str) -> JobRecord:  # noqa: A002
        """Cancel a job, unless it has ended.

        Raises:
            JobNotFoundError: unknown id.
            PreconditionError: the record cannot be written to disk.
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
        """Start no further job, and end all `watch` calls."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop; the running job makes a last commit, and continues at the next start."""
        self.stop_soon()
        while self._worker.is_alive():
            self._worker.join(_JOIN_S)

    # Inside; the lock is held.

    def _known(self, id: str) -> JobRecord:  # noqa: A002
        record = self._records.get(id)
        if record is None:
            raise JobNotFoundError(
                f"unknown job {id[:80]!r}; ListJobs lists the jobs of this server", field="id"
            )
        return record

    def _set(self, record: JobRecord) -> None:
        self._records[record.id] = record
        self._versions[record.id] = self._versions.get(record.id, 0) + 1
        self._changed.notify_all()

    def _new_id(self) -> str:
        """An id that sorts after all earlier ones, even if the clock goes back."""
        newest = max((int(record.id.split("-")[0]) for record in self._records.values()), default=0)
        self._last_id = max(int(time.time() * 1e3), self._last_id + 1, newest + 1)
        return f"{self._last_id:015d}-{secrets.token_hex(4)}"

    def _resumed(self, record: JobRecord) -> JobRecord:
        """A record after a restart."""
        if record.state is not JobState.RUNNING:
            return record
        # A server that stops regularly has queued its running job.
        record = replace(record, crashes=record.crashes + 1)
        if record.cancelling:
            record = replace(record, state=JobState.CANCELLED, ended=now())
        elif record.crashes >= MAX_CRASHES:
            message = (
                f"the server has died {record.crashes} times while it ran this job; look for the "
                "cause in its log (memory, perhaps) before you submit it again"
            )
            reason = InternalError(message).reason
            record = replace(
                record, state=JobState.FAILED, ended=now(), error=message, reason=reason
            )
        else:
            record = replace(record, state=JobState.QUEUED)
        self._write(record)
        return record

    def _write(self, record: JobRecord) -> None:
        """Write a record; a failure is only logged."""
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
                self._write(record)
            try:
                self._finish(record.id, self._run_one(record))
            except BitternError as error:
                self._fail(record.id, error)
            except Exception:
                _log.exception("job %s failed unexpectedly", record.id)
                self._fail(record.id, InternalError("the server failed; its log has the cause"))

    def _next(self) -> JobRecord | None:
        queued = [r for r in self._records.values() if r.state is JobState.QUEUED]
        queued = [record for record in queued if self._ready(record)]
        return min(queued, key=lambda r: r.id, default=None)

    def _run_one(self, record: JobRecord) -> JobReport:
        written = self._clock()

        def on_progress(report: JobReport) -> None:
            nonlocal written
            # Under the lock: an older record must not replace a cancelled one.
            with self._changed:
                current = replace(self._records[record.id], progress=Progress.of(report))
                self._set(current)
                if self._clock() - written >= _WRITE_EVERY_S:
                    self._write(current)
                    written = self._clock()

        def cancelled() -> bool:
            return self._closing or self._records[record.id].cancelling

        _log.info("job %s begins: %s into %s", record.id, record.spec.source, record.archive)
        return self._run(record, on_progress, cancelled)

    def _finish(self, id: str, report: JobReport) -> None:  # noqa: A002
        with self._changed:
            record = replace(self._records[id], progress=Progress.of(report))
            if record.cancelling:
                self._end(record, JobState.CANCELLED)
            elif self._closing:
                self._end(record, JobState.QUEUED)
            elif report.state == "failed":
                self._end(record, JobState.FAILED, report.error, "ITEMS_FAILED")
            else:
                self._end(record, JobState.DONE)

    def _fail(self, id: str, error: BitternError) -> None:  # noqa: A002
        with self._changed:
            self._end(self._records[id], JobState.FAILED, error.message, error.reason)

    def _end(self, record: JobRecord, state: JobState, error: str = "", reason: str = "") -> None:
        """Record the end of a run; remove the oldest ended jobs."""
        ended = now() if state.ended else record.ended
        record = replace(record, state=state, ended=ended, error=error, reason=reason)
        self._set(record)
        _log.info("job %s: %s", record.id, record.state)
        self._write(record)
        all_ended = sorted(
            (r for r in self._records.values() if r.state.ended and r.archive == record.archive),
            key=lambda r: r.id,
        )
        for old in all_ended[: max(0, len(all_ended) - MAX_ENDED)]:
            self._folders[old.archive].remove(old)
            self._records.pop(old.id)
            self._versions.pop(old.id, None)
