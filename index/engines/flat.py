"""Exact search on the CPU: every code is scanned, and every result is proven.

In each block the cheapest scan for its allowed rows finds candidates, which are scored exactly. A
block whose scan may have missed a row as near as the k-th is scanned again for more candidates, in
the end for all rows up to the distance of the k-th.

Costs of scans per row of 256 bits on one core, relative to the 4-bit scan of a block (see
docs/decisions/0009-search-engine.md): gathering rows and scanning them by bytes, 9; by bytes alone,
8; all Hamming distances, 0.7; a 4-bit scan for more candidates than needed, of which the forbidden
are dropped, 1.2 if allowed rows are spread evenly; a 4-bit scan with a selector up to a distance, 2
to 3, the most if many rows that are nearer are forbidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.blocks import BlockSelection, CodeBlocks, Selection
from bittern.index.engines.queries import Queries, hamming
from bittern.index.engines.scans import Candidates, gathered, popcount_is_faster, scan_raw
from bittern.index.engines.search_engine import Nearest, RowSet
from bittern.index.engines.threads import for_each, usable_cores

_SCORE_ALL = 256
"""Up to this many rows are scored exactly without a scan."""
_GATHER_SHARE = 0.12
"""Up to this share of a block, the allowed rows are gathered and scanned."""
_RANGE_SHARE = 0.2
"""Up to this share, they are gathered rather than scanned up to a distance."""
_MOST_OVERFETCHED = 20_000
"""Most candidates of a scan without a selector."""
_SPREAD_SAMPLE, _SPREAD_NEAREST, _SPREAD_LEAST = 512, 8, 4.0
"""Allowed rows are not spread evenly if, in a sample of rows, this many times as many as expected
are as near as the allowed ones that are nearest."""
_WITHIN_PLUS = 500
"""Candidates beyond k of a scan up to a distance: rows that single precision cannot tell apart."""
_LIMIT_SAMPLE = 8_192
"""Allowed rows, at least, whose k-th nearest bounds the distance of the k-th of all."""
_QUERIES_AT_ONCE = 64
_FIRST, _SECOND = (2, 200), (16, 2_000)
"""Candidates of the first and the second scan, as (times k, plus)."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates of one query in one block."""

    selected: BlockSelection
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class Bound:
    """What is known of the result before a block is scanned again.

    Attributes:
        k: number of rows of the result.
        distance: upper bound of that of the k-th.
    """

    k: int
    distance: float


Scan = Callable[[BlockSelection, Queries, int, Bound | None], list[Candidates]]


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
    done = for_each(lambda task: scan(task[1], queries[task[0]], count, None), tasks, threads)
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
    for scan_again in (partial(_more, scan), _nearest_within):
        bound = Bound(k, best.distances[-1] if len(best) == k else _kth_of_sample(query, k, found))
        doubtful = [n for n, one in enumerate(found) if _floor(query, one) <= bound.distance]
        if not doubtful:
            break
        for number in doubtful:
            selected = found[number].selected
            found[number] = _Found(selected, scan_again(selected, query, bound))
        best = _scored(query, k, found)
    return best


def _kth_of_sample(query: Queries, k: int, found: list[_Found]) -> float:
    """The distance of the k-th nearest in a sample: an upper bound of that of all rows."""
    blocks = [one.selected for one in found]
    share = max(_LIMIT_SAMPLE, 16 * k) / sum(selected.count for selected in blocks)
    samples = [(one, one.sample(max(1, int(share * one.count)))) for one in blocks]
    if sum(len(positions) for _, positions in samples) < k:
        samples = [(one, one.positions) for one in blocks]
    codes = np.concatenate([gathered(one.block.codes, positions) for one, positions in samples])
    nearest = scan_raw(codes, query, k)[0]
    return float(nearest.distances.max() + nearest.error)


def _more(scan: Scan, selected: BlockSelection, query: Queries, bound: Bound) -> Candidates:
    """More candidates by the same scan."""
    times, plus = _SECOND
    return scan(selected, query, times * bound.k + plus, bound)[0]


