"""Where a shard reads its codes: the archive's store, or codes in memory.

Codes never pass through the driver: it sends a source, and each shard reads its own rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.hashing.codes import check_codes
from bittern.index.engines.blocks import BLOCK_ROWS, Block, CodeBlocks
from bittern.index.engines.rows import RowNumbers
from bittern.index.engines.sharded.partitions import Stripes
from bittern.index.store import Store, quoted


@dataclass(frozen=True)
class Known:
    """What a shard holds of an earlier generation.

    Attributes:
        version: the generation.
        blocks: its codes.
    """

    version: int
    blocks: CodeBlocks


class Source(Protocol):
    """Hands a shard the codes of its rows. Is pickled and sent to it."""

    def read(self, version: int, stripes: Stripes, shard: int, known: Known | None) -> CodeBlocks:
        """One shard's codes of one generation.

        Args:
            version: which generation.
            stripes: which rows belong to which shard.
            shard: whose rows.
            known: what it holds of an earlier generation, whose blocks can be shared.

        Raises:
            ArchiveDamagedError: they cannot be read.
        """
        ...


@dataclass(frozen=True)
class StoreSource:
    """Reads the store of an archive, which every machine must reach under the same path.

    Attributes:
        store: the store's folder.
        column: the column of a model's codes.
        modality: ``image`` or ``audio``; None for both.
    """

    store: Path
    column: str
    modality: str | None = None

    def read(self, version: int, stripes: Stripes, shard: int, known: Known | None) -> CodeBlocks:
        """See `Source.read`. Of a later generation only what has changed is read."""
        store = Store(self.store, version)
        kind = store.field_type(self.column)
        if kind is None:
            raise ArchiveDamagedError(
                f"version {version} of the store at {self.store} has no column {self.column}; "
                "look at a version after the model was registered"
            )
        condition = f"{stripes.condition(shard)} AND `{self.column}` IS NOT NULL"
        if self.modality is not None:
            condition += f" AND `modality` = {quoted(self.modality)}"
        if known is None:
            rows, codes = read_codes(store, self.column, condition)
            return blocks_of(rows, codes, stripes)
        live = np.sort(_numbers(store.read(["row"], condition)))
        changed = read_codes(store, self.column, f"{condition} AND `committed` > {known.version}")
        return renewed(known.blocks, live, *changed)


class MemorySource:
    """Hands out codes that lie in Ray's object store, for tests and measurements.

    What is put there stays as long as the source lives.
    """

    def __init__(self) -> None:
        self._versions: dict[int, tuple[Any, Any]] = {}

    def put(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> int:
        """Add a generation: ascending rows and their codes. Returns its version."""
        import ray

        version = 1 + max(self._versions, default=0)
        self._versions[version] = (ray.put(rows), ray.put(check_codes(codes)))
        return version

    def forget(self, version: int) -> None:
        """Let go of a generation."""
        self._versions.pop(version, None)

    def read(self, version: int, stripes: Stripes, shard: int, known: Known | None) -> CodeBlocks:
        """See `Source.read`."""
        import ray

        if version not in self._versions:
            raise ArchiveDamagedError(f"there is no generation {version}; put it there first")
        all_rows, all_codes = ray.get(list(self._versions[version]))
        rows = stripes.split(all_rows)[shard]
        return blocks_of(rows, all_codes.take(np.searchsorted(all_rows, rows), axis=0), stripes)


def read_codes(
    store: Store, column: str, condition: str
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows that meet a condition, ascending, and their codes: int64 [n], uint8 [n, bits/8].

    Args:
        store: at some version.
        column: of codes; the condition must leave out rows without one.
        condition: in the store's SQL.
    """
    table = store.read(["row", column], condition)
    rows, codes = _numbers(table), _bytes(table[column])
    if (rows[:-1] < rows[1:]).all():
        return rows, codes
    order = np.argsort(rows)
    return rows[order], codes.take(order, axis=0)


def blocks_of(rows: NDArray[np.int64], codes: NDArray[np.uint8], stripes: Stripes) -> CodeBlocks:
    """Codes of one shard as blocks. Full ranges become blocks whose rows take no memory."""
    if 4 * stripes.rows < BLOCK_ROWS:
        return CodeBlocks.of(rows, codes)
    cuts = np.flatnonzero(np.diff(rows // stripes.rows)) + 1
    blocks = [
        Block(RowNumbers(rows[start:end]), codes[start:end])
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)
        if end > start
    ]
    return CodeBlocks(codes.shape[1] * 8, blocks)


def renewed(
    blocks: CodeBlocks,
    live: NDArray[np.int64],
    rows: NDArray[np.int64],
    codes: NDArray[np.uint8],
) -> CodeBlocks:
    """A later generation of the same codes, sharing what has not changed.

    Args:
        blocks: the earlier generation.
        live: its rows, ascending.
        rows: those that were added or changed since, ascending.
        codes: their codes.
    """
    before = blocks.rows
    gone = np.union1d(
        np.setdiff1d(before, live, assume_unique=True),
        np.intersect1d(before, rows, assume_unique=True),
    )
    if len(gone):
        blocks = blocks.without(gone)
    return blocks.merged(rows, codes)


def _numbers(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table["row"].to_numpy(), dtype=np.int64)


def _bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """A column of fixed-size binary values without nulls: uint8 [n, width]."""
    width = column.type.byte_width
    parts = [np.empty((0, width), dtype=np.uint8)]
    for chunk in column.chunks:
        if len(chunk):
            data = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)
            start = chunk.offset * width
            parts.append(data[start : start + len(chunk) * width].reshape(-1, width))
    return np.concatenate(parts)
