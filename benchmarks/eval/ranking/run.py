"""`rank`: chooses how to rank, and tells what was found by items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.ranking.deep import Deep, ranked_candidates, reranked
from bittern.benchmarks.eval.ranking.units import (
    Clock,
    Ints,
    Ranking,
    Searched,
    Settings,
    Stored,
    Units,
    Wanted,
)
from bittern.benchmarks.eval.ranking.whole import Entries, Search, Whole
from bittern.benchmarks.eval.systems.base import Fitted, Metric
from bittern.errors import InvalidInputError

_DEFAULT = Settings()


def rank(
    fitted: Fitted,
    queries: NDArray[np.float32],
    metric: Metric,
    searched: Searched,
    settings: Settings = _DEFAULT,
) -> Ranking:
    """Rank items for each query, in the order (distance, row).

    The result depends neither on tiles nor on blocks or threads.

    Args:
        fitted: the system.
        queries: float32 [q, dim].
        metric: a distance that the system offers.
        searched: the items, and which of them are relevant.
        settings: windows, depth, candidates, reranking; memory and threads.

    Returns:
        Where the relevant items stand, and the nearest items. Where windows are ``separate``,
        each row is ranked, and a relevant item counts as often as it has rows.

    Raises:
        InvalidInputError: settings or sizes that cannot be, or distances that are not finite.
        CodeError: embeddings that the system cannot take.
    """
    settings.checked()
    if metric not in fitted.metrics:
        raise InvalidInputError(
            f"this system has no {metric} distance, only {', '.join(fitted.metrics)}",
            field="metric",
        )
    searched.check(queries, settings.candidates)
    clock = Clock()
    units = Units.of(searched.rows.owners, settings.windows)
    wanted = Wanted.of(searched.relevance, units)
    search = Search(fitted, queries, metric)
    keep = max(settings.keep, settings.rerank)
    if settings.candidates is not None:
        given = Wanted.of(settings.candidates, units)
        entries = ranked_candidates(search, searched.rows, units, wanted, given, keep)
        ranked = np.diff(given.offsets)
    else:
        entries = _of_all(search, searched, units, wanted, keep, settings, clock)
        ranked = np.full(len(queries), len(units), np.int64)
    if settings.rerank:
        entries = reranked(
            entries, settings.rerank, queries, searched.rows, units, wanted, settings.limits
        )
    if settings.deep:
        entries = entries.to_depth(settings.deep)
    nearest = entries.nearest.first(settings.keep)
    return Ranking(
        entries.ranks(wanted, ranked, settings.deep),
        _items(units, nearest.units),
        nearest.distances,
        nearest.rows,
        clock.seconds,
    )


def _of_all(
    search: Search,
    searched: Searched,
    units: Units,
    wanted: Wanted,
    keep: int,
    settings: Settings,
    clock: Clock,
) -> Entries:
    stored = Stored(search.fitted, searched.rows, units, settings.limits, clock)
    deep = settings.deep
    if deep and len(wanted) and Deep.suits(search, stored, units):
        return Deep(search, stored, units, deep, settings.limits).entries(wanted, keep)
    return Whole(search, stored, units, wanted, keep, settings.limits).entries()


def _items(units: Units, found: Ints) -> Ints:
    if not len(units):
        return found
    return np.where(found < 0, -1, units.items[found])
