from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.speed.codes import clustered, coded, record_of, write_archive
from bittern.benchmarks.speed.harness import Spread
from bittern.benchmarks.speed.opening import Opened, main
from bittern.benchmarks.speed.process import bytes_of, drop_cache, files_of, read_once
from bittern.benchmarks.speed.search import disk
from bittern.benchmarks.speed.search.disk import Adding, Turn, adding_to_archives
from bittern.benchmarks.speed.search.engines import ENGINES, brute_force
from bittern.index.archive import Archive


def test_an_archive_written_in_bulk_is_one(tmp_path: Path) -> None:
    collection = clustered(1_200, 64)
    write_archive(tmp_path / "a", collection)
    model = record_of(64).digest
    with Archive.open(tmp_path / "a", write=True) as archive:
        query = collection.queries("asymmetric", 1)
        hits = archive.search(collection.logits[0], model=model, k=5, metric="asymmetric").hits
        truth = brute_force(query, collection.codes, 5)
        assert [hit.observation.row for hit in hits] == truth.rows.tolist()
        archive.add(coded(collection.codes[:3], "more"), model=model)
        assert archive.rows().tolist() == list(range(1_203))


def test_opening_reports_seconds_bytes_and_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = clustered(300, 64)
    write_archive(tmp_path / "a", collection)
    np.save(tmp_path / "queries.npy", collection.logits)
    main(str(tmp_path / "a"), str(tmp_path / "queries.npy"))
    found = Opened(**json.loads(capsys.readouterr().out))
    assert found.rows == 300
    assert found.to_first_answer >= found.first > 0


@pytest.mark.parametrize("kind", ENGINES)
def test_memory_of_an_engine_is_measured_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    clustered(9_000, 64).codes.tofile(tmp_path / "codes.bin")
    disk.main(str(tmp_path / "codes.bin"), "64", kind)
    found = json.loads(capsys.readouterr().out)
    assert found["after"] > 0


def test_all_files_of_a_folder_are_counted_and_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "deep" / "b").write_bytes(b"y" * 234)
    drop_cache(tmp_path)
    read_once(tmp_path)
    assert bytes_of(tmp_path) == 1234
    assert files_of(tmp_path / "a") == [tmp_path / "a"]


def test_what_the_next_search_takes_longer_belongs_to_the_adding() -> None:
    few, many = Turn(1.0, 2.0, 1.5), Turn(10.0, 3.0, 12.0)
    found = Adding("in memory", {100_000: [few], 10_000_000: [many]})
    whole, alone = found.ratios()
    assert whole.value == pytest.approx((3.0 + 2.0) / (2.0 + 0.5))
    assert isinstance(alone.value, Spread)
    assert alone.value.median == pytest.approx(3.0 / 2.0)
    assert whole.what == "add 10k rows in memory, at 10M"


def test_rows_are_added_to_archives_and_searched(tmp_path: Path) -> None:
    collection = clustered(400, 64)
    paths = {rows: tmp_path / str(rows) for rows in (100, 400)}
    for rows, path in paths.items():
        write_archive(path, collection.first(rows))
    found = adding_to_archives(paths, collection, rounds=1)
    assert [len(turns) for turns in found.turns.values()] == [1, 1]
    with Archive.open(paths[100]) as archive:
        assert len(archive.rows()) == 100 + 2 * len(collection.codes)
