"""Retrieval measures, computed from the ranks of relevant items.

    measure("AP_minR@50").of(ranks, "expected")    float64 [q]

`base` has ranks, groups of equal distance and the class `Measure`; `closed_form` the arithmetic of
random orders. Three different measures are called mAP@k; here they are ``AP_hits@k`` (papers on
hashing), ``AP_minR@k`` (INQUIRE) and ``AP@k`` (trec_eval).
"""

from bittern.benchmarks.eval.measures.base import Measure, Tie
from bittern.benchmarks.eval.measures.measures import MEASURES, Listed, chance, measure

__all__ = ["MEASURES", "Listed", "Measure", "Tie", "chance", "measure"]
