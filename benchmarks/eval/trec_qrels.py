"""Relevance judgements read against the queries and items that are there, and written."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import Relevance
from bittern.benchmarks.eval.trec_lines import escaped, lines_of, places_by_id, replacing
from bittern.errors import QrelsError
from bittern.text import agreeing, counted

_LARGEST_GRADE = (1 << 31) - 1
_SHOWN = 5
QUERY, ITEM = ("query", "queries"), ("item", "items")

Unknown = Literal["error", "skip"]
PlacesOf = Callable[[str], Sequence[int]]
"""Places of the items that a name stands for which is no item's own; none where it is unknown."""


def read_qrels(
    path: Path,
    queries: Sequence[str],
    items: Sequence[str],
    unknown: Unknown = "error",
    also: PlacesOf = lambda name: (),
) -> tuple[Relevance, list[str]]:
    """Judgements about queries and items that are there.

    Args:
        path: the file; read line by line.
        queries: their ids.
        items: their ids.
        unknown: whether a query or item that is not there ends it, or is left out and counted.
        also: what else a judgement may name: parts of items, or groups of them. An item that is
            judged more than once in this way has the highest of its grades.

    Returns:
        Which items answer each of `queries`, those without any too; and sentences on what was
        left out.

    Raises:
        QrelsError: a line is malformed, an id is unknown, an item is judged twice with different
            grades, or nothing is judged relevant.
        LimitExceededError: too many lines, or one that is too long.
    """
    judged = _Judgements(places_by_id(queries), _Names(places_by_id(items), len(items), also))
    for number, cells in lines_of(path):
        judged.add(path, number, cells)
    if not judged.lines:
        raise QrelsError(
            f"{path} holds no judgements; a line is 'query 0 item grade'", field="qrels"
        )
    if unknown == "error":
        UnknownIds.refuse(path, judged.unknown)
    return judged.relevance(path, len(queries)), judged.left_out()


@dataclass
class _Names:
    """Numbers of what judgements name: places of items, and from `first` on whatever else."""

    items: Mapping[str, int]
    first: int
    also: PlacesOf
    others: dict[str, int] = field(default_factory=dict)
    stands_for: list[Sequence[int]] = field(default_factory=list)

    def number(self, name: str) -> int | None:
        """None for what is not known."""
        if (place := self.items.get(name, self.others.get(name))) is not None:
            return place
        places = self.also(name)
        if not len(places):
            return None
        number = self.first + len(self.stands_for)
        self.stands_for.append(places)
        self.others[name] = number
        return number

    def spread(
        self, queries: NDArray[np.int32], names: NDArray[np.int32], grades: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """Judgements of names as judgements of items."""
        own = names < self.first
        if own.all():
            return queries, names.astype(np.int64), grades
        places = [np.asarray(self.stands_for[n - self.first], np.int64) for n in names[~own]]
        sizes = [len(each) for each in places]
        return (
            np.concatenate([queries[own], np.repeat(queries[~own], sizes)]),
            np.concatenate([names[own].astype(np.int64), *places]),
            np.concatenate([grades[own], np.repeat(grades[~own], sizes)]),
        )


@dataclass
class UnknownIds:
    """Ids that are not there: the first few, and how many lines name one.

    Attributes:
        what: is named, one or several: ``("query", "queries")``.
        lines: how many.
        first: the first few.
    """

    what: tuple[str, str]
    lines: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str, line: int) -> None:
        """One that a line names."""
        self.lines += 1
        if len(self.first) < _SHOWN:
            self.first.append(f"{name[:100]!r} (line {line})")

    @staticmethod
    def refuse(path: Path, found: Sequence[UnknownIds]) -> None:
        """Raise if a line named what is not there."""
        told = [str(each) for each in found if each.lines]
        if told:
            raise QrelsError(
                f"{path}: {'; '.join(told)}. Give the file that belongs to these queries and "
                "items, or leave such lines out with --unknown skip"
            )

    def __str__(self) -> str:
        more = f" and {self.lines - len(self.first):,} more" if self.lines > _SHOWN else ""
        if self.lines == 1:
            return f"1 line names an unknown {self.what[0]}: {self.first[0]}"
        return f"{self.lines:,} lines name unknown {self.what[1]}: {', '.join(self.first)}{more}"


