"""What passes a limit is refused by name before any work is done for it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import grpc
import pytest

from bittern.client import RemoteArchive
from bittern.errors import (
    InvalidInputError,
    LimitExceededError,
    MediaTooLargeError,
    QueryError,
)
from bittern.query import MAX_K
from bittern.service.grpc.status import from_rpc_error
from bittern.service.limits import ServiceConfig
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_archive import FakeArchive


@pytest.fixture
def config() -> ServiceConfig:
    return ServiceConfig(
        max_message_bytes=200_000,
        max_item_bytes=1_000,
        workers=4,
        max_add_streams=1,
    )


def test_the_largest_k_is_allowed_and_the_default_is_ten(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    remote.search("a heron", k=MAX_K)
    stub.Search(pb.SearchRequest(text="a heron"))
    assert [query.k for query in served.seen] == [MAX_K, 10]


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_file_over_the_limit_is_refused_with_both_sizes(remote: RemoteArchive, kind: str) -> None:
    fits: dict[str, Any] = {kind: bytes(1_000)}
    large: dict[str, Any] = {kind: bytes(1_001)}
    remote.search(**fits)
    for call in (remote.search, remote.encode):
        with pytest.raises(MediaTooLargeError, match=r"1,001 .*limit is 1,000"):
            call(**large)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.SearchRequest(k=3), "query"),
        (pb.SearchRequest(text="x", target=99), "target"),  # type: ignore[arg-type]
        (pb.SearchRequest(text="x", metric=99), "metric"),  # type: ignore[arg-type]
    ],
)
def test_an_unusable_message_is_refused_with_its_field(
    stub: pb_grpc.ArchiveServiceStub, request_: pb.SearchRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Search(request_, timeout=20)
    error = from_rpc_error(caught.value, "server")
    assert (type(error), error.field) == (QueryError, field)


def test_a_message_over_the_message_limit_is_refused_unread(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    with pytest.raises(LimitExceededError, match="larger than max"):
        remote.search(image=bytes(300_000))
    assert served.seen == []
    assert remote.search("still here").hits


def test_too_many_ids_to_delete_are_refused_and_nothing_is_deleted(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Delete(pb.DeleteRequest(ids=["obs-1"] * 10_001))
    error = from_rpc_error(caught.value, "")
    assert type(error) is LimitExceededError
    assert "10001 ids were given, the limit is 10000" in error.message
    assert len(served.observations) == 20


def test_a_server_refuses_pages_out_of_range(stub: pb_grpc.ArchiveServiceStub) -> None:
    for bad in (
        pb.ListRequest(page_size=-1),
        pb.ListRequest(page_size=1_001),
        pb.ListRequest(page_token="x" * 2_000),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.List(bad)
        assert type(from_rpc_error(caught.value, "")) is QueryError
    assert len(stub.List(pb.ListRequest()).observations) == 20


@pytest.mark.parametrize("name", [f.name for f in fields(ServiceConfig)])
def test_a_limit_below_its_least_value_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} must be at least"):
        ServiceConfig(**{name: -1})


def test_add_streams_may_not_take_every_worker() -> None:
    with pytest.raises(InvalidInputError, match="no worker for searches"):
        ServiceConfig(workers=4, max_add_streams=4)
