"""Average precision over the hits in the top k: mAP@k as papers on hashing use it.

The sum of the precisions at the hits in the top k is divided by the number of those hits, and is
0 where there are none. So it can fall when one more hit enters at the end of the top k, and how
ties fall decides on both parts of the fraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bittern.benchmarks.eval.measures.average_precision import precisions
from bittern.benchmarks.eval.measures.base import Measure
from bittern.benchmarks.eval.measures.draws import mean_over_hits
from bittern.benchmarks.eval.measures.sums import reciprocals
from bittern.benchmarks.eval.measures.ties import (
    Floats,
    Groups,
    Ints,
    Order,
    groups_of,
    order_of,
    per_query,
)
from bittern.benchmarks.eval.places import Places


@dataclass(frozen=True)
class AveragePrecisionOfHits(Measure):
    """Average precision over the hits in the top k."""

    stem = "AP_hits"
    about = "mean precision at the hits in the top k; 0 where there are none"
    citation = "mAP@k of papers on hashing, e.g. CroVCA (arXiv 2510.27584)"
    cut = "always"

    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        hit = order.ranks <= limit[order.query]
        sums = per_query(places, order.query, np.where(hit, order.nth / order.ranks, 0.0))
        return _mean(sums, per_query(places, order.query, hit))

    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        g, slots = groups, groups.slots(limit)
        whole = slots == g.tied
        parts = np.where(whole, precisions(g.nearer, g.before, g.tied, g.hits, slots), 0.0)
        sums = per_query(places, g.query, parts)
        means = _mean(sums, per_query(places, g.query, np.where(whole, g.hits, 0)))
        cut = np.flatnonzero((slots > 0) & ~whole)  # at most one group per query

        def mean(x: Floats, row: Ints) -> Floats:
            at = cut[row]
            more = precisions(g.nearer[at], g.before[at], slots[at], x, slots[at])
            return _mean(sums[g.query[at]] + more, g.before[at] + x)

        means[g.query[cut]] = mean_over_hits(g.tied[cut], g.hits[cut], slots[cut], mean)
        return means

    def _extreme(self, places: Places, limit: Ints, tie: Literal["best", "worst"]) -> Floats:
        """Groups that are whole above the cutoff have their hits first (last); how many hits the
        group at the cutoff has above it is chosen.
        """
        g = groups_of(places)
        slots = g.slots(limit)
        cut = np.flatnonzero((slots > 0) & (slots < g.tied))
        order, whole = order_of(places, tie), np.full(len(places), np.iinfo(np.int64).max)
        whole[g.query[cut]] = g.nearer[cut]
        limit_of_whole = np.minimum(limit, whole)
        inside = order.ranks <= limit_of_whole[order.query]
        sums = per_query(places, order.query, np.where(inside, order.nth / order.ranks, 0.0))
        means = _mean(sums, per_query(places, order.query, inside))
        query = g.query[cut]
        least = np.maximum(0, slots[cut] - (g.tied[cut] - g.hits[cut]))
        most = np.minimum(g.hits[cut], slots[cut])
        choose = _best if tie == "best" else _worst
        means[query] = choose(sums[query], g.before[cut], g.nearer[cut], slots[cut], least, most)
        return means


def _mean(sums: Floats, hits: Floats | Ints) -> Floats:
    result: Floats = np.where(hits > 0, sums / np.maximum(hits, 1), 0.0)
    return result


def _best(sums: Floats, c: Ints, nearer: Ints, slots: Ints, least: Ints, most: Ints) -> Floats:
    """With x hits in front the i-th adds (c+i)/(nearer+i), which rises with i: so the mean falls
    first, if at all, and rises then, and is largest at one of the ends.
    """

    def mean(x: Ints) -> Floats:
        return _mean(sums + x + (c - nearer) * reciprocals(nearer, nearer + x), c + x)

    return np.maximum(mean(least), mean(most))


def _worst(sums: Floats, c: Ints, nearer: Ints, slots: Ints, least: Ints, most: Ints) -> Floats:
    """With x hits at the end E of the slots the sum of precisions is that of (c+i)/(E-x+i). One
    hit more adds (c+1)/(E-x) + 1/(E-x+1) + ... + 1/E, which rises with x: so the mean falls, and
    rises once that is above it. Where that begins is found by halving.
    """
    end = nearer + slots

    def mean(x: Ints) -> Floats:
        return _mean(sums + x + (c - end + x) * reciprocals(end - x, end), c + x)

    low, high = least.copy(), most.copy()
    while (low < high).any():
        x = (low + high) // 2
        one_more = (c + 1) / np.maximum(end - x, 1) + reciprocals(end - x, end)
        rises = one_more >= mean(x)
        high = np.where(rises, x, high)
        low = np.where(rises | (low == high), low, x + 1)
    return mean(low)
