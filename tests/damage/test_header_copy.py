"""What repair makes of a copy of `archive.json`, and of a restore that was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.index import writer as writer_module
from bittern.index.archive import Archive
from bittern.index.folder import ArchiveFolder, same_header
from bittern.index.repair import repair
from tests.history.killing import KilledError, Killer
from tests.history.states import state
from tests.index.samples import BAT, OWL, ids, photo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        archive.add([photo(name) for name in "abcd"], model=OWL.digest)
    return tmp_path / "marsh"


def delete_behind_the_copy(path: Path) -> ArchiveFolder:
    """Delete the last rows as a Bittern would that knows no copy."""
    folder = ArchiveFolder(path)
    before = folder.header_copy.read_bytes()
    with Archive.open(path, write=True) as archive:
        archive.delete(["c", "d"])
    folder.header_copy.write_bytes(before)
    assert not same_header(folder.read_header_copy(), folder.read_header())
    return folder


@pytest.mark.parametrize("damage", [None, b"", b"{}"])
def test_a_copy_that_says_something_else_is_renewed_by_the_next_writer(
    path: Path, damage: bytes | None
) -> None:
    folder = delete_behind_the_copy(path)
    if damage is not None:
        folder.header_copy.write_bytes(damage)
    Archive.open(path, write=True).close()
    assert same_header(folder.read_header_copy(), folder.read_header())


def test_a_copy_that_is_right_is_not_written_again(path: Path) -> None:
    folder = ArchiveFolder(path)
    before = folder.header_copy.stat()
    Archive.open(path, write=True).close()
    assert folder.header_copy.stat().st_ino == before.st_ino


def test_row_numbers_are_not_reused_after_repair_with_an_old_copy(path: Path) -> None:
    folder = delete_behind_the_copy(path)
    folder.header_file.write_bytes(b"{}")
    done = repair(path)
    assert any("from archive.copy.json" in step for step in done.steps)
    assert folder.read_header().next_row == 4
    with Archive.open(path, write=True) as archive:
        archive.add([photo("new")], model=OWL.digest)
        assert archive.get("new").row == 4
        assert ids(archive) == ["a", "b", "new"]
    assert repair(path).steps == []


def test_a_copy_that_names_a_model_which_was_dropped_since_is_brought_back_without_it(
    path: Path,
) -> None:
    folder = ArchiveFolder(path)
    with Archive.open(path, write=True) as archive:
        archive.register_model(BAT, {"card.json": b"{}"})
        archive.add([photo(name, record=BAT) for name in "abcd"], model=BAT.digest)
        before = folder.header_copy.read_bytes()
        archive.writer.switch_model(BAT.digest)
        archive.writer.drop_retired()
    folder.header_copy.write_bytes(before)
    folder.header_file.unlink()
    repair(path)
    with Archive.open(path) as archive:
        assert [record.digest for record in archive.model_records()] == [BAT.digest]
        assert archive.verify() == []


def test_a_column_that_a_restore_left_is_dropped_and_the_snapshot_keeps_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.open(path, write=True) as archive:
        archive.take_snapshot("spring")
        old = state(archive)
        archive.register_model(BAT, {"card.json": b"{}"})
        archive.add([photo(name, record=BAT) for name in "abcd"], model=BAT.digest)
        new = state(archive)
        with monkeypatch.context() as patched:
            Killer(patched, 0).watch(writer_module, "drop_unnamed")
            with pytest.raises(KilledError):
                archive.restore("spring")
    with Archive.open(path) as archive:
        assert [line for line in archive.verify() if BAT.code_column in line]
    dry = repair(path, dry_run=True)
    done = repair(path)
    assert dry.steps == done.steps
    assert any(BAT.code_column in step for step in done.steps)
    assert repair(path).steps == []
    with Archive.open(path) as archive:
        assert archive.verify() == []
        assert state(archive) == old
    with Archive.open(path, snapshot="before-restore-1") as then:
        assert state(then) == new


def test_a_column_of_codes_that_no_snapshot_holds_is_left_alone(path: Path) -> None:
    folder = ArchiveFolder(path)
    before = folder.read_header()
    with Archive.open(path, write=True) as archive:
        archive.register_model(BAT, {"card.json": b"{}"})
        archive.add([photo(name, record=BAT) for name in "abcd"], model=BAT.digest)
    now = folder.read_header()
    folder.write_header(before)
    repair(path)
    folder.write_header(now)
    with Archive.open(path) as archive:
        assert len(state(archive)["codes"][BAT.digest]) == 4
