from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.speed.codes import clustered
from bittern.benchmarks.speed.harness import Report, Spread
from bittern.benchmarks.speed.search import engines
from bittern.benchmarks.speed.search.approximate import Point, best_ratios, measure_approximate
from bittern.benchmarks.speed.search.engines import (
    PROBES,
    Contestant,
    Tuned,
    built,
    flat_engine,
    lists_for,
)
from bittern.benchmarks.speed.search.exactness import recall

LISTS = Contestant("lists", engines.faiss_lists, parameter="nprobe", settings=(1, 256))


def point(setting: int, recall: float, milliseconds: float) -> Point:
    time = Spread(milliseconds, milliseconds, milliseconds)
    return Point("lists", "hamming", "nprobe", setting, recall, time, time)


def test_more_lists_bring_more_recall() -> None:
    report = Report("search", "")
    measure_approximate(clustered(3_000, 64), 1, report, [LISTS])
    (found,) = report.values["curves"]
    few, all_of_them = (p["recall"] for p in found["points"] if p["contestant"] == "lists")
    assert few < all_of_them == 1.0
    assert [len(table.rows) for table in report.tables] == [4, 1]


def test_the_fastest_setting_with_good_recall_is_the_best() -> None:
    points = [point(1, 0.5, 1.0), point(2, 0.96, 3.0), point(4, 0.99, 2.0), point(8, 1.0, 4.0)]
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
    assert lists_for(1_000_000) == 2048
    assert lists_for(10_000) == 256
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
