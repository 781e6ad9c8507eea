"""Lists, reads and decodes items before the network needs them.

    list (1 thread) → read and decode (several threads) → the caller's thread

Items come in the order of the listing. `Bounds` limits the items in progress, and the windows of
one recording that wait. Once read and decoded data reach `held_bytes`, only the first item in order
goes on. So memory is at most that, plus one file and one decoded picture per thread.

Threads take items in order and finish each before the next. So the first item always has a thread,
and because that thread is never held up by the bounds, the others cannot block the job.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter

from bittern.errors import BitternError, UnreadableMediaError
from bittern.service.ingest.items import Decoded, Loaded, PipelineEntry, item_of
from bittern.service.ingest.report import Cancelled, Stages
from bittern.types import AddResult

_POLL_S = 0.25
"""Seconds between checks for cancellation."""

Read = Callable[[PipelineEntry], Loaded]
Decode = Callable[[Loaded], Iterator[Decoded]]


@dataclass(frozen=True)
class Bounds:
    """Threads and memory.

    Attributes:
        threads: that read and decode.
        items: most items between the listing and the network.
        held_bytes: most bytes that are read and decoded before the network needs them.
        windows: most windows of one recording that wait for the network.
    """

    threads: int = 6
    items: int = 32
    held_bytes: int = 256 << 20
    windows: int = 32


@dataclass(eq=False)
class Slot:
    """One entry in progress.

    Attributes:
        entry: as listed, until it has been read.
        loaded: its content, once it has been read; without its bytes once it is decoded.
        result: its result, if there is nothing to embed.
        error: why it cannot be used.
        decoded: pictures or windows that wait for the network.
        finished: whether everything is decoded.
        held: bytes that it holds.
    """

    entry: PipelineEntry | None
    loaded: Loaded | None = None
    result: AddResult | None = None
    error: BitternError | None = None
    decoded: deque[Decoded] = field(default_factory=deque)
    finished: bool = False
    held: int = 0


class Prefetch:
    """Entries in progress; a context manager that ends its threads.

    Args:
        entries: what to embed; iterated once, in a thread.
        read: reads one of them.
        decode: decodes what was read, lazily.
        stages: counts the work.
        cancelled: whether to stop; entries in progress are dropped then.
        bounds: threads and memory.
    """

    def __init__(
        self,
        entries: Iterable[PipelineEntry],
        read: Read,
        decode: Decode,
        stages: Stages,
        cancelled: Cancelled,
        bounds: Bounds | None = None,
    ) -> None:
        self._entries, self._read, self._decode = entries, read, decode
        self._stages, self._cancelled = stages, cancelled
        self._bounds = bounds or Bounds()
        self._changed = threading.Condition()
        self._slots: deque[Slot] = deque()
        self._unread: deque[Slot] = deque()
        self._held = 0
        self._all_listed = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._listing_error: Exception | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Prefetch:
        loops = [("list", self._list)] + [("read", self._read_all)] * self._bounds.threads
        try:
            for name, loop in loops:
                thread = threading.Thread(target=self._guard, args=(loop,), name=f"bittern-{name}")
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop entries in progress and wait for the threads."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._slots.clear()

    # The caller's side

    def __iter__(self) -> Iterator[Slot]:
        """Entries in order, each once it has been read, or has a result.

        Ends early if the job is cancelled or the listing raised: call `check_listing` then.

        Raises:
            BaseException: an unexpected error of a thread.
        """
        while (slot := self._next_slot()) is not None:
            yield slot
            with self._changed:
                self._slots.popleft()
                self._hold(slot, -slot.held)

    def check_listing(self) -> None:
        """Raise the error of the listing, if there is one."""
        if self._listing_error is not None:
            raise self._listing_error

    def decoded(self, slot: Slot) -> Iterator[Decoded]:
        """Pictures or windows of the current entry; fewer if the job is cancelled.

        Afterwards `Slot.error` says why the entry cannot be used.
        """
        while (one := self._next_decoded(slot)) is not None:
            yield one

    def _next_slot(self) -> Slot | None:
        def available() -> bool:
            if not self._slots:
                return self._all_listed
            return self._slots[0].finished or self._slots[0].loaded is not None

        with self._changed:
            return self._slots[0] if self._wait_for(available) and self._slots else None

    def _next_decoded(self, slot: Slot) -> Decoded | None:
        with self._changed:
            if not self._wait_for(lambda: bool(slot.decoded or slot.finished)) or not slot.decoded:
                return None
            one = slot.decoded.popleft()
            self._hold(slot, -one.nbytes)
            return one

    def _wait_for(self, available: Callable[[], bool]) -> bool:
        """Wait until `available`; False if the job is cancelled. The lock is held."""
        begun = perf_counter()
        while not available() and self._failure is None and not self._cancelled():
            self._changed.wait(_POLL_S)
        self._stages["network"].add(waited_s=perf_counter() - begun)
        if self._failure is not None:
            raise self._failure
        return available() and not self._cancelled()

    # Threads

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _list(self) -> None:
        work, entries = self._stages["list"], iter(self._entries)
        begun = perf_counter()
        try:
            for entry in entries:
                listed = perf_counter()
                if not self._admit(Slot(entry)):
                    return
                work.add(1, busy_s=listed - begun, waited_s=perf_counter() - listed)
                begun = perf_counter()
        except Exception as error:  # raised after the entries before it
            self._listing_error = error
        finally:
            close_stream(entries)
            with self._changed:
                self._all_listed = True
                self._changed.notify_all()

    def _admit(self, slot: Slot) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._slots) < self._bounds.items)
            if self._stopped:
                return False
            self._slots.append(slot)
            if isinstance(slot.entry, AddResult):
                slot.result, slot.finished = slot.entry, True
            else:
                self._unread.append(slot)
            self._hold(slot, _own_bytes(slot.entry))
        return True

    def _read_all(self) -> None:
        while (slot := self._next_unread()) is not None:
            if not self._has_room(slot, "read"):
                return
            loaded = self._loaded(slot)
            if loaded is not None and not self._decode_all(slot, loaded):
                return

    def _next_unread(self) -> Slot | None:
        """The next slot in order; None once there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._unread or self._stopped or self._all_listed)
            return self._unread.popleft() if self._unread and not self._stopped else None

    def _has_room(self, slot: Slot, stage: str) -> bool:
        """Wait until a slot may hold more; False if the job has stopped."""

        def room() -> bool:
            if self._stopped:
                return True
            within = self._held < self._bounds.held_bytes or self._slots[0] is slot
            return within and len(slot.decoded) < self._bounds.windows

        begun = perf_counter()
        with self._changed:
            self._changed.wait_for(room)
        self._stages[stage].add(waited_s=perf_counter() - begun)
        return not self._stopped

    def _loaded(self, slot: Slot) -> Loaded | None:
        """Read a slot's entry; None if there is nothing to decode."""
        entry = slot.entry
        assert entry is not None
        begun = perf_counter()
        try:
            loaded = self._read(entry)
        except Exception as error:
            self._stages["read"].add(1, busy_s=perf_counter() - begun)
            self._finish(slot, _item_error(entry, error))
            return None
        size = loaded.fingerprint.size if loaded.fingerprint else loaded.held_bytes
        size = 0 if loaded.result else size
        self._stages["read"].add(1, busy_s=perf_counter() - begun, size=size)
        with self._changed:
            slot.entry, slot.loaded, slot.result = None, loaded, loaded.result
            slot.finished = loaded.result is not None
            self._hold(slot, loaded.held_bytes - _own_bytes(entry))
        return None if slot.finished else loaded

    def _decode_all(self, slot: Slot, loaded: Loaded) -> bool:
        """Decode what was read; False if the job has stopped."""
        work = self._stages["decode"]
        stream = self._decode(loaded)
        try:
            while self._has_room(slot, "decode"):
                begun = perf_counter()
                try:
                    one = next(stream, None)
                except Exception as error:
                    self._finish(slot, _item_error(loaded.item, error))
                    return True
                finally:
                    work.add(busy_s=perf_counter() - begun)
                if one is None:
                    self._finish(slot, None)
                    return True
                work.add(1, size=one.nbytes)
                with self._changed:
                    slot.decoded.append(one)
                    self._hold(slot, one.nbytes)
            return False
        finally:
            close_stream(stream)

    def _finish(self, slot: Slot, error: BitternError | None) -> None:
        with self._changed:
            slot.error, slot.finished = error, True
            if slot.loaded is not None:
                size = slot.loaded.held_bytes
                slot.loaded = replace(slot.loaded, source=b"")
                self._hold(slot, -size)
            self._changed.notify_all()

    def _hold(self, slot: Slot, size: int) -> None:
        """Count bytes that a slot holds more, or less; the lock is held."""
        slot.held += size
        self._held += size
        self._changed.notify_all()


def _own_bytes(entry: PipelineEntry | None) -> int:
    """Bytes that an entry holds before it is read."""
    item = None if entry is None else item_of(entry)
    data = None if item is None else item.data
    return len(data) if isinstance(data, bytes | bytearray) else 0


def _item_error(entry: PipelineEntry, error: Exception) -> BitternError:
    """Any exception of a decoder as the error of its item."""
    if isinstance(error, BitternError):
        return error
    item = item_of(entry)
    name = "" if item is None else f"{item.media}: "
    return UnreadableMediaError(f"{name}{type(error).__name__}: {error}")


def close_stream(stream: object) -> None:
    """Close an iterator that is not exhausted, with its threads and files."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()
