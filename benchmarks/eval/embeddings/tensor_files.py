"""Safetensors from outside: where the tensors of a file lie, checked before anything is mapped.

Format: https://github.com/huggingface/safetensors: 8 bytes with the length of a JSON header, the
header, then the tensors without gaps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError

LARGEST_HEADER = 1 << 20
"""Bytes; files of a few tensors have headers of a few hundred."""
_DTYPES = {"F16": "<f2", "F32": "<f4", "I64": "<i8"}
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
        path: the file.
        dtype: float16, float32 or int64, little-endian.
        shape: of it.
        offset: of its first byte in the file.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    def mapped(self) -> NDArray[Any]:
        """The values, mapped: let go of them soon, for mapped pages count as memory."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Raises:
        InvalidInputError: not such a file, or one whose header does not agree with its size.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(LARGEST_HEADER, size - 8):
            raise InvalidInputError(
                f"{path} is no safetensors file: {size} bytes, with a header of {length}"
            )
        raw = stream.read(length)
    try:
        header = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} has a header that is no JSON: {error!r:.200}") from error
    if not isinstance(header, dict):
        raise InvalidInputError(f"{path} has a header that is no JSON object")
    header.pop("__metadata__", None)
    start = 8 + length
    found = {name: _tensor(path, name, said, start) for name, said in header.items()}
    _check_gapless(path, found, start, size)
    return found


def _tensor(path: Path, name: str, said: Any, start: int) -> Tensor:
    """One entry of the header."""
    wrong = InvalidInputError(f"{path} has a bad entry for {name!r:.80}: {said!r:.200}")
    if not isinstance(said, Mapping) or said.get("dtype") not in list(_DTYPES):
        raise wrong
    shape, offsets = said.get("shape"), said.get("data_offsets")
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise wrong
    dtype = np.dtype(_DTYPES[said["dtype"]])
    tensor = Tensor(path, dtype, tuple(shape), start + offsets[0])
    if offsets[1] - offsets[0] != _bytes(tensor):
        raise wrong
    return tensor


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(values, list)
        and len(values) <= _MOST_DIMENSIONS
        and all(type(v) is int and 0 <= v < 2**48 for v in values)
    )


def _bytes(tensor: Tensor) -> int:
    size = tensor.dtype.itemsize
    for length in tensor.shape:
        size *= length
    return size


def _check_gapless(path: Path, tensors: Mapping[str, Tensor], start: int, size: int) -> None:
    """Tensors follow one another to the end of the file."""
    end = start
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, _bytes(t))):
        if tensor.offset != end:
            raise InvalidInputError(f"{path} has tensors that overlap or leave gaps")
        end += _bytes(tensor)
    if end != size:
        raise InvalidInputError(f"{path} should have {end} bytes, it has {size}: is it cut short?")
