"""Runs: what was found, best first, for trec_eval and from whoever ranks elsewhere."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.places import Places
from bittern.benchmarks.eval.tasks import Relevance
from bittern.benchmarks.eval.trec_lines import escaped, lines_of, places_by_id, replacing
from bittern.benchmarks.eval.trec_qrels import ITEM, QUERY, Unknown, UnknownIds
from bittern.errors import InvalidInputError, LimitExceededError, QrelsError
from bittern.text import counted

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
            asked, found = escaped(query), _checked(query, row, len(items))
            lines = [
                f"{asked} Q0 {escaped(items[item])} {rank} {len(found) - rank + 1} {name}\n"
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


def places_of_run(hits: NDArray[np.integer], relevance: Relevance, items: int) -> Places:
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
    return Places(
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        ranks=rank,
        nearer=rank - 1,
        tied=np.ones_like(rank),
        grades=np.concatenate([np.empty(0, np.int32), *grades]).astype(np.int32),
        relevant=relevance.counts,
        ideal=relevance.grades[best_first],
        ideal_offsets=relevance.offsets,
        ranked=np.full(len(relevance), items, np.int64),
    )
