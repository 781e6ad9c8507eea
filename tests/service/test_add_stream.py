"""Adding: batches are committed and answered one by one, and memory stays bounded."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from bittern.client import RemoteArchive
from bittern.errors import (
    ArchiveLockedError,
    ArchiveNotFoundError,
    DeadlineExceededError,
    InvalidInputError,
    LimitExceededError,
    ModelNotFoundError,
    ServiceUnavailableError,
)
from bittern.service.grpc.add_stream import answer_add
from bittern.service.grpc.server import Server
from bittern.service.grpc.status import from_rpc_error
from bittern.service.limits import Deadline, ServiceConfig
from bittern.types import AddStatus, MediaItem
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from bittern.v1 import observation_pb2 as opb
from tests.service.fake_archive import PATIENCE_S, FakeArchive

FLUSH = pb.AddRequest(flush=pb.AddFlush())


def options(**given: object) -> pb.AddRequest:
    return pb.AddRequest(options=pb.AddOptions(**given))  # type: ignore[arg-type]


def photo(name: str, data: bytes = b"x") -> pb.AddRequest:
    item = pb.MediaItem(
        occurrence_id=name, media=f"{name}.jpg", modality=opb.MODALITY_IMAGE, data=data
    )
    return pb.AddRequest(item=item)


class Sender:
    """A client's side of a stream that sends only what the test says."""

    def __init__(self, stub: pb_grpc.ArchiveServiceStub) -> None:
        self._queue: queue.SimpleQueue[pb.AddRequest | None] = queue.SimpleQueue()
        self.call = stub.Add(iter(self._queue.get, None), timeout=PATIENCE_S)

    def send(self, *messages: pb.AddRequest) -> None:
        for message in messages:
            self._queue.put(message)

    def end(self) -> None:
        self._queue.put(None)

    def answer(self) -> tuple[list[str], bool]:
        response = next(self.call)
        return [each.occurrence_id for each in response.results], response.flushed


@pytest.fixture
def sender(stub: pb_grpc.ArchiveServiceStub) -> Iterator[Sender]:
    sender = Sender(stub)
    yield sender
    sender.end()
    sender.call.cancel()


def answers(
    served: FakeArchive,
    messages: Iterator[pb.AddRequest],
    *,
    config: ServiceConfig | None = None,
    stopping: threading.Event | None = None,
    gone: bool = False,
) -> Iterator[pb.AddResponse]:
    return answer_add(
        messages,
        archive_of=lambda name: served,
        config=config or ServiceConfig(),
        deadline=Deadline(lambda: None, lambda: gone),
        stopping=stopping or threading.Event(),
    )


def test_a_batch_is_answered_before_more_is_sent(sender: Sender, served: FakeArchive) -> None:
    sender.send(options(batch_size=2), photo("a"), photo("b"))
    assert sender.answer() == (["a", "b"], False)
    assert served.commits == [2]
    sender.send(photo("c"), photo("d"))
    assert sender.answer() == (["c", "d"], False)
    assert served.commits == [2, 2]
    sender.send(photo("e"))
    sender.end()
    assert sender.answer() == (["e"], False)
    assert next(sender.call, None) is None


def test_a_flush_marker_commits_the_waiting_items_and_is_answered(
    sender: Sender, served: FakeArchive
) -> None:
    sender.send(options(), photo("a"), FLUSH)
    assert sender.answer() == (["a"], False)
    assert sender.answer() == ([], True)
    sender.send(FLUSH)
    assert sender.answer() == ([], True)
    assert served.commits == [1]


def test_no_more_is_read_than_one_batch_before_it_is_answered() -> None:
    read: list[int] = []

    def endless() -> Iterator[pb.AddRequest]:
        yield options(batch_size=3)
        while True:
            read.append(len(read))
            yield photo(f"p{len(read)}")

    stream = answers(FakeArchive(), endless())
    for commits in (1, 2, 3):
        next(stream)
        assert len(read) == 3 * commits


@pytest.mark.parametrize("limit", [{"max_batch_bytes": 100}, {"max_batch_items": 2}])
def test_a_batch_is_committed_once_it_holds_enough(limit: dict[str, int]) -> None:
    served = FakeArchive()
    messages = [options(batch_size=10**6), *(photo(f"p{i}", bytes(60)) for i in range(5))]
    list(answers(served, iter(messages), config=ServiceConfig(**limit)))
    assert served.commits == [2, 2, 1]


