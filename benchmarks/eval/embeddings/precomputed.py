"""Embeddings that another program made, on a cluster say, read where they lie.

    FOLDER/
    ├── embeddings.npy           float16 or float32 [rows, dim], unit norm, as numpy.save writes it
    │   or embeddings.safetensors    one tensor, `embeddings`
    │   or set.json and <view>.npy   as `bittern.hashing.training.embedding_sets` has them
    ├── ids.txt                  the item of each row, one a line (UTF-8)
    │   or ids.json                  a list of strings
    │   or ids.parquet               a column `id`, or the only column
    └── spans.npy                optional: float32 [rows, 2], start and end in seconds

Rows may stand in any order; several rows of one id are windows of one recording, in the order in
which they stand. Rows of other items are skipped. Rows that stand in the
order of the items are read fastest.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.rows import checked_rows
from bittern.benchmarks.eval.embeddings.shards import tensors_of
from bittern.errors import InvalidInputError, MediaError, SourceNotFoundError
from bittern.hashing.training.embedding_sets import SET_FILE, EmbeddingSet
from bittern.text import agreeing, counted, some_of

MOST_OFF = 0.01
"""So far from 1 the norm of an embedding may be: float16 rounds."""
_SCAN_ROWS = 8_192
_LEAST_NORM = 1e-6
_MOST_ROWS = 20_000_000
_LARGEST_IDS = 4 << 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Stored:
    """The array of a folder, mapped anew for each read (mapped pages count as memory)."""

    path: Path
    kind: Literal["npy", "safetensors"]

    def mapped(self) -> NDArray[Any]:
        if self.kind == "safetensors":
            tensors = tensors_of(self.path)
            if set(tensors) != {"embeddings"}:
                raise InvalidInputError(
                    f"{self.path} must hold one tensor, embeddings, not {sorted(tensors)}"
                )
            array = tensors["embeddings"].mapped()
        else:
            array = _npy(self.path)
        if array.ndim != 2 or not array.size or array.dtype not in (np.float16, np.float32):
            raise InvalidInputError(
                f"{self.path} must be float16 or float32 [rows, dim], not {array.dtype} "
                f"{list(array.shape)}"
            )
        return array


class PrecomputedRows:
    """`EmbeddedRows` over a folder of embeddings that another program made."""

    def __init__(
        self,
        stored: _Stored,
        order: NDArray[np.int64],
        owners: NDArray[np.int64],
        spans: NDArray[np.float32],
        failed: Sequence[tuple[int, str]],
        digest: str,
    ) -> None:
        """Use `PrecomputedRows.open`."""
        self.dim = int(stored.mapped().shape[1])
        self.owners, self.spans, self.digest = owners, spans, digest
        self.failed: Sequence[tuple[int, str]] = tuple(failed)
        self._stored, self._order = stored, order

    @classmethod
    def open(
        cls,
        folder: Path,
        ids: Sequence[str],
        *,
        dim: int,
        missing: Literal["error", "skip"] = "error",
    ) -> PrecomputedRows:
        """Open a folder and look at every embedding once.

        Args:
            folder: see the module.
            ids: of the items, unique, in their order.
            dim: length that embeddings must have.
            missing: what becomes of items without a row: ``skip`` leaves them in `failed`.

        Raises:
            SourceNotFoundError: no embeddings, or no ids.
            InvalidInputError: an array that is not what it must be, other numbers of ids than
                rows, NaN or infinity, norms other than 1.
            MediaError: items have no row, and `missing` is ``error``.
        """
        stored = _find(folder)
        array = stored.mapped()
        rows, found_dim = array.shape
        if found_dim != dim:
            raise InvalidInputError(
                f"{stored.path} has embeddings of {counted(found_dim, 'dimension')}, the model's "
                f"have {dim}"
            )
        names = _read_ids(folder)
        if len(names) != rows:
            raise InvalidInputError(
                f"{folder} has {counted(rows, 'embedding')} and {counted(len(names), 'id')}; it "
                "needs one id per row"
            )
        owners, order = _matched(names, ids)
        without = np.setdiff1d(np.arange(len(ids)), owners)
        if len(order) < rows:
            _log.info("%d rows of %s are of other items", rows - len(order), folder)
        failed = [(int(position), f"{folder} has no embedding of it") for position in without]
        if failed and missing == "error":
            them = agreeing(len(failed), "it", "them")
            shown = ", ".join(repr(ids[position]) for position, _ in failed[:5])
            raise MediaError(
                f"{folder} has no embedding of {some_of(len(failed), len(ids), 'item')}: {shown}"
                f"{', …' if len(failed) > 5 else ''}. Embed {them} too, or leave {them} out with "
                "--missing skip."
            )
        spans = _spans(folder, rows)
        digest = _scan(stored, rows)
        for chunk in (order, owners, spans):
            digest.update(chunk.tobytes())
        return cls(stored, order, owners, spans[order], failed, digest.hexdigest())

    def __len__(self) -> int:
        return len(self._order)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows`."""
        for first in range(0, len(self), rows):
            yield first, self._rows(self._order[first : first + rows])

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows`.

        Raises:
            CodeError: there is no such row.
        """
        return self._rows(self._order[checked_rows(rows, len(self))])

    def _rows(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of the file, in the order given; the file itself is read in its own."""
        order = np.argsort(positions, kind="stable")
        out = np.empty((len(positions), self.dim), np.float32)
        for first in range(0, len(positions), _SCAN_ROWS):
            chunk = order[first : first + _SCAN_ROWS]
            out[chunk] = self._stored.mapped()[positions[chunk]]
        return out


def _find(folder: Path) -> _Stored:
    """The array of a folder."""
    if (folder / SET_FILE).is_file():
        views = list(EmbeddingSet.open(folder).views)
        if len(views) > 1:
            raise InvalidInputError(
                f"{folder} has the views {', '.join(views)}: give a folder with one view, or with "
                "embeddings.npy"
            )
        return _Stored(folder / f"{views[0]}.npy", "npy")
    if (folder / "embeddings.npy").is_file():
        return _Stored(folder / "embeddings.npy", "npy")
    if (folder / "embeddings.safetensors").is_file():
        return _Stored(folder / "embeddings.safetensors", "safetensors")
    raise SourceNotFoundError(
        f"{folder} holds no embeddings: there is no embeddings.npy, embeddings.safetensors or "
        f"{SET_FILE} in it"
    )


def _npy(path: Path) -> NDArray[Any]:
    """An array that `numpy.save` wrote, mapped; objects are refused."""
    try:
        array: NDArray[Any] = npy.open_memmap(path, mode="r")
    except Exception as error:  # headers go through Python's parser and on into dtypes and shapes
        raise InvalidInputError(
            f"{path} is not an array that numpy.save wrote: {error!r:.300}"
        ) from error
    if not array.flags.c_contiguous:
        raise InvalidInputError(f"{path} is stored by columns; save numpy.ascontiguousarray(array)")
    return array


def _read_ids(folder: Path) -> list[str]:
    """The item of each row."""
    for name, read in (("ids.txt", _lines), ("ids.json", _json), ("ids.parquet", _parquet)):
        path = folder / name
        if path.is_file():
            if path.stat().st_size > _LARGEST_IDS:
                raise InvalidInputError(f"{path} is larger than {_LARGEST_IDS} bytes")
            return read(path)
    raise SourceNotFoundError(
        f"{folder} does not tell the items of its rows: there is no ids.txt, ids.json or "
        "ids.parquet in it"
    )


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8: {error}") from error
    lines = text.split("\n")  # str.splitlines would cut at characters that ids may hold
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _json(path: Path) -> list[str]:
    try:
        ids = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is no JSON: {error!r:.200}") from error
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise InvalidInputError(f"{path} must be a list of strings")
    return ids


def _parquet(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(path).names
        column = "id" if "id" in columns else columns[0] if len(columns) == 1 else ""
        if not column:
            raise InvalidInputError(f"{path} must have a column id, not {', '.join(columns)}")
        rows = pq.read_metadata(path).num_rows
        if rows > _MOST_ROWS:
            raise InvalidInputError(f"{path} has {rows:,} rows; the limit is {_MOST_ROWS:,}")
        values = pq.read_table(path, columns=[column]).column(0)
        ids: list[str] = values.cast(pa.string()).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path} cannot be read as parquet: {error}") from error
    if None in ids:
        raise InvalidInputError(f"{path} has rows without an id")
    return ids


def _matched(
    names: Sequence[str], ids: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The item of each row that is wanted, not falling, and where the row is in the file."""
    positions = {one: position for position, one in enumerate(ids)}
    items = np.fromiter((positions.get(name, -1) for name in names), np.int64, len(names))
    order = np.argsort(items, kind="stable").astype(np.int64)
    order = order[items[order] >= 0]
    return items[order], order


def _spans(folder: Path, rows: int) -> NDArray[np.float32]:
    path = folder / "spans.npy"
    if not path.is_file():
        return np.full((rows, 2), np.nan, np.float32)
    spans = _npy(path)
    if spans.shape != (rows, 2) or spans.dtype not in (np.float32, np.float64):
        raise InvalidInputError(
            f"{path} must be float32 [{rows}, 2], not {spans.dtype} {list(spans.shape)}"
        )
    return np.array(spans, np.float32)


def _scan(stored: _Stored, rows: int) -> hashlib._Hash:
    """Look at every embedding; the digest of all of them so far.

    Raises:
        InvalidInputError: rows with NaN, or of another norm than 1: how many, and the first.
    """
    digest = hashlib.sha256()
    unusable, long = _Rows(), _Rows()
    for first in range(0, rows, _SCAN_ROWS):
        block = np.array(stored.mapped()[first : first + _SCAN_ROWS])
        digest.update(f"{block.dtype} {block.shape} ".encode())
        digest.update(block.data)
        norms = np.linalg.norm(block.astype(np.float64), axis=1)
        none = ~np.isfinite(norms) | (norms < _LEAST_NORM)
        unusable.add(first, none, norms)
        long.add(first, ~none & ~(np.abs(norms - 1.0) <= MOST_OFF), norms)
    sentences = []
    if unusable.number:
        them = agreeing(unusable.number, "it and its id", "them and their ids")
        sentences.append(
            f"{some_of(unusable.number, rows, 'row')} of {stored.path} "
            f"{agreeing(unusable.number, 'holds', 'hold')} NaN, infinity or nothing but zeros; the "
            f"first is row {unusable.first}, counted from 0. Take {them} out of the folder, or "
            "embed these items again; items without a row can be left out with --missing skip"
        )
    if long.number:
        sentences.append(
            f"{some_of(long.number, rows, 'row')} of {stored.path} "
            f"{agreeing(long.number, 'does', 'do')} not have the norm 1; the first is row "
            f"{long.first}, counted from 0, with {long.norm:.4g}. Divide each by its norm: "
            "a / numpy.linalg.norm(a, axis=1, keepdims=True)"
        )
    if sentences:
        raise InvalidInputError(". ".join(sentences), field="embeddings")
    return digest


@dataclass
class _Rows:
    """How many rows are wrong in one way, the first of them, and its norm."""

    number: int = 0
    first: int = -1
    norm: float = 0.0

    def add(self, begin: int, wrong: NDArray[np.bool_], norms: NDArray[np.float64]) -> None:
        """Those of the rows from `begin` on."""
        positions = np.flatnonzero(wrong)
        if len(positions) and not self.number:
            self.first, self.norm = begin + int(positions[0]), float(norms[positions[0]])
        self.number += len(positions)
