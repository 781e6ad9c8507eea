"""Ranking: from queries and a fitted system to the ranks of each query's relevant items.

    units.py   what is ranked, and the settings of a ranking
    whole.py   everything is ranked, in bounded memory
    deep.py    to a depth by the product's search engine; given candidates only; re-ranking
    run.py     `rank` chooses among these

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
