"""Tables of whatever size, row by row: delimited text and Parquet, here or at an address."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ManifestError
from bittern.index.columns import Value
from bittern.service.sources.delimited import MAX_FIELD_CHARS, MAX_LINE_BYTES, Dialect, rows
from bittern.service.sources.remote import open_address

PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
TEXT_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
_BATCH_ROWS = 1024
_BATCH_BYTES = 8 << 20
"""What is read of a Parquet file at once, and what of it is turned into text at once."""
MAX_CELL_BYTES = MAX_FIELD_CHARS
"""Longest cell of a Parquet file."""
_GROUP_BYTES = 64 << 20
_MEAN_ROW_BYTES = 64 << 10
"""A row group of more than both of these is left out: it is unpacked a thousand rows at a time,
however small the batches are that are asked for."""
_TOO_LARGE = (
    "hold {:,} bytes each on average, which is too much for a table of media; leave out the "
    "columns with long texts"
)
_HEAD_BYTES = 1 << 20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Cells = dict[str, Value]
Names = Callable[[list[str]], list[str]]
"""From the headings of a table to the names of its columns."""


@dataclass(frozen=True)
class Table:
    """A table and where it is.

    Attributes:
        name: its file name.
        place: its path, or its address if it lies elsewhere.
    """

    name: str
    place: Path | str

    @property
    def is_parquet(self) -> bool:
        """Whether it is a Parquet file, by its name."""
        return Path(self.name).suffix.lower() in PARQUET_SUFFIXES

    def open(self) -> IO[bytes]:
        """Its bytes."""
        return open_address(self.place) if isinstance(self.place, str) else self.place.open("rb")

    def where(self, number: int) -> str:
        """What to call a row: a line of text, or the number of a row."""
        return f"{self.name}, {'row' if self.is_parquet else 'line'} {number}"

    def rows(self, names: Names) -> Iterator[tuple[int, Cells | str]]:
        """Number and cells of every row, or what is wrong with the row; empty cells left out.

        Raises:
            ManifestError: the table as a whole cannot be read.
        """
        return _parquet_rows(self, names) if self.is_parquet else _text_rows(self, names)

    def count(self) -> int:
        """How many rows there are, those that cannot be read too."""
        if self.is_parquet:
            with self.open() as file:
                return int(_parquet(self, file).metadata.num_rows)
        return sum(1 for _ in _text_rows(self, lambda headings: headings))


class _Rest:
    """A stream of which something was read already."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._stream.read(size)


def _text_rows(table: Table, names: Names) -> Iterator[tuple[int, Cells | str]]:
    if isinstance(table.place, Path):
        _refuse_other_encodings(table)
    with table.open() as file:
        head = file.read(_HEAD_BYTES)
        stream = cast(IO[bytes], _Rest(head.removeprefix(codecs.BOM_UTF8), file))
        encoding = "utf-8"
        if head.startswith(_UTF_16):
            encoding = "utf-16"
            stream = cast(IO[bytes], codecs.EncodedFile(stream, "utf-8", "utf-16"))
        first = head.decode(encoding, "ignore").partition("\n")[0]
        dialect = Dialect(separator=max(",\t;", key=first.count))
        try:
            yield from _named(table, rows(stream, dialect), names)
        except UnicodeDecodeError as error:
            raise ManifestError(f"{table.place} is no {encoding} text: {error}") from error


def _named(
    table: Table, split: Iterator[tuple[int, list[str] | str]], names: Names
) -> Iterator[tuple[int, Cells | str]]:
    _, headings = next(split, (1, []))
    if isinstance(headings, str):
        raise ManifestError(f"the header of {table.place}: {headings}", field="source")
    columns = names(headings)
    for line, cells in split:
        if isinstance(cells, str):
            yield line, cells
        elif len(cells) != len(columns):
            yield line, f"the row has {len(cells)} cells, the header {len(columns)}"
        else:
            stripped = ((c, v.strip()) for c, v in zip(columns, cells, strict=True))
            yield line, {c: v for c, v in stripped if v}


def _refuse_other_encodings(table: Table) -> None:
    """Read a file through: better to refuse it now than in the middle of a night."""
    with table.open() as file:
        head = file.read(2)
        encoding = "utf-16" if head.startswith(_UTF_16) else "utf-8"
        decoder = codecs.getincrementaldecoder(encoding)()
        line, chunk = 1, head
        try:
            while chunk:
                line += decoder.decode(chunk).count("\n")
                chunk = file.read(_HEAD_BYTES)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            raise ManifestError(
                f"{table.place} is not {encoding.upper()} text (line {line}: {error.reason}); "
                "save it as UTF-8: in a spreadsheet, as 'CSV UTF-8'; on a command line, with "
                f"iconv -f WINDOWS-1252 -t UTF-8 {table.name} > utf8.csv",
                field="source",
            ) from error


