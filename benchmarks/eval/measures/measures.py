"""All measures by name, and what a measure is by chance.

A measure is one function: of groups of equal distance it gives the mean over random orders of the
ties, of relevant items in one order their value. Except for `AP_hits`, measures only gain when a
hit moves up, so their extremes are their values in the best and worst order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bittern.benchmarks.eval.measures.average_precision import (
    ap,
    ap_hits,
    ap_hits_extreme,
    ap_min_r,
)
from bittern.benchmarks.eval.measures.closed_form import discounts, mean_reciprocal, no_hit
from bittern.benchmarks.eval.measures.ranks import TIES, Floats, Groups, Ints, Ranks, Tie, groups_of
from bittern.errors import InvalidInputError


def hit(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Whether there is a relevant item among the first k."""
    first = np.flatnonzero(groups.before == 0)
    missed = no_hit(groups.tied[first], groups.hits[first], groups.slots[first])
    return ranks.per_query(groups.query[first], 1 - missed)


def reciprocal_rank(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """One over the rank of the first relevant item.

    Over the whole group; less what the orders with no hit above the cutoff have of it, for which
    the rest of the group is a group of its own.
    """
    first = np.flatnonzero((groups.before == 0) & (groups.slots > 0))
    nearer, tied, hits = groups.nearer[first], groups.tied[first], groups.hits[first]
    slots = groups.slots[first]
    means = mean_reciprocal(nearer, tied, hits)
    missed = no_hit(tied, hits, slots)
    late = np.flatnonzero((slots < tied) & (missed > 0))
    beyond = slots[late]
    means[late] -= missed[late] * mean_reciprocal(
        nearer[late] + beyond, tied[late] - beyond, hits[late]
    )
    return ranks.per_query(groups.query[first], means)


def _hits(ranks: Ranks, groups: Groups) -> Floats:
    """Hits that count: a group of g items, h of them hits, has h s/g in its first s positions."""
    return ranks.per_query(groups.query, groups.hits * (groups.slots / groups.tied))


def precision(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Precision at k."""
    assert cutoff is not None
    return _hits(ranks, groups) / cutoff


def recall(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Recall at k."""
    return _hits(ranks, groups) / ranks.relevant


def r_precision(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Precision at the number of relevant items."""
    cut = replace(groups, limit=np.minimum(groups.limit, ranks.relevant))
    return _hits(ranks, cut) / ranks.relevant


def precision_in_radius(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """Precision within Hamming radius 2; ties do not change it, nor does a depth."""
    if ranks.within is None:
        return np.full(len(ranks), np.nan)
    items, relevant = ranks.within.T
    share: Floats = relevant / np.maximum(items, 1)
    return share


def ndcg(ranks: Ranks, groups: Groups, cutoff: int | None) -> Floats:
    """NDCG with linear gain."""
    if groups.ordered:
        gains = np.where(groups.slots > 0, groups.gain / np.log2(2.0 + groups.nearer), 0.0)
    else:
        discount = discounts(groups.nearer, groups.nearer + groups.slots)
        gains = groups.gain / groups.tied * discount
    query = np.repeat(np.arange(len(ranks)), np.diff(ranks.ideal_offsets))
    rank = np.arange(1, len(query) + 1) - ranks.ideal_offsets[query]
    counted = True if cutoff is None else rank <= cutoff
    ideal = ranks.per_query(query, np.where(counted, ranks.ideal / np.log2(1.0 + rank), 0.0))
    return ranks.per_query(groups.query, gains) / ideal


@dataclass(frozen=True)
class Kind:
    """A measure without its cutoff.

    Attributes:
        stem: its name without the cutoff.
        cut: whether it has a cutoff.
        value: its value for each query, float64 [q], of ranks, groups and cutoff.
        about: what it is, in one line.
        citation: where it is defined.
        extreme: its best or worst value, where that is not the value in the best or worst order.
    """

    stem: str
    cut: Literal["always", "optional", "never"]
    value: Callable[[Ranks, Groups, int | None], Floats]
    about: str
    citation: str
    extreme: Callable[[Ranks, Ints, Tie], Floats] | None = None

    @property
    def form(self) -> str:
        """How it is written, k standing for a number: ``AP_hits@k``, or ``AP, AP@k``."""
        forms = {"always": f"{self.stem}@k", "never": self.stem}
        return forms.get(self.cut, f"{self.stem}, {self.stem}@k")


KINDS = (
    Kind(
        "AP_hits",
        "always",
        ap_hits,
        "mean precision at the hits in the top k; 0 where there are none",
        "mAP@k of papers on hashing, e.g. CroVCA (arXiv 2510.27584)",
        ap_hits_extreme,
    ),
    Kind(
        "AP_minR",
        "always",
        ap_min_r,
        "sum of the precisions at the hits in the top k, divided by min(relevant items, k)",
        "INQUIRE: Vendrow et al., NeurIPS 2024 (arXiv 2411.02537)",
    ),
    Kind(
        "AP",
        "optional",
        ap,
        "mean precision at the ranks of the relevant items; those beyond the cutoff count 0",
        "trec_eval's map and map_cut; ties: McSherry & Najork, ECIR 2008",
    ),
    Kind(
        "nDCG",
        "optional",
        ndcg,
        "sum of grade / log2(1 + rank), divided by that of the ideal ranking",
        "trec_eval's ndcg and ndcg_cut; Järvelin & Kekäläinen, TOIS 2002",
    ),
    Kind(
        "R-prec",
        "never",
        r_precision,
        "precision at rank R, where R is the number of relevant items of the query",
        "trec_eval's Rprec; Buckley & Voorhees, SIGIR 2000",
    ),
    Kind(
        "Recall",
        "always",
        recall,
        "relevant items among the first k, divided by all relevant items",
        "trec_eval's recall; ties: McSherry & Najork, ECIR 2008",
    ),
    Kind(
        "P",
        "always",
        precision,
        "relevant items among the first k, divided by k even where fewer are ranked",
        "trec_eval's P; ties: McSherry & Najork, ECIR 2008",
    ),
    Kind(
        "MRR",
        "optional",
        reciprocal_rank,
        "1 / rank of the first relevant item; 0 where it is beyond the cutoff",
        "Voorhees, TREC-8 question answering; ties: McSherry & Najork, ECIR 2008",
    ),
    Kind(
        "hit",
        "always",
        hit,
        "1 if any of the first k items is relevant, else 0",
        "success@k: Craswell & Hawking, TREC 2004 web track",
    ),
    Kind(
        "P_H2",
        "never",
        precision_in_radius,
        "relevant share of the items within Hamming radius 2; 0 where there are none, undefined "
        "(NaN) for other distances",
        "hash lookup within Hamming radius 2: Liu et al., CVPR 2012 (KSH)",
    ),
)
_BY_STEM = {kind.stem: kind for kind in KINDS}
_NAME = re.compile(r"([A-Za-z_0-9-]+)(?:@([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Measure:
    """A retrieval measure.

    Attributes:
        kind: which.
        cutoff: only ranks up to it count; None where the measure has none. Where the ranking is
            known to a depth only, a measure without cutoff is cut at that depth.
    """

    kind: Kind
    cutoff: int | None = None

    @property
    def name(self) -> str:
        """E.g. ``AP_minR@50``."""
        return self.kind.stem if self.cutoff is None else f"{self.kind.stem}@{self.cutoff}"

    def of(self, ranks: Ranks, tie: Tie) -> Floats:
        """Its value for each query.

        Args:
            ranks: where the relevant items stand.
            tie: ``ranked``, the order (distance, row); ``expected``, the mean over uniformly
                random orders inside every group of equal distance; ``best`` and ``worst``, the
                extremes over those orders, query by query.

        Returns:
            float64 [q].

        Raises:
            InvalidInputError: the cutoff is beyond the depth to which ranks are known, or `tie`
                is something else.
        """
        if tie not in TIES:
            raise InvalidInputError(f"no such way to treat ties: {tie!r}; one of {TIES}")
        limit = self._limit(ranks)
        if self.kind.extreme and tie in ("best", "worst"):
            return self.kind.extreme(ranks, limit, tie)
        return self.kind.value(ranks, groups_of(ranks, tie, limit), self.cutoff)

    def _limit(self, ranks: Ranks) -> Ints:
        """int64 [q], the last rank that counts."""
        limit, depth = ranks.ranked, ranks.depth
        if depth is not None and (limit > depth).any():
            if self.cutoff is not None and self.cutoff > depth:
                raise InvalidInputError(
                    f"{self.name} looks at {self.cutoff} ranks, and only {depth} are known: rank "
                    f"deeper, or ask for {self.kind.stem}@{depth}"
                )
            limit = np.minimum(limit, depth)
        return limit if self.cutoff is None else np.minimum(limit, self.cutoff)


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
            f"{', '.join(kind.form for kind in KINDS)}, with a whole number from 1 for k, "
            "e.g. AP_minR@50",
            field="measure",
        )
    return Measure(kind, cutoff)


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
