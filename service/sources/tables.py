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

from bittern.errors import ManifestError
from index.columns import Value
from service.sources.delimited import Dialect, rows
from service.sources.remote import open_address

PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
TEXT_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
_BATCH_ROWS = 1024
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


def _parquet(table: Table, file: IO[bytes]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
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
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=flat):
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


def _batch_rows(batch: Any, columns: Mapping[str, str]) -> Iterator[Cells]:
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
