"""Jobs written down: one JSON file for each in ARCHIVE/jobs/, so that they survive a restart."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from bittern.errors import BitternError, PreconditionError
from bittern.files import replace_file
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import JobSpec
from bittern.types import AddStatus

_ID = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_MAX_FILE_BYTES = 16 << 20
FAILURES_TOLD = 100
"""Failures that a record names."""
_NOT_SUCH_A_VALUE = (ValueError, KeyError, TypeError, AttributeError)
_log = logging.getLogger("bittern.jobs")


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it will change no more."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job and how far it is.

    Attributes:
        id: sorts by the time of submission.
        archive: name of the archive that it fills.
        spec: what it is to do; `source` and `reading.media` as the caller named them.
        state: how far it is.
        submitted: ISO 8601, UTC; likewise the next two, which are empty before.
        started: when it began for the first time.
        ended: when it ended.
        progress: what `progress_of` says of the run that is going on or was the last.
        error: why it failed.
        reason: machine-readable reason of that.
        runs: how often it was begun.
        crashes: how often the server died while it ran.
        request_id: what the caller calls the submission; empty if nothing.
        cancelling: whether it has been asked to end.
    """

    id: str
    archive: str
    spec: JobSpec
    state: JobState = JobState.QUEUED
    submitted: str = ""
    started: str = ""
    ended: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    reason: str = ""
    runs: int = 0
    crashes: int = 0
    request_id: str = ""
    cancelling: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        names = [name for name in self.__slots__ if name != "spec"]
        return {**{name: getattr(self, name) for name in names}, "spec": self.spec.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobRecord:
        """The record behind `to_json`.

        Raises:
            KeyError, TypeError, ValueError, BitternError: it is not such a value.
        """
        texts = ("id", "archive", "submitted", "started", "ended", "error", "reason", "request_id")
        for name in texts:
            if not isinstance(value[name], str):
                raise TypeError(f"{name} is no text")
        if not _ID.fullmatch(value["id"]):
            raise ValueError("no id")
        for name in ("submitted", "started", "ended"):
            if value[name] and datetime.fromisoformat(value[name]).tzinfo is None:
                raise ValueError(f"{name} is no time in UTC")
        for name in ("runs", "crashes"):
            if type(value[name]) is not int or not 0 <= value[name] < 2**31:
                raise ValueError(f"{name} is no count")
        _check_progress(value["progress"])
        return cls(
            spec=JobSpec.from_json(value["spec"]),
            state=JobState(value["state"]),
            progress=value["progress"],
            runs=value["runs"],
            crashes=value["crashes"],
            cancelling=bool(value["cancelling"]),
            **{name: value[name] for name in texts},
        )


def now() -> str:
    """The time as records hold it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def progress_of(report: JobReport) -> dict[str, Any]:
    """What a report says so far, as JSON values, with the first failures only."""
    return {
        "model": report.model,
        "listed": report.listed,
        "total": report.total,
        "items": {str(status): count for status, count in report.items.items()},
        "observations": report.observations,
        "seconds": report.seconds,
        "left_s": report.left_s,
        "stages": {
            name: {"items": work.items, "busy_s": work.busy_s}
            for name, work in report.stages.items()
        },
        "failures": [
            {"id": failure.occurrence_id, "reason": failure.reason, "message": failure.message}
            for failure in report.failures[:FAILURES_TOLD]
        ],
        "warnings": list(report.warnings),
    }


def _check_progress(value: Any) -> None:
    """Check that this is nothing, or what `progress_of` makes.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    if value == {}:
        return
    counts = [value["listed"], value["observations"], *map(value["items"].__getitem__, AddStatus)]
    counts += [work["items"] for work in value["stages"].values()]
    counts += [] if value["total"] is None else [value["total"]]
    seconds = [value["seconds"], *(work["busy_s"] for work in value["stages"].values())]
    seconds += [] if value["left_s"] is None else [value["left_s"]]
    texts = [value["model"], *value["stages"], *value["warnings"]]
    texts += [one[name] for one in value["failures"] for name in ("id", "reason", "message")]
    if not all(type(one) is int and 0 <= one < 2**63 for one in counts):
        raise ValueError("progress with something else than counts")
    if not all(isinstance(one, int | float) for one in seconds):
        raise ValueError("progress with something else than seconds")
    if not all(isinstance(one, str) for one in texts):
        raise ValueError("progress with something else than texts")


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
        """Write a record, durably and at once.

        Raises:
            PreconditionError: the disk refuses.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            content = json.dumps(record.to_json()).encode()
            replace_file(self._folder / f"{record.id}.json", content, prefix=".job-")
        except OSError as error:
            raise PreconditionError(
                f"the job cannot be written down in {self._folder.name} of archive "
                f"'{self._archive}' ({error.strerror or error}); check free space and permissions"
            ) from error

    def forget(self, record: JobRecord) -> None:
        """Remove a record."""
        (self._folder / f"{record.id}.json").unlink(missing_ok=True)

    def read(self) -> Iterator[JobRecord]:
        """All records, oldest first; what cannot be read is logged and left where it is."""
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            try:
                if path.stat().st_size > _MAX_FILE_BYTES:
                    raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
                record = JobRecord.from_json(json.loads(path.read_text("utf-8")))
                if path.stem != record.id:
                    raise ValueError(f"it holds the job {record.id}")
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                RecursionError,
                BitternError,
            ) as e:
                _log.warning("the job in %s is left out: %s: %s", path, type(e).__name__, e)
                continue
            # The archive may have got another name since.
            yield replace(record, archive=self._archive)
