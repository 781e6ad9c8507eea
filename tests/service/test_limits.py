"""What passes a limit is refused by name before any work is done for it."""

from __future__ import annotations

import re
from dataclasses import fields

import grpc
import numpy as np
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
from bittern.service.config import ServiceConfig
from bittern.service.grpc.status import from_rpc_error
from bittern.types import MAX_K, MAX_TEXT_CHARS
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


@pytest.mark.parametrize("k", [0, -1, 10**9, 2**62])
def test_k_out_of_range_is_refused_by_client_and_server(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub, engine: FakeEngine, k: int
) -> None:
    from_client = pytest.raises(QueryError, match=f"1 to 10000, not {k}")
    with from_client:
        remote.search("a heron", k=k)
    error = refusal(stub, pb.SearchRequest(text="a heron", k=k))
    assert type(error) is QueryError
    assert (error.field, f"1 to 10000, not {k}" in error.message) == ("k", True)
    assert engine.seen == []


@pytest.mark.parametrize("within", [-1.0, -1e-9, float("nan"), float("inf"), float("-inf")])
def test_a_within_that_is_no_distance_is_refused_by_client_and_server(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub, engine: FakeEngine, within: float
) -> None:
    said = f"within must be a distance in bits, 0 or more, not {within!r}"
    with pytest.raises(QueryError, match=re.escape(said)) as caught:
        remote.search("a heron", within=within)
    error = refusal(stub, pb.SearchRequest(text="a heron", within=within))
    assert type(error) is QueryError
    assert (error.message, error.field) == (caught.value.message, "within")
    assert engine.seen == []


@pytest.mark.parametrize("recall", [0.0, -0.5, 1.0001, float("nan"), float("inf")])
def test_a_recall_that_is_no_share_is_refused_by_client_and_server(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub, engine: FakeEngine, recall: float
) -> None:
    with pytest.raises(QueryError, match=f"recall must be above 0 .*not {recall!r}") as caught:
        remote.search("a heron", recall=recall)
    error = refusal(stub, pb.SearchRequest(text="a heron", recall=recall))
    assert type(error) is QueryError
    assert (error.message, error.field) == (caught.value.message, "recall")
    assert engine.seen == []


@pytest.mark.parametrize("relevance", [0.0, -0.5, 0.0009, 0.51, float("nan"), float("inf")])
def test_a_relevance_that_is_no_level_is_refused_by_client_and_server(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub, engine: FakeEngine, relevance: float
) -> None:
    said = f"relevance must be strict, usual, loose, or a share .*not {relevance!r}"
    with pytest.raises(QueryError, match=said):
        remote.search("a heron", relevance=relevance)
    error = refusal(stub, pb.SearchRequest(text="a heron", relevance=relevance))
    assert type(error) is QueryError
    assert error.message.startswith("relevance must be a share from 0.001 to 0.5 of")
    assert error.message.endswith(f"not {relevance!r}")
    assert error.field == "relevance"
    assert engine.seen == []


@pytest.mark.parametrize("name", ["within", "recall", "relevance"])
@pytest.mark.parametrize("value", [True, "1", [1], 10**400, 1j])
def test_what_should_be_a_number_and_is_not_is_refused(
    remote: RemoteArchive, name: str, value: object
) -> None:
    with pytest.raises(QueryError, match=f"{name} must be") as caught:
        remote.search("a heron", **{name: value})  # type: ignore[arg-type]
    assert caught.value.field == name


def test_numbers_of_numpy_are_numbers(remote: RemoteArchive, engine: FakeEngine) -> None:
    remote.search(
        "a heron",
        k=np.int64(3),  # type: ignore[arg-type]
        within=np.float32(2.5),  # type: ignore[arg-type]
        relevance=np.float64(0.25),
        recall=np.float32(0.5),  # type: ignore[arg-type]
    )
    [query] = engine.seen
    assert (query.k, query.within, query.relevance, query.recall) == (3, 2.5, 0.25, 0.5)


def test_a_distance_of_minus_zero_is_zero(remote: RemoteArchive, engine: FakeEngine) -> None:
    assert str(remote.search("a heron", within=-0.0).cutoff) == "0.0"


def test_the_ends_of_the_ranges_are_allowed(remote: RemoteArchive, engine: FakeEngine) -> None:
    for within in (0, np.float32(2.5), 1e300):
        remote.search("a heron", within=within)  # type: ignore[arg-type]
    for recall in (1, 1e-9):
        remote.search("a heron", recall=recall)
    for relevance in (0.001, 0.5):
        remote.search("a heron", relevance=relevance)
    assert [query.within for query in engine.seen[:3]] == [0, 2.5, 1e300]
    assert [query.recall for query in engine.seen[3:5]] == [1, 1e-9]
    assert [query.relevance for query in engine.seen[5:]] == [0.001, 0.5]


@pytest.mark.parametrize("k", [True, 2.0, "3", None, 10**30])
def test_a_k_that_is_no_whole_number_is_refused(remote: RemoteArchive, k: object) -> None:
    with pytest.raises(QueryError, match="k must be a whole number"):
        remote.search("a heron", k=k)  # type: ignore[arg-type]


def test_the_largest_k_is_allowed_and_the_default_is_ten(
    remote: RemoteArchive, stub: pb_grpc.ArchiveServiceStub, engine: FakeEngine
) -> None:
    remote.search("a heron", k=MAX_K)
    stub.Search(pb.SearchRequest(text="a heron"))
    assert [query.k for query in engine.seen] == [MAX_K, 10]


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_text_is_refused(remote: RemoteArchive, text: str) -> None:
    with pytest.raises(QueryError, match="text is empty"):
        remote.search(text)
    with pytest.raises(QueryError, match="text is empty"):
        remote.encode(text)


def test_a_text_of_100_kb_is_refused_with_both_numbers(remote: RemoteArchive) -> None:
    with pytest.raises(QueryError, match="100000 characters, the limit is 2000") as caught:
        remote.search("x" * 100_000)
    assert caught.value.field == "text"
    with pytest.raises(QueryError, match="limit is 2000"):
        remote.encode("x" * (MAX_TEXT_CHARS + 1))
    remote.search("x" * MAX_TEXT_CHARS)


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
        remote.search("a \ud800 heron")
    with pytest.raises(InvalidInputError):
        remote.get("\ud800")
