"""Lines of TREC files: ids with whitespace, limits on what is read, files that appear whole.

Relevance judgements read against the queries and items that are there, and written.

Runs: what was found, best first, for trec_eval and from whoever ranks elsewhere.

Runs and qrels of a run, in the formats of TREC, for whoever wants to measure again.

    RUN/trec/MODEL/TASK[-split]/qrels.txt, SYSTEM-BITS-METRIC-seed0.run

A run has the first draw alone, in the product's order (distance, row): what other programs make
of it is the value in that order of that seed, not the mean over seeds and orders of ties.

Relevance judgements (qrels) and runs in the files of TREC, as trec_eval reads them.

    qrels   query iteration item grade              what is right; a grade above 0 is relevant
    run     query Q0 item rank score tag            what was found

Cells are separated by whitespace. Ids that hold whitespace are written as in addresses
(``snow%20owl``), and read back as what they were. trec_eval looks at no rank: it sorts by score,
and equal scores by item, so every run that is written here has scores that fall strictly.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.cells import Cell
from bittern.benchmarks.eval.measures.base import Ranks
from bittern.benchmarks.eval.tasks import Relevance, Task
from bittern.errors import InvalidInputError, LimitExceededError, QrelsError, SourceNotFoundError
from bittern.files import sync_folder
from bittern.text import agreeing, counted

MAX_LINE_BYTES = 64 << 10
"""Longest line."""
MAX_LINES = 50_000_000
"""Most lines that are read of a file."""
_TO_ESCAPE = re.compile(r"[\s\x00-\x1f\x7f]|%(?=[0-9A-Fa-f]{2})")
_BOM = b"\xef\xbb\xbf"


def escaped(name: str) -> str:
    """An id as it stands in a file: whitespace and control characters as in addresses.

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
            f"the id {name!r} holds half of a surrogate pair: it is no Unicode text and cannot be "
            "written; give it another name"
        ) from error
    return _TO_ESCAPE.sub(lambda found: _percent(found[0]), name)


def _percent(text: str) -> str:
    return quote(text, safe="")


def places_by_id(names: Sequence[str]) -> dict[str, int]:
    """Places by id: as it is written, and as it is where that is nobody else's.

    Raises:
        QrelsError: an id stands for two, is empty, or no Unicode text.
    """
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        if found.setdefault(escaped(name), place) != place:
            raise QrelsError(f"the id {name!r} stands for two things; ids must be unique")
    for place, name in enumerate(names):
        found.setdefault(name, place)
    return found


def lines_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line that is not blank.

    Raises:
        SourceNotFoundError: there is no such file.
        QrelsError: a line is no UTF-8 text, or the file cannot be read.
        LimitExceededError: too many lines, or one that is too long.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"there is no file {path}", field="qrels")
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                cells = _cells(path, number, raw)
                if cells:
                    yield number, cells
    except OSError as error:
        raise QrelsError(f"{path} cannot be read: {error}", field="qrels") from error


