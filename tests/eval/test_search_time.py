from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from bittern.benchmarks.eval import search_time
from bittern.benchmarks.eval.search_time import search_ms
from bittern.benchmarks.eval.systems.base import Fitted, Metric, Training
from bittern.benchmarks.eval.systems.quantized import FittedQuantizer
from bittern.benchmarks.eval.systems.selection import UNLABELLED
from bittern.errors import CodeError, InvalidInputError

DIM, BITS, ROWS = 24, 24, 400


@pytest.fixture(scope="module")
def training() -> Training:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((ROWS + 7, DIM)).astype(np.float32) + 0.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Training(rows[:ROWS], "image", rows[ROWS:], "text")


@pytest.fixture(scope="module")
def fitted(training: Training) -> dict[str, Fitted]:
    found: dict[str, Fitted] = {
        name: system.fit(training, BITS if system.coded else None, 1)
        for name, system in UNLABELLED.items()
    }
    return found


@pytest.mark.parametrize("name", UNLABELLED)
@pytest.mark.parametrize("rows", [1, 60, ROWS])
def test_every_kind_is_timed_by_each_of_its_distances(
    name: str, rows: int, fitted: dict[str, Fitted], training: Training
) -> None:
    one = fitted[name]
    stored = one.encode_items(training.items[:rows])
    for metric in one.metrics:
        found = search_ms(one, stored, training.queries, metric)
        assert found is not None
        assert 0 < found < 10_000


@pytest.mark.parametrize("name", UNLABELLED)
def test_what_is_timed_finds_the_nearest(
    name: str, fitted: dict[str, Fitted], training: Training
) -> None:
    """Nobody reads the answers, but a search that was set up wrongly would be another's time."""
    one = fitted[name]
    stored = one.encode_items(training.items)
    for metric in one.metrics:
        search = search_time._search(one, stored, training.queries, metric)
        assert search is not None
        encoded = one.encode_queries(training.queries, metric)
        distances = one.distances(encoded, stored, 0, len(training.queries))
        for number, own in enumerate(distances):
            answer: Any = search(number)
            found = answer[0].rows if isinstance(answer, list) else answer[1][0]
            assert len(found) == 100
            # An inner product with what int8 or centring made longer or shorter is no cosine.
            share = np.isin(found, np.argsort(own, kind="stable")[:100]).mean()
            assert share == 1 or (name in ("int8", "centred") and share > 0.6) or _tied(own, found)


def _tied(distances: np.ndarray, found: np.ndarray) -> bool:
    return bool(distances[found].max() <= np.sort(distances)[99] + 1e-5)


def test_rows_beyond_a_gibibyte_are_not_timed(
    fitted: dict[str, Fitted], training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search_time.MOST_TIMED_BYTES == 2**30
    stored = fitted["float32"].encode_items(training.items)
    monkeypatch.setattr(search_time, "MOST_TIMED_BYTES", stored.nbytes)
    assert search_ms(fitted["float32"], stored, training.queries, "cosine") is not None
    monkeypatch.setattr(search_time, "MOST_TIMED_BYTES", stored.nbytes - 1)
    assert search_ms(fitted["float32"], stored, training.queries, "cosine") is None


def test_no_rows_or_no_queries_are_not_timed(fitted: dict[str, Fitted], training: Training) -> None:
    for name in ("hb", "float16", "pq"):
        one = fitted[name]
        stored, metric = one.encode_items(training.items), one.metrics[0]
        assert search_ms(one, stored[:0], training.queries, metric) is None
        assert search_ms(one, stored, training.queries[:0], metric) is None


def test_a_kind_without_an_index_is_not_timed(training: Training) -> None:
    other: Any = SimpleNamespace(encode_queries=lambda queries, metric: queries)
    assert search_ms(other, training.items, training.queries, "cosine") is None


@pytest.mark.parametrize("name", UNLABELLED)
def test_one_thread_searches_and_the_setting_is_put_back(
    name: str, fitted: dict[str, Fitted], training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, seen = fitted[name], []
    median = search_time._median_ms

    def watched(search: search_time.Search, queries: int) -> float:
        seen.append(faiss.omp_get_max_threads())
        return median(search, queries)

    monkeypatch.setattr(search_time, "_median_ms", watched)
    stored, before = one.encode_items(training.items), faiss.omp_get_max_threads()
    try:
        for threads in (1, 3):
            faiss.omp_set_num_threads(threads)
            search_ms(one, stored, training.queries, one.metrics[0])
            assert faiss.omp_get_max_threads() == threads
            with pytest.raises(InvalidInputError):
                search_ms(one, stored, training.queries, "euclidean")  # type: ignore[arg-type]
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert seen == [1, 1]


def test_queries_are_searched_one_at_a_time_after_a_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []
    assert search_time._median_ms(searched.append, 3) >= 0
    assert searched == [0, 1, 2, 0, 1, 0, 1, 2]
    searched.clear()
    monkeypatch.setattr(search_time, "_MOST_SECONDS", -1.0)
    search_time._median_ms(searched.append, 32)
    assert searched == [0, 1, 2, 3, 4, 0, 1, 2]


def test_at_most_so_many_queries_are_timed(
    fitted: dict[str, Fitted], training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(search_time, "_median_ms", lambda search, many: counts.append(many))
    one = fitted["hb"]
    search_ms(one, one.encode_items(training.items), training.items, "symmetric")
    search_ms(one, one.encode_items(training.items), training.queries, "symmetric")
    assert counts == [32, 7]


def test_a_query_that_is_not_finite_is_refused(
    fitted: dict[str, Fitted], training: Training
) -> None:
    one = fitted["opq"]
    with pytest.raises(CodeError, match="row 0, 1, "):
        search_ms(one, one.encode_items(training.items), training.queries * np.nan, "asymmetric")


@pytest.mark.parametrize("metric", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("name", ["pq", "opq"])
def test_the_index_of_a_quantizer_ranks_as_the_quantizer_does(
    name: str, metric: Metric, fitted: dict[str, Fitted], training: Training
) -> None:
    one = fitted[name]
    assert isinstance(one, FittedQuantizer)
    stored = one.encode_items(training.items)
    index = one.faiss_index(metric)
    index.add_sa_codes(stored)
    distances, rows = index.search(one.turned(training.queries), 20)
    own = one.distances(
        one.encode_queries(training.queries, metric), stored, 0, len(training.queries)
    )
    assert np.abs(distances - np.sort(own, axis=1)[:, :20]).max() < 1e-5
    assert np.abs(distances - np.take_along_axis(own, rows, axis=1)).max() < 1e-5
