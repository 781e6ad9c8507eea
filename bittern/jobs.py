"""Jobs: code media in this process, or have a server code media on its own disks.

spec = JobSpec("index", "my-archive", "/media/season-2024")
report = run_job(spec, lambda report: print(report.done, report.left_s))
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import grpc

from bittern.service.grpc.job_messages import Job, job_from_wire, spec_to_wire
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress, never
from bittern.service.jobs.description import JobSpec
from bittern.service.sources import SourceOptions
from bittern.types import OnDuplicate
from bittern.v1 import job_service_pb2 as pb
from bittern.v1 import job_service_pb2_grpc as pb_grpc

__all__ = ["Job", "JobReport", "JobSpec", "RemoteJobs", "SourceOptions", "run_job"]

_PAGE_SIZE = 1_000


def run_job(
    spec: JobSpec,
    on_progress: OnProgress = lambda report: None,
    cancelled: Cancelled = never,
) -> JobReport:
    """Do a job in this process, or what is left of it.

    The same job run again does only what is missing. One bad file never ends it.

    Args:
        spec: what to do.
        on_progress: called after every commit, and about once a second, with the live report;
            from one thread at a time, not always the caller's.
        cancelled: called often, from any thread; once it is true, the job makes a last commit
            and returns with the state ``stopped``.

    Raises:
        BitternError: the job cannot begin, or continue: a missing source or model, a full disk.
            What was committed stays.
    """
    from bittern.service.jobs import run

    return run.run_job(spec, on_progress, cancelled)


class RemoteJobs:
    """The jobs of the server behind an archive; `RemoteArchive.jobs` is one.

    job = archive.jobs.submit("camera-traps/2026/site-4")
    for job in archive.jobs.watch(job.id):
        print(job.state, job.progress.done, job.left_s)

    Args:
        channel: to the server.
        archive: name of the archive that jobs fill.
        timeout_s: seconds that one answer may take, except for `watch`.
        typed_errors: turns what gRPC raises into Bittern's own errors.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        archive: str,
        timeout_s: float | None,
        typed_errors: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._stub = pb_grpc.JobServiceStub(channel)
        self._archive = archive
        self._timeout_s = timeout_s
        self._typed_errors = typed_errors

    def submit(
        self,
        source: str,
        *,
        model: str | None = None,
        bits: int | None = None,
        format: str | None = None,  # noqa: A002 - as the command line calls it
        media: str | None = None,
        rename: Mapping[str, str] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_duplicate: OnDuplicate = "skip",
        keep_embeddings: bool = False,
        strict: bool = False,
        request_id: str = "",
    ) -> Job:
        """Queue a source on the server's disks; returns at once.

        Args:
            source: name of a folder that the server's operator has allowed, and a path below it.
            model: a model of the archive, an encoder, or a model that the server has; None for
                the archive's own, or `field` if it has none.
            bits: code length, if a hasher is fitted; None for 256.
            format: format of the source; None detects it.
            media: folder of the media, named like `source`, if they are not beside it.
            rename: new names of a table's columns, by heading.
            include: globs over paths below a folder; none for all media.
            exclude: globs over paths to skip.
            on_duplicate: what to do with items that the archive has already.
            keep_embeddings: store float16 embeddings beside the codes.
            strict: whether one item that fails makes the job fail, at its end.
            request_id: a name for this submission: given again, no second job is made.

        Raises:
            PreconditionError: the server runs no jobs.
            InvalidInputError: an unusable value.
            SourceNotFoundError: there is no such path, or no folder of this name is allowed.
            ModelNotFoundError: the server has no such model.
            LimitExceededError: too many jobs wait already.
        """
        spec = JobSpec(
            kind="index",
            target=self._archive,
            source=source,
            reading=SourceOptions(
                format=format,
                media=media,
                rename=dict(rename or {}),
                include=tuple(include),
                exclude=tuple(exclude),
            ),
            model=model or "",
            bits=bits,
            on_duplicate=on_duplicate,
            keep_embeddings=keep_embeddings,
            strict=strict,
        )
        with self._typed_errors():
            request = pb.SubmitJobRequest(
                spec=spec_to_wire(spec, self._archive), request_id=request_id
            )
            return job_from_wire(self._stub.SubmitJob(request, timeout=self._timeout_s).job)

    def get(self, id: str) -> Job:  # noqa: A002
        """One job as it is now.

        Raises:
            JobNotFoundError: no job has this id.
        """
        with self._typed_errors():
            answer = self._stub.GetJob(pb.GetJobRequest(id=id), timeout=self._timeout_s)
            return job_from_wire(answer.job)

    def list(self) -> builtins.list[Job]:
        """The archive's jobs, the newest first."""
        jobs: builtins.list[Job] = []
        token = ""
        while True:
            with self._typed_errors():
                request = pb.ListJobsRequest(
                    archive=self._archive, page_size=_PAGE_SIZE, page_token=token
                )
                answer = self._stub.ListJobs(request, timeout=self._timeout_s)
                jobs += [job_from_wire(each) for each in answer.jobs]
            token = answer.next_page_token
            if not token:
                return jobs

    def watch(self, id: str) -> Iterator[Job]:  # noqa: A002
        """A job as it is now, and again after each change, until it has ended.

        Raises:
            JobNotFoundError: no job has this id.
            ServiceUnavailableError: the server stops; the job continues after its restart.
        """
        call = self._stub.WatchJob(pb.WatchJobRequest(id=id))
        try:
            with self._typed_errors():
                for answer in call:
                    yield job_from_wire(answer.job)
        finally:
            call.cancel()

    def cancel(self, id: str) -> Job:  # noqa: A002
        """Cancel a job; what it has committed stays.

        Raises:
            JobNotFoundError: no job has this id.
        """
        with self._typed_errors():
            answer = self._stub.CancelJob(pb.CancelJobRequest(id=id), timeout=self._timeout_s)
            return job_from_wire(answer.job)
