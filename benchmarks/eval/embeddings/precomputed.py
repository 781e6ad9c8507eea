"""Embeddings that another program made, on a cluster say, read where they lie.

    FOLDER/
    ├── embeddings.npy           float16 or float32 [rows, dim], unit norm, as numpy.save writes it
    │   or embeddings.safetensors    one tensor, `embeddings`
    │   or set.json and <view>.npy   as `bittern.hashing.training.embedding_sets` has them
    ├── ids.txt                  the item of each row, one a line (UTF-8)
    │   or ids.json                  a list of strings
    │   or ids.parquet               a column `id`, or the only column
    └── spans.npy                optional: float32 [rows, 2], start and end in seconds

Rows may stand in any order, that of the items is read fastest. Several rows of one id are windows
of one recording, in their order. Rows of other items are skipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
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
_SHOWN = 5
_log = logging.getLogger(__name__)


class PrecomputedRows:
    """`EmbeddedRows` over a folder of embeddings that another program made."""

    def __init__(
        self,
        array: Path,
        order: NDArray[np.int64],
        owners: NDArray[np.int64],
        spans: NDArray[np.float32],
        digest: str,
        failed: Sequence[tuple[int, str]],
    ) -> None:
        """Use `PrecomputedRows.open`."""
        self.dim = int(_mapped(array).shape[1])
        self.owners, self.spans, self.digest = owners, spans, digest
        self.failed = failed
        self._array, self._order = array, order

    @classmethod
    def open(
        cls,
        folder: Path,
        ids: Sequence[str],
        *,
        dim: int,
        missing: Literal["error", "skip"] = "error",
    ) -> PrecomputedRows:
        """Open a folder and check every embedding.

        Args:
            folder: see the module.
            ids: of the items, unique, in their order.
            dim: length that embeddings must have.
            missing: whether items without a row are left in `failed` (``skip``).

        Raises:
            SourceNotFoundError: no embeddings, or no ids.
            InvalidInputError: an unusable array, other numbers of ids than rows, NaN or infinity,
                norms other than 1.
            MediaError: items have no row, and `missing` is ``error``.
        """
        array = _find(folder)
        rows, found_dim = _mapped(array).shape
        if found_dim != dim:
            raise InvalidInputError(
                f"{array} has embeddings of {counted(found_dim, 'dimension')}, the model's "
                f"have {dim}"
            )
        names = _read_ids(folder)
        if len(names) != rows:
            raise InvalidInputError(
                f"{folder} has {counted(rows, 'embedding')} and {counted(len(names), 'id')}; it "
                "needs one id per row"
            )
        owners, order = _matched(names, ids)
        without = np.setdiff1d(np.arange(len(ids)), owners).tolist()
        if len(order) < rows:
            _log.info("%d rows of %s are of other items", rows - len(order), folder)
        if without and missing == "error":
            them = agreeing(len(without), "it", "them")
            shown = ", ".join(repr(ids[position]) for position in without[:_SHOWN])
            raise MediaError(
                f"{folder} has no embedding of {some_of(len(without), len(ids), 'item')}: {shown}"
                f"{', …' if len(without) > _SHOWN else ''}. Embed {them} too, or leave {them} out "
                "with --missing skip."
            )
        spans = _spans(folder, rows)
        digest = _scan(array, rows)
        for chunk in (order, owners, spans):
            digest.update(chunk.tobytes())
        failed = [(position, f"{folder} has no embedding of it") for position in without]
        return cls(array, order, owners, spans[order], digest.hexdigest(), failed)

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
            out[chunk] = _mapped(self._array)[positions[chunk]]
        return out


def _find(folder: Path) -> Path:
    """The file with the embeddings of a folder."""
    if (folder / SET_FILE).is_file():
        views = list(EmbeddingSet.open(folder).views)
        if len(views) > 1:
            raise InvalidInputError(
                f"{folder} has the views {', '.join(views)}: give a folder with one view, or with "
                "embeddings.npy"
            )
        return folder / f"{views[0]}.npy"
    for name in ("embeddings.npy", "embeddings.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise SourceNotFoundError(
        f"{folder} holds no embeddings: it lacks embeddings.npy, embeddings.safetensors and "
        f"{SET_FILE}"
    )


def _mapped(path: Path) -> NDArray[Any]:
    """The embeddings, mapped; let go of them soon, for mapped pages count as memory."""
    if path.suffix == ".npy":
        array = _npy(path)
    else:
        tensors = tensors_of(path)
        if set(tensors) != {"embeddings"}:
            raise InvalidInputError(
                f"{path} must hold one tensor, embeddings, not {sorted(tensors)}"
            )
        array = tensors["embeddings"].mapped()
    if array.ndim != 2 or not array.size or array.dtype not in (np.float16, np.float32):
        raise InvalidInputError(
            f"{path} must be float16 or float32 [rows, dim], not {array.dtype} {list(array.shape)}"
        )
    return array


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
        f"{folder} does not name the items of its rows: it lacks ids.txt, ids.json and ids.parquet"
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
    """The item of each usable row, not falling, and the row's position in the file."""
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


def _scan(path: Path, rows: int) -> hashlib._Hash:
    """The digest of all embeddings, once they have been checked.

    Raises:
        InvalidInputError: rows with NaN, or of another norm than 1: how many, and the first.
    """
    digest = hashlib.sha256()
    norms = np.empty(rows)
    for first in range(0, rows, _SCAN_ROWS):
        block = np.array(_mapped(path)[first : first + _SCAN_ROWS])
        digest.update(f"{block.dtype} {block.shape} ".encode())
        digest.update(block.data)
        norms[first : first + _SCAN_ROWS] = np.linalg.norm(block.astype(np.float64), axis=1)
    unusable = ~np.isfinite(norms) | (norms < _LEAST_NORM)
    sentences = []
    if number := int(np.count_nonzero(unusable)):
        sentences.append(
            f"{some_of(number, rows, 'row')} of {path} {agreeing(number, 'holds', 'hold')} NaN, "
            f"infinity or nothing but zeros; the first is row {np.argmax(unusable)}, counted from "
            f"0. Take {agreeing(number, 'it and its id', 'them and their ids')} out of the folder, "
            "or embed these items again; items without a row can be left out with --missing skip"
        )
    long = ~unusable & ~(np.abs(norms - 1.0) <= MOST_OFF)
    if number := int(np.count_nonzero(long)):
        first = int(np.argmax(long))
        sentences.append(
            f"{some_of(number, rows, 'row')} of {path} {agreeing(number, 'does', 'do')} not have "
            f"the norm 1; the first is row {first}, counted from 0, with {norms[first]:.4g}. "
            "Divide each by its norm: a / numpy.linalg.norm(a, axis=1, keepdims=True)"
        )
    if sentences:
        raise InvalidInputError(". ".join(sentences), field="embeddings")
    return digest
