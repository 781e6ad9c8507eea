"""What every search engine promises, exact or not."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings

from bittern.errors import CodeError
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import RowSet, SearchEngine
from tests.search.collections import Collection, Make, cases, collection, pairs, questions
from tests.search.engines import ALL, EXACT

METRICS = ("hamming", "asymmetric")


@pytest.mark.parametrize("make", EXACT)
@given(case=cases())
@settings(max_examples=120, deadline=None)
def test_exact_search_equals_brute_force_in_the_total_order(
    make: Make, case: tuple[Collection, Queries, int, RowSet | None]
) -> None:
    made, queries, k, rows = case
    found = make(made.blocks).search(queries, k, rows)
    assert [pairs(one) for one in found] == [one[:k] for one in made.nearest(queries, rows)]


@pytest.mark.parametrize("make", EXACT)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [16, 64, 256, 1024])
@pytest.mark.parametrize("distinct", [1, 40, 6000])
@pytest.mark.parametrize("share", [None, 0.01, 0.2, 0.7])
def test_many_codes_are_searched_exactly_whatever_they_are(
    make: Make, metric: str, bits: int, distinct: int, share: float | None
) -> None:
    made = collection(12_000, bits, distinct=distinct, deleted=0.1)
    queries = questions(metric, 5, bits)
    rows = None
    if share is not None:
        rows = RowSet(np.flatnonzero(np.random.default_rng(2).random(36_001) < share))
    engine = make(made.blocks)
    nearest = made.nearest(queries, rows)
    for k in (1, 10, 700):
        found = engine.search(queries, k, rows)
        assert [pairs(one) for one in found] == [one[:k] for one in nearest]


@pytest.mark.parametrize("make", EXACT)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("bits", "distinct"), [(64, 30), (64, None), (256, 2_000)])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.97])
def test_a_filter_that_only_the_farthest_rows_pass_is_answered_exactly(
    make: Make, metric: str, bits: int, distinct: int | None, share: float
) -> None:
    made = collection(20_000, bits, distinct=distinct, deleted=0.02)
    engine = make(made.blocks)
    for query in questions(metric, 2, bits):
        everything = made.nearest(query)[0]
        far = sorted(row for _, row in everything[int((1 - share) * len(everything)) :])
        rows = RowSet(np.array(far))
        nearest = made.nearest(query, rows)[0]
        for k in (1, 50, 3_000):
            assert pairs(engine.search(query, k, rows)[0]) == nearest[:k]


@pytest.mark.parametrize("make", EXACT)
def test_one_query_is_answered_as_in_a_batch(make: Make) -> None:
    made = collection(9_000, 64, distinct=500)
    for metric in METRICS:
        queries = questions(metric, 9)
        engine = make(made.blocks)
        batch = engine.search(queries, 20)
        assert [pairs(engine.search(query, 20)[0]) for query in queries] == list(map(pairs, batch))


@pytest.mark.parametrize("make", EXACT)
@pytest.mark.parametrize("scale", [1e-14, 1e-13, 1e-12, 1e-9, 0.01, 30.0])
def test_certain_and_uncertain_queries_are_answered_exactly(make: Make, scale: float) -> None:
    for bits in (64, 256, 1024):
        made = collection(9_000, bits)
        queries = questions("asymmetric", 3, bits, scale=scale)
        found = make(made.blocks).search(queries, 25)
        assert [pairs(one) for one in found] == [one[:25] for one in made.nearest(queries)]


@pytest.mark.parametrize("make", EXACT)
def test_any_real_weight_per_bit_is_a_query(make: Make) -> None:
    made = collection(9_000, 64)
    weights = np.random.default_rng(5).normal(size=(3, 64)) * 10.0 ** np.array([[-20], [0], [20]])
    queries = Queries.of_weights(weights)
    found = make(made.blocks).search(queries, 25)
    assert [pairs(one) for one in found] == [one[:25] for one in made.nearest(queries)]


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("metric", METRICS)
@given(case=cases())
@settings(max_examples=20, deadline=None)
def test_exactly_as_many_hits_come_back_as_there_are_up_to_k(
    make: Make, metric: str, case: tuple[Collection, Queries, int, RowSet | None]
) -> None:
    made, queries, k, rows = case
    for one, wanted in zip(
        make(made.blocks).search(queries, k, rows), made.nearest(queries, rows), strict=True
    ):
        assert len(one) == min(k, len(wanted))
        known = {row: distance for distance, row in wanted}
        assert all(known[row] == distance for distance, row in pairs(one))
        assert pairs(one) == sorted(pairs(one))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_a_filter_gets_min_k_matches_hits_from_many_codes(
    make: Make, metric: str, share: float
) -> None:
    made = collection(12_000, 64, distinct=3000, deleted=0.2)
    rows = RowSet(np.flatnonzero(np.random.default_rng(2).random(36_001) < share))
    queries = questions(metric, 3)
    engine = make(made.blocks)
    for one, wanted in zip(
        engine.search(queries, 100, rows), made.nearest(queries, rows), strict=True
    ):
        assert len(one) == min(100, len(wanted))
        assert set(one.rows.tolist()) <= set(rows.rows.tolist()) - set(made.deleted.tolist())


@pytest.mark.parametrize("make", ALL)
def test_a_query_without_any_weight_gets_the_first_rows(make: Make) -> None:
    made = collection(9_000, 64, deleted=0.1)
    queries = Queries.of_logits(np.zeros((2, 64)))
    for one, wanted in zip(
        make(made.blocks).search(queries, 7), made.nearest(queries), strict=True
    ):
        assert pairs(one) == wanted[:7]


@pytest.mark.parametrize("make", ALL)
def test_queries_of_another_length_are_refused_with_both_lengths(make: Make) -> None:
    engine: SearchEngine = make(collection(50, 64).blocks)
    with pytest.raises(CodeError, match=r"32 bits .* 64 bits"):
        engine.search(questions("hamming", 1, 32), 3)


@pytest.mark.parametrize("make", ALL)
def test_nothing_is_found_where_nothing_is(make: Make) -> None:
    made = collection(0, 64)
    engine = make(made.blocks)
    assert [len(one) for one in engine.search(questions("hamming", 2), 3)] == [0, 0]


@pytest.mark.parametrize("make", ALL)
def test_searching_leaves_the_callers_faiss_threads_as_they_were(make: Make) -> None:
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        make(collection(9_000).blocks).search(questions("asymmetric", 3), 3)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
