"""Retrieval measures over places, one small file each.

    measure("AP_minR@50").of(places, "expected")    float64 [q]

`ties` has the groups of equal distance, `sums` and `draws` the arithmetic of random orders in
closed form, `full_sort` makes places of few queries by plain sorting. Three different things are
called mAP@k; here they are ``AP_hits@k`` (papers on hashing), ``AP_minR@k`` (INQUIRE) and
``AP@k`` (trec_eval).
"""

from bittern.benchmarks.eval.measures.base import Measure, Tie
from bittern.benchmarks.eval.measures.measures import MEASURES, Listed, chance, measure
from bittern.benchmarks.eval.measures.sorting import ranks_of

__all__ = ["MEASURES", "Listed", "Measure", "Tie", "chance", "measure", "ranks_of"]
