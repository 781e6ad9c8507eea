"""Measures of the first relevant item: hit@k and the reciprocal rank.

Only the nearest group that has a relevant item matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittern.benchmarks.eval.measures.base import Measure
from bittern.benchmarks.eval.measures.draws import mean_reciprocal, no_hit
from bittern.benchmarks.eval.measures.ties import Floats, Groups, Ints, Order, per_query
from bittern.benchmarks.eval.places import Places


@dataclass(frozen=True)
class Hit(Measure):
    """Whether there is a relevant item among the first k."""

    stem = "hit"
    about = "1 if any of the first k items is relevant, else 0"
    citation = "success@k: Craswell & Hawking, TREC 2004 web track"
    cut = "always"

    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        first = (order.nth == 1) & (order.ranks <= limit[order.query])
        return per_query(places, order.query, first)

    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        first = np.flatnonzero(groups.before == 0)
        slots = groups.slots(limit)[first]
        found = 1 - no_hit(groups.tied[first], groups.hits[first], slots)
        return per_query(places, groups.query[first], found)


@dataclass(frozen=True)
class ReciprocalRank(Measure):
    """One over the rank of the first relevant item."""

    stem = "MRR"
    about = "1 / rank of the first relevant item; 0 where it is beyond the cutoff"
    citation = "Voorhees, TREC-8 question answering; ties: McSherry & Najork, ECIR 2008"
    cut = "optional"

    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        first = (order.nth == 1) & (order.ranks <= limit[order.query])
        return per_query(places, order.query, np.where(first, 1 / order.ranks, 0.0))

    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        """Over the whole group; less what the orders with no hit above the cutoff have of it, for
        which the rest of the group is a group of its own.
        """
        first = np.flatnonzero((groups.before == 0) & (groups.slots(limit) > 0))
        nearer, tied, hits = groups.nearer[first], groups.tied[first], groups.hits[first]
        slots = groups.slots(limit)[first]
        means = mean_reciprocal(nearer, tied, hits)
        missed = no_hit(tied, hits, slots)
        late = np.flatnonzero((slots < tied) & (missed > 0))
        beyond = slots[late]
        means[late] -= missed[late] * mean_reciprocal(
            nearer[late] + beyond, tied[late] - beyond, hits[late]
        )
        return per_query(places, groups.query[first], means)
