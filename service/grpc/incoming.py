"""The client's side of a stream, read one message at a time and never waited for too long."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from bittern.errors import BitternError, DeadlineExceededError, ServiceUnavailableError
from bittern.v1 import archive_service_pb2 as pb

_LOOK_UP_S = 0.2
_STORED = "what has been answered is stored; send the rest again with on_duplicate `skip`"


class Incoming(Iterator[pb.AddRequest]):
    """Messages of one Add call, until the client ends, falls silent, or the server stops.

    gRPC's own iterator blocks for as long as a client says nothing. A thread waits for it, so
    that the call can end in good order: the caller commits and answers what it holds, and then
    raises `cut_off`. A message is only read once it is asked for.

    Attributes:
        cut_off: why no more is read, when it was not the client who ended the stream.
    """

    def __init__(
        self, requests: Iterator[pb.AddRequest], *, stopping: threading.Event, idle_s: float
    ) -> None:
        self._requests = requests
        self._stopping = stopping
        self._idle_s = idle_s
        self._asked = threading.Semaphore(0)
        self._arrived: queue.SimpleQueue[pb.AddRequest | Exception] = queue.SimpleQueue()
        self._closed = False
        self.cut_off: BitternError | None = None
        threading.Thread(target=self._read, name="bittern-add", daemon=True).start()

    def __next__(self) -> pb.AddRequest:
        if self._stopping.is_set():
            self._cut_off_by_stopping()
        self._asked.release()
        arrived = self._wait()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    def close(self) -> None:
        """Read no more. A message that is being waited for is dropped."""
        self._closed = True
        self._asked.release()

    def _wait(self) -> pb.AddRequest | Exception:
        give_up = time.monotonic() + self._idle_s
        while True:
            left = give_up - time.monotonic()
            try:
                return self._arrived.get(timeout=max(0.0, min(left, _LOOK_UP_S)))
            except queue.Empty:
                if self._stopping.is_set():
                    self._cut_off_by_stopping()
                if left <= 0:
                    self.cut_off = DeadlineExceededError(
                        f"no item came for {self._idle_s:g} s, so the call was ended; {_STORED}"
                    )
                    raise StopIteration from None

    def _cut_off_by_stopping(self) -> None:
        self.cut_off = ServiceUnavailableError(f"the server is stopping; {_STORED}")
        raise StopIteration

    def _read(self) -> None:
        while True:
            self._asked.acquire()
            if self._closed:
                return
            try:
                self._arrived.put(next(self._requests))
            except Exception as error:  # StopIteration too: it is raised where it is waited for
                self._arrived.put(error)
                return