class _Judgements:
    """Lines of qrels, 16 bytes each."""

    def __init__(self, queries: Mapping[str, int], names: _Names) -> None:
        self.lines = 0
        self._queries_known, self._names_known = queries, names
        self._queries, self._names = array("i"), array("i")
        self._grades, self._numbers = array("i"), array("i")
        self.unknown = (UnknownIds(QUERY), UnknownIds(ITEM))
        self._repeated = self._below = 0

    def add(self, path: Path, number: int, cells: list[str]) -> None:
        """One line."""
        if len(cells) != 4:
            raise QrelsError(
                f"{path}, line {number}: {counted(len(cells), 'cell')}; a line is 'query 0 item "
                "grade', and ids with spaces are written as in addresses ('snow%20owl')",
                field="qrels",
            )
        self.lines += 1
        query, item = self._queries_known.get(cells[0]), self._names_known.number(cells[2])
        grade = _grade(path, number, cells[3])
        if query is None:
            self.unknown[0].add(cells[0], number)
        elif item is None:
            self.unknown[1].add(cells[2], number)
        else:
            for kept, value in (
                (self._queries, query),
                (self._names, item),
                (self._grades, grade),
                (self._numbers, number),
            ):
                kept.append(value)

    def relevance(self, path: Path, count: int) -> Relevance:
        """What is relevant, by query and item; nothing may be judged in two ways."""
        queries, names, grades, lines = (
            np.frombuffer(each, np.int32) if len(each) else np.empty(0, np.int32)
            for each in (self._queries, self._names, self._grades, self._numbers)
        )
        order = np.lexsort((lines, names, queries))
        queries, names, grades, lines = (e[order] for e in (queries, names, grades, lines))
        again = np.flatnonzero((np.diff(queries) == 0) & (np.diff(names) == 0))
        for at in again[grades[again] != grades[again + 1]].tolist():
            raise QrelsError(
                f"{path}, lines {lines[at]} and {lines[at + 1]} judge the same item for the same "
                f"query, with grades {grades[at]} and {grades[at + 1]}; keep one of them",
                field="qrels",
            )
        self._repeated = len(again)
        self._below = int((grades < 1).sum())
        found = _highest(*self._names_known.spread(queries, names, grades), count)
        if not len(found.items):
            raise QrelsError(
                f"{path}: no judgement ({counted(self.lines, 'line')}) says that an item is "
                "relevant to a query that is asked; a grade of 1 or more does",
                field="qrels",
            )
        return found

    def left_out(self) -> list[str]:
        """Sentences."""
        told = [f"qrels: {each}; left out" for each in self.unknown if each.lines]
        if self._repeated:
            says = agreeing(self._repeated, "line says what another says", "lines repeat others")
            told.append(f"qrels: {self._repeated:,} {says}; counted once")
        if self._below:
            has = agreeing(self._below, "line has", "lines have")
            told.append(f"qrels: {self._below:,} {has} grade 0 or less: not relevant")
        return told


def _grade(path: Path, number: int, cell: str) -> int:
    digits = cell.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 10:
        grade = int(cell)
        if abs(grade) <= _LARGEST_GRADE:
            return grade
    raise QrelsError(
        f"{path}, line {number}: the grade {cell[:50]!r} is no whole number; 0 is not relevant, 1 "
        "and more is",
        field="qrels",
    )


def _highest(
    queries: NDArray[np.int32], items: NDArray[np.int64], grades: NDArray[np.int32], count: int
) -> Relevance:
    """Relevant items by query, each once, with the highest of its grades."""
    order = np.lexsort((-grades.astype(np.int64), items, queries))
    order = order[grades[order] > 0]
    queries, items, grades = queries[order], items[order], grades[order]
    first = np.ones(len(items), np.bool_)
    first[1:] = (np.diff(queries) != 0) | (np.diff(items) != 0)
    sizes = np.bincount(queries[first], minlength=count)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Relevance(offsets, items[first], grades[first])


def write_qrels(
    path: Path, queries: Sequence[str], items: Sequence[str], relevance: Relevance
) -> None:
    """Write judgements; the file appears whole, in place of one that was there.

    Raises:
        QrelsError: an id cannot be written.
    """
    with replacing(path) as file:
        for query, name in enumerate(queries):
            begin, end = relevance.offsets[query : query + 2]
            asked = escaped(name)
            found = zip(relevance.items[begin:end], relevance.grades[begin:end], strict=True)
            lines = [f"{asked} 0 {escaped(items[item])} {grade}\n" for item, grade in found]
            file.write("".join(lines).encode())
