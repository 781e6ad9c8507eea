"""Selection tables of Raven (https://www.ravensoundsoftware.com): windows of recordings.

A selection table is tab-separated text with a header. Raven reads the columns that it knows by
their names and keeps the others as annotations. One table may name many files: `Begin File` and
`Begin Path` say which, and times count from the beginning of that file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bittern.index.columns import Value
from bittern.service.export.base import Rows
from bittern.service.export.spreadsheets import harmless

LOWEST_HZ, HIGHEST_HZ = 0, 24_000
"""The frequencies of a selection. Windows have no bounds in frequency: this is all that a recording
of 48,000 samples per second holds."""
_COLUMNS = (
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
_OF_HITS = {"rank": "Rank", "distance": "Distance"}


class RavenWriter:
    """A selection table; photographs have no place in it and are left out."""

    name = "raven"
    suffix = ".txt"
    title = "Raven selection table (windows of recordings)"
    codes = False

    def chunks(self, rows: Rows) -> Iterator[bytes]:
        """See `Writer.chunks`."""
        hits = [name for name in _OF_HITS if rows.schema.names[:2] == list(_OF_HITS)]
        yield _line([*_COLUMNS, *(_OF_HITS[name] for name in hits)])
        number = 0
        for records in rows.records():
            lines = []
            for record in records:
                if record["modality"] != "audio" or not {"start_s", "end_s"} <= record.keys():
                    rows.left_out += 1
                    continue
                number += 1
                lines.append(_line([*_cells(number, record), *(record[name] for name in hits)]))
            yield b"".join(lines)


def _cells(number: int, record: Mapping[str, Value]) -> list[Value]:
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
        media,
        record["start_s"],
        record.get("scientificName", ""),
        record.get("vernacularName", ""),
        record["occurrenceID"],
    ]


def _line(cells: list[Value] | list[str]) -> bytes:
    """One line; what would end a cell or a line becomes a space."""
    return ("\t".join(map(_cell, cells)) + "\n").encode()


def _cell(value: Value) -> str:
    return harmless(" ".join(value.split())) if isinstance(value, str) else str(value)
