"""Derived files are used if they can be verified, and otherwise ignored."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.index import generation_files
from bittern.index.archive import Archive
from bittern.index.derived_files import DerivedFiles
from bittern.index.generation import Generation
from bittern.index.generation_files import GenerationFiles
from bittern.index.loading import MODALITIES
from bittern.index.store import Store
from tests.index.samples import BAT, OWL, photo, recording


@pytest.fixture(autouse=True)
def stored_from_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_files, "STORED_FROM", 1)


@pytest.fixture
def path(archive: Archive) -> Path:
    archive.register_model(BAT, {})
    archive.add([photo(f"p{i}") for i in range(30)], model=OWL.digest)
    archive.add([recording(f"r{i}", 3, seed=i) for i in range(10)], model=OWL.digest)
    archive.add([photo("p7", record=BAT, seed=3)], model=BAT.digest)
    archive.delete(["p3", "r2"])
    save(archive)
    archive.close()
    return archive.path


def files_of(archive: Archive) -> DerivedFiles:
    return DerivedFiles(archive.path / "derived", archive._store)


def save(archive: Archive) -> None:
    """Store everything of the newest generation."""
    records = archive.model_records()
    archive._follower._files.close(None)  # waits for its own writing
    files = GenerationFiles(files_of(archive))
    generation = Generation(archive._store)
    for record in records:
        generation.codes(record)
    files.close(generation)
    assert sorted(files.files.names()) == sorted(
        ["rows", *(f"codes-{record.code_column}" for record in archive.model_records())]
    )


def content(generation: Generation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rows": generation.rows.tolist(),
        "modalities": {m: generation.of_modality(m).tolist() for m in MODALITIES},
        "ids": [o.id for o in generation.observations(generation.rows[::2])],
        "matching": generation.rows_matching("modality = 'audio'").tolist(),
    }
    for record in (OWL, BAT):
        for modality, blocks in generation.codes(record).items():
            found[f"{record.name} {modality}"] = (blocks.rows.tolist(), blocks.codes.tolist())
    return found


def check_right(path: Path) -> None:
    """With the derived files, the same is found as without."""
    store = Store(path / "store")
    stored = GenerationFiles(DerivedFiles(path / "derived", store), write=False)
    assert content(Generation(store, files=stored)) == content(Generation(store))


def used(path: Path) -> set[str]:
    """The usable sets."""
    files = DerivedFiles(path / "derived", Store(path / "store"))
    return {name for name in files.names() if not files.damage(name, or_outdated=True)}


ALL = {"rows", f"codes-{OWL.code_column}", f"codes-{BAT.code_column}"}


def test_stored_sets_are_used_instead_of_the_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert used(path) == ALL
    check_right(path)
    store = Store(path / "store")
    monkeypatch.setattr(Store, "batches", lambda *_: pytest.fail("the store was read"))
    content(
        Generation(store, files=GenerationFiles(DerivedFiles(path / "derived", store), write=False))
    )


def test_outdated_files_are_updated_from_the_store(path: Path) -> None:
    with Archive.open(path, write=True) as archive:
        archive._store.compact()
        archive.add([photo("new")], model=OWL.digest)
        archive.add([photo("p1", seed=99)], model=OWL.digest, on_duplicate="overwrite")
        archive.add([recording("r1", 2, seed=5)], model=OWL.digest, on_duplicate="overwrite")
        archive.add([photo("p2", record=BAT)], model=BAT.digest)
        archive.delete(["p9", "r5"])
    assert used(path) == ALL
    check_right(path)


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_noticed_or_changes_nothing(path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    for file in sorted((path / "derived").iterdir()):
        content = bytearray(file.read_bytes())
        content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        file.write_bytes(content)
    check_right(path)


@pytest.mark.parametrize("seed", range(6))
def test_a_truncated_file_is_noticed(path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    for file in sorted((path / "derived").iterdir()):
        os.truncate(file, chosen.randrange(file.stat().st_size))
    assert used(path) == set()
    check_right(path)


def newer_format(folder: Path) -> None:
    for file in folder.glob("*.json"):
        value = json.loads(file.read_text())
        file.write_text(json.dumps({**value, "format_version": 2}))


def swapped_sets(folder: Path) -> None:
    owl, bat = (folder / f"codes-{record.code_column}.json" for record in (OWL, BAT))
    aside = owl.read_text()
    owl.write_text(bat.read_text())
    bat.write_text(aside)


def a_folder_in_place_of_a_file(folder: Path) -> None:
    file = next(folder.glob("*.codes_image.npy"))
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: next(folder.glob("*.codes_image.npy")).unlink(),
        lambda folder: (folder / "rows.json").unlink(),
        lambda folder: (folder / "rows.json").write_text(""),
        lambda folder: (folder / "rows.json").write_text("[" * 100_000),
        lambda folder: (folder / "rows.json").write_bytes(b"\xff\xfe"),
        newer_format,
        swapped_sets,
        a_folder_in_place_of_a_file,
    ],
    ids=[
        "no array",
        "no JSON",
        "empty JSON",
        "nested JSON",
        "no UTF-8",
        "new",
        "swapped",
        "folder",
    ],
)
def test_damage_is_logged_and_changes_no_result(
    path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    harm(path / "derived")
    assert used(path) < ALL
    with caplog.at_level(logging.WARNING):
        check_right(path)
    lines = [r.message for r in caplog.records if "derived" in r.message]
    assert all("built again" in line for line in lines)
    assert len(lines) <= 3


def test_files_of_another_archive_are_not_used(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with Archive.create(other) as archive:
        archive.register_model(OWL, {})
        archive.register_model(BAT, {})
        for i in range(4):
            archive.add([photo(f"q{i}")], model=OWL.digest)
        archive.delete(["q1"])
        save(archive)
    shutil.rmtree(path / "derived")
    shutil.copytree(other / "derived", path / "derived")
    assert used(path) == set()
    check_right(path)


def test_files_of_a_later_state_are_not_used_by_a_restored_store(
    path: Path, tmp_path: Path
) -> None:
    shutil.copytree(path / "store", tmp_path / "backup")
    shutil.copy(path / "sums", tmp_path)
    with Archive.open(path, write=True) as archive:
        archive.add([photo("later")], model=OWL.digest)
        save(archive)
    shutil.rmtree(path / "store")
    shutil.copytree(tmp_path / "backup", path / "store")
    shutil.copy(tmp_path / "sums", path)
    assert used(path) == set()
    check_right(path)
    with Archive.open(path, write=True) as archive:
        # Again at the version of the files, with other content.
        archive.add([photo("otherwise")], model=OWL.digest)
    assert used(path) == set()
    check_right(path)


def test_a_set_of_a_version_that_is_gone_is_used_only_if_it_was_renewed(path: Path) -> None:
    def forget_versions() -> None:
        versions = path / "store" / "observations.lance" / "_versions"
        for file in sorted(versions.glob("*.manifest"))[1:]:
            file.unlink()

    with Archive.open(path, write=True) as archive:
        files = files_of(archive)
        assert files.read("rows") is not None
        archive.add([photo("new")], model=OWL.digest)
        files.renew()
    forget_versions()
    assert used(path) == {"rows"}
    check_right(path)


def test_a_folder_that_cannot_be_written_to_costs_speed_only(
    path: Path,
) -> None:
    shutil.rmtree(path / "derived")
    (path / "derived").write_text("in the way")
    store = Store(path / "store")
    assert not DerivedFiles(path / "derived", store).write_set("x", {"a": np.zeros(3)}, 1)
    check_right(path)


def stored_a(files: DerivedFiles) -> list[int]:
    """Array "a" of set "x"."""
    arrays = files.read("x")
    assert arrays is not None
    found: list[int] = arrays["a"].tolist()
    return found


def test_a_full_disk_leaves_the_set_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(path / "store")
    files = DerivedFiles(path / "derived", store)
    files.write("x", {"a": np.arange(5)})
    before = sorted((path / "derived").iterdir())
    with monkeypatch.context() as patched:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(os, "fsync", full)
        files.write("x", {"a": np.arange(9)})
    assert sorted((path / "derived").iterdir()) == before
    assert stored_a(files) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_crash_between_two_files_leaves_the_set_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    class Killed(BaseException):
        pass

    files = DerivedFiles(path / "derived", Store(path / "store"))
    files.write("x", {"a": np.arange(5), "b": np.arange(2)})
    calls = 0
    plain = os.fsync

    def killed(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Killed
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", killed)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(Killed):
        files.write("x", {"a": np.arange(9), "b": np.arange(3)})
    assert stored_a(files) == [0, 1, 2, 3, 4]


def test_writing_removes_files_of_replaced_sets_and_of_earlier_releases(path: Path) -> None:
    files = DerivedFiles(path / "derived", Store(path / "store"))
    for name in ("code_0-image-graph.json", "code_0-image-graph.0b15.links.npy"):
        (path / "derived" / name).write_text("{}")
    check_right(path)
    for i in range(3):
        files.write("x", {"a": np.arange(i), "b": np.zeros((i, 2))})
    assert not list((path / "derived").glob("*-graph.*"))
    assert len(list((path / "derived").glob("x.*"))) == 3
    assert used(path) == {*ALL, "x"}


def test_two_writers_at_once_leave_one_whole_set(path: Path) -> None:
    def write(number: int) -> None:
        files = DerivedFiles(path / "derived", Store(path / "store"))
        for _ in range(10):
            files.write("x", {"a": np.full(100, number), "b": np.full(7, number)})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrays = DerivedFiles(path / "derived", Store(path / "store")).read("x")
    if arrays is not None:  # one writer may have removed the other's files
        assert len({*arrays["a"].tolist(), *arrays["b"].tolist()}) == 1


def test_an_archive_stores_what_it_has_loaded_and_opens_from_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = np.random.default_rng(1).normal(size=64)

    def found() -> list[tuple[str, float]]:
        hits = archive.search(query, model=OWL.digest, k=40, metric="asymmetric").hits
        return [(hit.observation.id, hit.distance) for hit in hits]

    archive.add([photo(f"p{i}") for i in range(30)], model=OWL.digest)
    before = found()
    archive.close()
    assert used(archive.path) == {"rows", f"codes-{OWL.code_column}"}
    with Archive.open(archive.path) as archive, monkeypatch.context() as patched:
        patched.setattr(Store, "batches", lambda *_: pytest.fail("the store was read"))
        assert found() == before
    with Archive.open(archive.path, write=True) as archive:
        archive.add([photo("p30")], model=OWL.digest)
        assert len(found()) == 31
    files = DerivedFiles(archive.path / "derived", Store(archive.path / "store"))
    stored = files.read_set("rows")
    assert stored is not None
    assert stored.version < Store(archive.path / "store").version, "one row is not worth it"


def test_a_small_archive_has_no_derived_files(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_files, "STORED_FROM", 200_000)
    archive.add([photo("a")], model=OWL.digest)
    archive.search(np.ones(64), model=OWL.digest, k=1, metric="hamming")
    archive.close()
    assert not (archive.path / "derived").exists()


def test_verify_names_damaged_files_and_not_those_that_are_out_of_date(path: Path) -> None:
    with Archive.open(path) as archive:
        assert archive.verification().made_anew == []
        file = next((path / "derived").glob(f"codes-{BAT.code_column}.*.codes_image.npy"))
        file.write_bytes(file.read_bytes()[:-1])
        found = archive.verification()
        (named,) = found.made_anew
        assert named.startswith(f"codes-{BAT.code_column}: ")
        assert found.problems == archive.verify() == []


def test_verify_does_not_change_damaged_files(path: Path) -> None:
    folder = path / "derived"
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        before = {each.name: each.read_bytes() for each in folder.iterdir()}
        with Archive.open(path) as archive:
            found = archive.verification()
        (named,) = found.made_anew
        assert named.startswith(file.name.split(".")[0])
        assert found.problems == []
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
        file.write_bytes(whole)


def test_an_archive_with_derived_files_is_still_an_archive(path: Path) -> None:
    (path / "archive.json").rename(path / "aside")
    (path / "aside").unlink()
    shutil.rmtree(path / "store")
    with Archive.create(path) as archive:
        archive.register_model(OWL, {})
        archive.add([photo("a")], model=OWL.digest)
        assert [
            h.observation.id
            for h in archive.search(np.ones(64), model=OWL.digest, k=3, metric="hamming").hits
        ] == ["a"]
        assert archive.verify() == []