def _cells(path: Path, number: int, raw: bytes) -> list[str]:
    if len(raw) > MAX_LINE_BYTES:
        raise LimitExceededError(
            f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 10} KiB; this is no TREC file",
            field="qrels",
        )
    if number > MAX_LINES:
        raise LimitExceededError(
            f"{path} has more than {MAX_LINES:,} lines, which is the limit; split the queries over "
            "several files",
            field="qrels",
        )
    if number == 1:
        raw = raw.removeprefix(_BOM)
    try:
        # Whitespace is ASCII's, as for trec_eval: a no-break space is part of an id.
        return [cell.decode() for cell in raw.split()]
    except UnicodeDecodeError as error:
        raise QrelsError(
            f"{path}, line {number} is not UTF-8 text ({error.reason}); save the file as UTF-8",
            field="qrels",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once it is complete and on the disk.

    Raises:
        InvalidInputError: there is no folder to write it into.
    """
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"there is no folder {path.parent} to write {path.name} into", field="to"
        )
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


_LARGEST_GRADE = (1 << 31) - 1
_SHOWN = 5
QUERY, ITEM = ("query", "queries"), ("item", "items")

Unknown = Literal["error", "skip"]
PositionsOf = Callable[[str], Sequence[int]]
"""Places of the items that a name stands for which is no item's own; none where it is unknown."""


def read_qrels(
    path: Path,
    queries: Sequence[str],
    items: Sequence[str],
    unknown: Unknown = "error",
    also: PositionsOf = lambda name: (),
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
    also: PositionsOf
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
            queries = escaped(name)
            found = zip(relevance.items[begin:end], relevance.grades[begin:end], strict=True)
            lines = [f"{queries} 0 {escaped(items[item])} {grade}\n" for item, grade in found]
            file.write("".join(lines).encode())


MAX_HITS = 1 << 24
"""Most hits of one query: trec_eval keeps scores as 32-bit floats, which tell so many apart."""

_MOST_CELLS = 500_000_000
"""Places of a run in memory: 4 GB."""


def write_run(
    path: Path,
    tag: str,
    queries: Sequence[str],
    items: Sequence[str],
    hits: NDArray[np.integer],
) -> None:
    """Write a run; the file appears whole, in place of one that was there.

    trec_eval orders by score, and equal scores by item. The scores here are whole numbers that
    count down to 1, so it sees the hits in the order given, whatever their distances were.

    Args:
        path: the file.
        tag: name of the run; whitespace becomes ``-``.
        queries: ids.
        items: ids.
        hits: int [q, h], places of items, best first, none twice in a row; -1 from where on
            there are no more.

    Raises:
        InvalidInputError: hits of another shape, that name no item, or an item twice.
        LimitExceededError: more hits per query than trec_eval can tell apart.
        QrelsError: an id cannot be written.
    """
    if hits.ndim != 2 or len(hits) != len(queries) or hits.dtype.kind not in "iu":
        raise InvalidInputError(
            f"hits must be whole numbers [{len(queries)}, h], not {hits.dtype} {list(hits.shape)}"
        )
    if hits.shape[1] > MAX_HITS:
        raise LimitExceededError(
            f"{counted(hits.shape[1], 'hit')} per query are more than trec_eval can tell apart "
            f"({MAX_HITS:,}); write fewer"
        )
    name = re.sub(r"\s+", "-", tag.strip()) or "bittern"
    with replacing(path) as file:
        for query, row in zip(queries, hits, strict=True):
            queries, found = escaped(query), _checked(query, row, len(items))
            lines = [
                f"{queries} Q0 {escaped(items[item])} {rank} {len(found) - rank + 1} {name}\n"
                for rank, item in enumerate(found, 1)
            ]
            file.write("".join(lines).encode("utf-8", "replace"))


def _checked(query: str, row: NDArray[np.integer], count: int) -> list[int]:
    """The hits before the first -1."""
    none = np.flatnonzero(row == -1)
    found = row[: none[0]] if len(none) else row
    beyond = bool(len(none)) and bool((row[none[0] :] != -1).any())
    if beyond or (len(found) and (found.min() < 0 or found.max() >= count)):
        raise InvalidInputError(
            f"the hits of query {query!r} must be places of {counted(count, 'item')}, and -1 only "
            "behind the last one"
        )
    if len(np.unique(found)) < len(found):
        raise InvalidInputError(f"an item is twice among the hits of query {query!r}")
    hits: list[int] = found.tolist()
    return hits


def read_run(
    path: Path, queries: Sequence[str], items: Sequence[str], unknown: Unknown = "error"
) -> tuple[NDArray[np.int64], list[str]]:
    """Hits of a run that was made elsewhere, in the order in which trec_eval sees them.

    That is by falling score; equal scores by falling id of the item, as bytes. Ranks in the file
    count for nothing.

    Args:
        path: the file; read line by line.
        queries: ids.
        items: ids.
        unknown: whether a query or item that is not there ends it, or is left out and counted.

    Returns:
        int64 [q, h], places of items, -1 from where on there are no more; and sentences on what
        was left out.

    Raises:
        SourceNotFoundError: there is no such file.
        QrelsError: a line is malformed, an id is unknown, an item is found twice by a query, or
            there is nothing.
        LimitExceededError: too many lines, or one that is too long.
    """
    run = _Run(path, queries, items)
    for number, cells in lines_of(path):
        run.add(number, cells)
    if not run.lines:
        raise QrelsError(
            f"{path} holds no run; a line is 'query Q0 item rank score tag'", field="run"
        )
    if unknown == "error":
        UnknownIds.refuse(path, run.unknown)
    return run.hits(), [f"run: {each}; left out" for each in run.unknown if each.lines]


class _Run:
    """Lines of a run, 20 bytes each."""

    def __init__(self, path: Path, queries: Sequence[str], items: Sequence[str]) -> None:
        self.lines = 0
        self.unknown = (UnknownIds(QUERY), UnknownIds(ITEM))
        self._path, self._ids = path, items
        self._asked, self._known = places_by_id(queries), places_by_id(items)
        self._count = len(queries)
        self._queries, self._items, self._numbers = array("i"), array("i"), array("i")
        self._scores = array("d")

    def add(self, number: int, cells: list[str]) -> None:
        """One line."""
        if len(cells) != 6:
            raise QrelsError(
                f"{self._path}, line {number}: {counted(len(cells), 'cell')}; a line is 'query "
                "Q0 item rank score tag', and ids with spaces are written as in addresses "
                "('snow%20owl')",
                field="run",
            )
        self.lines += 1
        score = _score(self._path, number, cells[4])
        query, item = self._asked.get(cells[0]), self._known.get(cells[2])
        if query is None:
            self.unknown[0].add(cells[0], number)
        elif item is None:
            self.unknown[1].add(cells[2], number)
        else:
            self._queries.append(query)
            self._items.append(item)
            self._scores.append(score)
            self._numbers.append(number)

    def hits(self) -> NDArray[np.int64]:
        """int64 [q, h]."""
        if not len(self._queries):
            return np.empty((self._count, 0), np.int64)
        queries, items, numbers = (
            np.frombuffer(each, np.int32) for each in (self._queries, self._items, self._numbers)
        )
        self._refuse_twice(queries, items, numbers)
        scores = np.frombuffer(self._scores, np.float64)
        order = np.lexsort((-self._by_bytes(items), -scores, queries))
        sizes = np.bincount(queries, minlength=self._count)
        begins = np.repeat(np.cumsum(sizes) - sizes, sizes)
        deepest = int(sizes.max())
        if self._count * deepest > _MOST_CELLS:
            raise QrelsError(
                f"a run of {counted(self._count, 'query', 'queries')} with up to "
                f"{counted(deepest, 'item')} each is too large "
                f"to be held at once ({_MOST_CELLS:,} places); cut it to fewer items per query"
            )
        hits = np.full((self._count, deepest), -1, np.int64)
        hits[queries[order], np.arange(len(order)) - begins] = items[order]
        return hits

    def _by_bytes(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """For each line, the rank of its item's id among those of the run, as bytes."""
        there, which = np.unique(items, return_inverse=True)
        ids = [escaped(self._ids[item]).encode() for item in there]
        ranks = np.empty(len(ids), np.int64)
        ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        return ranks[which]

    def _refuse_twice(
        self, queries: NDArray[np.int32], items: NDArray[np.int32], numbers: NDArray[np.int32]
    ) -> None:
        order = np.lexsort((numbers, items, queries))
        twice = (np.diff(queries[order]) == 0) & (np.diff(items[order]) == 0)
        for at in np.flatnonzero(twice)[:1]:
            first, second = numbers[order[at]], numbers[order[at + 1]]
            raise QrelsError(
                f"{self._path}, lines {first} and {second} find the same item for the same query; "
                "keep one of them",
                field="run",
            )


def _score(path: Path, number: int, cell: str) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise QrelsError(
            f"{path}, line {number}: the score {cell[:50]!r} is no finite number", field="run"
        )
    return score


def ranks_of_run(hits: NDArray[np.integer], relevance: Relevance, items: int) -> Ranks:
    """Where relevant items stand in a run, which tells of no ties.

    What a run does not name was not found: it counts for nothing, however deep one looks.

    Args:
        hits: int [q, h], places of items, best first; -1 from where on there are no more.
        relevance: of each query.
        items: how many there are to be found.
    """
    ranks, grades, sizes = [], [], []
    for query, row in enumerate(hits):
        part = slice(relevance.offsets[query], relevance.offsets[query + 1])
        right = relevance.items[part]
        at = np.searchsorted(right, row)
        found = np.flatnonzero(np.isin(row, right))
        ranks.append(found + 1)
        grades.append(relevance.grades[part][at[found]])
        sizes.append(len(found))
    rank = np.concatenate([np.empty(0, np.int64), *ranks]).astype(np.int64)
    owners = np.repeat(np.arange(len(relevance)), relevance.counts)
    best_first = np.lexsort((-relevance.grades.astype(np.int64), owners))
    return Ranks(
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        rank=rank,
        nearer=rank - 1,
        tied=np.ones_like(rank),
        grades=np.concatenate([np.empty(0, np.int32), *grades]).astype(np.int32),
        relevant=relevance.counts,
        ideal=relevance.grades[best_first],
        ideal_offsets=relevance.offsets,
        ranked=np.full(len(relevance), items, np.int64),
    )


_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def write_judgements(folder: Path, task: Task, model: str) -> Path:
    """Write the qrels of a task."""
    here = _place(folder, task, model)
    here.mkdir(parents=True, exist_ok=True)
    write_qrels(here / "qrels.txt", task.queries.ids, task.items.ids, task.relevance)
    return here / "qrels.txt"


def write_runs(folder: Path, task: Task, cell: Cell, model: str) -> list[Path]:
    """Write one run per variant of a cell."""
    here = _place(folder, task, model)
    here.mkdir(parents=True, exist_ok=True)
    written = []
    for variant, ranked in cell.variants.items():
        bits = str(cell.about["bits"] or "")
        again = f"top{variant.rerank}" if variant.rerank else ""
        parts = [str(cell.about["system"]), bits, variant.metric, again]
        tag = "-".join(_plain(part) for part in (*parts, f"seed{cell.about['seeds'][0]}") if part)
        path = here / f"{tag}.run"
        write_run(path, tag, task.queries.ids, task.items.ids, ranked.hits)
        written.append(path)
    return written


def _place(folder: Path, task: Task, model: str) -> Path:
    name = f"{_plain(task.name)}-{task.repeat}" if task.repeat else _plain(task.name)
    return folder / _plain(model) / name


def _plain(text: str) -> str:
    """A text as a part of a file's name; a long one is cut, and told apart by its digest."""
    plain = _UNFIT.sub("-", text.replace("→", "-to-")).strip("-.") or "unnamed"
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
