"""Which scan is cheapest for what may be found in a block, by measured cost.

Costs per row of 256 bits on one core, relative to the 4-bit scan of a block (see
docs/decisions/0009-search-engine.md): gathering some rows and scanning those 8; the 4-bit
scan with a selector 2 to 3, whatever it selects; a scan of the raw codes 2 by popcount and 6
by bytes; asking the 4-bit scan for more than is needed, and dropping what may not be found,
1.2 where what may be found is spread evenly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.blocks import BlockSelection
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import Candidates, gathered, scan_raw
from bittern.index.engines.threads import usable_cores

_SCORE_ALL = 256
"""So few rows are scored exactly at once."""
_GATHER_SHARE = 0.12
"""Up to this share of a block, the rows that may be found are gathered and scanned."""
_MOST_OVERFETCHED = 4_000
"""Most candidates that are asked for where some of them may not be found."""
_QUERIES_AT_ONCE = 64


def shares_of(queries: int, blocks: int, threads: int | None) -> list[slice]:
    """Parts of a batch that are scanned as one task each.

    As large as may be, since queries that are scanned together share the reading of the
    codes; but enough tasks for all threads.
    """
    threads = threads or usable_cores()
    parts = max(1, -(-queries // _QUERIES_AT_ONCE), -(-threads // max(blocks, 1)))
    size = max(1, -(-queries // min(parts, queries or 1)))
    return [slice(start, min(start + size, queries)) for start in range(0, queries, size)]


def scan(part: BlockSelection, queries: Queries, count: int, hopeful: bool) -> list[Candidates]:
    """The nearest codes of a selection to each query, up to `count` or a few more.

    Args:
        part: what may be found in one block.
        queries: none of them without any weight.
        count: how many for each.
        hopeful: whether what may be found can be assumed to be spread evenly.
    """
    block, size = part.block, len(part.block)
    if part.count <= max(_SCORE_ALL, _GATHER_SHARE * size):
        return scan_gathered(part, queries, count)
    fast = block.fast_scan(len(queries))
    if part.bitmap is None:
        return fast.scan(queries, count) if fast else scan_raw(block.codes, queries, count)
    share = part.count / size
    more = min(int(1.25 * count / share) + 16, count + size - part.count)
    certain = more == count + size - part.count
    if (hopeful or certain) and (more <= _MOST_OVERFETCHED or (certain and not fast)):
        found = (
            fast.scan(queries, more) if fast else scan_raw(block.codes, queries, min(more, size))
        )
        return [_only_selected(part, one) for one in found]
    if fast:
        return fast.scan(queries, min(count, part.count), part.bitmap)
    return scan_gathered(part, queries, count)


def _only_selected(part: BlockSelection, found: Candidates) -> Candidates:
    assert part.mask is not None
    kept = part.mask[found.places]
    complete = np.count_nonzero(kept) == part.count
    return Candidates(
        found.places[kept],
        found.distances[kept],
        found.error,
        np.inf if complete else found.floor,
    )


def scan_gathered(part: BlockSelection, queries: Queries, count: int) -> list[Candidates]:
    """The nearest codes of a selection by a scan of the raw codes."""
    codes = part.block.codes
    if part.mask is not None:
        codes = gathered(codes, part.places)
    if part.count <= _SCORE_ALL:
        places = part.places
        return [
            Candidates(places, queries.distances(query, codes), 0.0, np.inf)
            for query in range(len(queries))
        ]
    found = scan_raw(codes, queries, count)
    if part.mask is None:
        return found
    return [
        Candidates(part.places[one.places], one.distances, one.error, one.floor) for one in found
    ]


def scan_within(
    query: Queries, part: BlockSelection, radius: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Exact distances, and places, of at least all codes that are no farther than `radius`."""
    block = part.block
    count = 1_000
    while 4 * count < part.count and query.weights.any():
        found = scan(part, query, count, False)[0]
        if found.floor > radius:
            places = found.places[found.distances - found.error <= radius]
            return query.distances(0, gathered(block.codes, places)), places
        count *= 16
    codes = block.codes if part.mask is None else gathered(block.codes, part.places)
    return query.distances(0, codes), part.places
