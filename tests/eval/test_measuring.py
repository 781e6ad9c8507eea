"""How deep is ranked, and which seeds are drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bittern.benchmarks.eval.measuring import depth_of, seeds_of, variants_of
from bittern.benchmarks.eval.request import EvalRequest
from bittern.benchmarks.eval.tasks import Protocol

CUT = ("AP_minR@50", "nDCG@50", "MRR", "P_H2")


def depth(
    queries: int, rows: int, *measures: str, depth: int | None = None, given: bool = False
) -> int | None:
    candidates = "given" if given else None
    task: Any = SimpleNamespace(queries=range(queries), candidates=candidates)
    request = EvalRequest("inquire", Path("run"), protocol=Protocol(depth=depth))
    embedded: Any = range(rows)
    return depth_of(task, embedded, request, measures)


def test_small_problems_are_ranked_whole() -> None:
    assert depth(250, 100_000, *CUT) is None
    assert depth(1_000, 100_000, "AP", *CUT) is None


def test_codes_are_ranked_as_deep_as_measures_look() -> None:
    assert depth(250, 5_000_000, *CUT) == 1_000
    assert depth(250, 5_000_000, *CUT, "Recall@5000") == 5_000


def test_a_measure_over_the_whole_ranking_has_it_while_that_takes_minutes() -> None:
    for measure in ("AP", "nDCG", "R-prec"):
        assert depth(250, 5_000_000, *CUT, measure) is None
    assert depth(10_000, 5_000_000, "AP") == 1_000


def test_candidates_are_ranked_whole() -> None:
    assert depth(10_000, 5_000_000, *CUT, given=True) is None


@pytest.mark.parametrize(("given", "got"), [(0, None), (50, 50)])
def test_a_depth_that_is_given_is_kept(given: int, got: int | None) -> None:
    for queries in (3, 10_000):
        assert depth(queries, 5_000_000, "AP", depth=given) == got


def test_draws_of_different_splits_share_no_seed() -> None:
    system: Any = SimpleNamespace(draws=10)
    assert seeds_of(system, 0, 7) == list(range(7, 17))
    assert not {*seeds_of(system, 0, 7)} & {*seeds_of(system, 1, 7)}


def test_only_codes_are_ranked_anew_and_by_the_asymmetric_distance() -> None:
    metrics = ("symmetric", "asymmetric")
    assert [v.key for v in variants_of(metrics, 64, 100)] == [
        "symmetric+0", "asymmetric+0", "asymmetric+100",
    ]  # fmt: skip
    assert [v.key for v in variants_of(metrics, 64, 0)] == ["symmetric+0", "asymmetric+0"]
    assert [v.key for v in variants_of(("cosine",), None, 100)] == ["cosine+0"]
