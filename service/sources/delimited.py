r"""Rows of delimited text, of whatever size, one at a time and with their line numbers.

What exports call CSV differs in separators, quotes and ends of lines. It is read here in blocks, so
that memory is bounded by one block and one row (`MAX_LINE_BYTES`), also where a file of a terabyte
is a single line. A row that cannot be read is told by its line number, and the next one is read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from bittern.errors import ManifestError

MAX_LINE_BYTES = 4 << 20
"""Longest row, in bytes; a longer one is listed as unreadable."""
MAX_FIELD_CHARS = 1 << 20
_BLOCK = 1 << 20
ENCODINGS = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252"})
"""Encodings that can be split into lines before they are decoded; names as `codecs` has them."""


@dataclass(frozen=True)
class Dialect:
    """How cells and rows are told apart.

    Attributes:
        separator: between cells.
        quote: around cells, one character; empty means that no cell is enclosed.
        line_end: between rows; a carriage return before a line feed is dropped in any case.
        encoding: one of `ENCODINGS`.
    """

    separator: str = ","
    quote: str = '"'
    line_end: str = "\n"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if not self.separator or not self.line_end:
            raise ManifestError("cells and lines must be separated by something", field="source")
        if self.quote and (len(self.quote) > 1 or len(self.separator) > 1):
            raise ManifestError(
                f"cells enclosed by {self.quote!r} and separated by {self.separator!r} cannot be "
                "read; one character each can",
                field="source",
            )


TAB_SEPARATED = Dialect(separator="\t", quote="")


@dataclass
class _Lines:
    """Lines of a stream. `trouble` says what was wrong with those since it was last emptied."""

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
                self.trouble = f"the line is no {self.dialect.encoding} text: {error.reason}"
                text = ""
            yield text + "\n"

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
                # Keep as much as an end may need that is cut in two by the block.
                rest, dropping = rest[len(rest) - len(end) + 1 :], True
        if rest or dropping:
            yield None if dropping else rest.rstrip(b"\r")


def rows(stream: IO[bytes], dialect: Dialect) -> Iterator[tuple[int, list[str] | str]]:
    """The rows of a stream, blank lines left out.

    Args:
        stream: bytes; closed by who opened it.
        dialect: its rules.

    Yields:
        Number of the row's first line, from 1, and its cells; or what is wrong with the row.
    """
    csv.field_size_limit(MAX_FIELD_CHARS)
    lines = _Lines(stream, dialect)
    split = _quoted(lines) if dialect.quote else _unquoted(lines)
    first, begins = True, 1
    for cells in split:
        if lines.trouble:
            cells, lines.trouble = lines.trouble, ""
        elif first and cells and isinstance(cells, list):
            cells[0] = cells[0].removeprefix("\ufeff")
        first = False
        if cells:
            yield begins, cells
        begins = lines.count + 1


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
