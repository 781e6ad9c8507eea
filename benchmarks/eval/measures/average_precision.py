"""Average precision, and the three measures called mAP@k.

At each hit within the cutoff the precision is taken; the sum is divided by the number of relevant
items R (`AP`, as trec_eval's ``map`` and ``map_cut`` do), by min(R, k) (`AP_minR`, as INQUIRE
does), so that a perfect top k has the value 1, or by the number of hits in the top k (`AP_hits`, as
papers on hashing do). The last can fall when one more hit enters at the end of the top k, and how
ties fall decides on both parts of the fraction.
"""

from __future__ import annotations

import numpy as np

from bittern.benchmarks.eval.measures.closed_form import mean_over_hits, reciprocals
from bittern.benchmarks.eval.measures.ranks import Floats, Groups, Ints, Ranks, Tie, groups_of


def ap(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Average precision over all relevant items."""
    return ranks.per_query(groups.query, _precisions(groups)) / ranks.relevant


def ap_min_r(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Average precision over as many relevant items as fit above the cutoff."""
    possible = np.minimum(ranks.relevant, np.inf if cutoff is None else cutoff)
    return ranks.per_query(groups.query, _precisions(groups)) / possible


def ap_hits(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Average precision over the hits in the top k."""
    g, slots = groups, groups.slots
    whole = slots == g.tied
    sums = ranks.per_query(g.query, np.where(whole, _precisions(g), 0.0))
    means = _mean(sums, ranks.per_query(g.query, np.where(whole, g.hits, 0)))
    cut = np.flatnonzero((slots > 0) & ~whole)  # at most one group per query

    def mean(x: Floats, row: Ints) -> Floats:
        at = cut[row]
        more = expected_precisions(g.nearer[at], g.before[at], slots[at], x, slots[at])
        return _mean(sums[g.query[at]] + more, g.before[at] + x)

    means[g.query[cut]] = mean_over_hits(g.tied[cut], g.hits[cut], slots[cut], mean)
    return means


def ap_hits_extreme(ranks: Ranks, limit: Ints, tie: Tie) -> Floats:
    """The best or worst `ap_hits` over all orders of the ties.

    Groups that are whole above the cutoff have their hits first (last); how many hits the group at
    the cutoff has above it is chosen.
    """
    g = groups_of(ranks, "expected", limit)
    slots = g.slots
    cut = np.flatnonzero((slots > 0) & (slots < g.tied))
    query = g.query[cut]
    limit_of_whole = limit.copy()
    limit_of_whole[query] = np.minimum(limit[query], g.nearer[cut])
    whole = groups_of(ranks, tie, limit_of_whole)
    sums = ranks.per_query(whole.query, _precisions(whole))
    means = _mean(sums, ranks.per_query(whole.query, whole.slots))
    least = np.maximum(0, slots[cut] - (g.tied[cut] - g.hits[cut]))
    most = np.minimum(g.hits[cut], slots[cut])
    choose = _best if tie == "best" else _worst
    means[query] = choose(sums[query], g.before[cut], g.nearer[cut], slots[cut], least, most)
    return means


def _precisions(groups: Groups) -> Floats:
    """float64 [m], (expected) sums of the precisions at the hits of each group that count."""
    g = groups
    if g.ordered:
        result: Floats = np.where(g.slots > 0, (g.before + 1) / (g.nearer + 1), 0.0)
        return result
    return expected_precisions(g.nearer, g.before, g.tied, g.hits, g.slots)


def expected_precisions(
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
