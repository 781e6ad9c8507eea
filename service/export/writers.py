"""Export formats: CSV, Parquet, JSON Lines, GeoJSON, Raven selection tables, iNaturalist ids.

A writer turns rows into the bytes of a file, chunk by chunk, for a disk or for the wire.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bittern.errors import PreconditionError, QueryError
from bittern.index.columns import Value
from bittern.service.export.rows import PATH, ExportRows


@dataclass(frozen=True)
class Writer:
    """One file format.

    Attributes:
        name: for ``--format``.
        suffix: of its files.
        chunks: the bytes of the file, in chunks of about a batch.
        codes: whether it needs codes.
    """

    name: str
    suffix: str
    chunks: Callable[[ExportRows], Iterator[bytes]]
    codes: bool = False


# Spreadsheets read a cell that begins with =, +, - or @ as a formula, which may open programs and
# addresses, and metadata may be hostile. Some spreadsheets first trim spaces, control characters
# and invisible characters. A text that is a formula with or without these gets an apostrophe in
# front, which spreadsheets read as "text". Numbers do not change, nor do texts such as -5 and
# +44 20 7946.
_TRIMMED = (
    (0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD),
    (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x1680, 0x1680), (0x180E, 0x180E),
    (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE007F),
)  # fmt: skip
"""Unicode's separators, control and format characters: categories Z, Cc and Cf. They are listed
because ``\\s`` means more to Python than to Arrow."""
_CLASS = "".join(f"{chr(first)}-{chr(last)}" for first, last in _TRIMMED)
FORMULA = rf"^([\t\r]|[{_CLASS}]*[=@＝＠]|[{_CLASS}]*[+\-＋－][0-9 .,:/]*[^0-9 .,:/])"
"""Beginning of a formula; Python and Arrow read it alike."""
_FORMULA = re.compile(FORMULA)


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet reads as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


_DARWIN_CORE_NAMES = {"media": "associatedMedia"}
"""Our columns with another name in Darwin Core."""


def csv_chunks(rows: ExportRows) -> Iterator[bytes]:
    """Comma-separated values in UTF-8, one observation a row, all columns."""
    from pyarrow import csv  # slow to import

    names = headings(rows.schema.names)
    yield (",".join(names) + "\n").encode()
    options = csv.WriteOptions(include_header=False)
    for batch in rows.batches():
        columns = [_harmless_column(column) for column in batch.columns]
        out = io.BytesIO()
        csv.write_csv(pa.RecordBatch.from_arrays(columns, names), out, options)
        yield out.getvalue()


def headings(names: Sequence[str]) -> list[str]:
    """Darwin Core names of columns, unless metadata have that name already."""
    taken = {name.lower() for name in names}
    wanted = [_DARWIN_CORE_NAMES.get(name, name) for name in names]
    return [
        name if heading.lower() in taken else heading
        for name, heading in zip(names, wanted, strict=True)
    ]


def _harmless_column(column: pa.Array) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column
    import pyarrow.compute as pc

    return pc.replace_substring_regex(column, FORMULA, r"'\1")


def parquet_chunks(rows: ExportRows) -> Iterator[bytes]:
    """Apache Parquet: all columns with their types, and codes as fixed-size binary.

    The schema's metadata name the model of the codes, and the order of their bits.
    """
    import pyarrow.parquet as pq

    sink = _Drained()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), rows.schema) as writer:
        for batch in rows.batches():
            writer.write_batch(batch)
            yield sink.drain()
    yield sink.drain()


class _Drained(io.RawIOBase):
    """A file whose content is drained in chunks."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = bytearray()
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        chunk = bytes(data)  # type: ignore[call-overload]
        self._waiting += chunk
        self._written += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._written

    def close(self) -> None:
        """Stay open: the last content is drained later."""

    def drain(self) -> bytes:
        data = bytes(self._waiting)
        self._waiting.clear()
        return data


_COORDINATES = ("decimalLongitude", "decimalLatitude")


def json_lines_chunks(rows: ExportRows) -> Iterator[bytes]:
    """One JSON object per observation and line, without unknown values."""
    for records in rows.records():
        yield "".join(_json(record) + "\n" for record in records).encode()


def geojson_chunks(rows: ExportRows) -> Iterator[bytes]:
    """One feature per observation: a point with all known values.

    Coordinates are as precise as in the source; ``coordinateUncertaintyInMeters`` is a property.
    Without both coordinates the geometry is null.
    """
    yield b'{"type": "FeatureCollection", "features": [\n'
    between = ""
    for records in rows.records():
        if records:
            yield (between + ",\n".join(_json(_feature(r)) for r in records)).encode()
            between = ",\n"
    yield b"\n]}\n"


def _feature(record: Mapping[str, Value]) -> dict[str, Any]:
    properties, geometry = dict(record), None
    if all(name in record for name in _COORDINATES):
        point = [properties.pop(name) for name in _COORDINATES]
        geometry = {"type": "Point", "coordinates": point}
    return {
        "type": "Feature",
        "id": record["id"],
        "geometry": geometry,
        "properties": properties,
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


LOWEST_HZ, HIGHEST_HZ = 0, 24_000
"""The frequencies of a selection: all of a recording with 48,000 samples per second."""
_RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin File",
    "Begin Path",
    "File Offset (s)",
    "Species",
    "Common Name",
    "Occurrence ID",
)
_RAVEN_HITS = {"rank": "Rank", "distance": "Distance"}


