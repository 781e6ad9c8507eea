from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.speed.search import curves, peers
from bittern.benchmarks.speed.search.codes import clustered
from bittern.benchmarks.speed.search.contestants import Contestant, Tuned, built
from bittern.benchmarks.speed.search.curves import Curves, Point, measure_curves
from bittern.benchmarks.speed.search.engines import KINDS, ask, at_effort, flat_engine, structure_of
from bittern.benchmarks.speed.search.exactness import recall
from bittern.benchmarks.speed.search.peers import faiss_flat, lists_for
from bittern.benchmarks.speed.search.plot import draw
from bittern.benchmarks.speed.timing import Rounds, Spread

LISTS = Contestant("lists", peers.faiss_lists, parameter="nprobe", settings=(1, 256))


def point(setting: int, recall: float, milliseconds: float) -> Point:
    time = Spread(milliseconds, milliseconds, milliseconds)
    return Point("lists", "hamming", "nprobe", setting, recall, time, time)


def test_more_lists_bring_more_recall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(curves, "PEERS", (LISTS,))
    monkeypatch.setattr(curves, "APPROXIMATE", ())
    found = measure_curves(clustered(3_000, 64), rounds=1, graphs=False)
    few, all_of_them = (p.recall for p in found.points if p.contestant == "lists")
    assert few < all_of_them == 1.0
    draw([found], tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_the_fastest_setting_with_good_recall_is_the_best() -> None:
    points = [point(1, 0.5, 1.0), point(2, 0.96, 3.0), point(4, 0.99, 2.0), point(8, 1.0, 4.0)]
    found = Curves("drawn", points, Rounds({}), {"lists": 0.0}, ())
    best = found.best("lists")
    assert best is not None
    assert best.setting == 4
    assert [ratio.what for ratio in found.ratios()] == ["lists, nprobe 4, recall 0.990"]


def test_what_is_not_installed_is_left_out_with_what_to_install(tmp_path: Path) -> None:
    absent = Contestant("absent", faiss_flat, module="bittern_has_no_such_module")
    tuned, why = built(absent, clustered(100, 64), 1, tmp_path)
    assert tuned is None
    assert "absent is left out" in why
    assert "bittern-search[bench]" in why


def test_what_fails_to_build_is_left_out_with_the_reason(tmp_path: Path) -> None:
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
    ask = peers.lancedb_scan(collection, 1, tmp_path)(0)
    queries = collection.queries("hamming", 2)
    for query, rows in zip(queries, ask(queries, 5), strict=True):
        distances = query.distances(0, collection.codes)
        assert np.array_equal(np.sort(distances)[:5], distances[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_more_effort_finds_no_less(kind: str) -> None:
    collection = clustered(9_000, 64)
    queries = collection.queries("hamming", 16)
    truths = flat_engine(collection).search(queries, 100)
    structure = structure_of(collection, kind)
    efforts = KINDS[kind].efforts[0], KINDS[kind].efforts[-1]
    found = [ask(at_effort(structure, effort, 1))(queries, 100) for effort in efforts]
    little, much = (recall(rows, queries, collection.codes, truths) for rows in found)
    assert 0.0 < little <= much
    assert much > 0.99
