"""Over ties: mean, maximum and minimum over every order there is, one by one."""

from __future__ import annotations

from itertools import permutations, product
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.retrieval.measures import Tie, measure, places_of
from benchmarks.retrieval.tasks import Relevance

Ranking = tuple[int, ...]
"""Grades of the ranked items, best first; 0 for what is not relevant."""

CUT = ("AP_hits", "AP_minR", "AP", "nDCG", "Recall", "P", "MRR", "hit")
UNCUT = ("AP", "nDCG", "R-prec", "MRR")


def by_hand(name: str, ranking: Ranking) -> float:
    """A measure of one ranking, written down from its definition with loops."""
    stem, _, digits = name.partition("@")
    relevant = sum(1 for grade in ranking if grade)
    k = int(digits) if digits else relevant if stem == "R-prec" else len(ranking)
    top = ranking[:k]
    hits = [i for i, grade in enumerate(top, start=1) if grade]
    precisions = [n / rank for n, rank in enumerate(hits, start=1)]
    if stem == "nDCG":
        gain = sum(grade / log2(1 + i) for i, grade in enumerate(top, start=1))
        ideal = sorted(ranking, reverse=True)[:k]
        return gain / sum(grade / log2(1 + i) for i, grade in enumerate(ideal, start=1))
    return {
        "AP": sum(precisions) / relevant,
        "AP_minR": sum(precisions) / min(relevant, k),
        "AP_hits": sum(precisions) / max(len(hits), 1),
        "P": len(hits) / k,
        "Recall": len(hits) / relevant,
        "R-prec": len(hits) / k,
        "MRR": 1 / hits[0] if hits else 0.0,
        "hit": float(bool(hits)),
    }[stem]


def orders(groups: list[list[int]]) -> list[Ranking]:
    """Every order of grades in groups of equal distance, as often as permutations give it."""
    inside = [list(permutations(group)) for group in groups]
    return [tuple(g for part in parts for g in part) for parts in product(*inside)]


def run_of(groups: list[list[int]]) -> tuple[np.ndarray, Relevance]:
    """One query whose items are at the distances 0, 1, ... of their groups."""
    grades = np.array([grade for group in groups for grade in group], np.int32)
    distances = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    items = np.flatnonzero(grades)
    return distances[None], Relevance(np.array([0, len(items)]), items, grades[items])


def value(name: str, groups: list[list[int]], tie: Tie, depth: int | None = None) -> float:
    distances, relevance = run_of(groups)
    return float(measure(name).of(places_of(distances, relevance, depth=depth), tie)[0])


grouped = st.lists(
    st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=1, max_size=5), min_size=1, max_size=4
).filter(lambda groups: any(map(any, groups)) and len(orders_bounded(groups)) > 0)


def orders_bounded(groups: list[list[int]]) -> list[list[int]]:
    """The groups, or nothing where there would be too many orders."""
    count = 1
    for group in groups:
        count *= len(list(permutations(group)))
    return groups if count <= 3000 else []


@settings(max_examples=250, deadline=None)
@given(grouped, st.integers(1, 9))
def test_every_measure_agrees_with_all_orders_of_the_ties(groups: list[list[int]], k: int) -> None:
    for name in [f"{stem}@{k}" for stem in CUT] + list(UNCUT):
        values = [by_hand(name, ranking) for ranking in orders(groups)]
        assert value(name, groups, "expected") == pytest.approx(np.mean(values), abs=1e-12), name
        assert value(name, groups, "best") == pytest.approx(max(values), abs=1e-12), name
        assert value(name, groups, "worst") == pytest.approx(min(values), abs=1e-12), name
        in_rows = tuple(grade for group in groups for grade in group)
        assert value(name, groups, "ranked") == pytest.approx(by_hand(name, in_rows)), name
