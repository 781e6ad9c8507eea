"""Deadlines, callers that hang up, and many callers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from bittern.client import RemoteArchive, connect
from bittern.errors import DeadlineExceededError, InvalidInputError, LimitExceededError
from bittern.service.grpc.server import Server, serve
from bittern.service.grpc.status import from_rpc_error
from bittern.service.limits import Deadline, ServiceConfig
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_archive import PATIENCE_S, FakeArchive, Hold


class EndlessSearch:
    """Steps for ever, asking the deadline between two of them."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.stopped = threading.Event()
        self.error: DeadlineExceededError | None = None

    def __call__(self, deadline: Deadline | None) -> None:
        assert deadline is not None
        self.begun.set()
        step = threading.Event()
        for _ in range(100 * PATIENCE_S):
            step.wait(0.01)
            try:
                deadline.check("the next step")
            except DeadlineExceededError as error:
                self.error = error
                self.stopped.set()
                raise


@pytest.mark.parametrize("left", [None, 0.001, float("inf")])
def test_a_deadline_with_time_left_lets_pass(left: float | None) -> None:
    Deadline(lambda: left).check("anything")


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_a_passed_deadline_names_the_step(left: float) -> None:
    with pytest.raises(DeadlineExceededError, match="before encoding the query"):
        Deadline(lambda: left).check("encoding the query")


def test_a_search_stops_when_its_deadline_passes(server: Server, served: FakeArchive) -> None:
    search = served.on_search = EndlessSearch()
    with connect(server.address, timeout_s=PATIENCE_S) as remote:
        remote._timeout_s = 0.2
        with pytest.raises(DeadlineExceededError, match=r"timeout_s|deadline"):
            remote.search("a heron")
    assert search.stopped.wait(PATIENCE_S)


def test_a_search_stops_when_its_caller_hangs_up(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    search = served.on_search = EndlessSearch()
    call = stub.Search.future(pb.SearchRequest(text="a heron"))
    assert search.begun.wait(PATIENCE_S)
    call.cancel()
    assert search.stopped.wait(PATIENCE_S)
    assert "hung up before the next step" in str(search.error)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused(server: Server, timeout_s: float) -> None:
    with pytest.raises(InvalidInputError, match="timeout_s"):
        connect(server.address, timeout_s=timeout_s)


def test_concurrent_searches_each_get_their_own_answer(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    together = threading.Barrier(4)

    def meet(deadline: Deadline | None) -> None:
        together.wait(PATIENCE_S)

    served.on_search = meet
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda k: remote.search(f"{k} herons", k=k), range(1, 13)))
    assert [len(result.hits) for result in found] == list(range(1, 13))


@pytest.fixture
def narrow(served: FakeArchive) -> Iterator[Server]:
    config = ServiceConfig(workers=2, max_add_streams=1, max_concurrent_rpcs=2)
    server = serve({"herons": served}, listen="127.0.0.1:0", config=config)
    yield server
    server.stop(grace=0)


def test_calls_over_the_limit_are_refused_at_once_and_served_again_later(
    narrow: Server, served: FakeArchive
) -> None:
    hold = served.on_search = Hold()
    with grpc.insecure_channel(narrow.address) as channel:
        stub = pb_grpc.ArchiveServiceStub(channel)
        request = pb.SearchRequest(text="a heron")
        held = [stub.Search.future(request) for _ in range(2)]
        for _ in held:
            assert hold.begun.acquire(timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Search(request, timeout=PATIENCE_S)
        assert type(from_rpc_error(caught.value, "")) is LimitExceededError
        hold.release.set()
        assert all(call.result(PATIENCE_S).hits for call in held)