def _nearest_within(selected: BlockSelection, query: Queries, bound: Bound) -> Candidates:
    """The rows of one block that can be in the result, scored exactly."""
    positions, codes = _within(selected, query, bound.distance)
    nearest = Nearest.of(query.distances(0, codes), positions, bound.k)
    return Candidates(nearest.rows, nearest.distances, 0.0, np.inf)


def _within(
    selected: BlockSelection, query: Queries, limit: float
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """All allowed codes up to the distance `limit`, and possibly others, with their positions."""
    block = selected.block
    share = selected.count / len(block)
    positions = None
    if query.metric == "hamming" and share > _GATHER_SHARE:
        near = hamming(query.codes[0], block.codes) <= limit
        positions = np.flatnonzero(near if selected.mask is None else near & selected.mask)
    elif share > _RANGE_SHARE and (ranges := block.range_scan()):
        positions = ranges.within(query, limit, selected.bitmap)
    if positions is None:
        positions = selected.positions
        if selected.mask is None:
            return positions, block.codes
    return positions, gathered(block.codes, positions)


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


def scan(
    selected: BlockSelection, queries: Queries, count: int, bound: Bound | None
) -> list[Candidates]:
    """The nearest allowed codes to each query, up to `count` or a few more.

    Args:
        selected: the allowed rows of one block.
        queries: none of them without any weight.
        count: number for each.
        bound: None for the first scan, which may find too few.
    """
    block, size = selected.block, len(selected.block)
    if selected.count <= max(_SCORE_ALL, _GATHER_SHARE * size):
        return scan_gathered(selected, queries, count)
    fast = block.fast_scan(len(queries))
    if bound and queries.metric == "hamming":
        return [_nearest_within(selected, query, bound) for query in queries]
    scan_all: Callable[[Queries, int], list[Candidates]] = partial(scan_raw, block.codes)
    if fast and not (queries.metric == "hamming" and popcount_is_faster(queries.bits)):
        scan_all = fast.scan
    if selected.mask is None:
        return scan_all(queries, count)
    forbidden = size - selected.count
    more = min(int(1.25 * count * size / selected.count) + 16, count + forbidden)
    certain = more == count + forbidden
    if certain and not fast:
        return _only_allowed(selected, scan_all(queries, more))
    if not fast:
        return scan_gathered(selected, queries, count)
    if more <= _MOST_OVERFETCHED and (
        certain or (not bound and _spread_evenly(selected, queries[0]))
    ):
        return _only_allowed(selected, scan_all(queries, more))
    if not bound:
        # Cheaper after the other blocks, whose rows may give a limit.
        none = Candidates(np.empty(0, np.int64), np.empty(0), 0.0, -np.inf)
        return [none] * len(queries)
    return [_scan_within(selected, query, bound) for query in queries]


def _spread_evenly(selected: BlockSelection, query: Queries) -> bool:
    """Whether allowed rows seem to be as near to the query as the others."""
    assert selected.mask is not None
    sample = selected.block.sample(_SPREAD_SAMPLE)
    distances = query.distances(0, gathered(selected.block.codes, sample))
    allowed = distances[selected.mask[sample]]
    if len(allowed) < _SPREAD_NEAREST:
        return False
    as_near = distances <= np.partition(allowed, _SPREAD_NEAREST - 1)[_SPREAD_NEAREST - 1]
    expected = _SPREAD_NEAREST * len(sample) / len(allowed)
    return bool(np.count_nonzero(as_near) <= _SPREAD_LEAST * expected)


def _scan_within(selected: BlockSelection, query: Queries, bound: Bound) -> Candidates:
    """The nearest allowed codes up to a distance, a few more than the result has."""
    positions, codes = _within(selected, query, bound.distance)
    if not len(codes):
        return Candidates(positions, np.empty(0), 0.0, np.inf)
    found = scan_raw(codes, query, bound.k + _WITHIN_PLUS)[0]
    return Candidates(positions[found.positions], found.distances, found.error, found.floor)


def _only_allowed(selected: BlockSelection, scanned: list[Candidates]) -> list[Candidates]:
    assert selected.mask is not None
    allowed = []
    for found in scanned:
        kept = selected.mask[found.positions]
        complete = np.count_nonzero(kept) == selected.count
        floor = np.inf if complete else found.floor
        allowed.append(Candidates(found.positions[kept], found.distances[kept], found.error, floor))
    return allowed


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
