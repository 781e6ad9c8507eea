"""Readers go on while files are joined and old versions are removed; the clock may jump."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from bittern.errors import ArchiveDamagedError
from bittern.index import versions
from bittern.index.archive import Archive
from bittern.index.versions import OldVersions, manifest
from tests.index.samples import OWL, code, ids, photo

pytestmark = pytest.mark.filterwarnings("ignore:optimize")
BATCH = 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
    return tmp_path / "marsh"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old versions go at each compaction."""
    monkeypatch.setattr(versions, "KEPT_S", 0.0)
    monkeypatch.setattr(versions, "KEPT_AT_LEAST_S", 0.0)


def clean(archive: Archive) -> None:
    archive._store._old._recent.clear()
    archive._store.compact()


def numbers(folder: Path) -> list[int]:
    return sorted(2**64 - 1 - int(file.stem) for file in folder.glob("*.manifest"))


def test_a_reader_whose_files_are_gone_answers_from_the_newest_state(
    path: Path, at_once: None
) -> None:
    with Archive.open(path, write=True) as archive, Archive.open(path) as reader:
        archive.add([photo(f"p{i}", {"family": "a"}) for i in range(9)], model=OWL.digest)
        began, real = reader._current(), reader._current
        archive.delete(["p0"])
        archive.add([photo("new", {"family": "a"})], model=OWL.digest)
        for _ in range(2):
            clean(archive)
        with pytest.raises(ArchiveDamagedError):
            began.store.read(["id"])

        calls = 0

        def late() -> object:
            """The state that was the newest when the search began."""
            nonlocal calls
            calls += 1
            return began if calls <= 2 else real()

        for read in (
            lambda: ids(reader, "family = 'a'"),
            lambda: reader.get("new").row,
            lambda: reader.coded(["p1", "new"], OWL.digest).keys(),
            lambda: [
                hit.observation.id
                for hit in reader.search(code(1), model=OWL.digest, k=99, metric="hamming").hits
            ],
        ):
            calls = 0
            reader._current = late  # type: ignore[method-assign,assignment]
            answer = read()
            reader._current = real  # type: ignore[method-assign]
            assert answer == read()
            assert calls > 2


def test_damaged_files_are_not_read_again_for_ever(path: Path) -> None:
    with Archive.open(path, write=True) as archive:
        archive.add([photo("p")], model=OWL.digest)
    with Archive.open(path) as reader:
        for file in (path / "store" / "observations.lance" / "data").iterdir():
            file.unlink()
        with pytest.raises(ArchiveDamagedError):
            reader.get("p")


def test_readers_see_whole_commits_while_old_versions_are_removed(
    path: Path, at_once: None
) -> None:
    done, failures = threading.Event(), list[BaseException]()
    seen: Counter[int] = Counter()

    def read() -> None:
        try:
            with Archive.open(path) as reader:
                least = 0
                while not done.is_set() or not seen:
                    found = ids(reader)
                    assert len(found) % BATCH == 0
                    assert least <= len(found)
                    hits = reader.search(code(1), model=OWL.digest, k=10_000, metric="hamming").hits
                    assert len(hits) % BATCH == 0
                    assert len(found) <= len(hits)
                    least = len(hits)
                    seen[least] += 1
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    with Archive.open(path, write=True) as archive:
        thread.start()
        for batch in range(40):
            archive.add([photo(f"p{batch}-{i}") for i in range(BATCH)], model=OWL.digest)
            if batch % 4 == 3:
                clean(archive)
        done.set()
        thread.join()
    assert not failures
    assert seen


# Clocks


def test_a_commit_with_the_time_stamp_of_an_earlier_one_is_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the clock was set back."""
    folder = path / "store" / "observations.lance" / "_versions"
    stamp = time.time_ns()
    with Archive.open(path, write=True) as archive, Archive.open(path) as reader:
        os.utime(folder, ns=(stamp, stamp))
        for later in (3600.0, 0.0, -3600.0):
            monkeypatch.setattr(time, "time", lambda later=later: stamp / 1e9 + later)
            before = ids(reader)
            assert ids(reader) == before
            archive.add([photo(f"p{later}")], model=OWL.digest)
            os.utime(folder, ns=(stamp, stamp))
            assert ids(reader) == [*before, f"p{later}"]


def test_a_clock_that_is_set_forward_makes_no_version_in_use_old(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.open(path, write=True) as archive:
        archive.add([photo("p")], model=OWL.digest)
        folder = path / "store" / "observations.lance" / "_versions"
        before = numbers(folder)
        day = time.time() + 86_400
        monkeypatch.setattr(time, "time", lambda: day)
        assert archive._store._old.keep_s() > 86_400
        archive._store.compact()
        assert set(before) <= set(numbers(folder))


def fake_versions(folder: Path, ages: list[float]) -> OldVersions:
    """Version 1 and on, oldest first, so many seconds old."""
    for version, age in enumerate(ages, 1):
        file = manifest(folder, version)
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    return OldVersions(folder)


def test_old_versions_are_kept_for_half_an_hour(tmp_path: Path) -> None:
    assert fake_versions(tmp_path, [9999.0, 1800.0, 100.0]).keep_s() == versions.KEPT_S


def test_many_old_versions_are_kept_for_less_but_not_for_nothing(tmp_path: Path) -> None:
    many = versions.MOST_VERSIONS
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    slow.mkdir()
    fast.mkdir()
    found = fake_versions(slow, [float(age) for age in range(2 * many, 0, -1)]).keep_s()
    assert found == pytest.approx(many, abs=5)
    found = fake_versions(fast, [age / 1000 for age in range(2 * many, 0, -1)]).keep_s()
    assert found == versions.KEPT_AT_LEAST_S


def test_versions_of_the_future_do_not_shorten_the_time_of_others(tmp_path: Path) -> None:
    ages = [100.0, *[-86_400.0] * (2 * versions.MOST_VERSIONS)]
    assert fake_versions(tmp_path, ages).keep_s() >= versions.KEPT_AT_LEAST_S


def test_versions_that_are_needed_are_younger_than_the_limit(tmp_path: Path) -> None:
    old = fake_versions(tmp_path, [90_000.0, 80_000.0, 1.0])
    assert old.keep_s([2]) > 80_000.0
    assert old.keep_s([7]) == versions.KEPT_S
