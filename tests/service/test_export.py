"""Export over the wire: chunks, formats, refusals, and limits."""

from __future__ import annotations

import io
import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pyarrow.parquet as pq
import pytest

from bittern.client import RemoteArchive
from bittern.errors import (
    BitternError,
    FilterError,
    InternalError,
    LimitExceededError,
    PreconditionError,
    QueryError,
    ServiceUnavailableError,
)
from bittern.service.export.writers import FORMATS, WRITERS
from bittern.service.grpc.messages import EXPORT_FORMATS
from bittern.service.grpc.server import Server
from bittern.service.grpc.status import from_rpc_error
from bittern.service.limits import ServiceConfig
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_archive import PATIENCE_S, FakeArchive, heron

MIB = 1 << 20


@pytest.fixture
def config() -> ServiceConfig:
    return ServiceConfig(workers=8, max_add_streams=2, max_exports=1)


def sent(stub: pb_grpc.ArchiveServiceStub, request: pb.ExportRequest) -> list[pb.ExportResponse]:
    return list(stub.Export(request, timeout=20))


def whole(stub: pb_grpc.ArchiveServiceStub, request: pb.ExportRequest) -> bytes:
    return b"".join(each.data for each in sent(stub, request))


def refusal(stub: pb_grpc.ArchiveServiceStub, request: pb.ExportRequest) -> BitternError:
    with pytest.raises(grpc.RpcError) as caught:
        sent(stub, request)
    return from_rpc_error(caught.value, "server")


def test_every_format_has_a_number_of_its_own() -> None:
    assert set(EXPORT_FORMATS) == set(FORMATS)
    assert set(EXPORT_FORMATS.values()) == set(pb.ExportFormat.values()) - {0}


def test_no_format_means_csv(stub: pb_grpc.ArchiveServiceStub) -> None:
    assert whole(stub, pb.ExportRequest()).startswith(b"id,occurrenceID,")


def test_the_hits_of_a_search_are_exported_with_rank_and_distance(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    search = pb.SearchRequest(text="a heron", k=3)
    request = pb.ExportRequest(format=pb.EXPORT_FORMAT_JSON_LINES, search=search)
    lines = [json.loads(line) for line in whole(stub, request).splitlines()]
    assert [(line["rank"], line["distance"]) for line in lines] == [(1, 1), (2, 2), (3, 3)]
    assert served.exported == []
    table = pb.ExportRequest(format=pb.EXPORT_FORMAT_PARQUET, search=search)
    assert pq.read_table(io.BytesIO(whole(stub, table)))["rank"].to_pylist() == [1, 2, 3]


def test_paths_on_the_server_are_not_sent(stub: pb_grpc.ArchiveServiceStub) -> None:
    search = pb.SearchRequest(text="a heron")
    for name in WRITERS:
        for wanted in (pb.ExportRequest(), pb.ExportRequest(search=search)):
            wanted.format = EXPORT_FORMATS[name]
            assert b"/secret/folder" not in whole(stub, wanted)


@pytest.mark.parametrize(
    ("request_", "kind", "field"),
    [
        (pb.ExportRequest(format=99), QueryError, "format"),  # type: ignore[arg-type]
        (pb.ExportRequest(format=pb.EXPORT_FORMAT_FOLDER), PreconditionError, "format"),
        (pb.ExportRequest(where="x" * 10_001), FilterError, "where"),
        (pb.ExportRequest(search=pb.SearchRequest()), QueryError, "query"),
        (pb.ExportRequest(search=pb.SearchRequest(text="x", k=10**6)), QueryError, "k"),
        (
            pb.ExportRequest(where="captive", search=pb.SearchRequest(text="x")),
            QueryError,
            "where",
        ),
        (
            pb.ExportRequest(search=pb.SearchRequest(text="x", archive="other")),
            QueryError,
            "search.archive",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name(
    stub: pb_grpc.ArchiveServiceStub,
    request_: pb.ExportRequest,
    kind: type[BitternError],
    field: str,
) -> None:
    error = refusal(stub, request_)
    assert (type(error), error.field) == (kind, field)


def test_parallel_exports_are_limited_and_a_cancelled_one_makes_room(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    long = {"remarks": "x" * 60_000}
    served.observations = [replace(heron(row), metadata=long) for row in range(400)]
    open_call = stub.Export(pb.ExportRequest(format=pb.EXPORT_FORMAT_JSON_LINES), timeout=20)
    assert next(open_call).data
    error = refusal(stub, pb.ExportRequest())
    assert type(error) is LimitExceededError
    open_call.cancel()
    served.observations = served.observations[:3]
    patience = time.monotonic() + PATIENCE_S
    while time.monotonic() < patience:
        call = stub.Export(pb.ExportRequest(), timeout=20)
        with suppress(grpc.RpcError):
            list(call)
        if call.code() is grpc.StatusCode.OK:
            return
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    pytest.fail("the slot was never released")


def test_a_server_that_stops_ends_an_export(
    server: Server, stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    long = {"remarks": "x" * 60_000}
    served.observations = [replace(heron(row), metadata=long) for row in range(400)]
    open_call = stub.Export(pb.ExportRequest(format=pb.EXPORT_FORMAT_JSON_LINES), timeout=20)
    assert next(open_call).data
    server.stop(grace=0)
    with pytest.raises(grpc.RpcError):
        list(open_call)


def test_a_file_appears_when_it_is_complete(
    remote: RemoteArchive, served: FakeArchive, tmp_path: Path
) -> None:
    done = remote.export(tmp_path / "all.csv")
    assert (done.observations, done.left_out) == (20, 0)
    before = (tmp_path / "all.csv").read_bytes()
    served.failure = RuntimeError("broken")
    with pytest.raises(InternalError):
        remote.export(tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["all.csv"]


def test_progress_is_reported_while_the_file_arrives(remote: RemoteArchive, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    remote.export(
        tmp_path / "all.txt", format="raven", on_progress=lambda d, t: steps.append((d, t))
    )
    assert steps[-1] == (20, 20)


def test_a_connection_that_is_lost_leaves_no_file(
    remote: RemoteArchive, server: Server, served: FakeArchive, tmp_path: Path
) -> None:
    long = {"remarks": "x" * 60_000}
    served.observations = [replace(heron(row), metadata=long) for row in range(400)]

    def stop(done: int, total: int) -> None:
        server.stop(grace=0)

    with pytest.raises(ServiceUnavailableError):
        remote.export(tmp_path / "all.jsonl", on_progress=stop)
    assert list(tmp_path.iterdir()) == []