def raven_chunks(rows: ExportRows) -> Iterator[bytes]:
    """A selection table of Raven (https://www.ravensoundsoftware.com): windows of recordings.

    Tab-separated text with a header. Raven shows columns that it does not know as annotations.
    One table may have several files, in `Begin File` and `Begin Path`; times count from the
    beginning of the file. Photographs are skipped.
    """
    hits = [name for name in _RAVEN_HITS if rows.schema.names[:2] == list(_RAVEN_HITS)]
    yield _raven_line([*_RAVEN_COLUMNS, *(_RAVEN_HITS[name] for name in hits)])
    number = 0
    for records in rows.records():
        lines = []
        for record in records:
            if record["modality"] != "audio" or not {"start_s", "end_s"} <= record.keys():
                rows.left_out += 1
                continue
            number += 1
            lines.append(
                _raven_line([*_raven_cells(number, record), *(record[name] for name in hits)])
            )
        yield b"".join(lines)


def _raven_cells(number: int, record: Mapping[str, Value]) -> list[Value]:
    media = str(record["media"])
    return [
        number,
        "Spectrogram 1",
        1,
        record["start_s"],
        record["end_s"],
        LOWEST_HZ,
        HIGHEST_HZ,
        media.replace("\\", "/").rpartition("/")[2],
        str(record.get(PATH, media)),
        record["start_s"],
        record.get("scientificName", ""),
        record.get("vernacularName", ""),
        record["occurrenceID"],
    ]


def _raven_line(cells: list[Value] | list[str]) -> bytes:
    """One line; tabs and line breaks in cells become spaces."""
    return ("\t".join(map(_raven_cell, cells)) + "\n").encode()


def _raven_cell(value: Value) -> str:
    return harmless(" ".join(value.split())) if isinstance(value, str) else str(value)


_ADDRESS = re.compile(
    r"(?:^|//|\.)inaturalist(?:\.[a-z]{2,10}){1,3}/observations/([0-9]{1,18})(?![0-9])",
    re.IGNORECASE,
)
_ADDRESS_COLUMNS = ("references", "occurrenceID")


def inaturalist_id_chunks(rows: ExportRows) -> Iterator[bytes]:
    """One number per line, each once, in the order of the observations.

    It is read from the address in `references` or `occurrenceID`. Observations without one are
    skipped.
    """
    seen: set[int] = set()
    for records in rows.records():
        lines = []
        for record in records:
            number = inaturalist_id(record)
            if number is None:
                rows.left_out += 1
            elif number not in seen:
                seen.add(number)
                lines.append(f"{number}\n")
        yield "".join(lines).encode()


def inaturalist_id(record: Mapping[str, Value]) -> int | None:
    """The number of a record on iNaturalist; None without one."""
    for column in _ADDRESS_COLUMNS:
        if found := _ADDRESS.search(str(record.get(column, ""))):
            return int(found[1])
    return None


FOLDER = "folder"
"""Media with a manifest, in a folder."""
WRITERS: Mapping[str, Writer] = {
    writer.name: writer
    for writer in (
        Writer("csv", ".csv", csv_chunks),
        Writer("parquet", ".parquet", parquet_chunks, codes=True),
        Writer("jsonl", ".jsonl", json_lines_chunks),
        Writer("geojson", ".geojson", geojson_chunks),
        Writer("raven", ".txt", raven_chunks),
        Writer("ids", ".txt", inaturalist_id_chunks),
    )
}
"""By name."""
FORMATS = (*WRITERS, FOLDER)


def format_of(to: str | Path, format_: str | None = None) -> str:
    """The format: the given one, else by the suffix of the name.

    Raises:
        QueryError: unknown format or suffix.
    """
    if format_ is not None:
        if format_ not in FORMATS:
            raise QueryError(
                f"there is no format {format_!r}; formats: {', '.join(FORMATS)}", field="format"
            )
        return format_
    if str(to).endswith(("/", "\\")):
        return FOLDER
    suffix = Path(to).suffix.lower()
    of_suffix = [name for name, writer in WRITERS.items() if writer.suffix == suffix]
    if len(of_suffix) == 1:
        return of_suffix[0]
    name = Path(to).name
    if of_suffix:
        raise QueryError(
            f"'{name}' may be one of several formats; name one: {', '.join(of_suffix)}",
            field="format",
        )
    endings = list(dict.fromkeys(writer.suffix for writer in WRITERS.values()))
    raise QueryError(
        f"'{name}' should end in one of {', '.join(endings)}, or in / for a folder with the media: "
        "that decides the format, unless it is named",
        field="to",
    )


def writer_of(format_: str) -> Writer:
    """The writer of a format.

    Raises:
        PreconditionError: media with a manifest, which are not a file.
        QueryError: unknown format.
    """
    if format_ == FOLDER:
        raise PreconditionError(
            "a folder with the media cannot be sent: export it on the machine that has the archive "
            "and the media, with bittern export ARCHIVE --output FOLDER/",
            field="format",
        )
    return WRITERS[format_of("", format_)]
