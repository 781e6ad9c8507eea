"""Errors on the wire: `BitternError` to and from gRPC status with `google.rpc` details.

The status message is the error's message. `ErrorInfo` carries the reason (which names the
class) and the details; `BadRequest` names the request field at fault, if there is one.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from bittern.errors import (
    BitternError,
    DeadlineExceededError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PreconditionError,
    ServiceUnavailableError,
)
from bittern.service.limits import Deadline

log = logging.getLogger("bittern.service")

DOMAIN = "bittern"
_MAX_MESSAGE_BYTES = 900
_MAX_FIELD_BYTES = 100
_MAX_DETAILS_BYTES = 1_500
# HTTP/2 peers refuse trailers of more than 8 KiB by default. Trailers contain the message three
# times (percent-encoded, and twice in base64) and the details once; the sum must be smaller.


def to_status(error: BitternError) -> status_pb2.Status:
    """The `google.rpc.Status` of an error, shortened to fit trailers."""
    message = shorten(error.message, _MAX_MESSAGE_BYTES)
    status = status_pb2.Status(
        code=_code_of(type(error)),
        message=message,
    )
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    info.metadata.update(_shorten_details(error.details))
    status.details.add().Pack(info)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=shorten(error.field, _MAX_FIELD_BYTES), description=message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def shorten(text: str, max_bytes: int) -> str:
    """Text of at most `max_bytes` bytes of UTF-8, with ``…`` if it was shortened."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode()
    return data[: max_bytes - 3].decode("utf-8", "ignore") + "…"


def _shorten_details(details: dict[str, str]) -> dict[str, str]:
    fitting: dict[str, str] = {}
    room = _MAX_DETAILS_BYTES
    for key, value in details.items():
        key, value = shorten(str(key), _MAX_FIELD_BYTES), shorten(str(value), 400)
        room -= len(key.encode()) + len(value.encode()) + 8
        if room < 0:
            break
        fitting[key] = value
    return fitting


def from_rpc_error(error: grpc.RpcError, address: str) -> BitternError:
    """The error of a failed call, with the class that the server raised.

    Args:
        error: of a stub.
        address: of the server, for messages about the connection.
    """
    call = cast(grpc.Call, error)  # every error of a stub is one
    status = _status_of(call)
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return _error_of_info(info, status)
    return _error_of_code(call, address)


def _status_of(call: grpc.Call) -> status_pb2.Status:
    """The rich status of a failed call; empty if it is missing or invalid."""
    try:
        found = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        found = None
    return found if found is not None else status_pb2.Status()


def _error_of_info(info: error_details_pb2.ErrorInfo, status: status_pb2.Status) -> BitternError:
    field = ""
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
    kind = _CLASS_OF_REASON.get(info.reason) or _nearest_class(status.code)
    return kind(status.message, field=field, details=dict(info.metadata))


def _error_of_code(call: grpc.Call, address: str) -> BitternError:
    """The error of a call without a Bittern status: of the connection, or of gRPC."""
    code, details = call.code(), call.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServiceUnavailableError(
            f"no server answers at {address} ({details}); start one with "
            f"`bittern serve ARCHIVE --listen {address}`, or check the address",
            details={"address": address},
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(
            f"{address} did not answer in time; connect with a larger timeout_s, or request less"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return LimitExceededError(
            f"{address} refused the call ({details}); send less at once, or fewer calls at a time"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return PreconditionError(
            f"what listens at {address} is not a Bittern server of this version ({details})"
        )
    if code is grpc.StatusCode.CANCELLED:
        return ServiceUnavailableError(f"the call to {address} was cut off ({details})")
    return _nearest_class(code.value[0])(f"the call to {address} failed: {code.name}: {details}")


def _every_class(root: type[BitternError]) -> Iterator[type[BitternError]]:
    yield root
    for child in root.__subclasses__():
        yield from _every_class(child)


def _nearest_class(code: int) -> type[BitternError]:
    return next((kind for kind in _CLASSES_BY_CODE if _code_of(kind) == code), InternalError)


def _code_of(kind: type[BitternError]) -> int:
    return int(grpc.StatusCode[kind.status].value[0])


_CLASSES_BY_CODE: tuple[type[BitternError], ...] = (
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    *_every_class(BitternError),
)
_CLASS_OF_REASON = {
    kind("").reason: kind for kind in _every_class(BitternError) if kind is not BitternError
} | {BitternError("").reason: BitternError}


@contextmanager
def rpc_context(method: str, context: grpc.ServicerContext) -> Iterator[Deadline]:
    """Answer one call inside this block.

    A `BitternError` becomes its status. Other exceptions become INTERNAL with a random id; the log
    has the traceback under that id, which callers do not get.

    Args:
        method: name of the rpc, for the log.
        context: of the call.

    Yields:
        The caller's deadline; it also notices a cancelled call.
    """
    started = time.perf_counter()
    status = "OK"
    try:
        deadline = Deadline(context.time_remaining, gone=lambda: not context.is_active())
        deadline.check("the answer was begun")
        yield deadline
    except (GeneratorExit, grpc.RpcError):
        status = "CANCELLED"
        raise
    except BitternError as error:
        status = error.status
        context.abort_with_status(rpc_status.to_status(to_status(error)))
    except Exception:
        status = "INTERNAL"
        error_id = secrets.token_hex(6)
        log.exception("unforeseen failure error_id=%s method=%s", error_id, method)
        failure = InternalError(
            f"the server failed (error {error_id}); its log has the cause under this number",
            details={"error_id": error_id},
        )
        context.abort_with_status(rpc_status.to_status(to_status(failure)))
    finally:
        took_ms = (time.perf_counter() - started) * 1e3
        log.info("rpc method=%s status=%s ms=%.1f", method, status, took_ms)
