"""Exact search over codes against brute force, ties above all."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashing.codes import asymmetric_distance, hamming_distance
from index.fast_scan import FastScan
from index.flat import FlatCodes, Nearest

Case = tuple[NDArray[np.int64], NDArray[np.uint8], int, int]


@st.composite
def databases(draw: st.DrawFn) -> Case:
    """Rows with gaps, codes from few distinct values (heavy ties), k, seed of the query."""
    width = draw(st.sampled_from([1, 2, 4, 9, 32]))
    n = draw(st.integers(0, 60))
    distinct = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(10_000, n, replace=False)).astype(np.int64)
    values = rng.integers(0, 256, (distinct, width), dtype=np.uint8)
    codes = values[rng.integers(0, distinct, n)] if n else np.empty((0, width), np.uint8)
    return rows, codes, draw(st.integers(1, 70)), seed


def brute_force(
    distances: NDArray[np.floating], rows: NDArray[np.int64], k: int
) -> list[tuple[float, int]]:
    return sorted(zip(distances.tolist(), rows.tolist(), strict=True))[:k]


def pairs(nearest: Nearest) -> list[tuple[float, int]]:
    return list(zip(nearest.distances.tolist(), nearest.rows.tolist(), strict=True))


@given(databases())
@settings(max_examples=150, deadline=None)
def test_symmetric_search_equals_brute_force_in_order_of_distance_then_row(case: Case) -> None:
    rows, codes, k, seed = case
    query: NDArray[np.uint8] = np.random.default_rng(seed + 1).integers(
        0, 256, (codes.shape[1],), dtype=np.uint8
    )
    distances = hamming_distance(query[None], codes)[0].astype(float)
    assert pairs(FlatCodes(rows, codes).nearest_symmetric(query, k)) == brute_force(
        distances, rows, k
    )


@given(databases())
@settings(max_examples=150, deadline=None)
def test_asymmetric_search_equals_brute_force_in_order_of_distance_then_row(case: Case) -> None:
    rows, codes, k, seed = case
    logits = np.random.default_rng(seed + 1).normal(size=codes.shape[1] * 8)
    assert pairs(FlatCodes(rows, codes).nearest_asymmetric(logits, k)) == brute_force(
        asymmetric_distance(logits, codes), rows, k
    )


@given(databases(), st.integers(0, 2**16))
@settings(max_examples=100, deadline=None)
def test_only_keeps_exactly_the_rows_that_match(case: Case, seed: int) -> None:
    rows, codes, _, _ = case
    rng = np.random.default_rng(seed)
    matching = np.union1d(rng.choice(10_000, 5), rows[rng.random(len(rows)) < 0.5])
    part = FlatCodes(rows, codes).only(matching.astype(np.int64))
    chosen = np.isin(rows, matching)
    assert np.array_equal(part.rows, rows[chosen])
    assert np.array_equal(part.codes, codes[chosen])


@pytest.mark.parametrize("metric", ["symmetric", "asymmetric"])
def test_rows_of_equal_codes_come_in_row_order_whatever_k(metric: str) -> None:
    flat = FlatCodes(np.arange(0, 3000, 3), np.full((1000, 4), 7, np.uint8))
    for k in (1, 2, 17, 999, 1000, 5000):
        if metric == "symmetric":
            found = flat.nearest_symmetric(np.zeros(4, np.uint8), k)
        else:
            found = flat.nearest_asymmetric(np.ones(32), k)
        assert found.rows.tolist() == list(range(0, 3000, 3))[:k]


def test_searching_leaves_the_callers_faiss_threads_as_they_were() -> None:
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        FlatCodes(np.arange(5), np.zeros((5, 2), np.uint8)).nearest_symmetric(
            np.zeros(2, np.uint8), 3
        )
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_codes_and_rows_cannot_be_changed_from_outside() -> None:
    flat = FlatCodes(np.arange(2), np.zeros((2, 1), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        flat.codes[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        flat.rows[0] = 1


# The fast scan


@pytest.mark.parametrize("bits", [8, 32, 64, 256, 1024])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_no_code_beyond_the_candidates_is_nearer_than_their_floor(bits: int, scale: float) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 256, (3000, bits // 8), dtype=np.uint8)
    scan = FastScan(codes)
    for _ in range(10):
        logits = rng.normal(size=bits) * scale * rng.exponential(size=bits)
        found = scan.candidates(logits, 50)
        others = np.delete(asymmetric_distance(logits, codes), found.places)
        assert len(np.unique(found.places)) == 50
        assert others.min() >= found.floor


def test_the_floor_is_tight_enough_to_be_of_use() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (50_000, 32), dtype=np.uint8)
    logits = rng.normal(size=256)
    flat = FlatCodes(np.arange(50_000), codes)
    assert flat._nearest_of(FastScan(codes), logits, 10, 220) is not None


@pytest.mark.parametrize("kind", ["random", "few values", "all equal", "zero query"])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_many_codes_are_searched_exactly_whatever_they_are(
    monkeypatch: pytest.MonkeyPatch, kind: str, k: int
) -> None:
    monkeypatch.setattr("index.flat.FAST_SCAN_FROM", 100)
    rng = np.random.default_rng(k)
    distinct = {"few values": 40, "all equal": 1}.get(kind, 4000)
    codes = rng.integers(0, 256, (distinct, 8), dtype=np.uint8)[rng.integers(0, distinct, 4000)]
    rows = np.arange(0, 8000, 2)
    logits = np.zeros(64) if kind == "zero query" else rng.normal(size=64)
    wanted = brute_force(asymmetric_distance(logits, codes), rows, k)
    flat = FlatCodes(rows[:3000], codes[:3000])
    flat.nearest_asymmetric(logits, 1)
    for cut in (3100, 3300, 4000):
        flat = flat.appended(rows[len(flat) : cut], codes[len(flat) : cut])
        part = brute_force(asymmetric_distance(logits, codes[:cut]), rows[:cut], k)
        assert pairs(flat.nearest_asymmetric(logits, k)) == part
    assert pairs(flat.nearest_asymmetric(logits, k)) == wanted
