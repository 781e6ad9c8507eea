"""Arrays that are derived from the store and cached in files.

    ARCHIVE/derived/<name>.json                  the set: format, generation, store, files
    ARCHIVE/derived/<name>.<token>.<array>.npy   one array each

A set is verified before it is used. Its JSON file holds its own checksum and those of all arrays,
the store version that the arrays were derived from, and the checksum of the manifest of that
version or a later one. So a set of another archive, or of a store that was restored from a backup,
is detected. A set that cannot be verified is ignored, logged and built again: damage costs time,
never a correct result.

Writing is best effort: a read-only folder or a full disk costs speed only. Every write uses new
file names and replaces the JSON file last and atomically. So two processes can write at the same
time, and a crash leaves the previous set.

Array files are memory-mapped and shared by processes; opening one reads it once, for the checksum.
The content of a file does not decide how it is read: type and shape are in the JSON file, must be
among a few plain types, and determine the header and length of the file. NumPy's own reader, which
also accepts archives and pickles, is not used.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from bittern.errors import PreconditionError
from bittern.files import check_inside, replace_file
from bittern.index.store import Store

FORMAT = "bittern-derived"
FORMAT_VERSION = 1
_JSON_LIMIT_BYTES = 1 << 20
_MOST_ARRAYS = 64
_MOST_EXPECTED = 1_024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,100}")
_ARRAY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")
_STRAYS_AFTER_S = 3600.0
_REMOVED_SETS = "*-graph"
"""Sets of an index of earlier releases."""
_log = logging.getLogger(__name__)
Arrays = Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
"""Arrays by name; a sequence is written as one array."""


class UnusableError(ValueError):
    """A set cannot be used."""


class OutdatedError(UnusableError):
    """A set may be intact, but it cannot be verified to be of this store."""


@contextmanager
def _unusable() -> Iterator[None]:
    """Turn every error while a set is read into `UnusableError`.

    Hostile files can cause any exception in a library, and none may prevent opening an archive.
    """
    try:
        yield
    except UnusableError:
        raise
    except (OSError, ValueError) as error:
        raise UnusableError(str(error) or type(error).__name__) from error
    except Exception as error:
        raise UnusableError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class DerivedSet:
    """Arrays that are verified to be derived from this store.

    Attributes:
        version: of the store that they were derived from; not later than its current version.
        arrays: read-only; large ones are memory-mapped.
    """

    version: int
    arrays: Mapping[str, NDArray[Any]]


class DerivedFiles:
    """The derived sets of one archive.

    Args:
        folder: `ARCHIVE/derived`, created when first needed.
        store: the archive's table.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self._store = store
        self._used: set[str] = set()
        self._expected: dict[int, str | None] = {}

    def expect(self, version: int, identity: str | None) -> None:
        """Record the identity of a version that was read; sets of another one are not written."""
        self._expected[version] = identity
        while len(self._expected) > _MOST_EXPECTED:
            self._expected.pop(next(iter(self._expected)))

    def names(self) -> list[str]:
        """Names of the stored sets, usable or not."""
        try:
            return sorted(path.stem for path in self.folder.glob("*.json"))
        except OSError:
            return []

    def read(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        """The arrays of a set; None if there is no usable one."""
        found = self.read_set(name)
        return None if found is None else found.arrays

    def read_set(self, name: str) -> DerivedSet | None:
        """A set; None if there is no usable one."""
        if not self._json_file(name).exists():
            return None
        try:
            found = self._checked(name)
        except UnusableError as error:
            level = logging.INFO if isinstance(error, OutdatedError) else logging.WARNING
            _log.log(level, "%s is not used and built again: %s", self._json_file(name), error)
            return None
        self._used.add(name)
        return found

    def refuse(self, name: str, why: str) -> None:
        """Log that an intact set cannot be used and is built again."""
        self._used.discard(name)
        _log.warning("%s is not used and built again: %s", self._json_file(name), why)

    def damage(self, name: str, *, or_outdated: bool = False) -> str:
        """The problem of a set; empty if there is none.

        Args:
            name: of the set.
            or_outdated: whether a set that may be of another store counts.
        """
        try:
            self._checked(name)
        except UnusableError as error:
            outdated = isinstance(error, OutdatedError)
            return "" if outdated and not or_outdated else str(error)
        return ""

    def write(self, name: str, arrays: Arrays) -> None:
        """Store arrays that are derived from the store's current version."""
        self.write_set(name, arrays, self._store.version)

    def write_set(self, name: str, arrays: Arrays, version: int) -> bool:
        """Store arrays; a failure is logged and costs speed only.

        Args:
            name: lower-case letters, digits, hyphens and underscores.
            arrays: by name.
            version: of the store that they were derived from.

        Returns:
            whether they are stored.
        """
        identity = self._store.identity(version)
        if identity is None or self._expected.get(version, identity) != identity:
            return False
        started = time.monotonic()
        before = self._files_of(name)
        try:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name of a set")
            check_inside(self.folder.parent, self.folder)
            self.folder.mkdir(exist_ok=True)
            files = self._write_arrays(name, arrays)
            seen = {"version": version, "identity": identity}
            content = {"name": name, "generation": version, "seen": seen, "about": {}}
            self._write_json(name, {**content, "files": files})
        except (OSError, ValueError, PreconditionError) as error:
            _log.warning("%s was not written: %s", self._json_file(name), error)
            return False
        _log.info("wrote %s in %.1f s", self._json_file(name), time.monotonic() - started)
        self._used.add(name)
        self._sweep(name, before, {described["file"] for described in files.values()})
        return True

    def renew(self) -> None:
        """Record the current version in the sets that this process used or wrote.

        A set is verified by a version that still exists, and old versions are cleaned up.
        """
        version = self._store.version
        identity = self._store.identity(version)
        for name in sorted(self._used):
            try:
                with _unusable():
                    value = self._read_json(name)
                    known = value["seen"]
                    proven = known["identity"] == self._store.identity(known["version"])
                    if identity is None or not proven or known["version"] >= version:
                        continue
                    seen = {"version": version, "identity": identity}
                    self._write_json(name, {**value, "seen": seen})
            except UnusableError as error:
                _log.info("%s was not renewed: %s", self._json_file(name), error)

    def _json_file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    @_unusable()
    def _checked(self, name: str) -> DerivedSet:
        value = self._read_json(name)
        version, seen = value["generation"], value["seen"]
        if not 0 < version <= seen["version"] <= self._store.version:
            raise OutdatedError(f"it belongs to version {version}, which this store does not have")
        if self._store.identity(seen["version"]) != seen["identity"]:
            raise OutdatedError("it belongs to another store, or to a version that was cleaned up")
        files = value["files"]
        if len(files) > _MOST_ARRAYS:
            raise ValueError(f"it has {len(files)} arrays, the limit is {_MOST_ARRAYS}")
        arrays = {str(key): read_array(self.folder, one) for key, one in files.items()}
        return DerivedSet(version, arrays)

    @_unusable()
    def _read_json(self, name: str) -> dict[str, Any]:
        path = self._json_file(name)
        if path.stat().st_size > _JSON_LIMIT_BYTES:
            raise ValueError(f"it is larger than {_JSON_LIMIT_BYTES} bytes")
        outer = json.loads(path.read_text("utf-8"))
        if outer["format"] != FORMAT or outer["format_version"] != FORMAT_VERSION:
            raise ValueError(f"its format is {outer['format']!r} {outer['format_version']!r}")
        value: dict[str, Any] = outer["set"]
        if outer["xxh3"] != _digest(value):
            raise ValueError("it is damaged: its checksum differs")
        if value["name"] != name:
            raise ValueError(f"it describes {value['name']!r}")
        if not all(isinstance(v, int) for v in (value["generation"], value["seen"]["version"])):
            raise ValueError("its versions are no numbers")
        return value

    def _write_arrays(self, name: str, arrays: Arrays) -> dict[str, Any]:
        token = secrets.token_hex(6)
        files: dict[str, Any] = {}
        written: list[Path] = []
        try:
            for key, array in arrays.items():
                if not _ARRAY.fullmatch(key):
                    raise ValueError(f"{key!r} is not a name of an array")
                path = self.folder / f"{name}.{token}.{key}.npy"
                written.append(path)
                chunks = [array] if isinstance(array, np.ndarray) else list(array)
                files[key] = write_array(path, chunks)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
        return files

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        check_inside(self.folder.parent, self.folder)
        outer = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "xxh3": _digest(value),
            "set": value,
        }
        replace_file(self._json_file(name), json.dumps(outer, indent=1).encode(), f"{name}.tmp-")

    def _files_of(self, name: str) -> set[str]:
        try:
            with _unusable():
                return {str(one["file"]) for one in self._read_json(name)["files"].values()}
        except UnusableError:
            return set()

    def _sweep(self, name: str, before: set[str], used: set[str]) -> None:
        """Remove files of the previous set, of interrupted writes, and of earlier releases."""
        now = time.time()
        try:
            for pattern in (f"{_REMOVED_SETS}.json", f"{_REMOVED_SETS}.*.npy"):
                before |= {path.name for path in self.folder.glob(pattern)}
            for path in self.folder.iterdir():
                own = path.name.startswith(f"{name}.") and path.suffix == ".npy"
                if path.name in used or not (own or ".tmp" in path.name or path.name in before):
                    continue
                # Another process may be writing.
                if path.name in before or now - path.stat().st_mtime > _STRAYS_AFTER_S:
                    path.unlink(missing_ok=True)
        except OSError as error:
            _log.info("old files in %s were not removed: %s", self.folder, error)


