"""Which files a version of the store consists of, as its manifest says.

A manifest is one protocol buffer message, followed by the place where it begins; the format
is published with Lance (`protos/table.proto` of its repository, "Lance Table Format" in its
documentation). Only the few fields that name files are read here, and nothing is written.
LanceDB itself does not tell which files are whose.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from bittern.index.store import TABLE

_MAGIC = b"LANC"
_FOOTER = struct.Struct("<QHH4s")
_LENGTH = struct.Struct("<I")
_NAME = re.compile(r"([0-9]{1,20})\.manifest")
_NEWEST_FIRST = 2**64 - 1
_LIMIT_BYTES = 1 << 30
_ROWS_STAY = frozenset({103, 104, 107, 110})
"""Transactions that make an index, compact, reserve numbers of fragments, or configure."""
_KNOWN_FLAGS = 0b1_1011_1111
"""Features of tables that are known here: files that overlay others (bit 6) are not."""


class UnreadableManifestError(ValueError):
    """It is not what a manifest should be."""


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file that a version needs.

    Attributes:
        path: relative to the table's folder, POSIX.
        size: bytes; None where the manifest does not say.
        fragment: number of the fragment whose rows it holds or deletes; None for an index.
    """

    path: str
    size: int | None
    fragment: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one version consists of.

    Attributes:
        version: its number.
        files: data files, deletion files and files of look-up indexes.
        flags: features that a reader must know.
        transaction: file below `_transactions` that tells how it came about; "" for none.
        rows: how many rows each fragment has that are not deleted.
    """

    version: int
    files: tuple[StoreFile, ...]
    flags: int
    transaction: str
    rows: Mapping[int, int]

    @property
    def is_newer(self) -> bool:
        """Whether it uses features that nothing of today knows."""
        return bool(self.flags & ~_KNOWN_FLAGS)


def table_folder(store: Path) -> Path:
    """The folder of the table in the folder of the store."""
    return store / f"{TABLE}.lance"


def manifest_files(store: Path) -> dict[int, Path]:
    """The manifests that are there, by version, the oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    found = {}
    for path in (table_folder(store) / "_versions").iterdir():
        if match := _NAME.fullmatch(path.name):
            number = int(match[1])
            # Newer stores count names down, so that the newest sorts first; older ones up.
            found[_NEWEST_FIRST - number if len(match[1]) == 20 else number] = path
    return dict(sorted(found.items()))


def read_manifest(path: Path) -> Manifest:
    """Read one manifest.

    Raises:
        OSError: the file cannot be read.
        UnreadableManifestError: it is not what it should be.
    """
    if path.stat().st_size > _LIMIT_BYTES:
        raise UnreadableManifestError(f"it is larger than {_LIMIT_BYTES} bytes")
    return parsed_manifest(path.read_bytes())


def parsed_manifest(data: bytes) -> Manifest:
    """What the bytes of a manifest say.

    Raises:
        UnreadableManifestError: it is not what it should be.
    """
    try:
        start, _, _, magic = _FOOTER.unpack(data[-_FOOTER.size :])
        if magic != _MAGIC:
            raise UnreadableManifestError("it does not end as a manifest does")
        return _manifest(data, _message(data, start))
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        raise UnreadableManifestError(str(error)) from error


def mended(path: Path, version: int, without: Collection[int], indexes: bool) -> bytes:
    """A manifest of a new version: what another one names, without some of it.

    Args:
        path: the other one.
        version: number of the new version.
        without: fragments that are left out.
        indexes: whether look-up indexes stay.

    Raises:
        OSError, UnreadableManifestError: see `read_manifest`.
    """
    read_manifest(path)
    data = path.read_bytes()
    start, major, minor, magic = _FOOTER.unpack(data[-_FOOTER.size :])
    parts = []
    for number, value, raw in _parts(_message(data, start)):
        left_out = number == 2 and _fragment_number(_bytes(value)) in without
        if number == 3:
            parts.append(b"\x18" + _as_varint(version))
        elif not left_out and (number != 6 or indexes):
            parts.append(raw)
    message = b"".join(parts)
    # What lies before the message stays where it was: the message names places in it.
    end = _FOOTER.pack(start, major, minor, magic)
    return b"".join([data[:start], _LENGTH.pack(len(message)), message, end])


