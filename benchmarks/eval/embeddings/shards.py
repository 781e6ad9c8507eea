"""Shards of embeddings on disk: their names, how one is written and checked, and many as rows.

A shard is written as a whole or not at all. The tensors are written first, then the JSON file that
holds their XXH3: a shard without it was never finished.

The name of a shard is a digest of its tower (weights and preprocessing, windowing, and batch size,
on which the last bits of floats depend) and of its contents, but not of the device: where the last
bits of two devices may not mix, use a cache each. Of a content:

    text            the text
    bytes           their XXH3 (128 bits)
    file            its absolute path, its size, and its modification time in nanoseconds
    missing file    its path
    address         the address

Files are not read for this: five million cost one `stat` each, which is a minute or two. A file
that is replaced with its size and time kept is not noticed. Folders that were moved are embedded
again, unless they are linked to their old path: recorders number their files from 1, so names,
sizes and times alone do not distinguish recordings.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from xxhash import xxh3_128_hexdigest

from bittern.benchmarks.eval.embeddings.rows import checked_rows
from bittern.benchmarks.eval.tasks import TEXT
from bittern.encoders.base import Modality
from bittern.errors import ArchiveDamagedError, InvalidInputError, LimitExceededError
from bittern.files import replace_file
from bittern.service.ingest.embedding import FLUSH_ITEMS, NETWORK_BATCH
from bittern.service.models.model import Embedder
from bittern.text import counted
from bittern.types import MediaItem

_DTYPES = {"F16": "<f2", "F32": "<f4", "I64": "<i8"}
_MOST_DIMENSIONS = 2
_LARGEST_HEADER = 1 << 20
"""Bytes; files of a few tensors have headers of a few hundred."""
_FORMAT = 1
PARTIAL = ".partial-"
"""Prefix of files that are being written."""
_OLD_S = 3600.0
_LARGEST_RECORD = 1 << 24
_LONGEST_SENTENCE = 2_000
_WANTED = {"embeddings": np.float32, "owners": np.int64, "spans": np.float32}


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

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
    """The tensors of a safetensors file by name; safetensors itself checks the file.

    Raises:
        InvalidInputError: not such a file, or tensors of other types or more dimensions.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass  # checks the header, and that tensors fill the file without gaps
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except SafetensorError as error:
        raise InvalidInputError(f"{path} is not a usable safetensors file: {error}") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        shape = tuple(entry["shape"])
        if entry["dtype"] not in _DTYPES or len(shape) > _MOST_DIMENSIONS:
            raise InvalidInputError(f"{path} has an unusable tensor {name!r:.80}: {entry!r:.200}")
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        found[name] = Tensor(path, dtype, shape, 8 + length + entry["data_offsets"][0])
    return found


def tower_print(embedder: Embedder, modality: Modality, text_batch: int) -> str:
    """Hex SHA-256 of everything that decides embeddings, except the contents.

    Args:
        embedder: encoder with the tower.
        modality: which of its towers.
        text_batch: texts that go through it at a time.

    Raises:
        UnsupportedModalityError: the encoder has no such tower.
    """
    embedder.require(modality)
    windowing = embedder.windowing if modality == Modality.AUDIO else None
    batching = f"{text_batch}" if modality == Modality.TEXT else f"{NETWORK_BATCH} {FLUSH_ITEMS}"
    values = (str(_FORMAT), str(modality), embedder.digest(modality), repr(windowing), batching)
    return _digest(values)


def contents_digest(tower: str, contents: Iterable[MediaItem | str], modality: str) -> str:
    """Name of a shard: hex SHA-256 of a tower's print and of the contents, in order.

    Raises:
        InvalidInputError: a content is of another modality.
    """
    return _digest((tower, *(_print(content, modality) for content in contents)))


def _print(content: MediaItem | str, modality: str) -> str:
    if isinstance(content, str):
        if modality != TEXT:
            raise InvalidInputError(f"a text, {content!r:.80}, is among {modality} items")
        return f"text {content}"
    if content.modality != modality:
        raise InvalidInputError(
            f"{content.media!r} is of the modality {content.modality!r}, among {modality} items"
        )
    if content.data is not None:
        return f"bytes {xxh3_128_hexdigest(content.data)}"
    if content.path is None:
        return f"address {content.url}"
    return _file_print(content.path)


def _file_print(path: Path) -> str:
    whole = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", resolve asks the disk
    try:
        stat = os.stat(whole)  # noqa: PTH116 - five million times
    except (OSError, ValueError):
        return f"missing {whole}"
    return f"file {stat.st_size} {stat.st_mtime_ns} {whole}"


def _digest(values: Iterable[str]) -> str:
    """Lengths go in too: no two sequences run into the same bytes."""
    digest = hashlib.sha256()
    for chunk in values:
        data = chunk.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Record:
    """The JSON file of a shard.

    Attributes:
        digest: the shard's name.
        items: number of its items.
        rows: of its arrays.
        dim: length of an embedding.
        xxh3: hex XXH3 (128 bits) of the tensor file.
        failed: items without a row, by their position in the shard, and why.
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
        embeddings: float32 [rows, dim].
        items: number of its items.
        owners: int64 [rows], position of the item in the shard, not falling.
        spans: float32 [rows, 2], seconds; NaN where there are none.
        failed: items without a row, by their position in the shard, and why.
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
    """The content of a new shard; see `Shard`."""

    items: int
    embeddings: NDArray[np.float32]
    owners: NDArray[np.int64]
    spans: NDArray[np.float32]
    failed: Sequence[tuple[int, str]]


def tensor_file(folder: Path, digest: str) -> Path:
    """Path of a shard's arrays."""
    return folder / f"{digest}.safetensors"


