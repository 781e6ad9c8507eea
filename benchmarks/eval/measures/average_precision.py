"""Average precision, and two of the three things called mAP@k.

At each hit within the cutoff the precision is taken; the sum is divided by the number of relevant
items R (`AP`, as trec_eval's ``map`` and ``map_cut`` do), or by min(R, k) (`AP_minR`, as INQUIRE
does), so that a perfect top k has the value 1. The third is in `average_precision_of_hits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bittern.benchmarks.eval.measures.base import Cut, Measure
from bittern.benchmarks.eval.measures.sums import reciprocals
from bittern.benchmarks.eval.measures.ties import Floats, Groups, Ints, Order, per_query
from bittern.benchmarks.eval.places import Places


def precisions(
    nearer: Ints, before: Ints, slots: Ints, hits: Ints | Floats, counted: Ints
) -> Floats:
    """Expected sum of the precisions at hits, for `hits` in random order in `slots` places, of
    which only the first `counted` count; elementwise, 0 where there are no slots.

    A place holds a hit with probability h/s, and then each earlier place of the group holds one
    with probability p = (h-1)/(s-1). With L items nearer, c of them relevant, that is

        h/s * sum over j = 1..counted of (c + 1 + (j-1) p) / (L + j)
            = h/s * (counted p + (c + 1 - (L+1) p) * (sum of 1/i over L < i <= L + counted)).
    """
    pair = (hits - 1) / np.maximum(slots - 1, 1)
    harmonic = reciprocals(nearer, nearer + counted)
    total = counted * pair + (before + 1 - (nearer + 1) * pair) * harmonic
    result: Floats = hits / np.maximum(slots, 1) * total
    return result


@dataclass(frozen=True)
class AveragePrecision(Measure):
    """Average precision over all relevant items."""

    stem = "AP"
    about = "mean precision at the ranks of the relevant items; those beyond the cutoff count 0"
    citation = "trec_eval's map and map_cut; ties: McSherry & Najork, ECIR 2008"
    cut: ClassVar[Cut] = "optional"

    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        precision = np.where(order.ranks <= limit[order.query], order.nth / order.ranks, 0.0)
        return per_query(places, order.query, precision) / self._divisor(places)

    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        g = groups
        parts = precisions(g.nearer, g.before, g.tied, g.hits, g.slots(limit))
        return per_query(places, g.query, parts) / self._divisor(places)

    def _divisor(self, places: Places) -> Ints:
        return places.relevant


@dataclass(frozen=True)
class AveragePrecisionOfCutoff(AveragePrecision):
    """Average precision over as many relevant items as fit above the cutoff."""

    stem = "AP_minR"
    about = "sum of the precisions at the hits in the top k, divided by min(relevant items, k)"
    citation = "INQUIRE: Vendrow et al., NeurIPS 2024 (arXiv 2411.02537)"
    cut = "always"

    def _divisor(self, places: Places) -> Ints:
        return places.relevant if self.cutoff is None else np.minimum(places.relevant, self.cutoff)
