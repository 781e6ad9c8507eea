"""Lists, reads and decodes items before the network needs them.

    list (1 thread) → read (`READ_THREADS`) → decode (`DECODE_THREADS`) → the caller's thread

Items come in the order of the listing. Memory is bounded: at most `ITEMS_AHEAD` items are in
progress. Once read and decoded data reach `HELD_BYTES`, only the first item in order is read or
decoded further. So memory is at most that, plus one file and one decoded picture per thread. At
most `WINDOWS_AHEAD` windows of one recording wait; it is decoded further as they are taken.

No thread waits in the middle of an item. A recording with enough waiting windows is paused, and any
thread may resume it. The first item in order has priority, so the network never waits for an
item that no thread works on.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

from bittern.errors import BitternError, UnreadableMediaError
from bittern.service.ingest.items import Decoded, PipelineEntry, item_of
from bittern.service.ingest.reading import Loaded
from bittern.service.ingest.report import Cancelled, Stages, StageWork
from bittern.types import AddResult

READ_THREADS = 4
DECODE_THREADS = 2
ITEMS_AHEAD = 32
"""Items between the listing and the network."""
HELD_BYTES = 256 << 20
"""Bytes that are read and decoded before the network needs them."""
WINDOWS_AHEAD = 32
"""Windows of one recording that wait for the network."""
_POLL_S = 0.25
"""Seconds between checks for cancellation."""

Read = Callable[[PipelineEntry], Loaded]
Begin = Callable[[Loaded], Iterator[Decoded]]


@dataclass(frozen=True)
class Bounds:
    """Threads and memory; see the module's constants."""

    read_threads: int = READ_THREADS
    decode_threads: int = DECODE_THREADS
    items: int = ITEMS_AHEAD
    held_bytes: int = HELD_BYTES
    windows: int = WINDOWS_AHEAD


@dataclass(eq=False)
class Slot:
    """One entry in progress.

    Attributes:
        number: its position in the listing.
        entry: as listed, until it has been read.
        loaded: its content, once it has been read.
        result: its result, if there is nothing to embed.
        error: why it cannot be used.
        decoded: pictures or windows that wait for the network.
        stream: decodes the remaining windows.
        finished: whether everything is decoded.
        paused: whether decoding waits until windows are taken.
        held: bytes that it holds.
    """

    number: int
    entry: PipelineEntry | None
    loaded: Loaded | None = None
    result: AddResult | None = None
    error: BitternError | None = None
    decoded: deque[Decoded] = field(default_factory=deque)
    stream: Iterator[Decoded] | None = None
    finished: bool = False
    paused: bool = False
    held: int = 0

    def __lt__(self, other: Slot) -> bool:
        return self.number < other.number

    @property
    def ready(self) -> bool:
        """Whether it has been read, or has a result."""
        return self.finished or self.loaded is not None


