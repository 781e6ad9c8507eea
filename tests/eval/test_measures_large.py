"""Groups of millions, and many queries: the closed forms against exact sums."""

from __future__ import annotations

from fractions import Fraction
from math import comb, fsum, log2
from typing import get_args
from unittest import mock

import numpy as np
import pytest

from bittern.benchmarks.eval.measures import Tie, measure
from bittern.benchmarks.eval.measures import closed_form as draws
from bittern.benchmarks.eval.measures.closed_form import (
    discounts,
    mean_over_hits,
    mean_reciprocal,
    no_hit,
    reciprocals,
)
from bittern.benchmarks.eval.measures.ranks import Ranks

NAMES = ("AP_hits@1000", "AP_minR@1000", "AP", "AP@1000", "nDCG", "nDCG@1000", "R-prec")
MORE = ("Recall@1000", "P@1000", "MRR", "MRR@1000", "hit@1000")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def places_in_groups(queries: int, groups: list[tuple[int, int]], n: int) -> Ranks:
    """The same (tied, relevant) groups for each query, relevant items first in each."""
    tied, hits = np.array(groups).T
    starts = np.cumsum(tied) - tied
    inside = np.concatenate([np.arange(1, h + 1) for h in hits])
    total = int(hits.sum())
    offsets = np.arange(queries + 1) * total
    ones = np.ones(queries * total, np.int32)
    return Ranks(
        offsets=offsets,
        rank=np.tile(np.repeat(starts, hits) + inside, queries),
        nearer=np.tile(np.repeat(starts, hits), queries),
        tied=np.tile(np.repeat(tied, hits), queries),
        grades=ones,
        relevant=np.full(queries, total),
        ideal=ones,
        ideal_offsets=offsets,
        ranked=np.full(queries, n),
    )


RUNS = [(0, 1), (0, 64), (63, 65), (64, 65), (64, 70), (0, 3000), (999, 5000), (900, 901)]
RUNS += [(10**6, 10**6 + 3), (10**4, 3 * 10**5), (4_999_999, 5_000_000)]


@pytest.mark.parametrize(("first", "last"), RUNS)
def test_sums_over_runs_of_ranks_are_those_of_their_terms(first: int, last: int) -> None:
    rank = range(first + 1, last + 1)
    harmonic = reciprocals(ints(first), ints(last))[0]
    assert harmonic == pytest.approx(fsum(1 / i for i in rank), rel=1e-12)
    discounted = discounts(ints(first), ints(last))[0]
    assert discounted == pytest.approx(fsum(1 / log2(1 + i) for i in rank), rel=1e-12)


def test_empty_runs_sum_to_nothing() -> None:
    assert not reciprocals(ints(0, 64, 10**6), ints(0, 64, 10**6)).any()
    assert not discounts(ints(0, 64, 10**6), ints(0, 64, 10**6)).any()


def mean_reciprocal_by_terms(nearer: int, tied: int, relevant: int) -> float:
    chance, total = Fraction(relevant, tied), Fraction(0)
    for j in range(1, tied - relevant + 2):
        total += chance / (nearer + j)
        chance *= Fraction(tied - relevant - j + 1, max(tied - j, 1))
    return float(total)


@pytest.mark.parametrize(
    ("way", "nearer", "tied", "relevant"),
    [
        ("_by_terms", 0, 800, 300),
        ("_by_terms", 2, 1000, 500),
        ("_upwards", 0, 300, 1),
        ("_upwards", 10**6, 300, 1),
        ("_upwards", 0, 500, 40),
        ("_upwards", 5, 500, 9),
        ("_downwards", 1000, 200, 60),
        ("_downwards", 10**6, 500, 7),
        ("_downwards", 0, 30, 25),
        ("_downwards", 7, 30, 30),
    ],
)
def test_the_first_hit_is_found_the_shortest_way_and_that_agrees_with_the_sum_of_terms(
    way: str, nearer: int, tied: int, relevant: int
) -> None:
    with mock.patch.object(draws, way, wraps=getattr(draws, way)) as taken:
        found = mean_reciprocal(ints(nearer), ints(tied), ints(relevant))[0]
    assert len(taken.call_args.args[0]) == 1
    assert found == pytest.approx(mean_reciprocal_by_terms(nearer, tied, relevant), rel=1e-11)


