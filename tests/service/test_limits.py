"""What passes a limit is refused by name before any work is done for it."""

from __future__ import annotations

from dataclasses import fields

import grpc
import pytest

from bittern.client import RemoteArchive
from bittern.errors import (
    BitternError,
    FilterError,
    InvalidInputError,
    LimitExceededError,
    MediaTooLargeError,
    QueryError,
)
from bittern.service.grpc.status import from_rpc_error
from bittern.service.limits import ServiceConfig
from bittern.types import MAX_K
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_engine import FakeEngine


@pytest.fixture
def config() -> ServiceConfig:
    return ServiceConfig(
        max_message_bytes=200_000,
        max_item_bytes=1_000,
        max_delete_ids=5,
        max_page_size=10,
        max_where_chars=100,
        workers=4,
        max_add_streams=1,
    )


def refusal(stub: pb_grpc.ArchiveServiceStub, request: pb.SearchRequest) -> BitternError:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Search(request, timeout=20)
    return from_rpc_error(caught.value, "server")


def test_the_largest_k_is_allowed_and_the_default_is_ten(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub, engine: FakeEngine
) -> None:
    remote.search("a heron", k=MAX_K)
    stub.Search(pb.SearchRequest(text="a heron"))
    assert [query.k for query in engine.seen] == [MAX_K, 10]


def test_nothing_or_two_things_to_search_with_is_refused(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub
) -> None:
    with pytest.raises(QueryError, match="none of them"):
        remote.search()
    with pytest.raises(QueryError, match="text and id"):
        remote.search("a heron", id="obs-1")
    with pytest.raises(QueryError, match="text and image"):
        remote.encode("a heron", image=b"x")
    error = refusal(stub, pb.SearchRequest(k=3))
    assert (type(error), error.field) == (QueryError, "query")


def test_unknown_targets_and_metrics_are_refused(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub
) -> None:
    with pytest.raises(QueryError, match="image or audio, not 'smell'"):
        remote.search("a heron", target="smell")
    with pytest.raises(QueryError, match="asymmetric or hamming, not 'cosine'"):
        remote.search("a heron", metric="cosine")  # type: ignore[arg-type]
    error = refusal(stub, pb.SearchRequest(text="x", target=99))  # type: ignore[arg-type]
    assert (type(error), error.field) == (QueryError, "target")
    error = refusal(stub, pb.SearchRequest(text="x", metric=99))  # type: ignore[arg-type]
    assert (type(error), error.field) == (QueryError, "metric")


def test_a_picture_over_the_item_limit_is_refused(remote: RemoteArchive) -> None:
    remote.search(image=bytes(1_000))
    with pytest.raises(MediaTooLargeError, match="1,001 bytes, the limit is 1,000"):
        remote.search(image=bytes(1_001))
    with pytest.raises(MediaTooLargeError, match="1,001 bytes, the limit is 1,000"):
        remote.encode(audio=bytes(1_001))


def test_a_message_over_the_message_limit_is_refused_unread(
    remote: RemoteArchive, engine: FakeEngine
) -> None:
    with pytest.raises(LimitExceededError, match="larger than max"):
        remote.search(image=bytes(300_000))
    assert engine.seen == []
    assert remote.search("still here").hits


def test_a_long_filter_is_refused(remote: RemoteArchive) -> None:
    with pytest.raises(FilterError, match="limit is 100"):
        remote.search("a heron", where="x" * 101)
    with pytest.raises(FilterError, match="limit is 100"):
        list(remote.list(where="x" * 101))


def test_too_many_ids_to_delete_are_refused_and_nothing_is_deleted(
    remote: RemoteArchive, engine: FakeEngine
) -> None:
    with pytest.raises(LimitExceededError, match="6 ids were given, the limit is 5"):
        remote.delete([o.id for o in engine.observations[:6]])
    assert len(engine.observations) == 20


def test_page_sizes_out_of_range_are_refused(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub
) -> None:
    with pytest.raises(QueryError, match="page_size must be a whole number from 1"):
        remote.list(page_size=0)
    with pytest.raises(QueryError, match="from 1 to 10, not 11"):
        list(remote.list(page_size=11))
    for bad in (pb.ListRequest(page_size=-1), pb.ListRequest(page_token="x" * 2_000)):
        with pytest.raises(grpc.RpcError) as caught:
            stub.List(bad)
        assert type(from_rpc_error(caught.value, "")) is QueryError
    assert len(stub.List(pb.ListRequest()).observations) == 10


@pytest.mark.parametrize("name", [f.name for f in fields(ServiceConfig)])
def test_a_limit_below_its_least_value_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} must be at least"):
        ServiceConfig(**{name: -1})


def test_add_streams_may_not_take_every_worker() -> None:
    with pytest.raises(InvalidInputError, match="no worker for searches"):
        ServiceConfig(workers=4, max_add_streams=4)


def test_half_a_surrogate_is_refused_before_it_is_sent(remote: RemoteArchive) -> None:
    with pytest.raises(QueryError, match="not Unicode"):
        remote.get("\ud800")
