"""Relevance judgements (qrels) in TREC's files, as trec_eval and ir_measures read them.

    query iteration item grade              a grade above 0 is relevant

Cells are separated by ASCII whitespace. Ids that hold whitespace are written as in addresses
(``snow%20owl``), and read back as what they were.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np

from bittern.benchmarks.eval.tasks.task import Relevance, ranges
from bittern.errors import LimitExceededError, QrelsError, SourceNotFoundError
from bittern.files import replace_file
from bittern.text import agreeing, counted

MAX_LINE_BYTES = 64 << 10
MAX_LINES = 50_000_000
_LARGEST_GRADE = (1 << 31) - 1
_SHOWN = 5
_TO_ESCAPE = re.compile(r"[\s\x00-\x1f\x7f]|%(?=[0-9A-Fa-f]{2})")

Unknown = Literal["error", "skip"]
PositionsOf = Callable[[str], Sequence[int]]
"""Positions of the items that a name stands for; none where it is unknown."""


def escaped(name: str) -> str:
    """An id as it is written: whitespace and control characters as in addresses.

    A ``%`` is only escaped where two hex digits follow it; no two ids become one.

    Raises:
        QrelsError: it is empty, or no Unicode text.
    """
    if not name:
        raise QrelsError("an id is empty: it cannot be written to a TREC file; give it a name")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise QrelsError(
            f"the id {name!r} holds half of a surrogate pair: it is not Unicode text and cannot be "
            "written; give it another name"
        ) from error
    return _TO_ESCAPE.sub(lambda found: quote(found[0], safe=""), name)


def positions_by_id(names: Sequence[str]) -> dict[str, int]:
    """Positions by id as it is written, and as it is where no other id is written so.

    Raises:
        QrelsError: an id is of two things, is empty, or no Unicode text.
    """
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        if found.setdefault(escaped(name), position) != position:
            raise QrelsError(f"the id {name!r} is used twice; ids must be unique")
    for position, name in enumerate(names):
        found.setdefault(name, position)
    return found


def read_qrels(
    path: Path,
    queries: Sequence[str],
    items: Sequence[str],
    unknown: Unknown = "error",
    also: PositionsOf = lambda name: (),
) -> tuple[Relevance, list[str]]:
    """Read judgements about known queries and items, line by line.

    Args:
        path: the file.
        queries: their ids.
        items: their ids.
        unknown: whether an unknown query or item is an error, or is left out and counted.
        also: other names that judgements may use: of windows, or of groups of items. An item
            that is judged more than once in this way has the highest of its grades.

    Returns:
        The relevant items of each of `queries`, and sentences on what was left out.

    Raises:
        SourceNotFoundError: the file does not exist.
        QrelsError: a line is malformed, an id is unknown, an item is judged twice with different
            grades, or nothing is judged relevant.
        LimitExceededError: too many lines, or one that is too long.
    """
    known = positions_by_id(items)

    def positions(name: str) -> Sequence[int]:
        return (known[name],) if name in known else also(name)

    judgements = _Judgements(positions_by_id(queries), positions)
    for number, cells in _lines(path):
        judgements.add(path, number, cells)
    if not judgements.lines:
        raise QrelsError(
            f"{path} holds no judgements; a line is 'query 0 item grade'", field="qrels"
        )
    missing = [str(each) for each in judgements.unknown if each.lines]
    if missing and unknown == "error":
        raise QrelsError(
            f"{path}: {'; '.join(missing)}. Give the file that belongs to these queries and "
            "items, or leave such lines out with --unknown skip"
        )
    return judgements.relevance(path, len(queries)), judgements.left_out()


@dataclass
class _UnknownIds:
    """How many lines name an unknown id, and the first few of these ids."""

    one: str
    many: str
    lines: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str, line: int) -> None:
        """Count a line."""
        self.lines += 1
        if len(self.first) < _SHOWN:
            self.first.append(f"{name[:100]!r} (line {line})")

    def __str__(self) -> str:
        if self.lines == 1:
            return f"1 line names an unknown {self.one}: {self.first[0]}"
        more = f" and {self.lines - _SHOWN:,} more" if self.lines > _SHOWN else ""
        return f"{self.lines:,} lines name unknown {self.many}: {', '.join(self.first)}{more}"


class _Judgements:
    """Lines of qrels, 16 bytes each: query, number of the name, grade, line."""

    def __init__(self, queries: Mapping[str, int], positions: PositionsOf) -> None:
        self.lines = 0
        self.unknown = (_UnknownIds("query", "queries"), _UnknownIds("item", "items"))
        self._queries, self._positions = queries, positions
        self._names: dict[str, int] = {}
        self._items: list[Sequence[int]] = []
        self._columns = tuple(array("i") for _ in range(4))
        self._repeated = self._irrelevant = 0

    def add(self, path: Path, number: int, cells: list[str]) -> None:
        """Read a line."""
        if len(cells) != 4:
            raise QrelsError(
                f"{path}, line {number}: {counted(len(cells), 'cell')}; a line is 'query 0 item "
                "grade', and ids with spaces are written as in addresses ('snow%20owl')",
                field="qrels",
            )
        self.lines += 1
        query, name = self._queries.get(cells[0]), self._number(cells[2])
        grade = _grade(path, number, cells[3])
        if query is None:
            self.unknown[0].add(cells[0], number)
        elif name is None:
            self.unknown[1].add(cells[2], number)
        else:
            for column, value in zip(self._columns, (query, name, grade, number), strict=True):
                column.append(value)

    def _number(self, name: str) -> int | None:
        if name not in self._names:
            positions = self._positions(name)
            if not len(positions):
                return None
            self._names[name] = len(self._items)
            self._items.append(positions)
        return self._names[name]

    def relevance(self, path: Path, count: int) -> Relevance:
        """The relevant items of `count` queries; contradictions are refused."""
        table = np.stack([np.array(column, np.int64) for column in self._columns])
        queries, names, grades, lines = table[:, np.lexsort((table[3], table[1], table[0]))]
        again = np.flatnonzero((np.diff(queries) == 0) & (np.diff(names) == 0))
        for at in again[grades[again] != grades[again + 1]].tolist():
            raise QrelsError(
                f"{path}, lines {lines[at]} and {lines[at + 1]} judge the same item for the same "
                f"query, with grades {grades[at]} and {grades[at + 1]}; keep one of them",
                field="qrels",
            )
        self._repeated, self._irrelevant = len(again), int((grades < 1).sum())
        sizes = np.array([len(positions) for positions in self._items], np.int64)
        starts = np.cumsum(sizes) - sizes
        items = np.array([item for positions in self._items for item in positions], np.int64)
        found = Relevance.from_pairs(
            np.repeat(queries, sizes[names]),
            items[ranges(starts[names], sizes[names])],
            count,
            np.repeat(grades, sizes[names]),
        )
        if not len(found.items):
            raise QrelsError(
                f"{path}: no judgement ({counted(self.lines, 'line')}) says that an item is "
                "relevant to one of the queries; a grade of 1 or more does",
                field="qrels",
            )
        return found

    def left_out(self) -> list[str]:
        """Sentences on lines without effect."""
        sentences = [f"qrels: {each}; left out" for each in self.unknown if each.lines]
        if self._repeated:
            repeat = agreeing(self._repeated, "line repeats another", "lines repeat others")
            sentences.append(f"qrels: {self._repeated:,} {repeat}; counted once")
        if self._irrelevant:
            has = agreeing(self._irrelevant, "line has", "lines have")
            sentences.append(f"qrels: {self._irrelevant:,} {has} grade 0 or less: not relevant")
        return sentences


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line that is not blank."""
    if not path.is_file():
        raise SourceNotFoundError(f"{path} does not exist", field="qrels")
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if cells := _cells(path, number, raw):
                    yield number, cells
    except OSError as error:
        raise QrelsError(f"{path} cannot be read: {error}", field="qrels") from error


