"""Exact search: every code is looked at, and no answer is given before it is proven.

Each block names candidates by the cheapest scan that its selection allows; the candidates
are scored exactly; and a block whose scan may have left out a row as near as the k-th is
scanned again for more, in the end row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bittern.errors import QueryError
from bittern.index.engines import planning
from bittern.index.engines.blocks import BlockSelection, CodeBlocks, Selection
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from bittern.index.engines.scans import Candidates, gathered
from bittern.index.engines.threads import for_each

_FIRST, _SECOND = (2, 200), (16, 2_000)
"""How many candidates are asked for in turn, as (times k, plus)."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates of one query in one block."""

    part: BlockSelection
    candidates: Candidates


Scan = Callable[[BlockSelection, Queries, int, bool], list[Candidates]]


class FlatEngine:
    """Exact nearest neighbours, symmetric and asymmetric.

    Args:
        blocks: the codes of one generation.
        threads: the most threads of one call; None for one per usable core.
    """

    kind = "flat"
    exact = True

    def __init__(self, blocks: CodeBlocks, threads: int | None = None) -> None:
        self.blocks = blocks
        self._threads = threads

    @property
    def nbytes(self) -> int:
        """Bytes that it holds besides the codes."""
        return self.blocks.nbytes_besides

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`."""
        queries.check_fits(self.blocks.bits)
        selection = self.blocks.selection(rows)
        return search_selection(queries, k, selection, planning.scan, self._threads)

    def within(self, queries: Queries, radius: float, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.within`."""
        queries.check_fits(self.blocks.bits)
        if not radius >= 0:
            raise QueryError(f"a distance must be 0 or more, not {radius!r}", field="within")
        selection = self.blocks.selection(rows)
        work = list(product(range(len(queries)), selection.blocks))
        found = for_each(lambda it: _within(queries[it[0]], it[1], radius), work, self._threads)
        per_query: list[list[Nearest]] = [[] for _ in range(len(queries))]
        for (query, _), nearest in zip(work, found, strict=True):
            per_query[query].append(nearest)
        return [Nearest.best_of(parts) for parts in per_query]


def search_selection(
    queries: Queries,
    k: int,
    selection: Selection,
    scan: Scan,
    threads: int | None,
    *,
    at_once: int | None = None,
) -> list[Nearest]:
    """The k nearest of what may be found, exactly.

    Args:
        queries: what to look for.
        k: at least 1; fewer come back where fewer may be found.
        selection: what may be found.
        scan: names candidates of one block.
        threads: see `FlatEngine`.
        at_once: how many queries are scanned together; None for what suits the CPU.
    """
    k = min(k, selection.count)
    if not k:
        return [Nearest.none() for _ in range(len(queries))]
    blank = [not weights.any() for weights in queries.weights]
    if any(blank):
        # To a query without any weight all codes are equally far.
        return [
            _first_rows(query, k, selection)
            if is_blank
            else search_selection(query, k, selection, scan, threads)[0]
            for query, is_blank in zip(queries, blank, strict=True)
        ]
    if at_once is None:
        shares = planning.shares_of(len(queries), len(selection.blocks), threads)
    else:
        shares = [slice(n, min(n + at_once, len(queries))) for n in range(0, len(queries), at_once)]
    found = _scan_all(queries, k, selection, scan, threads, shares)
    return list(
        for_each(
            lambda query: _proven(queries[query], k, found[query], scan),
            range(len(queries)),
            threads if len(queries) > 1 else 1,
        )
    )


def _scan_all(
    queries: Queries,
    k: int,
    selection: Selection,
    scan: Scan,
    threads: int | None,
    shares: list[slice],
) -> list[list[_Found]]:
    """Each query's candidates in each block; a share of the queries is a task of its own."""
    tasks = list(product(shares, selection.blocks))
    count = _first_count(k, len(selection.blocks))
    done = for_each(lambda task: scan(task[1], queries[task[0]], count, True), tasks, threads)
    found: list[list[_Found]] = [[] for _ in range(len(queries))]
    for (share, part), candidates in zip(tasks, done, strict=True):
        for query, one in zip(range(share.start, share.stop), candidates, strict=True):
            found[query].append(_Found(part, one))
    return found


