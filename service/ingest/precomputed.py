"""Embeddings that were made before, read from files instead of computed: ``--embeddings``.

    PATH is a Parquet file, such as `bittern encode --store-embeddings` writes:
        occurrenceID or id      the item of each row
        embedding               list of float16, float32 or float64
        start_s, end_s          optional: seconds of each window
    or a folder:
        embeddings.npy          float16 or float32 [rows, dim], as numpy.save writes it
          or embeddings.safetensors    one tensor, `embeddings`
          or set.json and <view>.npy   as `bittern.hashing.training.embedding_sets` has them
        ids.txt                 the item of each row, one a line (UTF-8)
          or ids.json           a list of strings
          or ids.parquet        a column `id`, or the only column
        spans.npy               optional: float32 [rows, 2], start and end in seconds

Rows may be in any order. Several rows of an item are windows of one recording, each with its times.
Everything is checked when it is opened. Pickles are never read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bittern.encoders.base import Modality
from bittern.errors import (
    InvalidInputError,
    MediaError,
    SourceNotFoundError,
    UnsupportedModalityError,
)
from bittern.hashing.training.embedding_sets import SET_FILE, EmbeddingSet
from bittern.service.ingest.items import Embedded, PipelineEntry, Recheck
from bittern.service.models.model import Embedder
from bittern.text import agreeing, counted, some_of
from bittern.types import AddResult, AddStatus, MediaItem

MOST_OFF = 0.01
"""So far from 1 the norm of an embedding may be: float16 rounds."""
MAX_DIM = 65_536
EMBEDDING = "embedding"
"""Column of a Parquet file."""
ENCODER_KEY, TOWERS_KEY = b"bittern.encoder", b"bittern.towers"
"""In the metadata of a Parquet file: the encoder's name, and its towers' digests as JSON."""
_SCAN_ROWS = 8_192
_PARQUET_ROWS = 1_024
_GROUP_BYTES = 1 << 30
_LEAST_NORM = 1e-6
_MOST_ROWS = 20_000_000
_LARGEST_IDS = 4 << 30
_SHOWN = 5


class Precomputed:
    """The embeddings of a file or folder, checked; made by `open`.

    Memory: ids and times of all rows. Parquet files and safetensors are copied into a temporary
    array, for random access.

    Attributes:
        path: as the user gave it.
        dim: length of an embedding.
        encoder: name of the encoder that made them; empty if unknown.
        towers: digests of its towers by modality; empty if unknown.
        spans: float64 [rows, 2], start and end of each row in seconds; NaN for none.
        digest: hex SHA-256 of embeddings, ids and times.
    """

    def __init__(
        self, path: Path, array: Path, names: Sequence[str], spans: NDArray[np.float64]
    ) -> None:
        """Use `Precomputed.open`."""
        self.path, self._array = path, array
        self.rows, self.dim = (int(n) for n in _mapped(array).shape)
        self.spans = spans
        self.encoder = ""
        self.towers: Mapping[str, str] = {}
        self._keep: Any = None
        if len(names) != self.rows:
            raise InvalidInputError(
                f"{path} has {counted(self.rows, 'embedding')} and {counted(len(names), 'id')}; it "
                "needs one id per row",
                field="embeddings",
            )
        self._number: dict[str, int] = {}
        items = [self._number.setdefault(name, len(self._number)) for name in names]
        self._names = list(self._number)
        owner = np.array(items, np.int64)
        # Rows of an item together, windows by their time.
        self._order = np.lexsort((np.nan_to_num(spans[:, 1]), np.nan_to_num(spans[:, 0]), owner))
        self._starts = np.searchsorted(owner[self._order], np.arange(len(self._names) + 1))
        self._listed = np.zeros(len(self._names), bool)
        _check_spans(path, names, spans)
        self._check_unique(owner)
        digest = _scan(path, array, self.rows)
        digest.update("\0".join(names).encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(spans).tobytes())
        self.digest = digest.hexdigest()

    @classmethod
    def open(cls, path: Path) -> Precomputed:
        """Open a file or folder, and check every embedding, id and time.

        Raises:
            SourceNotFoundError: no such path, no embeddings, or no ids.
            InvalidInputError: an unusable file, other numbers of ids than rows, NaN or infinity,
                norms other than 1, impossible times, or rows of one item without different times.
        """
        if path.is_dir():
            return cls._of_folder(path)
        if not path.is_file():
            raise SourceNotFoundError(
                f"there are no embeddings at {path}: give a Parquet file or a folder",
                field="embeddings",
            )
        if path.suffix.lower() not in (".parquet", ".pq"):
            raise InvalidInputError(
                f"{path} is not a Parquet file (.parquet); give an array of embeddings as a "
                "folder with embeddings.npy and ids.txt",
                field="embeddings",
            )
        return cls._of_parquet(path)

    @classmethod
    def _of_folder(cls, folder: Path) -> Precomputed:
        keep = None
        encoder, towers = "", {}
        if (folder / SET_FILE).is_file():
            source = EmbeddingSet.open(folder)
            views = list(source.views)
            if len(views) > 1:
                raise InvalidInputError(
                    f"{folder} has the views {', '.join(views)}: give a folder with one view, or "
                    "with embeddings.npy",
                    field="embeddings",
                )
            array = folder / f"{views[0]}.npy"
            encoder, towers = source.description.encoder, source.description.towers
        elif (folder / "embeddings.npy").is_file():
            array = folder / "embeddings.npy"
        elif (folder / "embeddings.safetensors").is_file():
            keep, array = _safetensors(folder / "embeddings.safetensors")
        else:
            raise SourceNotFoundError(
                f"{folder} holds no embeddings: it lacks embeddings.npy, embeddings.safetensors "
                f"and {SET_FILE}",
                field="embeddings",
            )
        rows = len(_mapped(array))
        found = cls(folder, array, _read_ids(folder), _read_spans(folder, rows))
        found.encoder, found.towers, found._keep = encoder, dict(towers), keep
        return found

    @classmethod
    def _of_parquet(cls, path: Path) -> Precomputed:
        keep, array, names, spans, about = _parquet(path)
        found = cls(path, array, names, spans)
        found._keep = keep
        found.encoder = about.get(ENCODER_KEY, b"").decode(errors="replace")
        try:
            found.towers = dict(json.loads(about.get(TOWERS_KEY, b"{}")))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInputError(
                f"{path} has metadata {TOWERS_KEY.decode()} that cannot be read: {error!r:.200}",
                field="embeddings",
            ) from error
        return found

    def _check_unique(self, owner: NDArray[np.int64]) -> None:
        """Refuse rows of one item with the same times, or without times."""
        order = self._order
        spans = np.nan_to_num(self.spans[order], nan=-1.0)
        same = owner[order][1:] == owner[order][:-1]
        untimed = (spans[1:] < 0).any(axis=1) | (spans[:-1] < 0).any(axis=1)
        repeated = same & (untimed | (spans[1:] == spans[:-1]).all(axis=1))
        if count := int(repeated.sum()):
            names = [self._names[n] for n in dict.fromkeys(owner[order][1:][repeated].tolist())]
            raise InvalidInputError(
                f"{self.path} has {counted(count, 'row')} too many for {_few(names)}: an item has "
                "one row, or several that are windows of a recording, each with its own times "
                "(spans.npy, or the columns start_s and end_s). Take repeated rows out, or give "
                "windows their times",
                field="embeddings",
            )

    def check_encoder(self, embedder: Embedder, modalities: Sequence[str]) -> None:
        """Check that an encoder made these embeddings, as far as they say.

        Raises:
            InvalidInputError: another length, encoder, or tower of one of the modalities.
        """
        dim = embedder.encoder().dim
        if self.dim != dim:
            raise InvalidInputError(
                f"{self.path} has embeddings of {counted(self.dim, 'dimension')}, the model's "
                f"have {dim}: name the model that made them with --model",
                field="embeddings",
            )
        if self.towers:
            known = [m for m in modalities if m in self.towers]
            same = all(self.towers[m] == embedder.digest(Modality(m)) for m in known)
        else:
            same = self.encoder in ("", embedder.name)
        if not same:
            raise InvalidInputError(
                f"the embeddings in {self.path} are of {self.encoder!r:.100}, not of the "
                f"{' and '.join(modalities)} tower of '{embedder.name}' on this machine: name the "
                "model that made them with --model",
                field="embeddings",
            )

    def rows_of(self, item: str) -> NDArray[np.int64]:
        """The rows of an item, windows by their time; none if it has no embedding."""
        number = self._number.get(item)
        if number is None:
            return np.empty(0, np.int64)
        self._listed[number] = True
        return self._order[self._starts[number] : self._starts[number + 1]].astype(np.int64)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Embeddings of some rows, float32 [len(rows), dim]; the file is read in its own order."""
        order = np.argsort(rows, kind="stable")
        out = np.empty((len(rows), self.dim), np.float32)
        for first in range(0, len(rows), _SCAN_ROWS):
            chunk = order[first : first + _SCAN_ROWS]
            out[chunk] = _mapped(self._array)[rows[chunk]]
        return out

    def unlisted(self) -> str:
        """A sentence on the rows that `rows_of` never returned; empty if none."""
        names = [self._names[n] for n in np.flatnonzero(~self._listed)]
        if not names:
            return ""
        sizes = np.diff(self._starts)[~self._listed]
        return (
            f"{some_of(int(sizes.sum()), self.rows, 'row')} of {self.path} "
            f"{agreeing(int(sizes.sum()), 'was', 'were')} not used: the source does not list "
            f"{_few(names)}"
        )

    def embedded(self, embedder: Embedder, entries: Iterable[PipelineEntry]) -> Iterator[Embedded]:
        """Every entry with its embeddings, in order, as
        `bittern.service.ingest.embedding.embed_items` gives them; no media are read.

        Args:
            embedder: the encoder that made the embeddings.
            entries: photographs, recordings, and results that pass through.

        Raises:
            InvalidInputError: as `check_encoder`, for the first entry of a modality.
        """
        checked: set[str] = set()
        for entry in entries:
            item = entry.item if isinstance(entry, Recheck) else entry
            name, rows = item.occurrence_id, self.rows_of(item.occurrence_id)
            if isinstance(item, AddResult):
                yield Embedded(None, result=item)
                continue
            if isinstance(entry, Recheck):
                message = f"'{name}' is in the archive already"
                yield Embedded(item, result=AddResult(name, AddStatus.SKIPPED, message=message))
                continue
            try:
                embedder.require(Modality(item.modality))
                if item.modality not in checked:
                    self.check_encoder(embedder, [item.modality])
                    checked.add(item.modality)
                yield self._item(item, rows)
            except (MediaError, UnsupportedModalityError) as error:
                yield Embedded(item, result=AddResult.failure(name, error))

    def _item(self, item: MediaItem, rows: NDArray[np.int64]) -> Embedded:
        """An item with its rows.

        Raises:
            MediaError: it has none, or a photograph several.
        """
        if not len(rows):
            raise MediaError(f"{self.path} has no embedding of '{item.occurrence_id}'")
        spans: list[tuple[float | None, float | None]] = [(None, None)]
        if item.modality != Modality.IMAGE and not np.isnan(self.spans[rows[0], 0]):
            spans = [(float(start), float(end)) for start, end in self.spans[rows]]
        elif len(rows) > 1:
            raise MediaError(
                f"{self.path} has {len(rows)} embeddings of the photograph "
                f"'{item.occurrence_id}', not one"
            )
        return Embedded(item, spans=spans, embeddings=list(self.read(rows)))


