"""Tables of any size, row by row: delimited text and Parquet, local or remote.

CSV files of exports differ in separators, quotes and ends of lines. They are read in blocks:
memory is bounded by one block and one row (`MAX_LINE_BYTES`), even if a file of a terabyte is one
line. An unreadable row is reported with its line number, and reading continues.
"""

from __future__ import annotations

import codecs
import csv
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ManifestError
from bittern.index.columns import Value
from bittern.service.sources.remote import open_address

MAX_LINE_BYTES = 4 << 20
"""Longest row; a longer one is listed as unreadable."""
MAX_CELL_BYTES = 1 << 20
"""Longest cell; of delimited text, in characters."""
ENCODINGS = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252"})
"""Encodings that can be split into lines before decoding; names of `codecs`."""
PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
TEXT_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
_BLOCK = 1 << 20
_BATCH_ROWS = 1024
_BATCH_BYTES = 8 << 20
"""Most bytes of a Parquet file that are read, or turned into text, at once."""
_GROUP_BYTES = 64 << 20
_MEAN_ROW_BYTES = 64 << 10
"""A row group above both limits is left out: Parquet unpacks a thousand rows at a time, however
small the batches are."""
_TOO_LARGE = (
    "have {:,} bytes each on average, which is too much; remove the columns with long texts"
)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Names = Callable[[list[str]], list[str]]
"""From the headings of a table to the names of its columns."""


@dataclass(frozen=True)
class Dialect:
    """How cells and rows are separated.

    Attributes:
        separator: between cells.
        quote: around cells, one character; empty means that no cell is enclosed.
        line_end: between rows; a carriage return before a line feed is dropped in any case.
        encoding: one of `ENCODINGS`, under any of its names.
    """

    separator: str = ","
    quote: str = '"'
    line_end: str = "\n"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        with suppress(LookupError, ValueError):
            object.__setattr__(self, "encoding", codecs.lookup(self.encoding).name)
        if self.encoding not in ENCODINGS:
            raise ManifestError(
                f"a table has the encoding {self.encoding[:40]!r}; supported: "
                f"{', '.join(sorted(ENCODINGS))}",
                field="source",
            )
        if not self.separator or not self.line_end:
            raise ManifestError("cells and lines need separators", field="source")
        if self.quote and (len(self.quote) > 1 or len(self.separator) > 1):
            raise ManifestError(
                f"cells enclosed by {self.quote!r} and separated by {self.separator!r} cannot be "
                "read; each must be one character",
                field="source",
            )


COMMA_SEPARATED = Dialect()
TAB_SEPARATED = Dialect(separator="\t", quote="")


Cell = TypeVar("Cell", str, Value, covariant=True)


class Row(NamedTuple, Generic[Cell]):
    """A row of a table with a header.

    Attributes:
        position: ``media.csv, line 12``.
        number: of its line in a text, or of the row, from 1.
        cells: values by column; empty ones are left out.
        error: why the row cannot be read; empty if it can.
    """

    position: str
    number: int
    cells: Mapping[str, Cell]
    error: str = ""

    def required(self, column: str) -> str:
        """The text of a cell.

        Raises:
            ManifestError: it is empty, or the row cannot be read.
        """
        if self.error:
            raise ManifestError(self.error)
        if column not in self.cells:
            raise ManifestError(f"the row has no {column}")
        return str(self.cells[column])


def rows(stream: IO[bytes], dialect: Dialect) -> Iterator[tuple[int, list[str] | str]]:
    """The rows of a stream, blank lines left out.

    Args:
        stream: bytes; closed by the caller.
        dialect: its rules.

    Yields:
        Number of the row's first line, from 1, and its cells; or the error of the row.
    """
    csv.field_size_limit(MAX_CELL_BYTES)
    lines = _Lines(stream, dialect)
    begins = 1
    for cells in _quoted(lines) if dialect.quote else _unquoted(lines):
        if lines.trouble:
            cells, lines.trouble = lines.trouble, ""
        if cells:
            yield begins, cells
        begins = lines.count + 1


def named_rows(
    stream: IO[bytes],
    dialect: Dialect,
    table: str,
    names: Names,
    missing: frozenset[str] = frozenset({""}),
) -> Iterator[Row[str]]:
    """The rows of a stream below its header.

    Args:
        stream: bytes; closed by the caller.
        dialect: its rules.
        table: its name in messages.
        names: called once with the headings; with none if the stream is empty.
        missing: values that count as an empty cell; these are left out.

    Raises:
        ManifestError: the header cannot be read.
    """
    columns: list[str] | None = None
    for line, cells in rows(stream, dialect):
        if columns is None:
            if isinstance(cells, str):
                raise ManifestError(f"the header of {table}: {cells}", field="source")
            columns = names([cell.strip() for cell in cells])
        elif isinstance(cells, str) or len(cells) != len(columns):
            error = f"the row has {len(cells)} cells, the header {len(columns)}"
            error = cells if isinstance(cells, str) else error
            yield Row(f"{table}, line {line}", line, {}, error)
        else:
            stripped = zip(columns, map(str.strip, cells), strict=True)
            known = {column: cell for column, cell in stripped if cell not in missing}
            yield Row(f"{table}, line {line}", line, known)
    if columns is None:
        names([])