def _cells(path: Path, number: int, raw: bytes) -> list[str]:
    if len(raw) > MAX_LINE_BYTES:
        raise LimitExceededError(
            f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 10} KiB; this is not a TREC "
            "file",
            field="qrels",
        )
    if number > MAX_LINES:
        raise LimitExceededError(
            f"{path} has more than {MAX_LINES:,} lines, which is the limit; split the queries over "
            "several files",
            field="qrels",
        )
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        # Split as bytes: a no-break space is part of an id, as for trec_eval.
        return [cell.decode() for cell in raw.split()]
    except UnicodeDecodeError as error:
        raise QrelsError(
            f"{path}, line {number} is not UTF-8 text ({error.reason}); save the file as UTF-8",
            field="qrels",
        ) from error


def _grade(path: Path, number: int, cell: str) -> int:
    digits = cell.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 10:
        grade = int(cell)
        if abs(grade) <= _LARGEST_GRADE:
            return grade
    raise QrelsError(
        f"{path}, line {number}: the grade {cell[:50]!r} is not a whole number; 0 is not relevant, "
        "1 and more is",
        field="qrels",
    )


def write_qrels(
    path: Path, queries: Sequence[str], items: Sequence[str], relevance: Relevance
) -> None:
    """Write judgements; an old file is replaced at once.

    Raises:
        QrelsError: an id cannot be written.
    """
    content = bytearray()
    for query, name in enumerate(queries):
        begin, end = relevance.offsets[query : query + 2]
        own = escaped(name)
        found = zip(relevance.items[begin:end], relevance.grades[begin:end], strict=True)
        lines = [f"{own} 0 {escaped(items[item])} {grade}\n" for item, grade in found]
        content += "".join(lines).encode()
    replace_file(path, bytes(content))
