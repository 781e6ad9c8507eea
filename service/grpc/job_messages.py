"""Conversions between the messages of JobService and Bittern's types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

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
from bittern.service.jobs.record import JobRecord, JobState, Progress
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
        archive: name of the archive.
        source: as submitted.
        state: of the job.
        submitted: time of submission.
        started: time of the first start; None before.
        ended: time of the end; None before.
        progress: results so far, with the first 100 failed items.
        left_s: estimated seconds for the rest; None if unknown.
        error: why it failed; else empty.
        reason: machine-readable reason of the error.
        runs: number of starts: more than one after restarts of the server.
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
    """The job of a call.

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
    )


def spec_to_wire(spec: JobSpec, archive: str) -> pb.JobSpec:
    """The message of a job description."""
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


def job_to_wire(record: JobRecord, shown: Callable[[str], str]) -> pb.Job:
    """The message of a job.

    Args:
        record: the job.
        shown: removes from a text what callers must not see.
    """
    message = pb.Job(
        id=record.id,
        state=_STATES[record.state],
        spec=spec_to_wire(record.spec, record.archive),
        progress=_progress_to_wire(record.progress, shown),
        error=shown(record.error),
        reason=record.reason,
        runs=record.runs,
    )
    for name in ("submitted", "started", "ended"):
        if text := getattr(record, name):
            getattr(message, name).FromDatetime(datetime.fromisoformat(text))
    return message


def _progress_to_wire(progress: Progress, shown: Callable[[str], str]) -> pb.JobProgress:
    message = pb.JobProgress(
        model=progress.model,
        listed=progress.listed,
        observations=progress.observations,
        seconds=progress.seconds,
        warnings=progress.warnings,
        stages=[
            pb.StageProgress(name=name, items=work.items, busy_s=work.busy_s)
            for name, work in progress.stages.items()
        ],
        failures=[
            add_result_to_wire(
                AddResult(one.id, AddStatus.FAILED, 0, one.reason, shown(one.message))
            )
            for one in progress.failures
        ],
        **{str(status): progress.items.get(status, 0) for status in AddStatus},
    )
    if progress.total is not None:
        message.total = progress.total
    if progress.left_s is not None:
        message.left_s = progress.left_s
    return message


def job_from_wire(message: pb.Job) -> Job:
    """The job of a message."""
    sent = message.progress
    progress = JobReport(
        model=sent.model,
        observations=sent.observations,
        failures=[add_result_from_wire(each) for each in sent.failures],
        warnings=list(sent.warnings),
        listed=sent.listed,
        counted=sent.total if sent.HasField("total") else None,
        seconds=sent.seconds,
        stages={each.name: StageWork(each.items, each.busy_s) for each in sent.stages},
    )
    for status in AddStatus:
        progress.items[status] = getattr(sent, status.value)
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
        left_s=sent.left_s if sent.HasField("left_s") else None,
        error=message.error,
        reason=message.reason,
        runs=message.runs,
        **times,
    )