def record_file(folder: Path, digest: str) -> Path:
    """Path of a shard's record, which is written last."""
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
        failed=[(position, sentence[:_LONGEST_SENTENCE]) for position, sentence in content.failed],
    )
    text = json.dumps(asdict(record), ensure_ascii=True) + "\n"
    try:
        record_file(folder, digest).unlink(missing_ok=True)  # never beside arrays it is not of
        replace_file(tensor_file(folder, digest), data, PARTIAL)
        replace_file(record_file(folder, digest), text.encode(), PARTIAL)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise LimitExceededError(
            f"the disk of {folder} is full: a shard of {len(data)} bytes does not fit. Make room "
            "and run again, which goes on here, or choose another folder for the cache.",
            details={"bytes": str(len(data))},
        ) from error


def read_shard(folder: Path, digest: str, items: int, dim: int) -> Shard | None:
    """A shard, checked from the first byte to the last; None if it is missing.

    Args:
        folder: of the tower.
        digest: name of the shard.
        items: number of its items.
        dim: length of an embedding.

    Raises:
        ArchiveDamagedError: it differs from what was written.
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
    """Remove unfinished files of killed runs once they are an hour old."""
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
    """The shard of a record: sizes are checked first, then the checksum, then the values."""
    if path.is_symlink():
        raise InvalidInputError(f"{path} is a link")
    fixed = record.rows * (record.dim * 4 + 8 + 8)
    if not fixed < path.stat().st_size <= fixed + _LARGEST_HEADER + 8:
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
    positions = [position for position, _ in record.failed]
    with_rows = np.unique(owners)
    everyone = np.sort(np.concatenate([with_rows, np.array(positions, np.int64)]))
    if (np.diff(owners) < 0).any() or not np.array_equal(everyone, np.arange(record.items)):
        raise InvalidInputError(f"{path} does not account for each of its {record.items} items")
    sums = tensor.mapped().sum(axis=0, dtype=np.float64)
    if not np.isfinite(sums).all():
        raise InvalidInputError(f"{path} holds NaN or infinity")


class ShardedRows:
    """`EmbeddedRows` over shards on disk.

    In memory are owners and spans (16 bytes a row) and the tile at hand. Files are mapped for one
    read alone: pages of a file that stays mapped count as this process's memory.

    Args:
        shards: checked shards, in the order of their items.
        dim: length of an embedding.
        digest: hex SHA-256 of the contents and the tower.
    """

    def __init__(self, shards: Sequence[Shard], dim: int, digest: str) -> None:
        self.dim = dim
        self.digest = digest
        sizes = [shard.items for shard in shards]
        firsts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
        offset = list(zip(shards, firsts, strict=True))
        self.owners: NDArray[np.int64] = np.concatenate(
            [np.empty(0, np.int64), *(shard.owners + first for shard, first in offset)]
        )
        self.spans: NDArray[np.float32] = np.concatenate(
            [np.empty((0, 2), np.float32), *(shard.spans for shard in shards)]
        )
        self.failed: Sequence[tuple[int, str]] = tuple(
            (first + position, sentence)
            for shard, first in offset
            for position, sentence in shard.failed
        )
        self._starts = np.concatenate([[0], np.cumsum([len(s) for s in shards])]).astype(np.int64)
        self._tensors = [s.embeddings for s in shards]  # owners and spans are not kept twice

    def __len__(self) -> int:
        return len(self.owners)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows`. Each tile is a new array, of which nothing is kept here.

        Raises:
            ArchiveDamagedError: a shard was removed or cut short meanwhile.
        """
        for first in range(0, len(self), rows):
            yield first, self.read(np.arange(first, min(first + rows, len(self))))

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows`; shard after shard, whatever the order of `rows`.

        Raises:
            CodeError: there is no such row.
            ArchiveDamagedError: a shard was removed or cut short meanwhile.
        """
        wanted = checked_rows(rows, len(self))
        taken = np.empty((len(wanted), self.dim), np.float32)
        order = np.argsort(wanted, kind="stable")
        cuts = np.searchsorted(wanted[order], self._starts)
        for shard, (begin, end) in enumerate(pairwise(cuts)):
            if begin < end:
                chosen = order[begin:end]
                taken[chosen] = self._some(shard, wanted[chosen] - self._starts[shard])
        return taken

    def _some(self, shard: int, local: NDArray[np.int64]) -> NDArray[np.float32]:
        """Ascending rows of a shard; the file is mapped for this call alone."""
        tensor = self._tensors[shard]
        why = "it is shorter than it was"
        try:
            if tensor.path.stat().st_size >= tensor.offset + tensor.shape[0] * self.dim * 4:
                some: NDArray[np.float32] = np.take(tensor.mapped(), local, axis=0)
                return some
        except OSError as error:
            why = str(error)
        raise ArchiveDamagedError(
            f"embeddings were lost while they were read, {tensor.path}: {why}. Run again: only "
            "this shard is made again."
        )
