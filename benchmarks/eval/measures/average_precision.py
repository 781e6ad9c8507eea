"""Average precision, and the three measures called mAP@k.

At each hit within the cutoff the precision is taken; the sum is divided by the number of relevant
items R (`AP`, as trec_eval's ``map`` and ``map_cut`` do), by min(R, k) (`AP_minR`, as INQUIRE
does), so that a perfect top k has the value 1, or by the number of hits in the top k (`AP_hits`, as
papers on hashing do). The last can fall when one more hit enters at the end of the top k, and how
ties fall decides on both parts of the fraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bittern.benchmarks.eval.measures.base import (
    Cut,
    Floats,
    Groups,
    Ints,
    Measure,
    Order,
    Ranks,
    groups_of,
    order_of,
    per_query,
)
from bittern.benchmarks.eval.measures.closed_form import mean_over_hits, reciprocals


def precisions(
    nearer: Ints, before: Ints, slots: Ints, hits: Ints | Floats, counted: Ints
) -> Floats:
    """Expected sum of the precisions at hits, for `hits` in random order in `slots` positions, of
    which only the first `counted` count; elementwise, 0 where there are no slots.

    A position holds a hit with probability h/s, and then each earlier one of the group does with
    probability p = (h-1)/(s-1). With L items nearer, c of them relevant, that is

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

    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        precision = np.where(order.rank <= limit[order.query], order.nth / order.rank, 0.0)
        return per_query(ranks, order.query, precision) / self._divisor(ranks)

    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
        g = groups
        chunks = precisions(g.nearer, g.before, g.tied, g.hits, g.slots(limit))
        return per_query(ranks, g.query, chunks) / self._divisor(ranks)

    def _divisor(self, ranks: Ranks) -> Ints:
        return ranks.relevant


@dataclass(frozen=True)
class AveragePrecisionOfCutoff(AveragePrecision):
    """Average precision over as many relevant items as fit above the cutoff."""

    stem = "AP_minR"
    about = "sum of the precisions at the hits in the top k, divided by min(relevant items, k)"
    citation = "INQUIRE: Vendrow et al., NeurIPS 2024 (arXiv 2411.02537)"
    cut = "always"

    def _divisor(self, ranks: Ranks) -> Ints:
        return ranks.relevant if self.cutoff is None else np.minimum(ranks.relevant, self.cutoff)


@dataclass(frozen=True)
class AveragePrecisionOfHits(Measure):
    """Average precision over the hits in the top k."""

    stem = "AP_hits"
    about = "mean precision at the hits in the top k; 0 where there are none"
    citation = "mAP@k of papers on hashing, e.g. CroVCA (arXiv 2510.27584)"
    cut = "always"

    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        hit = order.rank <= limit[order.query]
        sums = per_query(ranks, order.query, np.where(hit, order.nth / order.rank, 0.0))
        return _mean(sums, per_query(ranks, order.query, hit))

    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
        g, slots = groups, groups.slots(limit)
        whole = slots == g.tied
        chunks = np.where(whole, precisions(g.nearer, g.before, g.tied, g.hits, slots), 0.0)
        sums = per_query(ranks, g.query, chunks)
        means = _mean(sums, per_query(ranks, g.query, np.where(whole, g.hits, 0)))
        cut = np.flatnonzero((slots > 0) & ~whole)  # at most one group per query

        def mean(x: Floats, row: Ints) -> Floats:
            at = cut[row]
            more = precisions(g.nearer[at], g.before[at], slots[at], x, slots[at])
            return _mean(sums[g.query[at]] + more, g.before[at] + x)

        means[g.query[cut]] = mean_over_hits(g.tied[cut], g.hits[cut], slots[cut], mean)
        return means

    def _extreme(self, ranks: Ranks, limit: Ints, tie: Literal["best", "worst"]) -> Floats:
        """Groups that are whole above the cutoff have their hits first (last); how many hits the
        group at the cutoff has above it is chosen.
        """
        g = groups_of(ranks)
        slots = g.slots(limit)
        cut = np.flatnonzero((slots > 0) & (slots < g.tied))
        order, whole = order_of(ranks, tie), np.full(len(ranks), np.iinfo(np.int64).max)
        whole[g.query[cut]] = g.nearer[cut]
        limit_of_whole = np.minimum(limit, whole)
        inside = order.rank <= limit_of_whole[order.query]
        sums = per_query(ranks, order.query, np.where(inside, order.nth / order.rank, 0.0))
        means = _mean(sums, per_query(ranks, order.query, inside))
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
