"""Messages on their way into a streaming call, a few at a time."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import suppress

import grpc

from bittern.v1 import archive_service_pb2 as pb

_HELD = 2
_LOOK_AGAIN_S = 0.1


class Outbox(Iterator[pb.AddRequest]):
    """What gRPC's sending thread reads and the caller's thread fills.

    It holds two messages at most, so the caller reads files no faster than they are sent.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[pb.AddRequest | None] = queue.Queue(_HELD)
        self._closed = False

    def put(self, message: pb.AddRequest, call: grpc.Call) -> None:
        """Hand over a message; wait for room. It is dropped when the call has ended, whose
        error then shows at the next answer that is read.
        """
        while call.is_active():
            try:
                self._queue.put(message, timeout=_LOOK_AGAIN_S)
            except queue.Full:
                continue
            return

    def close(self) -> None:
        """End the caller's side of the stream once everything handed over has been sent."""
        self._closed = True
        with suppress(queue.Full):
            self._queue.put_nowait(None)  # only to be seen sooner

    def __next__(self) -> pb.AddRequest:
        while True:
            try:
                message = self._queue.get(timeout=_LOOK_AGAIN_S)
            except queue.Empty:
                if self._closed:
                    raise StopIteration from None
                continue
            if message is None:
                raise StopIteration
            return message
