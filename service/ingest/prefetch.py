"""Listing, reading and decoding, a few items ahead of the network.

    list (1 thread) → read (`READ_THREADS`) → decode (`DECODE_THREADS`) → whoever takes pieces

Items keep the order of the listing. Memory is bounded by count and by bytes: no more than
`ITEMS_AHEAD` items are under way, and while what was read and decoded adds up to `HELD_BYTES`, no
further item is read or decoded than the one whose pieces are taken next. So what is held is at
most that, and one file and one decoded picture more for each thread. No item may have more than
`STREAM_AHEAD` windows waiting: an hour of sound is decoded as fast as its windows are taken.

No thread ever waits in the middle of an item. A recording that is far enough ahead is put aside,
half decoded, and any thread takes it up again; of several items, the first in order goes first.
So the item that the network waits for is always being worked on.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

from bittern.errors import BitternError
from bittern.service.ingest.items import Asked, Piece
from bittern.service.ingest.reading import Loaded
from bittern.service.ingest.report import Cancelled, Stages, StageWork
from bittern.service.ingest.slots import (
    Bounds,
    Slot,
    close_stream,
    given_bytes,
    is_settled,
    named,
)
from bittern.types import AddResult

_LOOK_UP_S = 0.25
"""How often whoever waits looks whether the job is to stop, in seconds."""

Read = Callable[[Asked], Loaded]
Begin = Callable[[Loaded], Iterator[Piece]]


class Ahead:
    """Entries on their way to the network; a context that ends with all its threads.

    Args:
        entries: what is to be embedded; gone through once, in a thread.
        read: reads one of them.
        begin: begins to decode what was read.
        stages: where work is counted.
        cancelled: whether to stop; what is under way is dropped then.
        bounds: threads and memory.
    """

    def __init__(
        self,
        entries: Iterable[Asked],
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
        self._broke_off: Exception | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Ahead:
        jobs = [("list", self._list)]
        jobs += [("read", self._reading)] * self._bounds.read_threads
        jobs += [("decode", self._decoding)] * self._bounds.decode_threads
        try:
            for name, job in jobs:
                thread = threading.Thread(target=self._guarded, args=(job,), name=f"bittern-{name}")
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is under way and wait for the threads."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for slot in self._slots:
            close_stream(slot.stream)
        self._slots.clear()

    # Taking

    def __iter__(self) -> Iterator[Slot]:
        """Entries in order, each once it is known whether there is anything to embed.

        Ends early if the job is cancelled, and with the last entry before the one at which the
        listing broke off: ask `check_listing` then.

        Raises:
            BaseException: whatever a thread raised that should not have.
        """
        while (slot := self._next_slot()) is not None:
            yield slot
            with self._changed:
                self._slots.popleft()
                self._release(slot, slot.held)
                self._changed.notify_all()

    def check_listing(self) -> None:
        """Raise what the listing has raised, if it broke off."""
        if self._broke_off is not None:
            raise self._broke_off

    def pieces(self, slot: Slot) -> Iterator[Piece]:
        """Pieces of the entry at hand, as they are decoded; fewer if the job is cancelled.

        Raises:
            BitternError: why it cannot be used.
        """
        while (piece := self._next_piece(slot)) is not None:
            yield piece
        if slot.error is not None:
            raise slot.error

    def _next_slot(self) -> Slot | None:
        def ready() -> bool:
            return bool(self._slots and is_settled(self._slots[0])) or (
                self._all_listed and not self._slots
            )

        with self._changed:
            if not self._await(ready) or not self._slots:
                return None
            return self._slots[0]

    def _next_piece(self, slot: Slot) -> Piece | None:
        with self._changed:
            self._go_on_with(slot)
            if not self._await(lambda: bool(slot.pieces or slot.finished)) or not slot.pieces:
                return None
            piece = slot.pieces.popleft()
            self._release(slot, piece.nbytes)
            self._go_on_with(slot)
            self._changed.notify_all()
            return piece

    def _await(self, ready: Callable[[], bool]) -> bool:
        """Wait until `ready`; False if the job is to stop. The lock is held."""
        begun = perf_counter()
        while not ready() and self._failure is None and not self._cancelled():
            self._changed.wait(_LOOK_UP_S)
        self._stages["network"].add(waited_s=perf_counter() - begun)
        if self._failure is not None:
            raise self._failure
        return ready() and not self._cancelled()

    def _go_on_with(self, slot: Slot) -> None:
        """Take up a recording that was put aside, once half of its windows are taken."""
        if slot.aside and len(slot.pieces) <= self._bounds.windows // 2:
            slot.aside = False
            heapq.heappush(self._to_decode, slot)
            self._changed.notify_all()

    # Threads

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
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
                if not self._admit(number, entry):
                    return
                work.add(1, busy_s=listed - begun, waited_s=perf_counter() - listed)
                begun = perf_counter()
        except Exception as error:  # what was listed before is good
            self._broke_off = error
        finally:
            close_stream(entries)
            with self._changed:
                self._all_listed = True
                self._changed.notify_all()

    def _admit(self, number: int, entry: Asked) -> bool:
        slot = Slot(number, entry)
        with self._changed:
            while not self._stopped and len(self._slots) >= self._bounds.items:
                self._changed.wait()
            if self._stopped:
                return False
            self._slots.append(slot)
            if isinstance(entry, AddResult):
                slot.result, slot.finished = entry, True
            else:
                self._hold(slot, given_bytes(entry))
                heapq.heappush(self._to_read, slot)
            self._changed.notify_all()
        return True

    def _next_job(self, waiting: list[Slot], work: StageWork) -> Slot | None:
        """The first slot that waits and may go on; None when all is over."""
        begun = perf_counter()
        with self._changed:
            while not self._stopped:
                if waiting and (self._held < self._bounds.held_bytes or self._is_first(waiting[0])):
                    work.add(waited_s=perf_counter() - begun)
                    return heapq.heappop(waiting)
                self._changed.wait()
        return None

    def _reading(self) -> None:
        work = self._stages["read"]
        while (slot := self._next_job(self._to_read, work)) is not None:
            assert slot.entry is not None
            begun = perf_counter()
            loaded: Loaded | None = None
            error: BitternError | None = None
            try:
                loaded = self._read(slot.entry)
            except Exception as raised:
                error = named(slot.entry, raised)
            size = loaded.held_bytes if loaded else 0
            read = loaded.fingerprint.size if loaded and loaded.fingerprint else size
            settled = loaded is not None and loaded.result is not None
            work.add(1, busy_s=perf_counter() - begun, size=0 if settled else read)
            with self._changed:
                slot.loaded, slot.error = loaded, error
                self._release(slot, given_bytes(slot.entry))
                slot.entry = None if error is None else slot.entry
                self._hold(slot, size)
                if loaded is None or settled:
                    slot.result = loaded.result if loaded else None
                    slot.finished = True
                else:
                    heapq.heappush(self._to_decode, slot)
                self._changed.notify_all()

    def _decoding(self) -> None:
        work = self._stages["decode"]
        while (slot := self._next_job(self._to_decode, work)) is not None:
            assert slot.loaded is not None
            begun = perf_counter()
            error: BitternError | None = None
            goes_on = False
            try:
                slot.stream = slot.stream or self._begin(slot.loaded)
                for piece in slot.stream:
                    work.add(1, size=piece.nbytes)
                    if not self._put(slot, piece):
                        goes_on = True
                        break
            except Exception as raised:
                error = named(slot.loaded.item, raised)
            work.add(busy_s=perf_counter() - begun)
            if not goes_on:
                self._finish(slot, error)

    def _put(self, slot: Slot, piece: Piece) -> bool:
        """Hand out a piece; False once the slot has been put aside."""
        with self._changed:
            slot.pieces.append(piece)
            self._hold(slot, piece.nbytes)
            full = len(slot.pieces) >= self._bounds.windows
            crowded = self._held >= self._bounds.held_bytes and not self._is_first(slot)
            slot.aside = full or crowded or self._stopped
            self._changed.notify_all()
            return not slot.aside

    def _finish(self, slot: Slot, error: BitternError | None) -> None:
        with self._changed:
            slot.stream = None
            slot.error = error
            slot.finished = True
            assert slot.loaded is not None
            self._release(slot, slot.loaded.held_bytes)
            slot.loaded = Loaded(slot.loaded.item, b"", slot.loaded.fingerprint, slot.loaded.renews)
            self._changed.notify_all()

    # Inside; the lock is held.

    def _is_first(self, slot: Slot) -> bool:
        return bool(self._slots) and self._slots[0] is slot

    def _hold(self, slot: Slot, size: int) -> None:
        slot.held += size
        self._held += size

    def _release(self, slot: Slot, size: int) -> None:
        slot.held -= size
        self._held -= size
