"""Jobs of a server: have it code media that lie on its own disks."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import grpc

from bittern.service.grpc.job_messages import Job, job_from_wire, spec_to_wire
from bittern.service.jobs.description import JobSpec
from bittern.service.sources import SourceOptions
from bittern.types import OnDuplicate, check_on_duplicate
from bittern.v1 import job_service_pb2 as pb
from bittern.v1 import job_service_pb2_grpc as pb_grpc

_PAGE_SIZE = 1_000


class RemoteJobs:
    """The jobs of the server behind an archive; `RemoteArchive.jobs` is one.

    job = archive.jobs.submit("camera-traps/2026/site-4")
    for job in archive.jobs.watch(job.id):
        print(job.state, job.progress.done, job.left_s)

    Args:
        channel: to the server.
        archive: name of the archive that jobs fill.
        timeout_s: seconds that one answer may take, but for `watch`.
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
        columns: Mapping[str, str] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_duplicate: OnDuplicate = "skip",
        keep_embeddings: bool = False,
        strict: bool = False,
        request_id: str = "",
    ) -> Job:
        """Have a source on the server's disks coded; returns before that is begun.

        Args:
            source: name of a folder that the server's operator has allowed, and a path below it.
            model: a model of the archive, an encoder, or a model that the server has; None for
                the archive's own, and for `field` where it has none.
            bits: code length where a hasher is made; None for 256.
            format: format of the source; None tells it by what is there.
            media: folder with the media, named like `source`, where they lie elsewhere.
            columns: for tables, heading to the column that it becomes.
            include: globs over paths below a folder; none for all media.
            exclude: globs over paths that are left out.
            on_duplicate: what to do with items that the archive has already.
            keep_embeddings: store float16 embeddings beside the codes.
            strict: whether one item that fails makes the job fail, at its end.
            request_id: a name for this submission, so that it can be repeated safely.

        Raises:
            PreconditionError: the server runs no jobs.
            InvalidInputError: an unusable value.
            SourceNotFoundError: nothing is there, or no folder of this name is allowed.
            ModelNotFoundError: the server has no such model.
            LimitExceededError: too many jobs wait already.
        """
        check_on_duplicate(on_duplicate)
        spec = JobSpec(
            kind="index",
            target=self._archive,
            source=source,
            reading=SourceOptions(
                format=format,
                media=media,
                rename=dict(columns or {}),
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
            JobNotFoundError: there is none of this id.
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
        """A job as it is now, and again whenever it has got on, until it has ended.

        Raises:
            JobNotFoundError: there is none of this id.
            ServiceUnavailableError: the server stops; the job goes on when it is started again.
        """
        call = self._stub.WatchJob(pb.WatchJobRequest(id=id))
        try:
            with self._typed_errors():
                for answer in call:
                    yield job_from_wire(answer.job)
        finally:
            call.cancel()

    def cancel(self, id: str) -> Job:  # noqa: A002
        """Ask a job to end; what it has committed stays.

        Raises:
            JobNotFoundError: there is none of this id.
        """
        with self._typed_errors():
            answer = self._stub.CancelJob(pb.CancelJobRequest(id=id), timeout=self._timeout_s)
            return job_from_wire(answer.job)
