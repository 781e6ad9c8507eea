"""The rpcs of `bittern.v1.JobService`."""

# ruff: noqa: N802 - the methods are named as the rpcs are
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc

from bittern.checks import check_model
from bittern.errors import InvalidInputError
from bittern.service.grpc.job_messages import job_to_wire, spec_from_wire
from bittern.service.grpc.messages import page_size_from_wire
from bittern.service.grpc.status import rpc_context
from bittern.service.jobs.queue import JobQueue
from bittern.service.jobs.record import JobRecord
from bittern.service.jobs.serving import AllowedFolders, check_model_name
from bittern.service.limits import ServiceConfig, Slots
from bittern.v1 import job_service_pb2 as pb
from bittern.v1 import job_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from bittern.service.local.archive import LocalArchive

_MAX_REQUEST_ID_CHARS = 100


class JobServicer(pb_grpc.JobServiceServicer):
    """Answers calls about jobs.

    Args:
        queue: runs them.
        allowed: folders of possible sources.
        archive_of: finds an archive by name.
        config: limits.
    """

    def __init__(
        self,
        queue: JobQueue,
        allowed: AllowedFolders,
        archive_of: Callable[[str], LocalArchive],
        config: ServiceConfig,
    ) -> None:
        self._queue = queue
        self._allowed = allowed
        self._archive_of = archive_of
        most = config.at_most_a_quarter(config.max_job_watchers)
        self._watchers = Slots(
            most,
            f"{most} jobs are being watched, which is the limit; call GetJob now and then instead",
        )

    def SubmitJob(
        self, request: pb.SubmitJobRequest, context: grpc.ServicerContext
    ) -> pb.SubmitJobResponse:
        """Check and queue a job."""
        with rpc_context("SubmitJob", context):
            archive = self._archive_of(request.spec.archive)
            if len(request.request_id) > _MAX_REQUEST_ID_CHARS:
                raise InvalidInputError(
                    f"request_id has more than {_MAX_REQUEST_ID_CHARS} characters",
                    field="request_id",
                )
            spec = replace(spec_from_wire(request.spec), target=archive.name)
            check_model(spec.model)
            check_model_name(spec.model, {m.name for m in archive.models()})
            self._allowed.find(spec.source)
            if spec.reading.media is not None:
                self._allowed.find(spec.reading.media, "media")
            record = self._queue.submit(archive.name, spec, request.request_id)
            return pb.SubmitJobResponse(job=self._message(record))

    def GetJob(self, request: pb.GetJobRequest, context: grpc.ServicerContext) -> pb.GetJobResponse:
        """Return one job."""
        with rpc_context("GetJob", context):
            return pb.GetJobResponse(job=self._message(self._queue.get(request.id)))

    def ListJobs(
        self, request: pb.ListJobsRequest, context: grpc.ServicerContext
    ) -> pb.ListJobsResponse:
        """Return one page of jobs."""
        with rpc_context("ListJobs", context):
            archive = self._archive_of(request.archive).name if request.archive else None
            size = page_size_from_wire(request.page_size, request.page_token)
            found = self._queue.list(archive, request.page_token, size + 1)
            return pb.ListJobsResponse(
                jobs=[self._message(record) for record in found[:size]],
                next_page_token=found[size - 1].id if len(found) > size else "",
            )

    def WatchJob(
        self, request: pb.WatchJobRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchJobResponse]:
        """Return a job after each change, until it has ended."""
        with rpc_context("WatchJob", context), self._watchers.taken():
            for record in self._queue.watch(request.id, lambda: not context.is_active()):
                yield pb.WatchJobResponse(job=self._message(record))

    def CancelJob(
        self, request: pb.CancelJobRequest, context: grpc.ServicerContext
    ) -> pb.CancelJobResponse:
        """Cancel a job."""
        with rpc_context("CancelJob", context):
            return pb.CancelJobResponse(job=self._message(self._queue.cancel(request.id)))

    def _message(self, record: JobRecord) -> pb.Job:
        return job_to_wire(record, self._allowed.without_paths)
