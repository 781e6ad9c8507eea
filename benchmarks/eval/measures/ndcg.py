"""Normalised discounted cumulative gain, with gain = grade and discount 1 / log2(1 + rank).

The ideal is that of all relevant items of the query, cut at k as the ranking is. A depth of the
ranking does not cut the ideal of a measure without cutoff.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittern.benchmarks.eval.measures.base import Measure
from bittern.benchmarks.eval.measures.sums import discounts
from bittern.benchmarks.eval.measures.ties import Floats, Groups, Ints, Order, per_query
from bittern.benchmarks.eval.places import Places


@dataclass(frozen=True)
class NDCG(Measure):
    """nDCG with linear gain."""

    stem = "nDCG"
    about = "sum of grade / log2(1 + rank), divided by that of the ideal ranking"
    citation = "trec_eval's ndcg and ndcg_cut; Järvelin & Kekäläinen, TOIS 2002"
    cut = "optional"

    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        gains = np.where(order.ranks <= limit[order.query], _discounted(order), 0.0)
        return per_query(places, order.query, gains) / self._ideal(places)

    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        discount = discounts(groups.nearer, groups.nearer + groups.slots(limit))
        gains = groups.gain / groups.tied * discount
        return per_query(places, groups.query, gains) / self._ideal(places)

    def _ideal(self, places: Places) -> Floats:
        query = np.repeat(np.arange(len(places)), np.diff(places.ideal_offsets))
        ranks = np.arange(1, len(query) + 1) - places.ideal_offsets[query]
        gains = _discounted(Order(query, ranks, ranks, places.ideal))
        counted = True if self.cutoff is None else ranks <= self.cutoff
        return per_query(places, query, np.where(counted, gains, 0.0))


def _discounted(order: Order) -> Floats:
    result: Floats = order.grades / np.log2(1.0 + order.ranks)
    return result
