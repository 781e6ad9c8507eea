"""Over ties: mean, maximum and minimum over every order there is, one by one."""

from __future__ import annotations

from itertools import permutations, product
from math import log2
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.benchmarks.eval.measures import Tie, measure
from bittern.benchmarks.eval.tasks import Relevance
from tests.eval.ranking_cases import ranks_of

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
    """Every distinct order of grades in groups of equal distance; all are equally likely."""
    inside = [sorted(set(permutations(group))) for group in groups]
    return [tuple(g for part in parts for g in part) for parts in product(*inside)]


def run_of(groups: list[list[int]]) -> tuple[np.ndarray, Relevance]:
    """One query whose items are at the distances 0, 1, ... of their groups."""
    grades = np.array([grade for group in groups for grade in group], np.int32)
    distances = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    items = np.flatnonzero(grades)
    return distances[None], Relevance(np.array([0, len(items)]), items, grades[items])


def value(name: str, groups: list[list[int]], tie: Tie, depth: int | None = None) -> float:
    distances, relevance = run_of(groups)
    return float(measure(name).of(ranks_of(distances, relevance, depth=depth), tie)[0])


grouped = st.lists(
    st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=1, max_size=5), min_size=1, max_size=4
).filter(lambda groups: any(map(any, groups)) and len(orders(groups)) <= 500)


@settings(max_examples=150, deadline=None)
@given(grouped, st.integers(1, 9))
def test_every_measure_agrees_with_all_orders_of_the_ties(groups: list[list[int]], k: int) -> None:
    for name in [f"{stem}@{k}" for stem in CUT] + list(UNCUT):
        values = [by_hand(name, ranking) for ranking in orders(groups)]
        assert value(name, groups, "expected") == pytest.approx(np.mean(values), abs=1e-12), name
        assert value(name, groups, "best") == pytest.approx(max(values), abs=1e-12), name
        assert value(name, groups, "worst") == pytest.approx(min(values), abs=1e-12), name
        in_rows = tuple(grade for group in groups for grade in group)
        assert value(name, groups, "ranked") == pytest.approx(by_hand(name, in_rows)), name


@settings(max_examples=50, deadline=None)
@given(grouped, st.integers(1, 9))
def test_a_depth_cuts_what_has_no_cutoff_whatever_group_it_falls_into(
    groups: list[list[int]], depth: int
) -> None:
    for name in ("AP", "MRR"):
        for tie in get_args(Tie):
            cut = value(f"{name}@{depth}", groups, tie)
            assert value(name, groups, tie, depth) == pytest.approx(cut, abs=1e-12), (name, tie)


@settings(max_examples=50, deadline=None)
@given(grouped, grouped, st.integers(1, 9))
def test_queries_are_measured_each_on_its_own(
    first: list[list[int]], second: list[list[int]], k: int
) -> None:
    runs = [run_of(groups) for groups in (first, second)]
    both = np.full((2, max(run.shape[1] for run, _ in runs)), 99)
    for query, (distances, _) in enumerate(runs):
        both[query, : distances.shape[1]] = distances[0]
    a, b = (relevance for _, relevance in runs)
    together = Relevance(
        np.concatenate([a.offsets, a.offsets[-1:] + b.offsets[1:]]),
        np.concatenate([a.items, b.items]),
        np.concatenate([a.grades, b.grades]),
    )
    ranks = ranks_of(both, together)
    for name in [f"{stem}@{k}" for stem in CUT] + list(UNCUT):
        for tie in get_args(Tie):
            alone = [value(name, groups, tie) for groups in (first, second)]
            assert measure(name).of(ranks, tie).tolist() == pytest.approx(alone), (name, tie)


def test_ranks_say_of_each_relevant_item_its_rank_and_its_group() -> None:
    distances = np.array([[4, 1, 4, 4, 0, 1], [2, 2, 2, 2, 2, 0]])
    grades = np.array([1, 2, 3, 1, 1], np.int32)
    ranks = ranks_of(
        distances, Relevance(np.array([0, 3, 5]), np.array([0, 2, 5, 1, 3]), grades), hamming=True
    )
    assert ranks.offsets.tolist() == [0, 3, 5]
    assert ranks.rank.tolist() == [3, 4, 5, 3, 5]
    assert ranks.nearer.tolist() == [1, 3, 3, 1, 1]
    assert ranks.tied.tolist() == [2, 3, 3, 5, 5]
    assert ranks.grades.tolist() == [3, 1, 2, 1, 1]
    assert ranks.ideal.tolist() == [3, 2, 1, 1, 1]
    assert ranks.ranked.tolist() == [6, 6]
    assert ranks.within is not None
    assert ranks.within.tolist() == [[3, 1], [6, 2]]


def test_ranks_beyond_the_depth_are_left_out_but_its_group_is_whole() -> None:
    relevance = Relevance(np.array([0, 3]), np.array([1, 3, 4]), np.ones(3, np.int32))
    ranks = ranks_of(np.array([[0, 1, 1, 1, 2]]), relevance, depth=2)
    assert ranks.rank.tolist() == [2, 4]
    assert ranks.relevant.tolist() == [3]
    assert ranks.depth == 2
