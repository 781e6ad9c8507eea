"""A server's errors arrive as the same class, with the same message, field and details."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from bittern.client import RemoteArchive, connect
from bittern.errors import (
    BitternError,
    CodeError,
    DeadlineExceededError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    ModelNotFoundError,
    NotFoundError,
    ObservationNotFoundError,
    PreconditionError,
    QueryError,
    ServiceUnavailableError,
    UnsupportedModalityError,
)
from bittern.service.grpc.server import serve
from bittern.service.grpc.status import from_rpc_error, shorten, to_status
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_archive import FakeArchive


def every_class(root: type[BitternError] = BitternError) -> Iterator[type[BitternError]]:
    yield root
    for child in root.__subclasses__():
        yield from every_class(child)


class FailedCall(grpc.RpcError):
    """What a stub raises, made by hand."""

    def __init__(self, code: grpc.StatusCode, details: str | None, trailers: Any = ()) -> None:
        self._parts = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str | None:
        return self._parts[1]

    def trailing_metadata(self) -> Any:
        return self._parts[2]


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_itself(
    remote: RemoteArchive, served: FakeArchive, kind: type[BitternError]
) -> None:
    served.failure = kind(
        "bad \N{BIRD} 5%\nnext line", field="where", details={"limit": "5", "ö": "\t"}
    )
    with pytest.raises(kind) as caught:
        remote.search("a heron")
    assert type(caught.value) is kind
    assert caught.value.message == "bad \N{BIRD} 5%\nnext line"
    assert caught.value.field == "where"
    assert caught.value.details == {"limit": "5", "ö": "\t"}


def test_a_field_at_fault_is_a_bad_request_violation(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Search(pb.SearchRequest(text="a heron", k=0))
    status = rpc_status.from_call(caught.value)
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad_request)
    assert (info.reason, info.domain) == ("QUERY", "bittern")
    assert bad_request.field_violations[0].field == "k"
    assert "1 to 10000, not 0" in bad_request.field_violations[0].description
    assert len(to_status(NotFoundError("gone")).details) == 1  # without a field


def test_a_very_long_message_is_shortened_and_still_typed(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    details = {f"key {i}": "\N{BIRD}" * 1000 for i in range(100)}
    served.failure = QueryError("\N{BIRD}" * 50_000, field="f" * 9_000, details=details)
    with pytest.raises(QueryError, match=re.escape("\N{BIRD}…")):
        remote.search("a heron")


def test_shortening_never_cuts_a_character_in_two() -> None:
    for limit in range(3, 20):
        short = shorten("\N{BIRD}" * 10, limit)
        assert len(short.encode()) <= limit
        assert set(short) <= {"\N{BIRD}", "…"}


def test_half_a_surrogate_in_a_message_does_not_break_the_answer(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    served.failure = QueryError("bad \ud800 file name")
    with pytest.raises(QueryError, match=r"bad \? file name"):
        remote.search("a heron")


def test_an_unforeseen_failure_leaks_nothing_and_is_logged_under_its_number(
    remote: RemoteArchive, served: FakeArchive, caplog: pytest.LogCaptureFixture
) -> None:
    served.failure = RuntimeError("password=hunter2 in /secret/folder")
    with pytest.raises(InternalError) as caught:
        remote.search("a heron")
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)
    error_id = caught.value.details["error_id"]
    assert error_id in caught.value.message
    [record] = [r for r in caplog.records if error_id in r.getMessage()]
    assert record.exc_info is not None
    assert "hunter2" in str(record.exc_info[1])
    with pytest.raises(InternalError) as again:
        remote.search("a heron")
    assert again.value.details["error_id"] != error_id


def test_each_call_is_one_line_in_the_log(
    remote: RemoteArchive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bittern.service")
    with pytest.raises(ObservationNotFoundError):
        remote.get("two\nlines")
    remote.delete([])  # the line of a call may be written just after its answer
    lines = [r.getMessage() for r in caplog.records if "method=Get" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("rpc method=Get status=NOT_FOUND ms=")
    assert "\n" not in lines[0]


def test_unknown_ids_models_and_codes_are_typed(remote: RemoteArchive) -> None:
    with pytest.raises(ObservationNotFoundError, match="'nobody'"):
        remote.get("nobody")
    with pytest.raises(ObservationNotFoundError):
        remote.search(id="nobody")
    with pytest.raises(ModelNotFoundError, match="'clip'"):
        remote.search("a heron", model="clip")
    with pytest.raises(ModelNotFoundError):
        remote.encode("a heron", model="clip")
    with pytest.raises(UnsupportedModalityError):
        remote.encode(image=b"\xff\xd8")
    with pytest.raises(CodeError, match="24 bits was given, 64 bits are needed"):
        remote.search(code=b"abc")


def test_a_server_that_is_not_there_is_named_with_the_remedy() -> None:
    server = serve({"herons": FakeArchive()}, listen="127.0.0.1:0")
    server.stop(grace=0)
    with pytest.raises(ServiceUnavailableError) as caught:
        connect(server.address, timeout_s=20)
    assert server.address in caught.value.message
    assert f"bittern serve ARCHIVE --listen {server.address}" in caught.value.message


def test_a_server_that_goes_away_is_unavailable(remote: RemoteArchive, server: object) -> None:
    server.stop(grace=0)  # type: ignore[attr-defined]
    with pytest.raises(ServiceUnavailableError, match="bittern serve"):
        remote.stats()


def test_a_closed_connection_says_so(remote: RemoteArchive) -> None:
    remote.close()
    remote.close()
    with pytest.raises(PreconditionError, match="connect again"):
        remote.stats()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceededError),
        (grpc.StatusCode.UNIMPLEMENTED, PreconditionError),
        (grpc.StatusCode.CANCELLED, ServiceUnavailableError),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError),
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
    ],
)
def test_a_status_without_details_becomes_the_nearest_class(
    code: grpc.StatusCode, kind: type[BitternError]
) -> None:
    assert type(from_rpc_error(FailedCall(code, None), "h:1")) is kind


def test_a_reason_from_a_newer_server_becomes_the_nearest_class() -> None:
    status = to_status(QueryError("new kind of mistake"))
    info = error_details_pb2.ErrorInfo(reason="NOT_INVENTED_YET", domain="bittern")
    status.details[0].Pack(info)
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    call = FailedCall(grpc.StatusCode.INVALID_ARGUMENT, "new kind of mistake", trailers)
    error = from_rpc_error(call, "h:1")
    assert type(error) is InvalidInputError
    assert error.message == "new kind of mistake"


def test_garbled_details_do_not_hide_the_error() -> None:
    trailers = (("grpc-status-details-bin", b"\xff\xff\xff"),)
    call = FailedCall(grpc.StatusCode.NOT_FOUND, "gone", trailers)
    assert type(from_rpc_error(call, "h:1")) is NotFoundError
