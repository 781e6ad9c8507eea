"""Measures without ties against trec_eval and INQUIRE; by name; at the edges; by chance."""

from __future__ import annotations

from math import comb
from typing import Any, get_args

import ir_measures
import numpy as np
import pytest
import pytrec_eval

from bittern.benchmarks.eval.measures import KINDS, Ranks, Tie, chance, measure
from bittern.benchmarks.eval.tasks import Relevance
from bittern.errors import InvalidInputError
from tests.eval.ranking_cases import ranks_of

QUERIES, ITEMS = 40, 60


def random_run(seed: int, graded: bool) -> tuple[np.ndarray, Relevance]:
    """Distances without ties, and relevance with 1 to 25 items per query."""
    rng = np.random.default_rng(seed)
    distances = np.argsort(rng.random((QUERIES, ITEMS)), axis=1)
    chosen = [np.sort(rng.choice(ITEMS, rng.integers(1, 26), False)) for _ in range(QUERIES)]
    items = np.concatenate(chosen)
    grades = rng.integers(1, 4 if graded else 2, len(items)).astype(np.int32)
    return distances, Relevance(np.cumsum([0, *map(len, chosen)]), items, grades)


def qrels_of(relevance: Relevance) -> dict[str, dict[str, int]]:
    return {
        str(q): {
            str(relevance.items[e]): int(relevance.grades[e])
            for e in range(relevance.offsets[q], relevance.offsets[q + 1])
        }
        for q in range(len(relevance))
    }


def run_of(distances: np.ndarray, depth: int = ITEMS) -> dict[str, dict[str, float]]:
    return {
        str(q): {str(i): -float(row[i]) for i in np.argsort(row)[:depth]}
        for q, row in enumerate(distances)
    }


def one_query(groups: list[list[int]], **options: Any) -> Ranks:
    """One query; grades of the items in groups of equal distance, 0 for what is not relevant."""
    grades = np.array([grade for group in groups for grade in group], np.int32)
    distances = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    items = np.flatnonzero(grades)
    relevance = Relevance(np.array([0, len(items)]), items, grades[items])
    return ranks_of(distances[None], relevance, **options)


def all_ties(name: str, ranks: Ranks) -> dict[str, float]:
    return {tie: float(measure(name).of(ranks, tie)[0]) for tie in get_args(Tie)}


THEIRS = {
    "AP": "map",
    "AP@7": "map_cut_7",
    "nDCG": "ndcg",
    "nDCG@7": "ndcg_cut_7",
    "R-prec": "Rprec",
    "Recall@7": "recall_7",
    "P@7": "P_7",
    "MRR": "recip_rank",
    "hit@7": "success_7",
}


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("name", THEIRS)
def test_without_ties_every_tie_rule_agrees_with_trec_eval(name: str, graded: bool) -> None:
    distances, relevance = random_run(5, graded)
    evaluator = pytrec_eval.RelevanceEvaluator(
        qrels_of(relevance), {THEIRS[name].replace("_7", ".7")}
    )
    theirs = evaluator.evaluate(run_of(distances))
    expected = [theirs[str(q)][THEIRS[name]] for q in range(QUERIES)]
    ranks = ranks_of(distances, relevance)
    for tie in get_args(Tie):
        np.testing.assert_allclose(measure(name).of(ranks, tie), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["AP", "nDCG", "R-prec", "MRR"])
def test_a_ranking_of_known_depth_is_measured_as_trec_eval_measures_a_run_so_long(
    name: str,
) -> None:
    distances, relevance = random_run(6, graded=True)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels_of(relevance), {THEIRS[name]})
    theirs = evaluator.evaluate(run_of(distances, 12))
    expected = [theirs[str(q)][THEIRS[name]] for q in range(QUERIES)]
    ranks = ranks_of(distances, relevance, depth=12)
    for tie in get_args(Tie):
        np.testing.assert_allclose(measure(name).of(ranks, tie), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["MRR@3", "AP@3", "nDCG@3", "P@3", "Recall@3", "hit@3"])