@dataclass
class _Lines:
    """Lines of a stream. `trouble` is the last error since it was cleared."""

    stream: IO[bytes]
    dialect: Dialect
    count: int = 0
    trouble: str = ""

    def __iter__(self) -> Iterator[str]:
        for raw in self._raw():
            self.count += 1
            if raw is None:
                self.trouble = f"the line is longer than {MAX_LINE_BYTES >> 20} MiB"
                yield "\n"
                continue
            try:
                text = raw.decode(self.dialect.encoding)
            except UnicodeDecodeError as error:
                self.trouble = f"the line is not {self.dialect.encoding} text: {error.reason}"
                text = ""
            yield (text.removeprefix("\ufeff") if self.count == 1 else text) + "\n"

    def _raw(self) -> Iterator[bytes | None]:
        """Each line without its end; None for one that is too long."""
        end = self.dialect.line_end.encode(self.dialect.encoding)
        end = b"\n" if end == b"\r\n" else end
        rest, dropping = b"", False
        while block := self.stream.read(_BLOCK):
            *whole, rest = (rest + block).split(end)
            for line in whole:
                yield None if dropping or len(line) > MAX_LINE_BYTES else line.rstrip(b"\r")
                dropping = False
            if len(rest) > MAX_LINE_BYTES:
                # Keep the first bytes of a line end that the block may have cut.
                rest, dropping = rest[len(rest) - len(end) + 1 :], True
        if rest or dropping:
            yield None if dropping else rest.rstrip(b"\r")


def _unquoted(lines: _Lines) -> Iterator[list[str] | str]:
    for line in lines:
        text = line[:-1]
        yield text.split(lines.dialect.separator) if text else []


