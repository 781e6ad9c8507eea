"""Between the messages of JobService and the values that jobs are written down in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bittern.errors import InvalidInputError
from bittern.service.grpc.messages import (
    add_result_from_wire,
    add_result_to_wire,
    name_of,
    on_duplicate_from_wire,
    on_duplicate_to_wire,
)
from bittern.service.ingest.report import JobReport, StageWork
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.record import JobRecord, JobState
from bittern.service.sources import SourceOptions
from bittern.types import AddResult, AddStatus
from bittern.v1 import job_service_pb2 as pb

MAX_GLOBS = 100
MAX_COLUMNS = 500
_STATES: dict[JobState, pb.JobState.ValueType] = {
    JobState.QUEUED: pb.JOB_STATE_QUEUED,
    JobState.RUNNING: pb.JOB_STATE_RUNNING,
    JobState.DONE: pb.JOB_STATE_DONE,
    JobState.FAILED: pb.JOB_STATE_FAILED,
    JobState.CANCELLED: pb.JOB_STATE_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a server, as a client sees it.

    Attributes:
        id: made by the server.
        archive: name of the archive that it fills.
        source: what it codes, as it was submitted.
        state: how far it is.
        submitted: when; likewise the next two, which are None before.
        started: when it began for the first time.
        ended: when it ended.
        progress: what became of its items so far; it names the first 100 that failed.
        left_s: seconds that the rest will take; None where that is unknown.
        error: why it failed; empty unless it did.
        reason: machine-readable reason of that.
        runs: how often it was begun: more than once where the server ended meanwhile.
    """

    id: str
    archive: str
    source: str
    state: JobState
    submitted: datetime
    started: datetime | None = None
    ended: datetime | None = None
    progress: JobReport = field(default_factory=JobReport)
    left_s: float | None = None
    error: str = ""
    reason: str = ""
    runs: int = 0


def spec_from_wire(message: pb.JobSpec) -> JobSpec:
    """The job that a call asks for.

    Raises:
        InvalidInputError: an unusable value.
    """
    if len(message.include) + len(message.exclude) > MAX_GLOBS:
        raise InvalidInputError(f"more than {MAX_GLOBS} globs", field="include")
    if len(message.columns) > MAX_COLUMNS:
        raise InvalidInputError(f"more than {MAX_COLUMNS} columns", field="columns")
    return JobSpec(
        kind="index",
        target=message.archive or "the only one",
        source=message.source,
        reading=SourceOptions(
            format=message.format or None,
            media=message.media or None,
            rename=dict(message.columns),
            include=tuple(message.include),
            exclude=tuple(message.exclude),
        ),
        model=message.model,
        bits=message.bits or None,
        on_duplicate=(
            on_duplicate_from_wire(message.on_duplicate) if message.on_duplicate else "skip"
        ),
        keep_embeddings=message.keep_embeddings,
        strict=message.strict,
    ).checked()


def spec_to_wire(spec: JobSpec, archive: str) -> pb.JobSpec:
    """Message of a job that is to be done."""
    return pb.JobSpec(
        archive=archive,
        source=spec.source,
        format=spec.reading.format or "",
        media=spec.reading.media or "",
        columns=dict(spec.reading.rename),
        include=spec.reading.include,
        exclude=spec.reading.exclude,
        model=spec.model,
        bits=spec.bits or 0,
        on_duplicate=on_duplicate_to_wire(spec.on_duplicate),
        keep_embeddings=spec.keep_embeddings,
        strict=spec.strict,
    )


def job_to_wire(record: JobRecord, visible: Callable[[str], str]) -> pb.Job:
    """Message of a job.

    Args:
        record: the job.
        visible: from a message to what callers may see of it.
    """
    message = pb.Job(
        id=record.id,
        state=_STATES[record.state],
        spec=spec_to_wire(record.spec, record.archive),
        progress=_progress_to_wire(record.progress, visible),
        error=visible(record.error),
        reason=record.reason,
        runs=record.runs,
    )
    for name in ("submitted", "started", "ended"):
        if text := getattr(record, name):
            getattr(message, name).FromDatetime(datetime.fromisoformat(text))
    return message


def _progress_to_wire(value: Mapping[str, Any], visible: Callable[[str], str]) -> pb.JobProgress:
    items = value.get("items", {})
    message = pb.JobProgress(
        model=value.get("model", ""),
        listed=value.get("listed", 0),
        added=items.get("added", 0),
        overwritten=items.get("overwritten", 0),
        skipped=items.get("skipped", 0),
        failed=items.get("failed", 0),
        observations=value.get("observations", 0),
        seconds=value.get("seconds", 0.0),
        warnings=value.get("warnings", []),
        stages=[
            pb.StageProgress(name=name, items=work["items"], busy_s=work["busy_s"])
            for name, work in value.get("stages", {}).items()
        ],
        failures=[
            add_result_to_wire(
                AddResult(one["id"], AddStatus.FAILED, 0, one["reason"], visible(one["message"]))
            )
            for one in value.get("failures", [])
        ],
    )
    for name in ("total", "left_s"):
        if value.get(name) is not None:
            setattr(message, name, value[name])
    return message


def job_from_wire(message: pb.Job) -> Job:
    """The job of a message."""
    wire = message.progress
    progress = JobReport(
        model=wire.model,
        observations=wire.observations,
        failures=[add_result_from_wire(each) for each in wire.failures],
        warnings=list(wire.warnings),
        listed=wire.listed,
        total=wire.total if wire.HasField("total") else None,
        seconds=wire.seconds,
        stages={each.name: StageWork(each.items, each.busy_s) for each in wire.stages},
    )
    for status in AddStatus:
        progress.items[status] = getattr(wire, status.value)
    times = {
        name: getattr(message, name).ToDatetime().astimezone() if message.HasField(name) else None
        for name in ("started", "ended")
    }
    return Job(
        id=message.id,
        archive=message.spec.archive,
        source=message.spec.source,
        state=name_of(_STATES, message.state, "state"),
        submitted=message.submitted.ToDatetime().astimezone(),
        progress=progress,
        left_s=wire.left_s if wire.HasField("left_s") else None,
        error=message.error,
        reason=message.reason,
        runs=message.runs,
        **times,
    )
