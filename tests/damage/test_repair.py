"""What repair brings back, what it keeps, and what it must not touch."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.errors import ArchiveDamagedError
from bittern.index.archive import Archive
from bittern.index.repair import repair
from tests.history.states import newest_files, newest_manifest, state
from tests.index.samples import OWL, photo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        for name in "abcd":
            archive.add([photo(name, {"family": "Ardeidae"})], model=OWL.digest)
    return tmp_path / "marsh"


def state_of(path: Path, snapshot: str | None = None) -> object:
    with Archive.open(path, snapshot=snapshot) as archive:
        assert archive.verify() == []
        return state(archive)


@pytest.mark.parametrize("indexed", [False, True])
def test_rows_that_a_compaction_moved_come_back_from_where_they_lay(
    path: Path, indexed: bool
) -> None:
    with Archive.open(path, write=True) as archive:
        store = archive._store
        if indexed:
            store.make_lookup("id", "sorted")
            store.make_lookup("family", "bitmap")
        store.compact()
    before = state_of(path)
    [data] = newest_files(path)
    data.unlink()
    done = repair(path)
    assert (done.lost, done.lost_rows, done.given_up) == ([], 0, [])
    assert state_of(path) == before
    with Archive.open(path, write=True) as archive:
        archive.add([photo("e")], model=OWL.digest)
        assert archive.verify() == []


def test_a_damaged_look_up_index_is_dropped_and_no_row_is_lost(path: Path) -> None:
    with Archive.open(path, write=True) as archive:
        archive._store.make_lookup("id", "sorted")
    before = state_of(path)
    for index in (path / "store/observations.lance/_indices").rglob("*.lance"):
        index.write_bytes(b"")
    with pytest.raises(ArchiveDamagedError, match="_indices"):
        Archive.open(path)
    assert any("look-up indexes" in step for step in repair(path).steps)
    assert state_of(path) == before


def test_snapshots_and_later_version_numbers_outlive_a_repair(path: Path) -> None:
    with Archive.open(path, write=True) as archive:
        archive.take_snapshot("spring")
        before, version = state(archive), archive.generation
        archive.add([photo("e")], model=OWL.digest)
    newest_manifest(path).unlink()
    assert repair(path).given_up == [version + 1]
    assert state_of(path, "spring") == before
    with Archive.open(path, write=True) as archive:
        assert archive.generation > version + 1
        archive.restore("spring")
        assert state(archive) == before


def test_sound_files_that_no_version_needs_any_more_are_kept(path: Path) -> None:
    lost = newest_files(path)[-1]
    newest_manifest(path).unlink()
    done = repair(path)
    assert done.aside
    assert (done.aside / lost.relative_to(path)).is_file()


def test_a_reader_that_is_open_answers_after_a_repair_like_a_new_one(path: Path) -> None:
    with Archive.open(path) as reader:
        assert len(reader.rows()) == 4
        newest_manifest(path).unlink()
        repair(path)
        with Archive.open(path, write=True) as archive:
            archive.add([photo("e")], model=OWL.digest)
            assert state(reader) == state(archive)


def test_files_of_an_unknown_model_are_deleted_with_their_folders(path: Path) -> None:
    unknown = path / "models" / ("e" * 64)
    (unknown / "heads").mkdir(parents=True)
    for name in ("card.json", "heads/shared.bin"):
        (unknown / name).write_bytes(b"{}")
    with Archive.open(path) as archive:
        assert len(archive.verification().orphans) == 2
    repair(path)
    assert not unknown.exists()
    assert (path / "models" / OWL.digest).is_dir()


def test_a_folder_of_models_that_is_not_named_by_a_digest_is_left_alone(path: Path) -> None:
    (path / "models" / "mine").mkdir()
    (path / "models" / "mine" / "model.json").write_bytes(b"{}")
    with Archive.open(path, write=True) as archive:
        archive.writer.drop_retired()
        assert archive.verification().orphans == []
    assert repair(path).steps == []
    assert (path / "models" / "mine" / "model.json").is_file()