def test_an_item_over_the_limit_fails_alone() -> None:
    served = FakeArchive()
    messages = [options(), photo("a"), photo("big", bytes(101)), photo("b")]
    [answer] = answers(served, iter(messages), config=ServiceConfig(max_item_bytes=100))
    by_id = {each.occurrence_id: each for each in answer.results}
    assert [each.occurrence_id for each in answer.results] == ["big", "a", "b"]
    assert by_id["big"].status == pb.ADD_STATUS_FAILED
    assert by_id["big"].reason == "MEDIA_TOO_LARGE"
    assert "big.jpg: data has 101 bytes, the limit is 100" in by_id["big"].message
    assert [item.occurrence_id for item in served.added] == ["a", "b"]
    alone = iter([options(), photo("big", bytes(101))])
    [answer] = answers(served, alone, config=ServiceConfig(max_item_bytes=100))
    assert [each.reason for each in answer.results] == ["MEDIA_TOO_LARGE"]


@pytest.mark.parametrize("number", [0, opb.MODALITY_TEXT, 77])
def test_an_item_that_is_neither_picture_nor_sound_fails_alone(number: int) -> None:
    strange = photo("a")
    strange.item.modality = number  # type: ignore[assignment]
    [answer] = answers(FakeArchive(), iter([options(), strange, photo("b")]))
    assert [each.status for each in answer.results] == [pb.ADD_STATUS_FAILED, pb.ADD_STATUS_ADDED]


def test_a_path_in_the_media_name_is_a_label_only(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    label = "../../etc/passwd"
    [[result]] = remote.add([MediaItem("a", label, "image", data=b"picture", media_root="/etc")])
    assert result.status is AddStatus.ADDED
    assert served.added == [MediaItem("a", label, "image", data=b"picture")]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [photo("a")],
        [FLUSH],
        [pb.AddRequest()],
        [options(), options()],
        [options(), pb.AddRequest()],
        [options(batch_size=-1)],
    ],
)
def test_messages_out_of_order_are_refused(messages: list[pb.AddRequest]) -> None:
    served = FakeArchive()
    with pytest.raises(InvalidInputError):
        list(answers(served, iter(messages)))
    assert served.commits == []


def test_a_caller_that_hung_up_has_nothing_more_committed() -> None:
    served = FakeArchive()
    with pytest.raises(Exception, match="hung up before the next batch was committed"):
        list(answers(served, iter([options(batch_size=1), photo("a")]), gone=True))
    assert served.commits == []


def test_a_stopping_server_commits_and_answers_what_it_holds() -> None:
    served, stopping = FakeArchive(), threading.Event()

    def messages() -> Iterator[pb.AddRequest]:
        yield options()
        yield photo("a")
        stopping.set()
        yield photo("b")
        raise AssertionError("nothing more is read")

    stream = answers(served, messages(), stopping=stopping)
    assert [each.occurrence_id for each in next(stream).results] == ["a", "b"]
    with pytest.raises(ServiceUnavailableError, match="what has been answered is stored"):
        next(stream)


def silent_after(*messages: pb.AddRequest) -> Iterator[pb.AddRequest]:
    yield from messages
    threading.Event().wait(PATIENCE_S)


def test_a_silent_client_has_its_items_committed_and_its_call_ended() -> None:
    config = ServiceConfig(add_idle_s=0.05)
    stream = answers(FakeArchive(), silent_after(options(), photo("a")), config=config)
    assert [each.occurrence_id for each in next(stream).results] == ["a"]
    with pytest.raises(DeadlineExceededError, match=r"no item came for 0\.05 s"):
        next(stream)


def test_the_call_of_a_silent_client_is_ended() -> None:
    with pytest.raises(DeadlineExceededError, match="no item came"):
        list(answers(FakeArchive(), silent_after(), config=ServiceConfig(add_idle_s=0)))


def test_stopping_does_not_wait_for_a_silent_client(sender: Sender, server: Server) -> None:
    sender.send(options(), FLUSH)
    assert sender.answer() == ([], True)
    stopping = threading.Thread(target=server.stop, args=(10 * PATIENCE_S,))
    stopping.start()
    with pytest.raises(grpc.RpcError) as caught:
        sender.answer()
    assert type(from_rpc_error(caught.value, "")) is ServiceUnavailableError
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()


