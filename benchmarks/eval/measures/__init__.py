"""Retrieval measures, computed from the ranks of relevant items.

    measure("AP_minR@50").of(ranks, "expected")    float64 [q]

`ranks` has ranks and groups of equal distance, `measures` the list of all measures, `closed_form`
the arithmetic of random orders. Three different measures are called mAP@k; here they are
``AP_hits@k`` (papers on hashing), ``AP_minR@k`` (INQUIRE) and ``AP@k`` (trec_eval).
"""

from bittern.benchmarks.eval.measures.measures import KINDS, Kind, Measure, chance, measure
from bittern.benchmarks.eval.measures.ranks import TIES, Ranks, Tie

__all__ = ["KINDS", "TIES", "Kind", "Measure", "Ranks", "Tie", "chance", "measure"]
