"""One array in one `.npy` file: written durably, checked in full before it is used.

The file is used where it lies (memory-mapped), so that processes share it and opening it
costs one pass over it, for the checksum. It is never changed once written.

Nothing in a file says how it is to be read. What an array is stands in the set's JSON, must be
one of a few plain types, and gives the header and the length that the file must have; NumPy's
own reader, which looks at the content to tell archives, pickles and arrays apart, is not used.
"""

from __future__ import annotations

import io
import math
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
_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")
_MOST_DIMENSIONS = 4
_LONGEST = 1 << 48


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
    shape = [sum(len(part) for part in parts), *first.shape[1:]]
    header = _header(first.dtype.str, shape)
    with path.open("xb") as stream:
        stream.write(header)
        for part in parts:
            stream.write(_bytes_of(part))
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
    header = _header(told["dtype"], told["shape"])
    dtype, shape = np.dtype(told["dtype"]), told["shape"]
    size, right = path.stat().st_size, len(header) + dtype.itemsize * math.prod(shape)
    if not size == told["bytes"] == right:
        raise ValueError(f"{name} has {size} bytes, not {right}")
    with path.open("rb") as stream:
        if stream.read(len(header)) != header:
            raise ValueError(f"{name} has been damaged: it does not begin as {dtype} {shape}")
    array = _content(path, len(header), dtype, shape)
    if _checksum(array) != told["xxh3"]:
        raise ValueError(f"{name} has been damaged: its checksum differs")
    array.flags.writeable = False
    return array


def _header(dtype: object, shape: object) -> bytes:
    """What the `.npy` file of an array begins with.

    Raises:
        ValueError: there is no array of this type and shape.
    """
    lengths = shape if isinstance(shape, list) else []
    plain = all(type(length) is int and 0 <= length <= _LONGEST for length in lengths)
    if dtype not in _DTYPES or not plain or not 1 <= len(lengths) <= _MOST_DIMENSIONS:
        raise ValueError(f"arrays of {dtype!r} {shape!r} are not kept")
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": tuple(lengths)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _content(path: Path, offset: int, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    """What follows the header: mapped where it is large."""
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