def _first_count(k: int, blocks: int) -> int:
    """How many candidates each block is asked for at first.

    Its share of what is wanted if the nearest are spread evenly, and half of k more; where
    they are not, the blocks that hold them are asked again.
    """
    times, plus = _FIRST
    wanted = times * k + plus
    return min(wanted, -(-wanted // blocks) + k // 2 + 20)


def _proven(query: Queries, k: int, found: list[_Found], scan: Scan) -> Nearest:
    """One query's k nearest: candidates scored, and more of them until none can be missing."""
    best = _scored(query, k, found)
    for look_again in (_more, _finer, _everything):
        limit = float(best.distances[-1]) if len(best) == k else np.inf
        doubtful = [n for n, one in enumerate(found) if _floor(query, one) <= limit]
        if not doubtful:
            break
        for number in doubtful:
            part = found[number].part
            found[number] = _Found(part, look_again(part, query, k, limit, scan))
        best = _scored(query, k, found)
    return best


def _more(part: BlockSelection, query: Queries, k: int, limit: float, scan: Scan) -> Candidates:
    """More candidates by the same scan."""
    times, plus = _SECOND
    return scan(part, query, times * k + plus, False)[0]


def _finer(part: BlockSelection, query: Queries, k: int, limit: float, scan: Scan) -> Candidates:
    """As many by a scan that rounds little."""
    times, plus = _SECOND
    return planning.scan_gathered(part, query, times * k + plus)[0]


def _everything(
    part: BlockSelection, query: Queries, k: int, limit: float, scan: Scan
) -> Candidates:
    """All codes that are no farther than `limit`, each scored exactly."""
    codes = part.block.codes
    if part.mask is not None:
        codes = gathered(codes, part.places)
    distances = query.distances(0, codes)
    kept = distances <= limit
    return Candidates(part.places[kept], distances[kept], 0.0, np.inf)


def _floor(query: Queries, found: _Found) -> float:
    floor = found.candidates.floor
    # Hamming distances are whole numbers.
    return float(np.ceil(floor - 1e-6)) if query.metric == "hamming" else floor


def _scored(query: Queries, k: int, found: list[_Found]) -> Nearest:
    """The k nearest candidates by exact distance."""
    highest = np.concatenate([one.candidates.distances + one.candidates.error for one in found])
    limit = np.partition(highest, k - 1)[k - 1] if len(highest) > k else np.inf
    codes, rows = [], []
    for one in found:
        c = one.candidates
        places = c.places[c.distances - c.error <= limit]
        codes.append(gathered(one.part.block.codes, places))
        rows.append(one.part.block.rows.at(places))
    # All blocks' at once: a call for each would cost more than the scoring itself.
    return Nearest.of(query.distances(0, np.concatenate(codes)), np.concatenate(rows), k)


def _within(query: Queries, part: BlockSelection, radius: float) -> Nearest:
    distances, places = planning.scan_within(query, part, radius)
    kept = distances <= radius
    return Nearest.of(distances[kept], part.block.rows.at(places[kept]))


def _first_rows(query: Queries, k: int, selection: Selection) -> Nearest:
    """The first k rows, for a query to which all codes are equally far."""
    rows: list[NDArray[np.int64]] = []
    wanted = k
    for part in selection.blocks:
        places = part.places[:wanted]
        rows.append(part.block.rows.at(places))
        wanted -= len(places)
    numbers = np.concatenate(rows)
    code = np.zeros((1, query.bits // 8), dtype=np.uint8)
    return Nearest(np.repeat(query.distances(0, code), k), numbers)
