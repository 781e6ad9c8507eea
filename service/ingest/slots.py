"""Entries on their way to the network, and how many may be under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from bittern.errors import BitternError, UnreadableMediaError
from bittern.service.ingest.items import Asked, Piece, Recheck
from bittern.service.ingest.reading import Loaded
from bittern.types import AddResult

READ_THREADS = 4
DECODE_THREADS = 2
ITEMS_AHEAD = 32
"""Items between the listing and the network."""
HELD_BYTES = 256 << 20
"""What is read and decoded ahead, in bytes."""
STREAM_AHEAD = 32
"""Windows of one recording that wait for the network."""


@dataclass(frozen=True)
class Bounds:
    """Threads and memory; see the module's constants."""

    read_threads: int = READ_THREADS
    decode_threads: int = DECODE_THREADS
    items: int = ITEMS_AHEAD
    held_bytes: int = HELD_BYTES
    windows: int = STREAM_AHEAD


@dataclass(eq=False)
class Slot:
    """One entry on its way.

    Attributes:
        number: its place in the listing.
        entry: as listed, until it has been read.
        loaded: once it has been read.
        result: what became of it, if there is nothing to embed.
        error: why it cannot be used.
    """

    number: int
    entry: Asked | None
    loaded: Loaded | None = None
    result: AddResult | None = None
    error: BitternError | None = None
    pieces: deque[Piece] = field(default_factory=deque)
    stream: Iterator[Piece] | None = None
    finished: bool = False
    aside: bool = False
    held: int = 0

    def __lt__(self, other: Slot) -> bool:
        return self.number < other.number


def is_settled(slot: Slot) -> bool:
    """Whether it is known if there is anything to embed."""
    return slot.finished or slot.loaded is not None


def given_bytes(entry: Asked | None) -> int:
    """Bytes that an entry has brought along."""
    item = entry.item if isinstance(entry, Recheck) else entry
    data = None if item is None or isinstance(item, AddResult) else item.data
    return len(data) if isinstance(data, bytes | bytearray) else 0


def named(entry: Asked, error: Exception) -> BitternError:
    """The error of one item: whatever a file makes a decoder raise, the next one goes on."""
    if isinstance(error, BitternError):
        return error
    item = entry.item if isinstance(entry, Recheck) else entry
    name = "" if isinstance(item, AddResult) else f"{item.media}: "
    return UnreadableMediaError(f"{name}{type(error).__name__}: {error}")


def close_stream(stream: object) -> None:
    """End a generator that nobody will go on with, and the files that it holds."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()
