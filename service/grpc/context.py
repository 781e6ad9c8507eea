"""Around every answer of the server: deadline, errors as status, one line in the log."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc_status import rpc_status

from bittern.errors import BitternError, InternalError
from bittern.service.engine.deadline import Deadline
from bittern.service.grpc.status import to_status

log = logging.getLogger("bittern.service")


@contextmanager
def answering(method: str, context: grpc.ServicerContext) -> Iterator[Deadline]:
    """Answer one call inside this block.

    A `BitternError` becomes its status. Anything else becomes INTERNAL with a random id, under
    which the log has the traceback: the caller learns nothing of the server's insides.

    Args:
        method: name of the rpc, for the log.
        context: of the call.

    Yields:
        The caller's deadline, which also notices that the caller has hung up.
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