def test_a_cancelled_stream_ends_and_makes_room_for_another(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    ended = threading.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "method=Add" in record.getMessage():
                ended.set()

    log, ear = logging.getLogger("bittern.service"), Ear()
    log.addHandler(ear)
    log.setLevel(logging.INFO)
    try:
        for _ in range(3):  # one more than the limit
            ended.clear()
            sender = Sender(stub)
            sender.send(options(), photo("answered"), FLUSH, photo("not answered"))
            sender.answer()
            sender.call.cancel()
            assert ended.wait(PATIENCE_S)
            sender.end()
    finally:
        log.removeHandler(ear)
    assert served.added[0].occurrence_id == "answered"


def test_more_add_calls_than_the_limit_are_refused(stub: pb_grpc.ArchiveServiceStub) -> None:
    held = [Sender(stub), Sender(stub)]
    for sender in held:
        sender.send(options(), FLUSH)
        sender.answer()
    refused = Sender(stub)
    refused.send(options())
    with pytest.raises(grpc.RpcError) as caught:
        refused.answer()
    error = from_rpc_error(caught.value, "")
    assert type(error) is LimitExceededError
    assert "2 Add calls are open" in error.message
    for sender in [*held, refused]:
        sender.end()
        sender.call.cancel()


# The client's side


def item(name: str, data: bytes | None = b"x", path: Path | None = None) -> MediaItem:
    return MediaItem(name, f"{name}.jpg", "image", data=data, path=path)


def test_the_client_reads_items_a_batch_at_a_time(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    read = []

    def items() -> Iterator[MediaItem]:
        for i in range(6):
            read.append(i)
            yield item(f"p{i}")

    adding = remote.add(items(), batch_size=2)
    assert read == []
    next(adding)
    assert (read, served.commits) == ([0, 1], [2])
    adding.close()
    assert served.commits == [2]
    assert adding.totals.added == 2
    assert "2 added" in repr(adding)


def test_the_client_sends_files_and_answers_for_those_it_cannot_read(
    remote: RemoteArchive, served: FakeArchive, tmp_path: Path
) -> None:
    there = tmp_path / "there.jpg"
    there.write_bytes(b"picture")
    items = [
        item("there", None, there),
        item("missing", None, tmp_path / "missing.jpg"),
        item("neither", None),
        MediaItem("huge number", "h.jpg", "image", data=b"x", metadata={"n": 2**64}),
        MediaItem("smell", "s.jpg", "smell", data=b"x"),
        item("\ud800"),
    ]
    totals = remote.add(items).wait()
    assert [each.data for each in served.added] == [b"picture"]
    reasons = {each.occurrence_id: each.reason for each in totals.failures}
    assert reasons == {
        "missing": "SOURCE_NOT_FOUND",
        "neither": "INVALID_INPUT",
        "huge number": "METADATA",
        "smell": "INVALID_INPUT",
        "\ud800": "INVALID_INPUT",
    }
    assert str(totals) == "1 added (1 observations), 5 failed"


def test_an_error_in_the_callers_own_iterator_is_the_callers(remote: RemoteArchive) -> None:
    def items() -> Iterator[MediaItem]:
        yield item("a")
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        remote.add(items()).wait()
    assert remote.stats()


def test_errors_of_the_whole_call_are_typed(remote: RemoteArchive, served: FakeArchive) -> None:
    with pytest.raises(ModelNotFoundError):
        remote.add([item("a")], model="clip").wait()
    served.failure = ArchiveLockedError("another process writes to this archive")
    with pytest.raises(ArchiveLockedError):
        remote.add((item(f"p{i}") for i in range(100)), batch_size=50).wait()
    remote.name = "unknown"
    with pytest.raises(ArchiveNotFoundError):
        remote.add([]).wait()


def test_a_server_that_stops_during_an_add_is_unavailable_and_keeps_what_it_answered(
    remote: RemoteArchive, server: Server, served: FakeArchive
) -> None:
    adding = remote.add((item(f"p{i}") for i in range(10)), batch_size=2)
    next(adding)
    server.stop(grace=0)
    with pytest.raises(ServiceUnavailableError):
        adding.wait()
    assert served.commits == [2]
