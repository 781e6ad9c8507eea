"""One shard on disk: written whole or not at all, trusted only when it proves to be whole.

The tensors are written first, then the JSON file that holds their XXH3: a shard without it was
never finished. File names are made from the digest alone, never from what a file says.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from xxhash import xxh3_128_hexdigest

from bittern.benchmarks.eval.embeddings.tensor_files import LARGEST_HEADER, Tensor, tensors_of
from bittern.errors import ArchiveDamagedError, InvalidInputError, LimitExceededError
from bittern.files import replace_file
from bittern.text import counted

PARTIAL = ".partial-"
"""What names of files begin with that are being written."""
_OLD_S = 3600.0
_LARGEST_RECORD = 1 << 24
_LONGEST_SENTENCE = 2_000
_WANTED = {"embeddings": np.float32, "owners": np.int64, "spans": np.float32}


@dataclass(frozen=True)
class Record:
    """What the JSON file of a shard says.

    Attributes:
        digest: the shard's name.
        items: how many items it was made from.
        rows: of its arrays.
        dim: length of an embedding.
        xxh3: hex XXH3 (128 bits) of the tensor file.
        failed: items without a row, by their place in the shard, and why.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    items: Annotated[int, Field(ge=1, le=1 << 20)]
    rows: Annotated[int, Field(ge=0, le=1 << 32)]
    dim: Annotated[int, Field(ge=1, le=65_536)]
    xxh3: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    failed: list[tuple[int, str]]
    format: Literal[1] = 1


@dataclass(frozen=True)
class Shard:
    """A shard that has been checked; its embeddings stay on disk.

    Attributes:
        embeddings: where they lie, float32 [rows, dim].
        items: how many items it was made from.
        owners: int64 [rows], place of the item in the shard, not falling.
        spans: float32 [rows, 2], seconds; NaN where there are none.
        failed: items without a row, by their place in the shard, and why.
    """

    embeddings: Tensor
    items: int
    owners: NDArray[np.int64]
    spans: NDArray[np.float32]
    failed: Sequence[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.owners)


@dataclass(frozen=True)
class Content:
    """What a shard is to hold; see `Shard`."""

    items: int
    embeddings: NDArray[np.float32]
    owners: NDArray[np.int64]
    spans: NDArray[np.float32]
    failed: Sequence[tuple[int, str]]


def tensor_file(folder: Path, digest: str) -> Path:
    """Where a shard's arrays are."""
    return folder / f"{digest}.safetensors"


def record_file(folder: Path, digest: str) -> Path:
    """Where a shard's record is; it is written last."""
    return folder / f"{digest}.json"


def write_shard(folder: Path, digest: str, content: Content) -> None:
    """Write a shard, durably; an earlier one of this name is replaced.

    Raises:
        LimitExceededError: the disk is full.
        OSError: the disk refuses for another reason.
    """
    from safetensors.numpy import save

    arrays = {
        "embeddings": np.ascontiguousarray(content.embeddings, "<f4"),
        "owners": np.ascontiguousarray(content.owners, "<i8"),
        "spans": np.ascontiguousarray(content.spans, "<f4"),
    }
    data = save(arrays)
    record = Record(
        digest=digest,
        items=content.items,
        rows=len(content.owners),
        dim=content.embeddings.shape[1],
        xxh3=xxh3_128_hexdigest(data),
        failed=[(place, sentence[:_LONGEST_SENTENCE]) for place, sentence in content.failed],
    )
    told = json.dumps(asdict(record), ensure_ascii=True) + "\n"
    try:
        record_file(folder, digest).unlink(missing_ok=True)  # never beside arrays it is not of
        replace_file(tensor_file(folder, digest), data, PARTIAL)
        replace_file(record_file(folder, digest), told.encode(), PARTIAL)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise LimitExceededError(
            f"the disk of {folder} is full: a shard of {len(data)} bytes does not fit. Make room "
            "and run again, which goes on here, or choose another folder for the cache.",
            details={"bytes": str(len(data))},
        ) from error


def read_shard(folder: Path, digest: str, items: int, dim: int) -> Shard | None:
    """A shard, checked from the first byte to the last; None if there is none.

    Args:
        folder: of the tower.
        digest: name of the shard.
        items: how many items it was made from.
        dim: length of an embedding.

    Raises:
        ArchiveDamagedError: it is not what was written.
    """
    record_path = record_file(folder, digest)
    if not record_path.exists():
        return None
    try:
        record = _read_record(record_path)
        if (record.digest, record.items, record.dim) != (digest, items, dim):
            raise InvalidInputError(
                f"{record_path} is of {counted(record.items, 'item')} of {record.dim} dimensions "
                f"and the digest {record.digest[:12]}, not of {items}, {dim} and {digest[:12]}"
            )
        return _checked(tensor_file(folder, digest), record)
    except (InvalidInputError, OSError) as error:
        raise ArchiveDamagedError(f"a shard of embeddings is damaged: {error}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove what was being written when a run was killed, once it is an hour old."""
    for path in folder.glob(f"{PARTIAL}*"):
        try:
            if time.time() - path.stat().st_mtime > _OLD_S:
                path.unlink()
        except FileNotFoundError:  # another run was faster
            continue


def _read_record(path: Path) -> Record:
    if path.is_symlink() or path.stat().st_size > _LARGEST_RECORD:
        raise InvalidInputError(f"{path} is a link, or larger than {_LARGEST_RECORD} bytes")
    try:
        return TypeAdapter(Record).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidInputError(f"{path} does not describe a shard: {first['msg']}") from error


def _checked(path: Path, record: Record) -> Shard:
    """The shard that a record tells of: sizes first, then the checksum, then the values."""
    if path.is_symlink():
        raise InvalidInputError(f"{path} is a link")
    fixed = record.rows * (record.dim * 4 + 8 + 8)
    if not fixed < path.stat().st_size <= fixed + LARGEST_HEADER + 8:
        raise InvalidInputError(f"{path} has {path.stat().st_size} bytes, not those of its rows")
    if xxh3_128_hexdigest(path.read_bytes()) != record.xxh3:
        raise InvalidInputError(f"{path} has changed: its XXH3 is not the one in its record")
    tensors = tensors_of(path)
    shapes = {
        "embeddings": (record.rows, record.dim),
        "owners": (record.rows,),
        "spans": (record.rows, 2),
    }
    if {n: (t.dtype.type, t.shape) for n, t in tensors.items()} != {
        n: (_WANTED[n], shape) for n, shape in shapes.items()
    }:
        raise InvalidInputError(f"{path} holds other arrays than its record says")
    owners, spans = (np.array(tensors[name].mapped()) for name in ("owners", "spans"))
    _check_values(path, record, tensors["embeddings"], owners)
    return Shard(tensors["embeddings"], record.items, owners, spans, record.failed)


def _check_values(path: Path, record: Record, tensor: Tensor, owners: NDArray[np.int64]) -> None:
    """Every item has rows or a reason, never both; every value is a number."""
    places = [place for place, _ in record.failed]
    with_rows = np.unique(owners)
    everyone = np.sort(np.concatenate([with_rows, np.array(places, np.int64)]))
    if (np.diff(owners) < 0).any() or not np.array_equal(everyone, np.arange(record.items)):
        raise InvalidInputError(f"{path} does not account for each of its {record.items} items")
    sums = tensor.mapped().sum(axis=0, dtype=np.float64)
    if not np.isfinite(sums).all():
        raise InvalidInputError(f"{path} holds NaN or infinity")