def _few(names: Sequence[str]) -> str:
    """The first names, with control characters escaped."""
    shown = ", ".join(f"{name!r:.100}" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _mapped(path: Path) -> NDArray[Any]:
    """An array of embeddings, mapped: let go of it soon, for mapped pages count as memory."""
    array = _npy(path)
    if array.ndim != 2 or not array.size or array.dtype not in (np.float16, np.float32):
        raise InvalidInputError(
            f"{path} must be float16 or float32 [rows, dim], not {array.dtype} {list(array.shape)}",
            field="embeddings",
        )
    if array.shape[0] > _MOST_ROWS or array.shape[1] > MAX_DIM:
        raise InvalidInputError(
            f"{path} is {list(array.shape)}; the limit is {_MOST_ROWS:,} rows of {MAX_DIM:,}",
            field="embeddings",
        )
    return array


def _npy(path: Path) -> NDArray[Any]:
    """An array that `numpy.save` wrote, mapped; objects are refused."""
    try:
        array: NDArray[Any] = npy.open_memmap(path, mode="r")
    except Exception as error:  # headers go through Python's parser and on into dtypes and shapes
        raise InvalidInputError(
            f"{path} is not an array that numpy.save wrote: {error!r:.300}", field="embeddings"
        ) from error
    if not array.flags.c_contiguous:
        raise InvalidInputError(
            f"{path} is stored by columns; save numpy.ascontiguousarray(array)", field="embeddings"
        )
    return array


def _temporary(
    path: Path, rows: int, dim: int, dtype: Any, blocks: Iterable[NDArray[Any]]
) -> tuple[Any, Path]:
    """Blocks of rows as an array in a temporary folder, which is removed with its handle.

    Raises:
        InvalidInputError: sizes beyond the limits, or too little space.
    """
    if not 0 < rows <= _MOST_ROWS or not 0 < dim <= MAX_DIM:
        raise InvalidInputError(
            f"{path} has {rows:,} embeddings of {counted(dim, 'dimension')}; the limit is "
            f"{_MOST_ROWS:,} of {MAX_DIM:,}, and one at least",
            field="embeddings",
        )
    size, free = (
        rows * dim * np.dtype(dtype).itemsize,
        shutil.disk_usage(tempfile.gettempdir()).free,
    )
    if size > free:
        raise InvalidInputError(
            f"{path} is copied into a temporary file of {size / 1e9:.1f} GB, and "
            f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB free: set TMPDIR to another folder, "
            "or give embeddings.npy and ids.txt, which are read where they are",
            field="embeddings",
        )
    keep = tempfile.TemporaryDirectory(prefix="bittern-embeddings-")
    array = Path(keep.name) / "embeddings.npy"
    copy = npy.open_memmap(array, mode="w+", dtype=dtype, shape=(rows, dim))
    first = 0
    for block in blocks:
        copy[first : first + len(block)] = block
        first += len(block)
    copy.flush()
    return keep, array


def _safetensors(path: Path) -> tuple[Any, Path]:
    """The tensor of a file, as a temporary array."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if names != ["embeddings"]:
                raise InvalidInputError(
                    f"{path} must hold one tensor, embeddings, not {names[:_SHOWN]}",
                    field="embeddings",
                )
            tensor = file.get_slice("embeddings")
            shape, kind = tensor.get_shape(), tensor.get_dtype()
            if len(shape) != 2 or kind not in ("F16", "F32"):
                raise InvalidInputError(
                    f"{path} must be float16 or float32 [rows, dim], not {kind} {shape}",
                    field="embeddings",
                )
            rows, dim = shape
            ends = (min(start + _SCAN_ROWS, rows) for start in range(0, rows, _SCAN_ROWS))
            blocks = (tensor[(end - 1) // _SCAN_ROWS * _SCAN_ROWS : end] for end in ends)
            dtype = np.float16 if kind == "F16" else np.float32
            return _temporary(path, rows, dim, dtype, blocks)
    except SafetensorError as error:
        raise InvalidInputError(
            f"{path} is not a usable safetensors file: {error}", field="embeddings"
        ) from error


def _parquet(
    path: Path,
) -> tuple[Any, Path, list[str], NDArray[np.float64], Mapping[bytes, bytes]]:
    """Embeddings as a temporary array, ids, times, and the metadata of the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            id_column = _id_column(path, schema)
            dtype = _list_of_floats(path, schema)
            for number in range(file.num_row_groups):
                if (size := file.metadata.row_group(number).total_byte_size) > _GROUP_BYTES:
                    raise InvalidInputError(
                        f"{path} has a row group of {size:,} bytes; the limit is {_GROUP_BYTES:,}: "
                        "write it with smaller ones (row_group_size=10000)",
                        field="embeddings",
                    )
            first = next(file.iter_batches(1, columns=[EMBEDDING]), None)
            dim = len(first[0][0]) if first is not None and first[0][0].is_valid else 0
            blocks = (
                _block(path, batch.column(0), dim, dtype)
                for batch in file.iter_batches(_PARQUET_ROWS, columns=[EMBEDDING])
            )
            keep, array = _temporary(path, rows, dim, dtype, blocks)
            names = _texts(path, file.read([id_column]).column(0))
            spans = np.full((rows, 2), np.nan)
            if {"start_s", "end_s"} <= set(schema.names):
                times = file.read(["start_s", "end_s"])
                for column, name in enumerate(("start_s", "end_s")):
                    spans[:, column] = times[name].cast(pa.float64()).to_numpy()
            return keep, array, names, spans, schema.metadata or {}
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InvalidInputError(
            f"{path} cannot be read as Parquet: {error}", field="embeddings"
        ) from error


def _id_column(path: Path, schema: Any) -> str:
    for name in ("occurrenceID", "id"):
        if name in schema.names:
            return name
    raise InvalidInputError(
        f"{path} must have a column id (or occurrenceID), not only {', '.join(schema.names[:20])}",
        field="embeddings",
    )


def _list_of_floats(path: Path, schema: Any) -> Any:
    """The dtype of the stored array."""
    import pyarrow.types as types

    if EMBEDDING not in schema.names:
        raise InvalidInputError(
            f"{path} has no column {EMBEDDING}, only {', '.join(schema.names[:20])}; `bittern "
            "encode --store-embeddings` writes one",
            field="embeddings",
        )
    kind = schema.field(EMBEDDING).type
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not lists or not types.is_floating(kind.value_type):
        raise InvalidInputError(
            f"the column {EMBEDDING} of {path} must be lists of float16, float32 or float64, not "
            f"{kind}",
            field="embeddings",
        )
    return np.float16 if types.is_float16(kind.value_type) else np.float32


def _block(path: Path, column: Any, dim: int, dtype: Any) -> NDArray[Any]:
    """Lists of one length as [n, dim]."""
    import pyarrow.compute as pc

    values = column.flatten()
    lengths = set(pc.list_value_length(column).fill_null(0).unique().to_pylist()) - {dim}
    if lengths or values.null_count:
        other = (
            f"of {', '.join(map(str, sorted(lengths)[:3]))} numbers" if lengths else "with nulls"
        )
        raise InvalidInputError(
            f"{path} has embeddings {other}; all must have {dim}, as the first one has",
            field="embeddings",
        )
    with np.errstate(over="ignore"):  # of float64; infinity is refused later
        block: NDArray[Any] = values.to_numpy(zero_copy_only=False).astype(dtype)
    return block.reshape(len(column), dim)


def _texts(path: Path, column: Any) -> list[str]:
    import pyarrow as pa

    if column.null_count:
        raise InvalidInputError(f"{path} has rows without an id", field="embeddings")
    texts: list[str] = column.cast(pa.string()).to_pylist()
    return texts


def _read_ids(folder: Path) -> list[str]:
    """The item of each row."""
    for name, read in (("ids.txt", _lines), ("ids.json", _json), ("ids.parquet", _id_file)):
        path = folder / name
        if path.is_file():
            if path.stat().st_size > _LARGEST_IDS:
                raise InvalidInputError(
                    f"{path} is larger than {_LARGEST_IDS} bytes", field="embeddings"
                )
            return read(path)
    raise SourceNotFoundError(
        f"{folder} does not name the items of its rows: it lacks ids.txt, ids.json and ids.parquet",
        field="embeddings",
    )


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8: {error}", field="embeddings") from error
    lines = text.split("\n")  # str.splitlines would cut at characters that ids may hold
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _json(path: Path) -> list[str]:
    try:
        ids = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is no JSON: {error!r:.200}", field="embeddings") from error
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise InvalidInputError(f"{path} must be a list of strings", field="embeddings")
    return ids


def _id_file(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(path).names
        column = "id" if "id" in columns else columns[0] if len(columns) == 1 else ""
        if not column:
            raise InvalidInputError(
                f"{path} must have a column id, not {', '.join(columns)}", field="embeddings"
            )
        rows = pq.read_metadata(path).num_rows
        if rows > _MOST_ROWS:
            raise InvalidInputError(
                f"{path} has {rows:,} rows; the limit is {_MOST_ROWS:,}", field="embeddings"
            )
        return _texts(path, pq.read_table(path, columns=[column]).column(0))
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(
            f"{path} cannot be read as parquet: {error}", field="embeddings"
        ) from error


def _read_spans(folder: Path, rows: int) -> NDArray[np.float64]:
    path = folder / "spans.npy"
    if not path.is_file():
        return np.full((rows, 2), np.nan)
    spans = _npy(path)
    if spans.shape != (rows, 2) or spans.dtype not in (np.float32, np.float64):
        raise InvalidInputError(
            f"{path} must be float32 [{rows}, 2], not {spans.dtype} {list(spans.shape)}",
            field="embeddings",
        )
    return np.array(spans, np.float64)


def _check_spans(path: Path, names: Sequence[str], spans: NDArray[np.float64]) -> None:
    start, end = spans.T
    absent = np.isnan(start) & np.isnan(end)
    usable = absent | (np.isfinite(spans).all(axis=1) & (start >= 0) & (end > start))
    if usable.all():
        return
    row = int(np.argmin(usable))
    raise InvalidInputError(
        f"{some_of(int((~usable).sum()), len(spans), 'row')} of {path} cannot be windows: the "
        f"first is row {row}, counted from 0, {names[row]!r:.100}, from {start[row]:g} to "
        f"{end[row]:g} seconds. Times rise from 0, or are missing (NaN) for both",
        field="embeddings",
    )


def _scan(path: Path, array: Path, rows: int) -> hashlib._Hash:
    """The digest of all embeddings, once they have been checked.

    Raises:
        InvalidInputError: rows with NaN, or of another norm than 1: how many, and the first.
    """
    digest = hashlib.sha256()
    norms = np.empty(rows)
    for first in range(0, rows, _SCAN_ROWS):
        block = np.array(_mapped(array)[first : first + _SCAN_ROWS])
        digest.update(f"{block.dtype} {block.shape} ".encode())
        digest.update(block.data)
        norms[first : first + _SCAN_ROWS] = np.linalg.norm(block.astype(np.float64), axis=1)
    unusable = ~np.isfinite(norms) | (norms < _LEAST_NORM)
    sentences = []
    if number := int(np.count_nonzero(unusable)):
        sentences.append(
            f"{some_of(number, rows, 'row')} of {path} {agreeing(number, 'holds', 'hold')} NaN, "
            f"infinity or nothing but zeros; the first is row {np.argmax(unusable)}, counted from "
            f"0. Take {agreeing(number, 'it and its id', 'them and their ids')} out, or embed "
            "these items again"
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