def test_cutoffs_are_those_of_ir_measures(name: str) -> None:
    distances, relevance = random_run(7, graded=False)
    called = {"MRR@3": "RR@3", "Recall@3": "R@3", "hit@3": "Success@3"}
    theirs = ir_measures.parse_measure(called.get(name, name))
    found = ir_measures.iter_calc([theirs], qrels_of(relevance), run_of(distances))
    values = {int(value.query_id): value.value for value in found}
    ours = measure(name).of(ranks_of(distances, relevance), "expected")
    expected = [values.get(q, 0.0) for q in range(QUERIES)]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    assert 0 < np.count_nonzero(ours) < QUERIES


@pytest.mark.parametrize("k", [1, 10, 50])
def test_ap_min_r_is_inquires_average_precision(k: int) -> None:
    def inquire(ranking: list[bool], total: int) -> float:
        found, precisions = 0, 0.0
        for rank, right in enumerate(ranking[:k], start=1):
            found += right
            precisions += right * found / rank
        return precisions / min(total, k)

    distances, relevance = random_run(8, graded=False)
    expected = [
        inquire([i in relevance.of(q) for i in np.argsort(row)], len(relevance.of(q)))
        for q, row in enumerate(distances)
    ]
    ours = measure(f"AP_minR@{k}").of(ranks_of(distances, relevance), "ranked")
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


def test_the_three_things_called_map_at_k_differ_as_worked_by_hand() -> None:
    ranks = one_query([[1], [0], [1], [0], [1], [1]])
    hits = 1 / 1 + 2 / 3
    assert all_ties("AP_hits@3", ranks)["ranked"] == pytest.approx(hits / 2)
    assert all_ties("AP_minR@3", ranks)["ranked"] == pytest.approx(hits / 3)
    assert all_ties("AP@3", ranks)["ranked"] == pytest.approx(hits / 4)


def test_one_hit_tied_with_one_miss_is_worked_by_hand() -> None:
    ranks = one_query([[0, 1]])
    either = {"ranked": 1 / 2, "expected": 3 / 4, "best": 1.0, "worst": 1 / 2}
    for name in ("AP", "MRR", "AP_hits@2", "AP_minR@2"):
        assert all_ties(name, ranks) == pytest.approx(either), name
    at_one = {"ranked": 0.0, "expected": 1 / 2, "best": 1.0, "worst": 0.0}
    for name in ("P@1", "hit@1", "R-prec", "Recall@1", "AP_hits@1", "MRR@1", "nDCG@1"):
        assert all_ties(name, ranks) == pytest.approx(at_one), name


def test_a_late_hit_lowers_the_mean_over_hits_so_the_best_order_keeps_it_out() -> None:
    # a hit; two misses; then a hit and a miss are tied for rank 4, the cutoff
    ranks = one_query([[1], [0], [0], [1, 0]])
    assert all_ties("AP_hits@4", ranks) == pytest.approx(
        {"ranked": (1 + 2 / 4) / 2, "expected": (3 / 4 + 1) / 2, "best": 1.0, "worst": 3 / 4}
    )
    assert all_ties("AP_minR@4", ranks)["best"] == pytest.approx((1 + 2 / 4) / 2)


def test_grades_fall_high_first_at_best_and_high_last_at_worst() -> None:
    ranks = one_query([[1, 0, 3]])
    discount = 1 / np.log2([2, 3, 4])
    ideal = 3 * discount[0] + discount[1]
    assert all_ties("nDCG", ranks) == pytest.approx(
        {
            "ranked": (discount[0] + 3 * discount[2]) / ideal,
            "expected": 4 * discount.mean() / ideal,
            "best": 1.0,
            "worst": (discount[1] + 3 * discount[2]) / ideal,
        }
    )


def test_precision_within_radius_2_counts_items_and_is_0_where_there_are_none() -> None:
    distances = np.array([[0, 2, 2, 3], [3, 4, 5, 9]])
    relevance = Relevance(np.array([0, 2, 3]), np.array([1, 3, 0]), np.ones(3, np.int32))
    near = measure("P_H2")
    ranks = ranks_of(distances, relevance, hamming=True)
    for tie in get_args(Tie):
        assert near.of(ranks, tie).tolist() == [1 / 3, 0.0]
    assert np.isnan(near.of(ranks_of(distances, relevance), "ranked")).all()