def changes_rows(store: Path, manifest: Manifest) -> bool:
    """Whether a version differs from the one before in its rows, for all that is known.

    A compaction, or a new look-up index, leaves them as they are.
    """
    path = table_folder(store) / "_transactions" / manifest.transaction
    try:
        kinds = {number for number, _ in _fields(path.read_bytes()) if number >= 100}
    except (OSError, ValueError, IndexError):
        return True
    return not kinds or not kinds <= _ROWS_STAY


def _manifest(data: bytes, message: bytes) -> Manifest:
    version, flags, transaction, indexes = 0, 0, "", None
    files: list[StoreFile] = []
    rows: dict[int, int] = {}
    for number, value in _fields(message):
        if number == 2:
            files += _fragment(_bytes(value))
            rows[_fragment_number(_bytes(value))] = _live_rows(_bytes(value))
        elif number == 3:
            version = _number(value)
        elif number == 6:
            indexes = _number(value)
        elif number == 9:
            flags = _number(value)
        elif number == 12:
            transaction = _name(value) if value else ""
    if indexes is not None:
        for number, value in _fields(_message(data, indexes)):
            if number == 1:
                files += _index(_bytes(value))
    if version < 1:
        raise UnreadableManifestError("it names no version")
    return Manifest(version, tuple(files), flags, transaction, rows)


def _fragment(message: bytes) -> Iterator[StoreFile]:
    values = list(_fields(message))
    number = _fragment_number(message)
    for field, value in values:
        if field == 2:
            told = dict(_fields(_bytes(value)))
            if 7 not in told:  # else it lies in another folder
                size = _number(told.get(6, 0)) or None
                yield StoreFile(f"data/{_name(told[1])}", size, number)
        elif field == 3:
            told = dict(_fields(_bytes(value)))
            kind = "bin" if told.get(1, 0) else "arrow"
            name = f"{number}-{_number(told.get(2, 0))}-{_number(told.get(3, 0))}.{kind}"
            yield StoreFile(f"_deletions/{name}", None, number)


def _fragment_number(message: bytes) -> int:
    return next((_number(value) for field, value in _fields(message) if field == 1), 0)


def _live_rows(message: bytes) -> int:
    fragment = dict(_fields(message))
    deleted = dict(_fields(_bytes(fragment[3]))).get(4, 0) if 3 in fragment else 0
    return max(0, _number(fragment.get(4, 0)) - _number(deleted))


def _index(message: bytes) -> Iterator[StoreFile]:
    values = list(_fields(message))
    uuid = next(_bytes(value) for field, value in values if field == 1)
    folder = UUID(bytes=_bytes(dict(_fields(uuid))[1]))
    for field, value in values:
        if field == 10:
            told = dict(_fields(_bytes(value)))
            yield StoreFile(f"_indices/{folder}/{_name(told[1])}", _number(told.get(2, 0)))


def _name(value: int | bytes) -> str:
    """The name of a file in the folder where files of its kind lie, and nowhere else."""
    name = _bytes(value).decode()
    if name in ("", ".", "..") or any(char in name for char in "/\\\0"):
        raise UnreadableManifestError(f"it names a file {name!r}")
    return name


def _message(data: bytes, start: int) -> bytes:
    (length,) = _LENGTH.unpack_from(data, start)
    begin = start + _LENGTH.size
    if begin + length > len(data):
        raise UnreadableManifestError("it is cut short")
    return data[begin : begin + length]


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise UnreadableManifestError("a number is missing")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise UnreadableManifestError("a text is missing")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields."""
    return ((number, value) for number, value, _ in _parts(message))


def _parts(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """Number, value and encoding of each field, in the wire format of protocol buffers."""
    place = 0
    while place < len(message):
        start = place
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield tag >> 3, value, message[start:place]
            continue
        if kind == 2:
            length, place = _varint(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise UnreadableManifestError(f"it has a field of kind {kind}")
        if place + length > len(message):
            raise UnreadableManifestError("it is cut short")
        place += length
        yield tag >> 3, message[place - length : place], message[start:place]


def _as_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
        shift += 7
        if shift > 63:
            raise UnreadableManifestError("a number is too long")
