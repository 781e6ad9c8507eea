"""Tables of `search` and `gpu`: what is timed, and whether searches are right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.speed import gpu
from bittern.benchmarks.speed.codes import METRICS, clustered
from bittern.benchmarks.speed.gpu import measure_gpu
from bittern.benchmarks.speed.harness import Options, Report, Spread
from bittern.benchmarks.speed.search import engines
from bittern.benchmarks.speed.search.approximate import Point, best_ratios, measure_approximate
from bittern.benchmarks.speed.search.engines import (
    PROBES,
    Contestant,
    Tuned,
    brute_force,
    built,
    flat_engine,
    is_right,
    lists_for,
    recall,
)
from bittern.benchmarks.speed.search.filters import KINDS, SHARES, drawn_filters, measure_filters
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest
from bittern.types import Metric

LISTS = Contestant("lists", engines.faiss_lists, parameter="nprobe", settings=(1, 256))


def answer(distances: Sequence[float], rows: Sequence[int]) -> Nearest:
    return Nearest(np.array(distances), np.array(rows))


@pytest.mark.parametrize("metric", METRICS)
def test_the_exact_engine_is_right(metric: Metric) -> None:
    collection = clustered(3_000, 256)
    for query in collection.queries(metric, 4):
        truth = brute_force(query, collection.codes, 20)
        assert is_right(flat_engine(collection).search(query, 20)[0], truth)


@pytest.mark.parametrize(
    ("distances", "rows"), [([1.0, 2.0], [4, 9]), ([1.0, 3.0], [4, 7]), ([1.0], [4])]
)
def test_another_row_another_distance_or_fewer_rows_are_not_right(
    distances: list[float], rows: list[int]
) -> None:
    assert not is_right(answer(distances, rows), answer([1.0, 2.0], [4, 7]))


def test_brute_force_orders_equal_distances_by_row() -> None:
    codes = np.zeros((6, 8), dtype=np.uint8)
    assert brute_force(Queries.of_codes(codes[:1]), codes, 4).rows.tolist() == [0, 1, 2, 3]


def test_recall_counts_any_row_at_the_true_distances_once() -> None:
    # Rows 0 to 2 are alike, row 3 is far: the two nearest are any two of the three.
    codes = np.array([[0] * 8, [0] * 8, [0] * 8, [255] * 8], dtype=np.uint8)
    queries = Queries.of_codes(codes[:1])
    truths = [brute_force(queries[0], codes, 2)]
    for rows, share in (([1, 2], 1.0), ([2, 2], 0.5), ([3, -1], 0.0)):
        assert recall([np.array(rows)], queries, codes, truths) == share


def test_filters_leave_rows_at_random_or_the_farthest() -> None:
    distances = np.arange(10_000, dtype=np.float64)
    filters = {(one.kind, one.share): one.rows for one in drawn_filters(distances)}
    assert len(filters) == len(KINDS) * len(SHARES)
    assert filters["farthest", 0.01].tolist() == list(range(9_900, 10_000))
    independent = filters["independent", 0.5]
    assert len(independent) == 5_000
    assert (np.diff(independent) > 0).all()
    assert np.count_nonzero(independent < 5_000) > 2_000
    assert len(filters["farthest", 1.0]) == 10_000


def test_every_filter_is_timed_and_right() -> None:
    report = Report("search", "")
    measure_filters(clustered(2_000, 64), 1, report)
    (found,) = report.values["filters"]
    assert found["right"] == 1.0
    (table,) = report.tables
    assert {len(row) for row in table.rows} == {len(table.columns)} == {1 + len(SHARES)}
    assert len(report.targets) == 4


def test_more_lists_bring_more_recall() -> None:
    report = Report("search", "")
    measure_approximate(clustered(3_000, 64), 1, report, [LISTS])
    curves, best = report.tables
    few, all_of_them = (row[2] for row in curves.rows if row[0] == "lists")
    assert isinstance(few, float)
    assert few < 1.0 == all_of_them
    assert (len(curves.rows), len(best.rows)) == (4, 1)


def test_the_fastest_setting_with_good_recall_is_the_best() -> None:
    points = [
        Point(LISTS, setting, recall, Spread(ms, ms, ms), Spread(ms, ms, ms))
        for setting, recall, ms in ((1, 0.5, 1.0), (2, 0.96, 3.0), (4, 0.99, 2.0), (8, 1.0, 4.0))
    ]
    assert [ratio.what for ratio in best_ratios(points)] == ["lists, nprobe 4, recall 0.990"]


def test_what_is_not_installed_is_skipped_with_what_to_install(tmp_path: Path) -> None:
    absent = Contestant("absent", engines.faiss_flat, module="bittern_has_no_such_module")
    tuned, why = built(absent, clustered(100, 64), 1, tmp_path)
    assert tuned is None
    assert "absent is skipped" in why
    assert "bittern-search[bench]" in why


def test_what_fails_to_build_is_skipped_with_the_reason(tmp_path: Path) -> None:
    def broken(*_: object) -> Tuned:
        raise RuntimeError("no room for lists")

    tuned, why = built(Contestant("broken", broken), clustered(100, 64), 1, tmp_path)
    assert tuned is None
    assert "RuntimeError: no room for lists" in why


def test_lists_are_two_roots_of_the_codes_to_a_power_of_two() -> None:
    assert [lists_for(rows) for rows in (1_000_000, 10_000)] == [2048, 256]
    assert lists_for(1) >= 1


def test_lancedb_scan_finds_the_nearest(tmp_path: Path) -> None:
    collection = clustered(500, 64)
    search = engines.lancedb_scan(collection, 1, tmp_path)(0)
    queries = collection.queries("hamming", 2)
    for query, rows in zip(queries, search(queries, 5), strict=True):
        distances = query.distances(0, collection.codes)
        assert np.array_equal(np.sort(distances)[:5], distances[rows])


def test_more_effort_finds_no_less(tmp_path: Path) -> None:
    collection = clustered(9_000, 64)
    queries = collection.queries("hamming", 16)
    truths = flat_engine(collection).search(queries, 100)
    tuned = engines.ivf(collection, 1, tmp_path)
    found = [tuned(probes)(queries, 100) for probes in (PROBES[0], PROBES[-1])]
    little, much = (recall(rows, queries, collection.codes, truths) for rows in found)
    assert 0.0 < little <= much
    assert much == pytest.approx(1.0, abs=0.01)


def test_search_on_a_card_is_timed_per_batch_and_checked_against_the_cpu() -> None:
    report = measure_gpu("cpu", [3_000], [64], 1, batches=(1, 8))
    assert [table.title for table in report.tables] == ["3,000 codes of 64 bits"]
    (size,) = report.values["sizes"]
    assert size["right"] == 16
    assert set(size["seconds"]) == {1, 8}


def test_without_a_gpu_nothing_is_measured_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "available_device", lambda: None)
    report = gpu.run(Options())
    assert "no GPU here" in report.size
    assert not report.tables
