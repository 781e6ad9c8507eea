"""Only the items that are given for each query are ranked (INQUIRE-Rerank, arXiv 2411.02537)."""

from __future__ import annotations

import numpy as np

from bittern.benchmarks.eval.embeddings.base import EmbeddedRows
from bittern.benchmarks.eval.ranking.counting import Tile
from bittern.benchmarks.eval.ranking.placed import Nearest, Placed, joined
from bittern.benchmarks.eval.ranking.settings import RADIUS
from bittern.benchmarks.eval.ranking.units import Ints, Units, Wanted
from bittern.benchmarks.eval.ranking.whole import Asking


def ranked_candidates(
    asking: Asking,
    rows: EmbeddedRows,
    units: Units,
    wanted: Wanted,
    candidates: Wanted,
    keep: int,
) -> Placed:
    """Rank each query's candidates.

    Args:
        asking: what is asked.
        rows: embeddings; only those of candidates are read.
        units: what could be ranked.
        wanted: what is relevant.
        candidates: what is ranked.
        keep: so many of the nearest are told.
    """
    parts = []
    for query in range(len(wanted)):
        given = candidates.units[candidates.offsets[query] : candidates.offsets[query + 1]]
        chosen = slice(wanted.offsets[query], wanted.offsets[query + 1])
        among = np.isin(wanted.units[chosen], given)
        relevant = wanted.units[chosen][among]
        grades = wanted.grades[chosen][among]
        parts.append(_one(asking, query, rows, units, given, relevant, keep, grades))
    depth = min(keep, len(units))
    if not parts:
        return _nothing(asking, units, 0, depth)
    return joined(parts, [np.array([query]) for query in range(len(parts))])


def _one(
    asking: Asking,
    query: int,
    rows: EmbeddedRows,
    units: Units,
    given: Ints,
    relevant: Ints,
    keep: int,
    grades: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
) -> Placed:
    depth = min(keep, len(units))
    if not len(given):
        return _nothing(asking, units, 1, depth)
    numbers, begins = units.rows_of(given)
    # Rows of candidates stand close together now: they are units of an own collection.
    own = Units(np.append(begins, len(numbers)), given, units.windows)
    stored = asking.fitted.store(rows.read(numbers))
    found = asking.distances(query, query + 1, stored)
    tile = Tile(own.reduced(found, 0, len(own))[0], 0)
    places = np.searchsorted(given, relevant)
    values = tile.distances[places].astype(np.float64)
    standing = tile.standing(places, values)
    nearest = Nearest.none(1, depth)
    chosen = tile.nearest(depth)
    nearest.units[0, : len(chosen)] = given[chosen]
    nearest.distances[0, : len(chosen)] = tile.distances[chosen]
    nearest.rows[0, : len(chosen)] = numbers[own.nearest_rows(chosen, found[0])]
    within = None
    if _is_hamming(asking, units):
        counts = [np.count_nonzero(tile.distances <= RADIUS), np.count_nonzero(values <= RADIUS)]
        within = np.array([counts], np.int64)
    zeros = np.zeros(len(relevant), np.int64)
    return Placed(
        zeros,
        relevant,
        grades,
        standing.nearer,
        standing.before,
        standing.tied,
        nearest,
        within,
    )


def _nothing(asking: Asking, units: Units, queries: int, depth: int) -> Placed:
    none = np.empty(0, np.int64)
    within = np.zeros((queries, 2), np.int64) if _is_hamming(asking, units) else None
    grades = np.empty(0, np.int32)
    nearest = Nearest.none(queries, depth)
    return Placed(none, none, grades, none, none, none, nearest, within)


def _is_hamming(asking: Asking, units: Units) -> bool:
    return asking.metric == "symmetric" and (units.windows != "mean" or units.single)
