"""The other measures, all of them by name, and what a measure is by chance."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from bittern.benchmarks.eval.measures.average_precision import (
    AveragePrecision,
    AveragePrecisionOfCutoff,
    AveragePrecisionOfHits,
)
from bittern.benchmarks.eval.measures.base import (
    Floats,
    Groups,
    Ints,
    Measure,
    Order,
    Ranks,
    per_query,
)
from bittern.benchmarks.eval.measures.closed_form import discounts, mean_reciprocal, no_hit
from bittern.errors import InvalidInputError


@dataclass(frozen=True)
class Hit(Measure):
    """Whether there is a relevant item among the first k."""

    stem = "hit"
    about = "1 if any of the first k items is relevant, else 0"
    citation = "success@k: Craswell & Hawking, TREC 2004 web track"
    cut = "always"

    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        first = (order.nth == 1) & (order.rank <= limit[order.query])
        return per_query(ranks, order.query, first)

    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
        first = np.flatnonzero(groups.before == 0)
        slots = groups.slots(limit)[first]
        found = 1 - no_hit(groups.tied[first], groups.hits[first], slots)
        return per_query(ranks, groups.query[first], found)


@dataclass(frozen=True)
class ReciprocalRank(Measure):
    """One over the rank of the first relevant item."""

    stem = "MRR"
    about = "1 / rank of the first relevant item; 0 where it is beyond the cutoff"
    citation = "Voorhees, TREC-8 question answering; ties: McSherry & Najork, ECIR 2008"
    cut = "optional"

    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        first = (order.nth == 1) & (order.rank <= limit[order.query])
        return per_query(ranks, order.query, np.where(first, 1 / order.rank, 0.0))

    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
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
        return per_query(ranks, groups.query[first], means)


@dataclass(frozen=True)
class CountOfHits(Measure):
    """Hits above the cutoff, divided by something that ties do not change.

    A group of g items, h of them hits, has h s/g in its first s positions on average.
    """

    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        hit = order.rank <= limit[order.query]
        return per_query(ranks, order.query, hit) / self._divisor(ranks)

    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
        share = groups.hits * (groups.slots(limit) / groups.tied)
        return per_query(ranks, groups.query, share) / self._divisor(ranks)

    @abstractmethod
    def _divisor(self, ranks: Ranks) -> Ints:
        """int64 [q], at least 1."""


@dataclass(frozen=True)
class Precision(CountOfHits):
    """Precision at k."""

    stem = "P"
    about = "relevant items among the first k, divided by k even where fewer are ranked"
    citation = "trec_eval's P; ties: McSherry & Najork, ECIR 2008"
    cut = "always"

    def _divisor(self, ranks: Ranks) -> Ints:
        return np.full(len(ranks), self.cutoff, np.int64)


@dataclass(frozen=True)
class Recall(CountOfHits):
    """Recall at k."""

    stem = "Recall"
    about = "relevant items among the first k, divided by all relevant items"
    citation = "trec_eval's recall; ties: McSherry & Najork, ECIR 2008"
    cut = "always"

    def _divisor(self, ranks: Ranks) -> Ints:
        return ranks.relevant


@dataclass(frozen=True)
class RPrecision(CountOfHits):
    """Precision at the number of relevant items."""

    stem = "R-prec"
    about = "precision at rank R, where R is the number of relevant items of the query"
    citation = "trec_eval's Rprec; Buckley & Voorhees, SIGIR 2000"
    cut = "never"

    def _limit(self, ranks: Ranks) -> Ints:
        return np.minimum(super()._limit(ranks), ranks.relevant)

    def _divisor(self, ranks: Ranks) -> Ints:
        return ranks.relevant


@dataclass(frozen=True)
class PrecisionInRadius(Measure):
    """Precision within Hamming radius 2; ties do not change it, nor does a depth."""

    stem = "P_H2"
    about = (
        "relevant share of the items within Hamming radius 2; 0 where there are none, undefined "
        "(NaN) for other distances"
    )
    citation = "hash lookup within Hamming radius 2: Liu et al., CVPR 2012 (KSH)"
    cut = "never"

    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        return _share(ranks)

    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
        return _share(ranks)


def _share(ranks: Ranks) -> Floats:
    if ranks.within is None:
        return np.full(len(ranks), np.nan)
    items, relevant = ranks.within.T
    share: Floats = relevant / np.maximum(items, 1)
    return share


@dataclass(frozen=True)
class NDCG(Measure):
    """nDCG with linear gain."""

    stem = "nDCG"
    about = "sum of grade / log2(1 + rank), divided by that of the ideal ranking"
    citation = "trec_eval's ndcg and ndcg_cut; Järvelin & Kekäläinen, TOIS 2002"
    cut = "optional"

    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        gains = np.where(order.rank <= limit[order.query], _discounted(order), 0.0)
        return per_query(ranks, order.query, gains) / self._ideal(ranks)

    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
        discount = discounts(groups.nearer, groups.nearer + groups.slots(limit))
        gains = groups.gain / groups.tied * discount
        return per_query(ranks, groups.query, gains) / self._ideal(ranks)

    def _ideal(self, ranks: Ranks) -> Floats:
        query = np.repeat(np.arange(len(ranks)), np.diff(ranks.ideal_offsets))
        rank = np.arange(1, len(query) + 1) - ranks.ideal_offsets[query]
        gains = _discounted(Order(query, rank, rank, ranks.ideal))
        counted = True if self.cutoff is None else rank <= self.cutoff
        return per_query(ranks, query, np.where(counted, gains, 0.0))


def _discounted(order: Order) -> Floats:
    result: Floats = order.grades / np.log2(1.0 + order.rank)
    return result


_KINDS: tuple[type[Measure], ...] = (
    AveragePrecisionOfHits,
    AveragePrecisionOfCutoff,
    AveragePrecision,
    NDCG,
    RPrecision,
    Recall,
    Precision,
    ReciprocalRank,
    Hit,
    PrecisionInRadius,
)
_BY_STEM = {kind.stem: kind for kind in _KINDS}
_NAME = re.compile(r"([A-Za-z_0-9-]+)(?:@([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Listed:
    """One line of the list of measures.

    Attributes:
        form: how it is written, k standing for a number: ``AP_hits@k``, or ``AP, AP@k``.
        about: what it is.
        citation: where it is defined.
    """

    form: str
    about: str
    citation: str


def _form(kind: type[Measure]) -> str:
    forms = {"always": f"{kind.stem}@k", "never": kind.stem}
    return forms.get(kind.cut, f"{kind.stem}, {kind.stem}@k")


MEASURES = tuple(Listed(_form(kind), kind.about, kind.citation) for kind in _KINDS)
"""All there are."""


def measure(name: str) -> Measure:
    """The measure of a name, e.g. ``AP_minR@50``. Case matters.

    Raises:
        InvalidInputError: there is none, or it lacks its cutoff, or has one too many.
    """
    match = _NAME.fullmatch(name)
    kind = _BY_STEM.get(match[1]) if match else None
    cutoff = int(match[2]) if match and match[2] else None
    if kind is None or kind.cut == ("always" if cutoff is None else "never"):
        raise InvalidInputError(
            f"no measure is called {name[:80]!r}; there are "
            f"{', '.join(listed.form for listed in MEASURES)}, with a whole number from 1 for k, "
            "e.g. AP_minR@50",
            field="measure",
        )
    return kind(cutoff)


_ENTRIES = 1 << 22


def chance(measure: Measure, relevant: Ints, n: int | Ints) -> Floats:
    """Expected value of a measure where all items are at one distance, all grades being 1.

    Args:
        measure: which.
        relevant: int64 [q], relevant items of each query, from 1 to n.
        n: how many items are ranked, for all queries or int64 [q].

    Returns:
        float64 [q]; NaN for a measure of Hamming distances.

    Raises:
        InvalidInputError: a count is not from 1 to n.
    """
    relevant = np.asarray(relevant, np.int64)
    n = np.broadcast_to(np.asarray(n, np.int64), relevant.shape)
    wrong = (relevant < 1) | (relevant > n)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InvalidInputError(
            f"query {at} has {relevant[at]} relevant items of {n[at]}; there must be from 1 to "
            "all: leave out queries that nothing answers"
        )
    pairs, inverse = np.unique(np.stack([relevant, n]), axis=1, return_inverse=True)
    chunks = np.flatnonzero(np.diff(np.cumsum(pairs[0]) // _ENTRIES)) + 1
    values = [
        measure.of(_one_group(*chunk), "expected") for chunk in np.split(pairs, chunks, axis=1)
    ]
    return np.concatenate(values)[inverse.reshape(-1)]


def _one_group(relevant: Ints, n: Ints) -> Ranks:
    offsets = np.concatenate([[0], np.cumsum(relevant)]).astype(np.int64)
    query = np.repeat(np.arange(len(relevant)), relevant)
    ones = np.ones(len(query), np.int32)
    return Ranks(
        offsets=offsets,
        rank=np.arange(1, len(query) + 1) - offsets[query],
        nearer=np.zeros(len(query), np.int64),
        tied=n[query],
        grades=ones,
        relevant=relevant,
        ideal=ones,
        ideal_offsets=offsets,
        ranked=n,
    )
