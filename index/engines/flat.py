"""Exact search on the CPU: every code is scanned, and every result is proven.

In each block the cheapest scan for its allowed rows finds candidates, which are scored exactly. A
block whose scan may have missed a row as near as the k-th is scanned again for more candidates, in
the end row by row.

Costs of scans per row of 256 bits on one core, relative to the 4-bit scan of a block (see
docs/decisions/0009-search-engine.md): gathering rows and scanning them, 8; the 4-bit scan with a
selector, 2 to 3 for any selection; a scan of the raw codes, 2 by popcount and 6 by bytes; a 4-bit
scan for more candidates than needed, of which the forbidden are dropped, 1.2 if allowed rows are
spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.blocks import BlockSelection, CodeBlocks, Selection
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import Candidates, gathered, scan_raw
from bittern.index.engines.search_engine import Nearest, RowSet
from bittern.index.engines.threads import for_each, usable_cores

_SCORE_ALL = 256
"""Up to this many rows are scored exactly without a scan."""
_GATHER_SHARE = 0.12
"""Up to this share of a block, the allowed rows are gathered and scanned."""
_MOST_OVERFETCHED = 4_000
"""Most candidates of a scan without a selector."""
_QUERIES_AT_ONCE = 64
_FIRST, _SECOND = (2, 200), (16, 2_000)
"""Candidates of the first and the second scan, as (times k, plus)."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates of one query in one block."""

    selected: BlockSelection
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

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`."""
        queries.check_fits(self.blocks.bits)
        selection = self.blocks.selection(rows)
        return search_selection(queries, k, selection, scan, self._threads)


def search_selection(
    queries: Queries,
    k: int,
    selection: Selection,
    scan: Scan,
    threads: int | None,
    *,
    at_once: int | None = None,
) -> list[Nearest]:
    """The k nearest of the allowed rows, exactly.

    Args:
        queries: of the same code length.
        k: at least 1; fewer are returned if fewer rows are allowed.
        selection: the allowed rows.
        scan: finds candidates in one block.
        threads: see `FlatEngine`.
        at_once: number of queries that are scanned together; None for a number for the CPU.
    """
    k = min(k, selection.count)
    if not k:
        return [Nearest.none() for _ in range(len(queries))]
    blank = [not weights.any() for weights in queries.weights]
    if any(blank):
        # Without any weight, all codes are equally far.
        return [
            _first_rows(query, k, selection)
            if is_blank
            else search_selection(query, k, selection, scan, threads)[0]
            for query, is_blank in zip(queries, blank, strict=True)
        ]
    if at_once is None:
        shares = shares_of(len(queries), len(selection.blocks), threads)
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
    """Each query's candidates in each block; a task is a share of the queries and a block."""
    tasks = list(product(shares, selection.blocks))
    count = _first_count(k, len(selection.blocks))
    done = for_each(lambda task: scan(task[1], queries[task[0]], count, True), tasks, threads)
    found: list[list[_Found]] = [[] for _ in range(len(queries))]
    for (share, selected), candidates in zip(tasks, done, strict=True):
        for query, one in zip(range(share.start, share.stop), candidates, strict=True):
            found[query].append(_Found(selected, one))
    return found


def _first_count(k: int, blocks: int) -> int:
    """Candidates of the first scan of each block.

    Enough if the nearest are spread evenly over the blocks, and half of k more. If they are not,
    blocks are scanned again.
    """
    times, plus = _FIRST
    wanted = times * k + plus
    return min(wanted, -(-wanted // blocks) + k // 2 + 20)


def _proven(query: Queries, k: int, found: list[_Found], scan: Scan) -> Nearest:
    """One query's k nearest: score candidates, and scan for more until none can be missing."""
    best = _scored(query, k, found)
    for scan_again in (_more, _finer, _everything):
        limit = float(best.distances[-1]) if len(best) == k else np.inf
        doubtful = [n for n, one in enumerate(found) if _floor(query, one) <= limit]
        if not doubtful:
            break
        for number in doubtful:
            selected = found[number].selected
            found[number] = _Found(selected, scan_again(selected, query, k, limit, scan))
        best = _scored(query, k, found)
    return best


def _more(selected: BlockSelection, query: Queries, k: int, limit: float, scan: Scan) -> Candidates:
    """More candidates by the same scan."""
    times, plus = _SECOND
    return scan(selected, query, times * k + plus, False)[0]


def _finer(
    selected: BlockSelection, query: Queries, k: int, limit: float, scan: Scan
) -> Candidates:
    """As many candidates by a scan that rounds less."""
    times, plus = _SECOND
    return scan_gathered(selected, query, times * k + plus)[0]


def _everything(
    selected: BlockSelection, query: Queries, k: int, limit: float, scan: Scan
) -> Candidates:
    """All codes up to the distance `limit`, scored exactly."""
    codes = selected.block.codes
    if selected.mask is not None:
        codes = gathered(codes, selected.positions)
    distances = query.distances(0, codes)
    kept = distances <= limit
    return Candidates(selected.positions[kept], distances[kept], 0.0, np.inf)


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
        positions = c.positions[c.distances - c.error <= limit]
        codes.append(gathered(one.selected.block.codes, positions))
        rows.append(one.selected.block.rows.at(positions))
    # All blocks at once: a call for each would take longer than the scoring.
    return Nearest.of(query.distances(0, np.concatenate(codes)), np.concatenate(rows), k)


def _first_rows(query: Queries, k: int, selection: Selection) -> Nearest:
    """The first k rows, for a query to which all codes are equally far."""
    rows: list[NDArray[np.int64]] = []
    wanted = k
    for selected in selection.blocks:
        positions = selected.positions[:wanted]
        rows.append(selected.block.rows.at(positions))
        wanted -= len(positions)
    numbers = np.concatenate(rows)
    code = np.zeros((1, query.bits // 8), dtype=np.uint8)
    return Nearest(np.repeat(query.distances(0, code), k), numbers)


# The cheapest scan of a block


def shares_of(queries: int, blocks: int, threads: int | None) -> list[slice]:
    """Divide a batch of queries into tasks: as large as possible, but enough for all threads."""
    threads = threads or usable_cores()
    tasks = max(1, -(-queries // _QUERIES_AT_ONCE), -(-threads // max(blocks, 1)))
    size = max(1, -(-queries // min(tasks, queries or 1)))
    return [slice(start, min(start + size, queries)) for start in range(0, queries, size)]


def scan(selected: BlockSelection, queries: Queries, count: int, hopeful: bool) -> list[Candidates]:
    """The nearest allowed codes to each query, up to `count` or a few more.

    Args:
        selected: the allowed rows of one block.
        queries: none of them without any weight.
        count: number for each.
        hopeful: whether to assume that the allowed rows are spread evenly.
    """
    block, size = selected.block, len(selected.block)
    if selected.count <= max(_SCORE_ALL, _GATHER_SHARE * size):
        return scan_gathered(selected, queries, count)
    fast = block.fast_scan(len(queries))
    if selected.bitmap is None:
        return fast.scan(queries, count) if fast else scan_raw(block.codes, queries, count)
    share = selected.count / size
    more = min(int(1.25 * count / share) + 16, count + size - selected.count)
    certain = more == count + size - selected.count
    if (hopeful or certain) and (more <= _MOST_OVERFETCHED or (certain and not fast)):
        found = (
            fast.scan(queries, more) if fast else scan_raw(block.codes, queries, min(more, size))
        )
        return [_only_allowed(selected, one) for one in found]
    if fast:
        return fast.scan(queries, min(count, selected.count), selected.bitmap)
    return scan_gathered(selected, queries, count)


def _only_allowed(selected: BlockSelection, found: Candidates) -> Candidates:
    assert selected.mask is not None
    kept = selected.mask[found.positions]
    complete = np.count_nonzero(kept) == selected.count
    return Candidates(
        found.positions[kept],
        found.distances[kept],
        found.error,
        np.inf if complete else found.floor,
    )


def scan_gathered(selected: BlockSelection, queries: Queries, count: int) -> list[Candidates]:
    """The nearest allowed codes by a scan of the raw codes."""
    codes = selected.block.codes
    if selected.mask is not None:
        codes = gathered(codes, selected.positions)
    if selected.count <= _SCORE_ALL:
        positions = selected.positions
        return [
            Candidates(positions, queries.distances(query, codes), 0.0, np.inf)
            for query in range(len(queries))
        ]
    found = scan_raw(codes, queries, count)
    if selected.mask is None:
        return found
    return [
        Candidates(selected.positions[one.positions], one.distances, one.error, one.floor)
        for one in found
    ]
