"""Ranking: from queries and a fitted system to the ranks of each query's relevant items.

    units.py   what is ranked, and what a system stores of it
    whole.py   everything is ranked, in bounded memory
    deep.py    to a depth by the product's search engine; given candidates only; re-ranking

`rank` chooses among these. The order is the product's: (distance, row). An item of several rows
(windows of a recording) counts by its nearest row, or by the mean over its rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.measures.ranks import Ranks
from bittern.benchmarks.eval.ranking.deep import Deep, ranked_candidates, reranked
from bittern.benchmarks.eval.ranking.units import Limits, Stored, Units, Wanted
from bittern.benchmarks.eval.ranking.whole import Search, Whole
from bittern.benchmarks.eval.systems.base import Fitted, Metric
from bittern.benchmarks.eval.tasks import Relevance

__all__ = ["Limits", "Ranking", "Searched", "Settings", "rank"]


@dataclass(frozen=True)
class Settings:
    """How items are ranked.

    Attributes:
        mean: an item counts by the mean over its rows; else by its nearest row.
        depth: ranks beyond it need not be known; None or 0 for everything.
        candidates: the only items that are ranked for each query, where a benchmark gives them.
            Relevant items that are not among them count as relevant all the same.
        rerank: so many of the nearest are re-ranked by float cosine; 0 for none.
        keep: so many of the nearest are returned; no more than the depth.
        limits: memory and threads.
    """

    mean: bool = False
    depth: int | None = None
    candidates: Relevance | None = None
    rerank: int = 0
    keep: int = 0
    limits: Limits = field(default_factory=Limits)

    @property
    def deep(self) -> int | None:
        """How deep is ranked: no less than is re-ranked; None for everything."""
        return max(self.depth, self.rerank) if self.depth and self.candidates is None else None


@dataclass(frozen=True)
class Searched:
    """What is searched, and what is right.

    Attributes:
        rows: the items' embeddings.
        relevance: which items answer which query. Those without a row are never found, but count
            as relevant.
    """

    rows: EmbeddedRows
    relevance: Relevance


@dataclass(frozen=True)
class Ranking:
    """What was found.

    Attributes:
        ranks: where the relevant items stand.
        hits: int64 [q, h], the nearest items in order, -1 where there are no more.
        distances: float64 [q, h], theirs; infinite where there are no more. Of items that were
            re-ranked it is 1 - cosine, of those behind them still the system's.
        rows: int64 [q, h], the row of each hit that was nearest; -1 where there is none.
    """

    ranks: Ranks
    hits: NDArray[np.int64]
    distances: NDArray[np.float64]
    rows: NDArray[np.int64]


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

    Raises:
        InvalidInputError: no such distance, or distances that are not finite.
        CodeError: embeddings that the system cannot take.
    """
    rows, limits, deep = searched.rows, settings.limits, settings.deep
    units = Units.of(rows.owners, settings.mean)
    wanted = Wanted.of(searched.relevance, units)
    keep = max(settings.keep, settings.rerank)
    search = Search(fitted, queries, metric, units, wanted, keep, limits)
    ranked = np.full(len(queries), len(units), np.int64)
    if settings.candidates is not None:
        candidates = Wanted.of(settings.candidates, units)
        entries = ranked_candidates(search, rows, candidates)
        ranked = np.diff(candidates.offsets)
    else:
        stored = Stored.of(fitted, rows, units, limits)
        if deep and len(queries) and Deep.suits(search, stored):
            entries = Deep(search, stored, deep).entries()
        else:
            entries = Whole(search, stored).entries()
    if settings.rerank:
        entries = reranked(search, entries, settings.rerank, rows)
    if deep:
        entries = entries.to_depth(deep)
    nearest = entries.nearest[:, : settings.keep]
    hits = units.items[nearest["unit"]] if len(units) else nearest["unit"]
    return Ranking(
        entries.ranks(wanted, ranked, deep),
        np.where(nearest["unit"] < 0, -1, hits),
        nearest["distance"],
        nearest["row"],
    )
