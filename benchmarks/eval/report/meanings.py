"""What each measure says, in one sentence for the reader of a page."""

from __future__ import annotations

_MEANINGS = {
    "AP_minR": (
        "average precision of the first {k} ranks, divided by the number of right items or {k}, "
        "whichever is smaller (INQUIRE's AP@k)"
    ),
    "AP_hits": (
        "average precision of the first {k} ranks, divided by the right items found there "
        "(hashing papers' mAP@k; 0 if none is found)"
    ),
    "AP": (
        "average precision: the mean, over all right items, of the precision at their ranks "
        "(trec_eval's map)"
    ),
    "AP@": (
        "average precision of the first {k} ranks, divided by the number of all right items: what "
        "lies deeper counts as not found (trec_eval's map_cut)"
    ),
    "nDCG": (
        "discounted cumulative gain, an item's grade divided by the logarithm of its rank, "
        "relative to the best possible order (trec_eval's ndcg_cut)"
    ),
    "R-prec": "precision at the rank that equals the number of right items",
    "Recall": "share of the right items that are among the first {k}",
    "P": "share of the first {k} items that are right",
    "MRR": "one divided by the rank of the first right item",
    "hit": "share of the queries with a right item among the first {k}",
    "P_H2": (
        "share of right items among all within Hamming distance 2 of the query, 0 where nothing "
        "is so near; other distances have none"
    ),
}


def meaning(measure: str) -> str:
    """What a measure of this name says; empty where the name is not known here."""
    base, at, depth = measure.partition("@")
    return _MEANINGS.get(base + at, _MEANINGS.get(base, "")).format(k=depth or "k")
