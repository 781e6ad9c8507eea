"""CSV under Darwin Core names, and Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa

from bittern.service.export.base import Rows
from bittern.service.export.spreadsheets import FORMULA

_DARWIN_CORE_NAMES = {"media": "associatedMedia"}
"""Columns of ours for which Darwin Core has another name."""


class CsvWriter:
    """Comma-separated values in UTF-8, one observation a row, all columns."""

    name = "csv"
    suffix = ".csv"
    title = "CSV under Darwin Core names"
    codes = False

    def chunks(self, rows: Rows) -> Iterator[bytes]:
        """See `Writer.chunks`."""
        from pyarrow import csv  # half of what importing Bittern would take

        names = headings(rows.schema.names)
        yield (",".join(names) + "\n").encode()
        options = csv.WriteOptions(include_header=False)
        for batch in rows.batches():
            columns = [_harmless(column) for column in batch.columns]
            out = io.BytesIO()
            csv.write_csv(pa.RecordBatch.from_arrays(columns, names), out, options)
            yield out.getvalue()


def headings(names: Sequence[str]) -> list[str]:
    """Column names as Darwin Core has them, where metadata do not have that name already."""
    taken = {name.lower() for name in names}
    wanted = [_DARWIN_CORE_NAMES.get(name, name) for name in names]
    return [
        name if heading.lower() in taken else heading
        for name, heading in zip(names, wanted, strict=True)
    ]


def _harmless(column: pa.Array) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column
    import pyarrow.compute as pc

    return pc.replace_substring_regex(column, FORMULA, r"'\1")


class ParquetWriter:
    """Apache Parquet: all columns with their types, and codes as fixed-size binary.

    The schema's metadata say which model made the codes, and the order of their bits.
    """

    name = "parquet"
    suffix = ".parquet"
    title = "Parquet, with the codes of the archive's first model"
    codes = True

    def chunks(self, rows: Rows) -> Iterator[bytes]:
        """See `Writer.chunks`."""
        import pyarrow.parquet as pq

        sink = _Drained()
        with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), rows.schema) as writer:
            for batch in rows.batches():
                writer.write_batch(batch)
                yield sink.drain()
        yield sink.drain()


class _Drained(io.RawIOBase):
    """A file that hands on what was written to it and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def close(self) -> None:
        """Stay open: what was written last has yet to be drained."""

    def drain(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