def _quoted(lines: _Lines) -> Iterator[list[str] | str]:
    reader = csv.reader(lines, delimiter=lines.dialect.separator, quotechar=lines.dialect.quote)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"the row cannot be read: {error}"


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        name: its file name.
        location: its path, or its address if it is remote.
    """

    name: str
    location: Path | str

    @property
    def is_parquet(self) -> bool:
        """Whether it is a Parquet file, by its name."""
        return Path(self.name).suffix.lower() in PARQUET_SUFFIXES

    @property
    def separator(self) -> str:
        """Separator of its cells: a comma, a tab or a semicolon; a comma for Parquet."""
        return "," if self.is_parquet else self._form[1]

    @cached_property
    def _form(self) -> tuple[str, str]:
        """Encoding and separator of delimited text, by its header."""
        with self.open() as file:
            head = file.read(_BLOCK)
        encoding = "utf-16" if head.startswith(_UTF_16) else "utf-8"
        first = head.decode(encoding, "ignore").partition("\n")[0]
        return encoding, max(",\t;", key=first.count)

    def open(self) -> IO[bytes]:
        """Its bytes."""
        if isinstance(self.location, str):
            return open_address(self.location)
        return self.location.open("rb")

    def rows(self, names: Names) -> Iterator[Row[str] | Row[Value]]:
        """Every row.

        Raises:
            ManifestError: the table as a whole cannot be read.
        """
        return _parquet_rows(self, names) if self.is_parquet else self._text_rows(names)

    def _text_rows(self, names: Names) -> Iterator[Row[str]]:
        encoding, separator = self._form
        if isinstance(self.location, Path):
            self._refuse_other_encodings(encoding)
        with self.open() as file:
            stream = file
            if encoding == "utf-16":
                stream = cast(IO[bytes], codecs.EncodedFile(file, "utf-8", "utf-16"))
            dialect = Dialect(separator=separator)
            try:
                yield from named_rows(stream, dialect, self.name, names)
            except UnicodeDecodeError as error:
                raise ManifestError(f"{self.location} is not {encoding} text: {error}") from error

    def _refuse_other_encodings(self, encoding: str) -> None:
        """Check the encoding of the whole file before the first row is used."""
        decoder = codecs.getincrementaldecoder(encoding)()
        line = 1
        with self.open() as file:
            try:
                while chunk := file.read(_BLOCK):
                    line += decoder.decode(chunk).count("\n")
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise ManifestError(
                    f"{self.location} is not {encoding.upper()} text (line {line}: "
                    f"{error.reason}); save it as UTF-8: in a spreadsheet, as 'CSV UTF-8'; on a "
                    f"command line, with iconv -f WINDOWS-1252 -t UTF-8 {self.name} > utf8.csv",
                    field="source",
                ) from error


def _parquet(table: Table, file: IO[bytes], **options: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, **options)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{table.location} is not a readable Parquet file: {error}", field="source"
        ) from error


def _parquet_rows(table: Table, names: Names) -> Iterator[Row[Value]]:
    import pyarrow as pa

    def row(number: int, cells: Mapping[str, Value], error: str = "") -> Row[Value]:
        return Row(f"{table.name}, row {number}", number, cells, error)

    with table.open() as file:
        parquet = _parquet(table, file)
        flat = [each.name for each in parquet.schema_arrow if _is_flat(each.type)]
        columns = dict(zip(flat, names(flat), strict=True))
        number = 0
        try:
            # Read as a dictionary, a repeated text is held once.
            texts = [name for name in flat if _is_text(parquet.schema_arrow.field(name).type)]
            parquet = _parquet(table, file, metadata=parquet.metadata, read_dictionary=texts)
            for group in range(parquet.num_row_groups):
                count, mean = _size_of(parquet.metadata.row_group(group), flat)
                if mean > _MEAN_ROW_BYTES and count * mean > _GROUP_BYTES:
                    error = f"{count:,} rows from here on {_TOO_LARGE.format(mean)}"
                    yield row(number + 1, {}, error)
                    number += count
                    continue
                fitting = min(_BATCH_ROWS, max(1, _BATCH_BYTES // mean))
                for batch in parquet.iter_batches(fitting, row_groups=[group], columns=flat):
                    for cells, error in _batch_cells(batch, columns):
                        number += 1
                        yield row(number, cells, error)
        except (pa.ArrowException, OSError) as error:
            # Rows before the damage are complete; none can be found after it.
            message = f"this row and the rows after it cannot be read: {error}"
            yield row(number + 1, {}, message)


def _is_flat(kind: Any) -> bool:
    """Whether a column holds texts, numbers, dates or booleans, not lists or bytes."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return not (types.is_nested(kind) or "binary" in str(kind) or types.is_null(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _size_of(group: Any, flat: list[str]) -> tuple[int, int]:
    """Rows of a row group, and mean bytes of a row, from the metadata."""
    columns = (group.column(number) for number in range(group.num_columns))
    size = sum(each.total_uncompressed_size for each in columns if each.path_in_schema in flat)
    return int(group.num_rows), max(1, int(size // max(1, group.num_rows)))


def _batch_cells(batch: Any, columns: Mapping[str, str]) -> Iterator[tuple[dict[str, Value], str]]:
    """Cells of each row of a batch, or its error.

    Little more than `_BATCH_BYTES` of text is in memory at once.
    """
    texts = {n: _sizes(c) for n, c in zip(batch.schema.names, batch.columns, strict=True)}
    sizes = np.stack([np.zeros(batch.num_rows, np.int64), *texts.values()])
    total = sizes.sum(axis=0)
    bad = (sizes.max(axis=0) > MAX_CELL_BYTES) | (total > MAX_LINE_BYTES)
    count = batch.num_rows if not bad.any() and total.sum() <= _BATCH_BYTES else 1
    for begin in range(0, batch.num_rows, count):
        if bad[begin]:
            yield {}, _too_long(begin, texts)
        else:
            yield from ((cells, "") for cells in _slice_cells(batch.slice(begin, count), columns))


def _sizes(column: Any) -> NDArray[np.int64]:
    """Bytes of each text of a column, int64 [rows]; zeros for other columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    indices = None
    if pa.types.is_dictionary(column.type):
        indices, column = column.indices, column.dictionary
    if not _is_text(column.type):
        return np.zeros(len(column if indices is None else indices), np.int64)
    sizes = pc.cast(pc.binary_length(column), pa.int64())
    if indices is not None:
        sizes = sizes.take(indices)
    return np.asarray(sizes.fill_null(0), dtype=np.int64)


def _too_long(row: int, texts: Mapping[str, NDArray[np.int64]]) -> str:
    for name, sizes in texts.items():
        if sizes[row] > MAX_CELL_BYTES:
            return (
                f"the cell in column '{name[:100]}' has {sizes[row]:,} bytes, the limit is "
                f"{MAX_CELL_BYTES:,}; remove the column"
            )
    return f"the row has more than {MAX_LINE_BYTES >> 20} MiB; remove some columns"


def _slice_cells(batch: Any, columns: Mapping[str, str]) -> Iterator[dict[str, Value]]:
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
