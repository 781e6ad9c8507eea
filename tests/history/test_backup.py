"""A backup is an archive by itself and holds one state of the archive, whoever writes meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bittern.errors import ArchiveDamagedError, InvalidInputError, PreconditionError
from bittern.index import backup as module
from bittern.index.archive import Archive
from bittern.index.backup import backup
from bittern.index.checksums import append_checksums, checksum_of
from tests.history.killing import KilledError, Killer
from tests.history.states import newest_files, newest_manifest, state
from tests.index.samples import BAT, OWL, ids, photo, recording


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "marsh") as made:
        made.register_model(OWL, {"card.json": b"{}", "heads/shared.bin": b"\x00"})
        made.add([photo("a"), photo("b"), recording("r", 3)], model=OWL.digest)
        made.delete(["b"])
        yield made


def state_of(path: Path, snapshot: str | None = None) -> object:
    with Archive.open(path, snapshot=snapshot) as opened:
        assert opened.verify() == []
        return state(opened)


def test_a_backup_is_an_archive_that_answers_the_same(archive: Archive, tmp_path: Path) -> None:
    done = backup(archive.path, tmp_path / "copy")
    assert state_of(tmp_path / "copy") == state(archive)
    assert done.version == archive.generation
    assert done.unchecked == 0
    with Archive.open(tmp_path / "copy", write=True) as copy:
        copy.add([photo("c")], model=OWL.digest)
        assert copy.get("c").row == 5
    assert archive._store.pins() == {}


def test_a_linked_backup_survives_the_loss_of_the_archive(archive: Archive, tmp_path: Path) -> None:
    before = state(archive)
    done = backup(archive.path, tmp_path / "copy", link=True)
    assert done.linked
    assert not done.copied
    archive.close()
    shutil.rmtree(archive.path)
    assert state_of(tmp_path / "copy") == before


def test_a_second_backup_copies_only_what_is_new(archive: Archive, tmp_path: Path) -> None:
    first = backup(archive.path, tmp_path / "copy")
    archive.register_model(BAT, {"card.json": b"{}"})
    archive.add([photo("c", record=BAT)], model=BAT.digest)
    second = backup(archive.path, tmp_path / "copy")
    assert second.reused >= first.copied - 2
    assert second.copied < first.copied
    assert state_of(tmp_path / "copy") == state(archive)
    needed = newest_files(tmp_path / "copy")
    data = list((tmp_path / "copy/store/observations.lance/data").iterdir())
    assert len(data) <= len(needed)


def test_a_backup_that_was_written_to_is_left_alone(archive: Archive, tmp_path: Path) -> None:
    backup(archive.path, tmp_path / "copy")
    with Archive.open(tmp_path / "copy", write=True) as copy:
        copy.add([photo("own")], model=OWL.digest)
    archive.add([photo("c")], model=OWL.digest)
    with pytest.raises(PreconditionError, match="was changed after"):
        backup(archive.path, tmp_path / "copy")


def test_nothing_but_a_backup_is_written_over(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "heron.jpg").touch()
    with pytest.raises(PreconditionError, match="holds no archive"):
        backup(archive.path, tmp_path / "photos")
    with Archive.create(tmp_path / "another"):
        pass
    with pytest.raises(PreconditionError, match=r"is no backup|is not a backup of"):
        backup(archive.path, tmp_path / "another")
    with pytest.raises(InvalidInputError, match="one folder contains the other"):
        backup(archive.path, archive.path / "copy")


def test_a_snapshot_can_be_copied_instead(archive: Archive, tmp_path: Path) -> None:
    archive.take_snapshot("spring")
    archive.delete(["a", "r"])
    backup(archive.path, tmp_path / "copy", snapshot="spring")
    assert state_of(tmp_path / "copy") == state_of(archive.path, "spring")


def test_a_damaged_file_is_not_copied(archive: Archive, tmp_path: Path) -> None:
    path = newest_files(archive.path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveDamagedError, match="is damaged: its checksum is"):
        backup(archive.path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_archive_that_names_files_of_others_is_refused_and_they_stay(
    archive: Archive, tmp_path: Path
) -> None:
    newest, name = newest_manifest(archive.path), newest_files(archive.path)[0].name.encode()
    # A name of the same length, so that the rest of the manifest holds.
    climbing = b"../../../../".ljust(len(name) - len(b".txt"), b"x") + b".txt"
    precious = tmp_path / climbing.decode().rpartition("/")[2]
    precious.write_text("precious")
    newest.write_bytes(newest.read_bytes().replace(name, climbing))
    key = newest.relative_to(archive.path).as_posix()
    append_checksums(archive.path, {key: checksum_of(newest)})
    with pytest.raises(ArchiveDamagedError, match="names a file"):
        backup(archive.path, tmp_path / "copy")
    assert precious.read_text() == "precious"
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("link", [False, True])
def test_what_is_rotten_in_a_backup_is_copied_again(
    archive: Archive, tmp_path: Path, link: bool
) -> None:
    backup(archive.path, tmp_path / "copy")
    rotten = tmp_path / "copy" / newest_files(archive.path)[0].relative_to(archive.path)
    data = bytearray(rotten.read_bytes())
    data[len(data) // 3] ^= 0xFF
    rotten.write_bytes(data)
    done = backup(archive.path, tmp_path / "copy", link=link)
    assert done.copied + done.linked == 1
    assert state_of(tmp_path / "copy") == state(archive)


@pytest.mark.parametrize("incremental", [False, True])
def test_a_backup_that_is_killed_anywhere_leaves_a_whole_state_or_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, incremental: bool
) -> None:
    to = tmp_path / "copy"
    allowed: list[object] = [None]
    if incremental:
        backup(archive.path, to)
        allowed = [state_of(to)]
        archive.register_model(BAT, {"card.json": b"{}"})
        archive.add([photo("c", record=BAT)], model=BAT.digest)
        archive.delete(["a"])
    allowed.append(state(archive))
    steps = ("_copied", "checksum_of", "replace_checksums", "sync_folder", "write_json", "_hold")
    for last in range(200):
        with monkeypatch.context() as patched:
            Killer(patched, last).watch(module, *steps)
            try:
                backup(archive.path, to)
                break
            except KilledError:
                pass
        assert (state_of(to) if to.exists() else None) in allowed
    assert last > 10
    assert state_of(to) == allowed[-1]


def test_a_backup_is_whole_while_another_process_writes_and_compacts(
    archive: Archive, tmp_path: Path
) -> None:
    archive.close()
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.history.committing", str(archive.path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "LANCE_LOG": "error"},
    )
    assert writer.stdout is not None
    try:
        seen = []
        for number in range(4):
            for _ in range(4):
                writer.stdout.readline()
            done = backup(archive.path, tmp_path / f"copy{number % 2}")
            seen.append(done.version)
            with Archive.open(tmp_path / f"copy{number % 2}") as copy:
                assert copy.verify() == []
                assert copy.generation == done.version
                added = [o.id for o in copy.list(page_size=10_000).observations]
                # Whole commits: four at a time, and one of the batch before last may be deleted.
                assert len([name for name in added if name.endswith("-0")]) == len(
                    [name for name in added if name.endswith("-3")]
                )
        assert seen == sorted(set(seen))
    finally:
        writer.kill()
        writer.wait()


def test_a_backup_that_is_copied_back_is_noticed_though_versions_have_the_same_numbers(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "marsh", tmp_path / "copy"
    with Archive.create(path) as made:
        made.register_model(OWL, {"card.json": b"{}"})
        made.add([photo(name) for name in "abcdef"], model=OWL.digest)
    backup(path, copy)
    query = np.zeros(8, np.uint8)
    with Archive.open(path) as reader:

        def answers(archive: Archive) -> tuple[object, ...]:
            found = archive.search(query, model=OWL.digest, k=9, metric="hamming").hits
            hits = [(hit.observation.id, hit.distance) for hit in found]
            return ids(archive), archive.rows().tolist(), archive.generation, hits

        with Archive.open(path, write=True) as writer:
            writer.delete(["f", "e"])
        before = answers(reader), reader.state
        for gone in ("a", "b"):
            shutil.rmtree(path)
            shutil.copytree(copy, path)
            with Archive.open(path, write=True) as writer:
                writer.delete([gone])
            with Archive.open(path) as fresh:
                assert answers(reader) == answers(fresh)
            assert gone not in ids(reader)
            assert reader.generation == before[0][2]
            assert reader.state != before[1]
        with Archive.open(path, write=True) as writer:
            writer.delete(["c"])
        with Archive.open(path) as fresh:
            assert answers(reader) == answers(fresh)
        assert reader.verify() == []
