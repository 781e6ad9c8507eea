"""Measures that count hits above a cutoff: precision, recall, R-precision."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from bittern.benchmarks.eval.measures.base import Measure
from bittern.benchmarks.eval.measures.ties import Floats, Groups, Ints, Order, per_query
from bittern.benchmarks.eval.places import Places


@dataclass(frozen=True)
class CountOfHits(Measure):
    """Hits above the cutoff, divided by something that ties do not change.

    A group of g items, h of them hits, has h s/g in its first s places on average.
    """

    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        hit = order.ranks <= limit[order.query]
        return per_query(places, order.query, hit) / self._divisor(places)

    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        share = groups.hits * (groups.slots(limit) / groups.tied)
        return per_query(places, groups.query, share) / self._divisor(places)

    @abstractmethod
    def _divisor(self, places: Places) -> Ints:
        """int64 [q], at least 1."""


@dataclass(frozen=True)
class Precision(CountOfHits):
    """Precision at k."""

    stem = "P"
    about = "relevant items among the first k, divided by k even where fewer are ranked"
    citation = "trec_eval's P; ties: McSherry & Najork, ECIR 2008"
    cut = "always"

    def _divisor(self, places: Places) -> Ints:
        return np.full(len(places), self.cutoff, np.int64)


@dataclass(frozen=True)
class Recall(CountOfHits):
    """Recall at k."""

    stem = "Recall"
    about = "relevant items among the first k, divided by all relevant items"
    citation = "trec_eval's recall; ties: McSherry & Najork, ECIR 2008"
    cut = "always"

    def _divisor(self, places: Places) -> Ints:
        return places.relevant


@dataclass(frozen=True)
class RPrecision(CountOfHits):
    """Precision at the number of relevant items."""

    stem = "R-prec"
    about = "precision at rank R, where R is the number of relevant items of the query"
    citation = "trec_eval's Rprec; Buckley & Voorhees, SIGIR 2000"
    cut = "never"

    def _limit(self, places: Places) -> Ints:
        return np.minimum(super()._limit(places), places.relevant)

    def _divisor(self, places: Places) -> Ints:
        return places.relevant
