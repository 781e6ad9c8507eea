"""Precision of hash table look-up: among all items within Hamming radius 2 of the query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bittern.benchmarks.eval.measures.base import Measure
from bittern.benchmarks.eval.measures.ties import Floats, Groups, Ints, Order
from bittern.benchmarks.eval.places import Places


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

    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        return _share(places)

    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        return _share(places)


def _share(places: Places) -> Floats:
    if places.within is None:
        return np.full(len(places), np.nan)
    items, relevant = places.within.T
    share: Floats = relevant / np.maximum(items, 1)
    return share
