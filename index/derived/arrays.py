"""One array in one `.npy` file: written durably, checked in full before it is used.

The file is used where it lies (memory-mapped), so that processes share it and opening it
costs one pass over it, for the checksum. It is never changed once written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

_CHUNK_BYTES = 4 << 20
_MAPPED_FROM_BYTES = 1 << 20
_THREADS = 2
"""A checksum runs at the speed of memory; two threads take all that there is of it."""
_KINDS = "biuf"


def write_array(path: Path, parts: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """Write parts one after the other as one array.

    Args:
        path: a file that is not there yet.
        parts: one or more, of one dtype, alike but for their first dimension.

    Returns:
        what `read_array` wants to know of it.

    Raises:
        OSError: it cannot be written.
    """
    first = parts[0]
    shape = (sum(len(part) for part in parts), *first.shape[1:])
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("xb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(_bytes_of(part))
        stream.flush()
        os.fsync(stream.fileno())
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "dtype": first.dtype.str,
        "shape": list(shape),
        "xxh3": _checksum(np.load(path, mmap_mode=_mode(path), allow_pickle=False)),
    }


def read_array(folder: Path, told: dict[str, Any]) -> NDArray[Any]:
    """An array that was written by `write_array`, read-only.

    Args:
        folder: where its file lies.
        told: what `write_array` returned.

    Raises:
        ValueError, KeyError, TypeError, OSError: it is not what was written.
    """
    name = str(told["file"])
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise ValueError(f"{name!r} is missing")
    dtype, shape = np.dtype(told["dtype"]), tuple(map(int, told["shape"]))
    if dtype.kind not in _KINDS or any(length < 0 for length in shape):
        raise ValueError(f"{name} would hold {dtype} {list(shape)}")
    if path.stat().st_size != told["bytes"]:
        raise ValueError(f"{name} has {path.stat().st_size} bytes, not {told['bytes']}")
    array = np.load(path, mmap_mode=_mode(path), allow_pickle=False)
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{name} holds {array.dtype} {list(array.shape)}, not {dtype} {shape}")
    if _checksum(array) != told["xxh3"]:
        raise ValueError(f"{name} has been damaged: its checksum differs")
    plain: NDArray[Any] = np.asarray(array)
    plain.flags.writeable = False
    return plain


def _bytes_of(array: NDArray[Any]) -> memoryview:
    flat = np.ascontiguousarray(array).reshape(-1)
    return memoryview(flat.view(np.uint8).data) if array.size else memoryview(b"")


def _mode(path: Path) -> Any:
    return "r" if path.stat().st_size >= _MAPPED_FROM_BYTES else None


def _checksum(array: NDArray[Any]) -> str:
    """A checksum of the checksums of chunks, which threads share."""
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