@pytest.mark.parametrize("tie", get_args(Tie))
def test_nothing_relevant_within_the_depth_is_worth_nothing(tie: Tie) -> None:
    ranks = one_query([[0], [0], [1]], depth=2)
    assert len(ranks.rank) == 0
    for name in ("AP", "AP@2", "AP_hits@2", "AP_minR@2", "nDCG", "R-prec", "MRR", "hit@1", "P@2"):
        assert measure(name).of(ranks, tie).tolist() == [0.0], name


@pytest.mark.parametrize("tie", get_args(Tie))
def test_no_queries_have_no_values(tie: Tie) -> None:
    none = Relevance(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))
    ranks = ranks_of(np.empty((0, 5)), none, hamming=True)
    for name in ("AP", "AP_hits@2", "AP_minR@2", "nDCG", "R-prec", "MRR", "hit@1", "P_H2"):
        assert measure(name).of(ranks, tie).shape == (0,), name


def test_a_group_that_straddles_the_depth_counts_as_far_as_the_depth() -> None:
    groups = [[0], [1, 0, 1, 0], [1]]
    for cut, uncut in (("AP@3", "AP"), ("MRR@3", "MRR"), ("P@3", "P@3")):
        assert all_ties(cut, one_query(groups)) == pytest.approx(
            all_ties(uncut, one_query(groups, depth=3))
        )


def test_a_cutoff_beyond_the_known_depth_is_refused_with_the_remedy() -> None:
    ranks = one_query([[1], [0], [0]], depth=2)
    with pytest.raises(InvalidInputError, match=r"only 2 are known: rank deeper, or ask for P@2"):
        measure("P@3").of(ranks, "ranked")
    everything = one_query([[1], [0], [0]], depth=3)
    assert measure("P@10").of(everything, "ranked").tolist() == [0.1]


@pytest.mark.parametrize(
    "name", ["AP_hits", "AP@0", "AP@01", "AP@-1", "R-prec@5", "P_H2@2", "ap", "mAP@50", "", "P@1e3"]
)
def test_a_name_that_is_no_measure_is_refused_with_all_there_are(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"AP_hits@k.*AP, AP@k.*P_H2.*e\.g\. AP_minR@50"):
        measure(name)


def test_every_measure_listed_is_found_under_its_name_and_is_cited() -> None:
    for kind in KINDS:
        for form in kind.form.split(", "):
            found = measure(form.replace("@k", "@50"))
            assert found.name == form.replace("@k", "@50")
            assert (found.cutoff == 50) == ("@" in form)
        assert kind.about
        assert kind.citation


def test_an_unknown_way_to_treat_ties_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'lucky'"):
        measure("AP").of(one_query([[1]]), "lucky")  # type: ignore[arg-type]


def test_chance_is_that_of_a_random_order() -> None:
    relevant, n = np.array([1, 3, 10, 3]), np.array([10, 10, 10, 200])
    pairs = list(zip(relevant.tolist(), n.tolist(), strict=True))
    harmonic = [sum(1 / i for i in range(1, m + 1)) for m in n]
    expected = {
        "AP": [
            (h + (r - 1) / (m - 1) * (m - h)) / m for (r, m), h in zip(pairs, harmonic, strict=True)
        ],
        "P@5": relevant / n,
        "hit@5": [1 - comb(m - r, 5) / comb(m, 5) for r, m in pairs],
        "R-prec": relevant / n,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(chance(measure(name), relevant, n), values, atol=1e-12)
    np.testing.assert_allclose(chance(measure("AP"), relevant[:3], 10), expected["AP"][:3])


def test_chance_of_more_relevant_items_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="query 1 has 4 relevant items of 3"):
        chance(measure("AP"), np.array([1, 4]), 3)