def test_mean_reciprocal_rank_of_the_first_hit_is_the_sum_of_its_terms() -> None:
    rng = np.random.default_rng(0)
    tied = rng.integers(1, 200, 300)
    relevant = np.minimum(tied, rng.integers(1, 200, 300) // rng.integers(1, 20, 300) + 1)
    nearer = rng.choice([0, 1, 5, 50, 1000, 10**6], 300)
    rows = zip(nearer.tolist(), tied.tolist(), relevant.tolist(), strict=True)
    expected = [mean_reciprocal_by_terms(*row) for row in rows]
    np.testing.assert_allclose(mean_reciprocal(nearer, tied, relevant), expected, rtol=1e-11)


def test_chances_of_hits_in_the_first_slots_are_hypergeometric() -> None:
    rng = np.random.default_rng(1)
    tied = rng.integers(2, 800, 100)
    relevant = rng.integers(1, tied + 1) // rng.integers(1, 9, 100) + 1
    relevant = np.minimum(relevant, tied)
    slots = rng.integers(1, tied)
    missed, means = [], []
    for g, r, s in zip(tied.tolist(), relevant.tolist(), slots.tolist(), strict=True):
        missed.append(float(Fraction(comb(g - r, s), comb(g, s))))
        counts = range(max(0, s - g + r), min(r, s) + 1)
        ways = sum(Fraction(comb(r, x) * comb(g - r, s - x), 1 + x) for x in counts)
        means.append(float(ways / comb(g, s)))
    np.testing.assert_allclose(no_hit(tied, relevant, slots), missed, rtol=1e-11, atol=1e-15)
    found = mean_over_hits(tied, relevant, slots, lambda x, _: 1 / (1 + x))
    np.testing.assert_allclose(found, means, rtol=1e-12)


def test_means_over_hits_do_not_depend_on_how_many_counts_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tied, relevant, slots = ints(9, 500, 40, 70), ints(3, 200, 1, 60), ints(4, 300, 39, 50)
    at_once = mean_over_hits(tied, relevant, slots, lambda x, row: x + row)
    np.testing.assert_allclose(at_once, slots * relevant / tied + np.arange(4))
    monkeypatch.setattr(draws, "_CELLS", 5)
    by_row = mean_over_hits(tied, relevant, slots, lambda x, row: x + row)
    np.testing.assert_allclose(by_row, at_once)


def test_a_group_of_a_million_is_measured_as_its_sums_say() -> None:
    g, r, k = 10**6, 500, 1000
    ranks = places_in_groups(1, [(g, r)], g)
    j = np.arange(1, g + 1)
    at_hit = (1 + (j - 1) * (r - 1) / (g - 1)) / j
    steps = np.log1p(-(r - 1) / (g - j[: g - r]))
    first_at = np.exp(np.concatenate([[0.0], np.cumsum(steps)])) * r / g
    missed = np.prod(1 - k / (g - np.arange(r)))
    expected = {
        "AP": fsum(at_hit) / g,
        "AP@1000": fsum(at_hit[:k]) / g,
        "AP_minR@1000": fsum(at_hit[:k]) / g,
        "nDCG": r / g * fsum(1 / np.log2(1 + j)) / fsum(1 / np.log2(1 + j[:r])),
        "nDCG@1000": r / g * fsum(1 / np.log2(1 + j[:k])) / fsum(1 / np.log2(1 + j[:r])),
        "P@1000": r / g,
        "Recall@1000": k / g,
        "hit@1000": 1 - missed,
        "MRR": fsum(first_at / j[: g - r + 1]),
        "MRR@1000": fsum((first_at / j[: g - r + 1])[:k]),
    }
    for name, value in expected.items():
        found = measure(name).of(ranks, "expected")[0]
        assert found == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("k", [2, 20, 50, 90])
def test_the_worst_mean_over_hits_has_as_many_late_hits_as_lower_it_most(k: int) -> None:
    # a hit at rank 1, then a group of 98 with 49 hits
    def mean(late: int) -> float:
        precisions = [(1 + i) / (k - late + i) for i in range(1, late + 1)]
        return (1 + fsum(precisions)) / (1 + late)

    means = [mean(late) for late in range(max(0, k - 1 - 49), min(49, k - 1) + 1)]
    worst = measure(f"AP_hits@{k}").of(places_in_groups(1, [(1, 1), (98, 49)], 99), "worst")[0]
    assert worst == pytest.approx(min(means), abs=1e-12)
    assert k in (2, 90) or worst < min(means[0], means[-1])


@pytest.mark.parametrize("tie", get_args(Tie))
def test_a_hundred_thousand_queries_over_groups_of_millions_have_finite_values(tie: Tie) -> None:
    ranks = places_in_groups(100_000, [(1, 1), (300, 2), (40_000, 5), (4_000_000, 4)], 5 * 10**6)
    for name in (*NAMES, *MORE):
        values = measure(name).of(ranks, tie)
        assert values.shape == (100_000,)
        assert 0 < values[0] <= 1, name
        assert (values == values[0]).all(), name


def test_the_extremes_enclose_the_mean_in_groups_of_millions() -> None:
    groups = [(5, 1), (700, 300), (900, 850), (2_000_000, 100_000), (3_000_000, 1)]
    ranks = places_in_groups(1, groups, 6 * 10**6)
    for name in (*NAMES, *MORE, "AP_hits@100000", "AP_hits@1600", "MRR@3", "P@5000000"):
        of = {tie: measure(name).of(ranks, tie)[0] for tie in get_args(Tie)}
        assert 0 <= of["worst"] <= of["expected"] <= of["best"] <= 1 + 1e-12, name
        assert of["worst"] - 1e-12 <= of["ranked"] <= of["best"] + 1e-12, name