class Prefetch:
    """Entries in progress; a context manager that ends its threads.

    Args:
        entries: what to embed; iterated once, in a thread.
        read: reads one of them.
        begin: begins to decode what was read.
        stages: counts the work.
        cancelled: whether to stop; entries in progress are dropped then.
        bounds: threads and memory.
    """

    def __init__(
        self,
        entries: Iterable[PipelineEntry],
        read: Read,
        begin: Begin,
        stages: Stages,
        cancelled: Cancelled,
        bounds: Bounds | None = None,
    ) -> None:
        self._entries, self._read, self._begin = entries, read, begin
        self._stages, self._cancelled = stages, cancelled
        self._bounds = bounds or Bounds()
        self._changed = threading.Condition()
        self._slots: deque[Slot] = deque()
        self._to_read: list[Slot] = []
        self._to_decode: list[Slot] = []
        self._held = 0
        self._all_listed = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._listing_error: Exception | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Prefetch:
        loops = [("list", self._list)]
        loops += [("read", self._read_all)] * self._bounds.read_threads
        loops += [("decode", self._decode_all)] * self._bounds.decode_threads
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
        for slot in self._slots:
            close_stream(slot.stream)
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
                self._release(slot, slot.held)
                self._changed.notify_all()

    def check_listing(self) -> None:
        """Raise the error of the listing, if there is one."""
        if self._listing_error is not None:
            raise self._listing_error

    def decoded(self, slot: Slot) -> Iterator[Decoded]:
        """Pictures or windows of the current entry; fewer if the job is cancelled.

        Raises:
            BitternError: why the entry cannot be used.
        """
        while (one := self._next_decoded(slot)) is not None:
            yield one
        if slot.error is not None:
            raise slot.error

    def _next_slot(self) -> Slot | None:
        def available() -> bool:
            return self._slots[0].ready if self._slots else self._all_listed

        with self._changed:
            if not self._wait_for(available) or not self._slots:
                return None
            return self._slots[0]

    def _next_decoded(self, slot: Slot) -> Decoded | None:
        with self._changed:
            self._resume(slot)
            if not self._wait_for(lambda: bool(slot.decoded or slot.finished)) or not slot.decoded:
                return None
            one = slot.decoded.popleft()
            self._release(slot, one.nbytes)
            self._resume(slot)
            self._changed.notify_all()
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

    def _resume(self, slot: Slot) -> None:
        """Resume a paused recording, once half of its windows are taken."""
        if slot.paused and len(slot.decoded) <= self._bounds.windows // 2:
            slot.paused = False
            heapq.heappush(self._to_decode, slot)
            self._changed.notify_all()

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
            for number, entry in enumerate(entries):
                listed = perf_counter()
                if not self._admit(Slot(number, entry)):
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
            while not self._stopped and len(self._slots) >= self._bounds.items:
                self._changed.wait()
            if self._stopped:
                return False
            self._slots.append(slot)
            if isinstance(slot.entry, AddResult):
                slot.result, slot.finished = slot.entry, True
            else:
                self._hold(slot, _own_bytes(slot.entry))
                heapq.heappush(self._to_read, slot)
            self._changed.notify_all()
        return True

    def _take(self, waiting: list[Slot], work: StageWork) -> Slot | None:
        """The first waiting slot that may continue; None once the context is closed."""
        begun = perf_counter()
        with self._changed:
            while not self._stopped:
                if waiting and (self._held < self._bounds.held_bytes or self._is_first(waiting[0])):
                    work.add(waited_s=perf_counter() - begun)
                    return heapq.heappop(waiting)
                self._changed.wait()
        return None

    def _read_all(self) -> None:
        work = self._stages["read"]
        while (slot := self._take(self._to_read, work)) is not None:
            assert slot.entry is not None
            begun = perf_counter()
            loaded: Loaded | None = None
            error: BitternError | None = None
            try:
                loaded = self._read(slot.entry)
            except Exception as raised:
                error = _item_error(slot.entry, raised)
            size = loaded.held_bytes if loaded else 0
            read = loaded.fingerprint.size if loaded and loaded.fingerprint else size
            decided = loaded is not None and loaded.result is not None
            work.add(1, busy_s=perf_counter() - begun, size=0 if decided else read)
            with self._changed:
                slot.loaded, slot.error = loaded, error
                self._release(slot, _own_bytes(slot.entry))
                slot.entry = None if error is None else slot.entry
                self._hold(slot, size)
                if loaded is None or decided:
                    slot.result = loaded.result if loaded else None
                    slot.finished = True
                else:
                    heapq.heappush(self._to_decode, slot)
                self._changed.notify_all()

    def _decode_all(self) -> None:
        work = self._stages["decode"]
        while (slot := self._take(self._to_decode, work)) is not None:
            assert slot.loaded is not None
            begun = perf_counter()
            error: BitternError | None = None
            paused = False
            try:
                slot.stream = slot.stream or self._begin(slot.loaded)
                for one in slot.stream:
                    work.add(1, size=one.nbytes)
                    if paused := self._put(slot, one):
                        break
            except Exception as raised:
                error = _item_error(slot.loaded.item, raised)
            work.add(busy_s=perf_counter() - begun)
            if not paused:
                self._finish(slot, error)

    def _put(self, slot: Slot, one: Decoded) -> bool:
        """Add a picture or window; True if the slot is paused now."""
        with self._changed:
            slot.decoded.append(one)
            self._hold(slot, one.nbytes)
            full = len(slot.decoded) >= self._bounds.windows
            crowded = self._held >= self._bounds.held_bytes and not self._is_first(slot)
            slot.paused = full or crowded or self._stopped
            self._changed.notify_all()
            return slot.paused

    def _finish(self, slot: Slot, error: BitternError | None) -> None:
        with self._changed:
            slot.stream = None
            slot.error = error
            slot.finished = True
            assert slot.loaded is not None
            self._release(slot, slot.loaded.held_bytes)
            slot.loaded = Loaded(slot.loaded.item, b"", slot.loaded.fingerprint, slot.loaded.renews)
            self._changed.notify_all()

    # With the lock held

    def _is_first(self, slot: Slot) -> bool:
        return bool(self._slots) and self._slots[0] is slot

    def _hold(self, slot: Slot, size: int) -> None:
        slot.held += size
        self._held += size

    def _release(self, slot: Slot, size: int) -> None:
        slot.held -= size
        self._held -= size


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
