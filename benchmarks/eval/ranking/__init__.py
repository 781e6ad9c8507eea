"""Ranking: from queries and a fitted system to where the relevant items of each query stand.

    whole.py        everything is ranked, in bounded memory
    deep.py         codes, by the product's search engine, down to a depth
    candidates.py   only the items that are given for each query
    reranking.py    the nearest ones anew, by float cosine

The order is the product's: (distance, row). An item of several rows (windows of a recording)
counts by its nearest row, or by the mean over its rows.
"""

from __future__ import annotations

from bittern.benchmarks.eval.ranking.run import rank
from bittern.benchmarks.eval.ranking.units import (
    Limits,
    Ranking,
    Searched,
    Settings,
    default_depth,
)

__all__ = ["Limits", "Ranking", "Searched", "Settings", "default_depth", "rank"]
