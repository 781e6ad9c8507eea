"""Jobs over the wire, between a real server and a real client; what runs them is a stub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from bittern.client import RemoteArchive, connect
from bittern.errors import (
    BitternError,
    InvalidInputError,
    JobNotFoundError,
    ModelNotFoundError,
    PreconditionError,
    QueryError,
    SourceNotFoundError,
)
from bittern.service.grpc.server import Server, serve
from bittern.service.jobs.queue import JobQueue
from bittern.service.jobs.serving import AllowedFolders, Jobs
from bittern.service.limits import ServiceConfig
from bittern.types import AddResult, AddStatus
from bittern.v1 import job_service_pb2 as pb
from bittern.v1 import job_service_pb2_grpc as pb_grpc
from tests.jobs.test_queue import WAIT_S, Runner
from tests.service.fake_archive import MODEL, FakeArchive


@pytest.fixture
def run() -> Runner:
    return Runner()


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    folder = tmp_path / "traps"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"jpeg")
    return folder


@pytest.fixture
def busy(tmp_path: Path, run: Runner, traps: Path) -> Iterator[Server]:
    jobs = Jobs(JobQueue({"herons": tmp_path / "jobs"}, run), AllowedFolders({"traps": traps}))
    server = serve({"herons": FakeArchive()}, listen="127.0.0.1:0", jobs=jobs)
    yield server
    server.stop(grace=0)


@pytest.fixture
def archive(busy: Server) -> Iterator[RemoteArchive]:
    with connect(busy.address, timeout_s=20) as archive:
        yield archive


def test_a_job_is_submitted_watched_and_listed(
    archive: RemoteArchive, run: Runner, traps: Path
) -> None:
    job = archive.jobs.submit("traps", model=MODEL)
    assert (job.archive, job.source, job.state, job.runs) == ("herons", "traps", "queued", 0)
    watched = archive.jobs.watch(job.id)
    next(watched)
    run.begun.acquire(timeout=WAIT_S)
    run.go.release()
    last = list(watched)[-1]
    assert last.state == "done"
    assert last.progress.items[AddStatus.ADDED] == 1
    assert (last.progress.model, last.progress.total) == ("fake-64", 3)
    assert last.started is not None
    assert last.ended is not None
    assert job.submitted <= last.started <= last.ended
    assert [one.id for one in archive.jobs.list()] == [job.id]
    assert archive.jobs.get(job.id) == last


def test_a_job_is_cancelled(archive: RemoteArchive, run: Runner) -> None:
    job = archive.jobs.submit("traps")  # with the archive's own model
    run.begun.acquire(timeout=WAIT_S)
    assert archive.jobs.cancel(job.id).state == "running"
    assert list(archive.jobs.watch(job.id))[-1].state == "cancelled"


def test_failures_are_returned_without_paths(
    archive: RemoteArchive, run: Runner, traps: Path
) -> None:
    run.error = SourceNotFoundError(f"{traps} holds no media")
    run.go.release()
    [*_, last] = archive.jobs.watch(archive.jobs.submit("traps").id)
    assert (last.state, last.reason) == ("failed", "SOURCE_NOT_FOUND")
    assert last.error == "traps holds no media"
    assert last.progress.failures == []


def test_items_that_failed_are_named(archive: RemoteArchive, run: Runner) -> None:
    run.failed_items = 150
    run.go.release()
    [*_, last] = archive.jobs.watch(archive.jobs.submit("traps", strict=True).id)
    assert last.state == "failed"
    assert last.progress.items[AddStatus.FAILED] == 150
    assert len(last.progress.failures) == 100
    assert last.progress.failures[0] == AddResult("f0", AddStatus.FAILED)


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda j: j.submit("owls"), SourceNotFoundError, "no folder called 'owls' is allowed"),
        (lambda j: j.submit("traps/owls"), SourceNotFoundError, "nothing at 'traps/owls'"),
        (lambda j: j.submit("traps/../owls"), InvalidInputError, r"without '\.\.'"),
        (lambda j: j.submit("traps", media="/etc"), InvalidInputError, "media"),
        (lambda j: j.submit("traps", model="eye"), ModelNotFoundError, "no model 'eye'"),
        (lambda j: j.submit("traps", model="../models/evil"), QueryError, "not a path"),
        (lambda j: j.get("x"), JobNotFoundError, "'x'"),
        (lambda j: list(j.watch("x")), JobNotFoundError, "'x'"),
    ],
)
def test_an_unusable_call_is_refused(
    archive: RemoteArchive, call: Callable[[Any], object], kind: type[BitternError], match: str
) -> None:
    with pytest.raises(kind, match=match):
        call(archive.jobs)
    assert archive.jobs.list() == []


def test_a_repeated_submission_is_the_same_job(archive: RemoteArchive) -> None:
    first = archive.jobs.submit("traps", request_id="tonight")
    assert archive.jobs.submit("traps", request_id="tonight").id == first.id


def test_a_server_without_allowed_folders_refuses_jobs(remote: RemoteArchive) -> None:
    with pytest.raises(PreconditionError, match="--jobs-from FOLDER"):
        remote.jobs.submit("traps")
    assert remote.jobs.list() == []


def test_watchers_are_limited_so_that_workers_stay_for_searches(
    busy: Server, archive: RemoteArchive, run: Runner
) -> None:
    job = archive.jobs.submit("traps")
    limit = ServiceConfig().max_job_watchers
    open_calls = [archive.jobs.watch(job.id) for _ in range(limit)]
    for call in open_calls:
        next(call)
    with grpc.insecure_channel(busy.address) as channel:
        stub = pb_grpc.JobServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.WatchJob(pb.WatchJobRequest(id=job.id)))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    run.go.release()
    assert list(open_calls[0])[-1].state == "done"


def test_the_server_stops_while_a_job_runs_and_is_watched(
    busy: Server, archive: RemoteArchive, run: Runner
) -> None:
    job = archive.jobs.submit("traps")
    run.begun.acquire(timeout=WAIT_S)
    watched = archive.jobs.watch(job.id)
    next(watched)
    busy.stop(grace=WAIT_S)
    with pytest.raises(Exception, match="continues when it is started again"):
        list(watched)
