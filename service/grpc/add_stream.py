"""One Add call: items are committed in batches, with a response per commit.

Memory is bounded: nothing is read during a commit, so HTTP/2 flow control stops the client.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bittern.checks import check_model
from bittern.errors import (
    BitternError,
    DeadlineExceededError,
    InvalidInputError,
    ServiceUnavailableError,
)
from bittern.service.grpc.messages import add_result_to_wire, item_from_wire, on_duplicate_from_wire
from bittern.service.limits import Deadline, ServiceConfig, check_media
from bittern.types import AddResult, MediaItem, OnDuplicate
from bittern.v1 import archive_service_pb2 as pb

if TYPE_CHECKING:
    from bittern.service.local.archive import LocalArchive

DEFAULT_BATCH_SIZE = 64
_POLL_S = 0.2
_STORED = "what has been answered is stored; send the rest again with on_duplicate `skip`"


@dataclass
class _Batch:
    """Items that have been read but not committed."""

    archive: LocalArchive
    on_duplicate: OnDuplicate
    model: str | None
    size: int
    max_bytes: int
    items: list[MediaItem] = field(default_factory=list)
    refused: list[AddResult] = field(default_factory=list)
    held_bytes: int = 0

    def take(self, message: pb.MediaItem, config: ServiceConfig) -> None:
        """Add an item; only its failure if it exceeds a limit."""
        try:
            check_media(message.data, "data", config)
            item = item_from_wire(message)
        except BitternError as error:
            text = f"{message.media[:100]}: {error.message}"
            self.refused.append(AddResult.failure(message.occurrence_id, error, text))
            return
        self.items.append(item)
        self.held_bytes += message.ByteSize()

    @property
    def full(self) -> bool:
        """Whether it is time to commit."""
        return len(self.items) + len(self.refused) >= self.size or self.held_bytes >= self.max_bytes

    def commit(self) -> Iterator[pb.AddResponse]:
        """Code and store the batch; one response per commit."""
        items, self.items, self.held_bytes = self.items, [], 0
        if items:
            for results in self.archive.add(
                items, on_duplicate=self.on_duplicate, model=self.model, batch_size=self.size
            ):
                yield self._answer(results)
        if self.refused:
            yield self._answer([])

    def _answer(self, results: list[AddResult]) -> pb.AddResponse:
        refused, self.refused = self.refused, []
        return pb.AddResponse(results=[add_result_to_wire(each) for each in refused + results])


def answer_add(
    requests: Iterator[pb.AddRequest],
    *,
    archive_of: Callable[[str], LocalArchive],
    config: ServiceConfig,
    deadline: Deadline,
    stopping: threading.Event,
) -> Iterator[pb.AddResponse]:
    """Answer one Add call.

    Args:
        requests: options first, then items and flush markers.
        archive_of: finds an archive by its name.
        config: limits.
        deadline: checked before each commit.
        stopping: set when the server stops; items read before are then committed and answered.

    Yields:
        One response per commit, and one per flush marker after its commit.

    Raises:
        InvalidInputError: messages in the wrong order, or unusable options.
        DeadlineExceededError: the client was silent for too long, or has cancelled.
        ServiceUnavailableError: the server is stopping.
    """
    incoming = Incoming(requests, stopping=stopping, idle_s=config.add_idle_s)
    try:
        batch = _open_batch(incoming, archive_of, config)
        for request in incoming:
            kind = request.WhichOneof("message")
            if kind == "item":
                batch.take(request.item, config)
            elif kind != "flush":
                raise InvalidInputError(
                    "after the first message, each one carries an item or a flush marker, "
                    f"not {kind or 'nothing'}",
                    field="message",
                )
            if kind == "flush" or batch.full:
                deadline.check("the next batch was committed")
                yield from batch.commit()
            if kind == "flush":
                yield pb.AddResponse(flushed=True)
        deadline.check("the last batch was committed")
        yield from batch.commit()
        if incoming.cut_off is not None:
            raise incoming.cut_off
    finally:
        incoming.close()


def _open_batch(
    incoming: Incoming,
    archive_of: Callable[[str], LocalArchive],
    config: ServiceConfig,
) -> _Batch:
    first = next(incoming, None)
    if incoming.cut_off is not None:
        raise incoming.cut_off
    if first is None or first.WhichOneof("message") != "options":
        raise InvalidInputError(
            "the first message of Add must carry the options (they may be empty)", field="options"
        )
    options = first.options
    if options.batch_size < 0:
        raise InvalidInputError(
            f"batch_size must be a whole number of at least 1, not {options.batch_size}",
            field="batch_size",
        )
    return _Batch(
        archive=archive_of(options.archive),
        on_duplicate=on_duplicate_from_wire(options.on_duplicate),
        model=check_model(options.model),
        size=min(options.batch_size or DEFAULT_BATCH_SIZE, config.max_batch_items),
        max_bytes=config.max_batch_bytes,
    )


class Incoming(Iterator[pb.AddRequest]):
    """Messages of one Add call, until the client ends or is silent, or the server stops.

    gRPC's own iterator blocks while a client is silent. A thread waits for it, so the caller can
    commit and answer its items, and then raise `cut_off`. A message is read only on demand.

    Attributes:
        cut_off: why reading has ended, if the client has not ended the stream.
    """

    def __init__(
        self, requests: Iterator[pb.AddRequest], *, stopping: threading.Event, idle_s: float
    ) -> None:
        self._requests = requests
        self._stopping = stopping
        self._idle_s = idle_s
        self._wanted = threading.Semaphore(0)
        self._arrived: queue.SimpleQueue[pb.AddRequest | Exception] = queue.SimpleQueue()
        self._closed = False
        self.cut_off: BitternError | None = None
        threading.Thread(target=self._read, name="bittern-add", daemon=True).start()

    def __next__(self) -> pb.AddRequest:
        if self._stopping.is_set():
            self._cut_off_by_stopping()
        self._wanted.release()
        arrived = self._wait()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    def close(self) -> None:
        """Stop reading; a message that arrives later is dropped."""
        self._closed = True
        self._wanted.release()

    def _wait(self) -> pb.AddRequest | Exception:
        give_up = time.monotonic() + self._idle_s
        while True:
            left = give_up - time.monotonic()
            try:
                return self._arrived.get(timeout=max(0.0, min(left, _POLL_S)))
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
            self._wanted.acquire()
            if self._closed:
                return
            try:
                self._arrived.put(next(self._requests))
            except Exception as error:  # StopIteration too: the reader raises it
                self._arrived.put(error)
                return