def _parquet(table: Table, file: IO[bytes], **options: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, **options)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{table.place} is not a readable Parquet file: {error}", field="source"
        ) from error


def _parquet_rows(table: Table, names: Names) -> Iterator[tuple[int, Cells | str]]:
    import pyarrow as pa

    with table.open() as file:
        parquet = _parquet(table, file)
        flat = [each.name for each in parquet.schema_arrow if _is_flat(each.type)]
        columns = dict(zip(flat, names(flat), strict=True))
        number = 0
        try:
            # A text that a file holds once and refers to a million times stays one text.
            texts = [name for name in flat if _is_text(parquet.schema_arrow.field(name).type)]
            parquet = _parquet(table, file, metadata=parquet.metadata, read_dictionary=texts)
            for group in range(parquet.num_row_groups):
                count, mean = _size_of(parquet.metadata.row_group(group), flat)
                if mean > _MEAN_ROW_BYTES and count * mean > _GROUP_BYTES:
                    yield number + 1, f"{count:,} rows from here on {_TOO_LARGE.format(mean)}"
                    number += count
                    continue
                fitting = min(_BATCH_ROWS, max(1, _BATCH_BYTES // mean))
                for batch in parquet.iter_batches(fitting, row_groups=[group], columns=flat):
                    for cells in _batch_rows(batch, columns):
                        number += 1
                        yield number, cells
        except (pa.ArrowException, OSError) as error:
            # What was read is good; where the file is damaged, nothing behind can be found.
            yield number + 1, f"this row and those behind it cannot be read: {error}"


def _is_flat(kind: Any) -> bool:
    """Whether a column holds texts, numbers, dates or truth, not lists or bytes."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return not (types.is_nested(kind) or "binary" in str(kind) or types.is_null(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _size_of(group: Any, flat: list[str]) -> tuple[int, int]:
    """Rows of a row group, and bytes of one of them on average, by what its columns say."""
    columns = (group.column(number) for number in range(group.num_columns))
    size = sum(each.total_uncompressed_size for each in columns if each.path_in_schema in flat)
    return int(group.num_rows), max(1, int(size // max(1, group.num_rows)))


def _batch_rows(batch: Any, columns: Mapping[str, str]) -> Iterator[Cells | str]:
    """Cells of each row of a batch; never more than `_BATCH_BYTES` of text in memory at once."""
    texts = {n: _sizes(c) for n, c in zip(batch.schema.names, batch.columns, strict=True)}
    total = np.zeros(batch.num_rows, np.int64)
    longest = np.zeros(batch.num_rows, np.int64)
    for sizes in texts.values():
        if sizes is not None:
            total += sizes
            np.maximum(longest, sizes, out=longest)
    bad = (longest > MAX_CELL_BYTES) | (total > MAX_LINE_BYTES)
    begin = 0
    while begin < batch.num_rows:
        if bad[begin]:
            yield _too_long(begin, texts)
            begin += 1
            continue
        after = np.flatnonzero(bad[begin:])
        most = int(after[0]) if len(after) else batch.num_rows - begin
        fitting = np.searchsorted(np.cumsum(total[begin : begin + most]), _BATCH_BYTES, "right")
        count = max(1, int(fitting))
        yield from _slice_rows(batch.slice(begin, count), columns)
        begin += count


def _sizes(column: Any) -> NDArray[np.int64] | None:
    """Bytes of each text of a column, int64 [rows]; None for a column of something else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = None
    if pa.types.is_dictionary(column.type):
        places, column = column.indices, column.dictionary
    if not _is_text(column.type):
        return None
    sizes = pc.cast(pc.binary_length(column), pa.int64())
    if places is not None:
        sizes = sizes.take(places)
    return np.asarray(sizes.fill_null(0), dtype=np.int64)


def _too_long(row: int, texts: Mapping[str, NDArray[np.int64] | None]) -> str:
    for name, sizes in texts.items():
        if sizes is not None and sizes[row] > MAX_CELL_BYTES:
            return (
                f"the cell in column '{name[:100]}' has {sizes[row]:,} bytes, the limit is "
                f"{MAX_CELL_BYTES:,}; leave the column out"
            )
    return f"the row has more than {MAX_LINE_BYTES >> 20} MiB; leave some columns out"


def _slice_rows(batch: Any, columns: Mapping[str, str]) -> Iterator[Cells]:
    import pyarrow as pa

    values: dict[str, list[Any]] = {}
    for heading, column in zip(batch.schema.names, batch.columns, strict=True):
        if heading not in columns:
            continue
        if pa.types.is_timestamp(column.type):  # Python has no nanoseconds
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        values[columns[heading]] = column.to_pylist()
    for row in range(batch.num_rows):
        cells = {name: _value(column[row]) for name, column in values.items()}
        yield {name: value for name, value in cells.items() if value is not None}


def _value(value: Any) -> Value | None:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value).strip() or None if value is not None else None
