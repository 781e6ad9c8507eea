"""The records of a server's jobs on disk: ARCHIVE/jobs/ID.json, validated when they are read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from bittern.errors import BitternError, PreconditionError
from bittern.files import check_inside, replace_file
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import JobSpec
from bittern.types import AddStatus

_MAX_FILE_BYTES = 16 << 20
FAILURES_RECORDED = 100
"""Failures that a record names."""
_log = logging.getLogger("bittern.jobs")


class JobState(StrEnum):
    """State of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


def _time(text: str) -> str:
    if text and datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a time zone")
    return text


_Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
_Small = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
_Text = Annotated[str, Field(strict=True)]
_Time = Annotated[_Text, AfterValidator(_time)]
_Id = Annotated[_Text, Field(pattern=r"^[0-9a-z][0-9a-z-]{0,63}$")]
_FROZEN = ConfigDict(extra="ignore")


@dataclass(frozen=True, config=_FROZEN)
class StageProgress:
    """The work of one stage so far."""

    items: _Count
    busy_s: float


@dataclass(frozen=True, config=_FROZEN)
class ItemFailure:
    """An item that failed."""

    id: _Text
    reason: _Text
    message: _Text


@dataclass(frozen=True, config=_FROZEN)
class Progress:
    """Excerpt of a job's `bittern.service.ingest.report.JobReport`."""

    model: _Text = ""
    listed: _Count = 0
    total: _Count | None = None
    items: Mapping[AddStatus, _Count] = field(default_factory=dict)
    observations: _Count = 0
    seconds: float = 0.0
    left_s: float | None = None
    stages: Mapping[str, StageProgress] = field(default_factory=dict)
    failures: tuple[ItemFailure, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: JobReport) -> Progress:
        """The current report, with the first failures only."""
        return TypeAdapter(cls).validate_python(report.to_json(FAILURES_RECORDED))


@dataclass(frozen=True, config=_FROZEN)
class JobRecord:
    """One job and its state.

    Attributes:
        id: sorts by the time of submission.
        archive: name of the archive.
        spec: the job; `source` and `reading.media` as the caller named them.
        state: of the job.
        submitted: time, ISO 8601, UTC.
        started: time of the first start; empty before.
        ended: time of the end; empty before.
        progress: of the current or the last run.
        error: why it failed.
        reason: machine-readable reason of the error.
        runs: number of starts.
        crashes: number of times that the server died while it ran.
        request_id: the caller's id of the submission; may be empty.
        cancelling: whether it has been cancelled.
    """

    id: _Id
    archive: _Text
    spec: JobSpec
    state: JobState = JobState.QUEUED
    submitted: _Time = ""
    started: _Time = ""
    ended: _Time = ""
    progress: Progress = field(default_factory=Progress)
    error: _Text = ""
    reason: _Text = ""
    runs: _Small = 0
    crashes: _Small = 0
    request_id: _Text = ""
    cancelling: bool = False


_RECORD = TypeAdapter(JobRecord)


def now() -> str:
    """The current time, as in records."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class JobFolder:
    """The records of one archive.

    Args:
        folder: ARCHIVE/jobs; made when the first record is written.
        archive: the archive's name.
    """

    def __init__(self, folder: Path, archive: str) -> None:
        self._folder = folder
        self._archive = archive

    def write(self, record: JobRecord) -> None:
        """Write a record, atomically and durably.

        Raises:
            PreconditionError: it cannot be written, or the folder is a link.
        """
        check_inside(self._folder.parent, self._folder)
        try:
            self._folder.mkdir(exist_ok=True)
            content = _RECORD.dump_json(record)
            replace_file(self._folder / f"{record.id}.json", content, prefix=".job-")
        except OSError as error:
            raise PreconditionError(
                f"the job cannot be written to {self._folder.name} of archive "
                f"'{self._archive}' ({error.strerror or error}); check free space and permissions"
            ) from error

    def remove(self, record: JobRecord) -> None:
        """Remove a record; a failure is logged."""
        path = self._folder / f"{record.id}.json"
        try:
            check_inside(self._folder.parent, path)
            path.unlink(missing_ok=True)
        except (OSError, PreconditionError) as error:
            _log.warning("the old job in %s was not removed: %s", path, error)

    def read(self) -> Iterator[JobRecord]:
        """All records, oldest first; unreadable ones are logged and skipped."""
        if self._folder.is_symlink():
            _log.warning("%s is a symbolic link: the jobs in it are ignored", self._folder)
            return
        for path in sorted(self._folder.glob("*.json")):
            try:
                if path.stat().st_size > _MAX_FILE_BYTES:
                    raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
                record = _RECORD.validate_python(json.loads(path.read_text("utf-8")))
                if path.stem != record.id:
                    raise ValueError(f"it holds the job {record.id}")
            except (OSError, ValueError, RecursionError, BitternError) as e:
                _log.warning("the job in %s is skipped: %s: %s", path, type(e).__name__, e)
                continue
            # The archive may have been renamed since.
            yield replace(record, archive=self._archive)