def _digest(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


# Arrays

_CHUNK_BYTES = 4 << 20
_MAPPED_FROM_BYTES = 1 << 20
_THREADS = 2
"""Two threads compute checksums at the speed of memory."""
_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")
_MOST_DIMENSIONS = 4
_LONGEST = 1 << 48


def write_array(path: Path, chunks: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """Write chunks as one array.

    Args:
        path: a new file.
        chunks: one or more, of one dtype, with equal shapes except for the first dimension.

    Returns:
        the description that `read_array` needs.

    Raises:
        OSError: it cannot be written.
    """
    first = chunks[0]
    shape = [sum(len(chunk) for chunk in chunks), *first.shape[1:]]
    header = _header(first.dtype.str, shape)
    with path.open("xb") as stream:
        stream.write(header)
        for chunk in chunks:
            stream.write(_bytes_of(chunk))
        stream.flush()
        os.fsync(stream.fileno())
    array = _content(path, len(header), first.dtype, shape)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "dtype": first.dtype.str,
        "shape": shape,
        "xxh3": _checksum(array),
    }


def read_array(folder: Path, described: dict[str, Any]) -> NDArray[Any]:
    """Read an array that `write_array` has written; it is read-only.

    Args:
        folder: of its file.
        described: the result of `write_array`.

    Raises:
        ValueError, KeyError, TypeError, OSError: it is missing or damaged.
    """
    name = str(described["file"])
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise ValueError(f"{name!r} is missing")
    header = _header(described["dtype"], described["shape"])
    dtype, shape = np.dtype(described["dtype"]), described["shape"]
    size, right = path.stat().st_size, len(header) + dtype.itemsize * math.prod(shape)
    if not size == described["bytes"] == right:
        raise ValueError(f"{name} has {size} bytes, not {right}")
    with path.open("rb") as stream:
        if stream.read(len(header)) != header:
            raise ValueError(f"{name} is damaged: its header is not that of {dtype} {shape}")
    array = _content(path, len(header), dtype, shape)
    if _checksum(array) != described["xxh3"]:
        raise ValueError(f"{name} is damaged: its checksum differs")
    array.flags.writeable = False
    return array


def _header(dtype: object, shape: object) -> bytes:
    """The header of an array's `.npy` file, for types and shapes that are stored."""
    lengths = shape if isinstance(shape, list) else []
    plain = all(type(length) is int and 0 <= length <= _LONGEST for length in lengths)
    if dtype not in _DTYPES or not plain or not 1 <= len(lengths) <= _MOST_DIMENSIONS:
        raise ValueError(f"arrays of {dtype!r} {shape!r} are not stored")
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": tuple(lengths)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _content(path: Path, offset: int, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    """The array after the header; memory-mapped if it is large."""
    count = math.prod(shape)
    if count * dtype.itemsize >= _MAPPED_FROM_BYTES:
        mapped = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=tuple(shape))
        return np.asarray(mapped)
    array = np.fromfile(path, dtype=dtype, count=count, offset=offset)
    return array.reshape(shape)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    flat = np.ascontiguousarray(array).reshape(-1)
    return memoryview(flat.view(np.uint8).data) if array.size else memoryview(b"")


def _checksum(array: NDArray[Any]) -> str:
    """The checksum of the checksums of chunks, which are computed in threads."""
    if not array.size:
        return xxhash.xxh3_128_hexdigest(b"")
    data = _bytes_of(array)
    starts = range(0, len(data), _CHUNK_BYTES)

    def digest(start: int) -> bytes:
        return xxhash.xxh3_128_digest(data[start : start + _CHUNK_BYTES])

    if len(starts) <= _THREADS:
        return xxhash.xxh3_128_hexdigest(b"".join(map(digest, starts)))
    with ThreadPoolExecutor(_THREADS) as threads:
        return xxhash.xxh3_128_hexdigest(b"".join(threads.map(digest, starts)))
