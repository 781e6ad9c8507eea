"""An export is of the state that it began with, however slowly it is read."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.errors import ArchiveDamagedError, PreconditionError
from bittern.index import backup as backup_module
from bittern.index.archive import Archive
from bittern.index.backup import backup
from bittern.index.snapshots import models_in_use
from bittern.index.store import Store
from bittern.index.versions import OldVersions, pin_name
from tests.history.states import state
from tests.index.samples import BAT, OWL, photo

NAMES = [f"p{number:02}" for number in range(40)]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "marsh") as made:
        made.register_model(OWL, {"card.json": b"{}"})
        for begin in range(0, 40, 4):
            made.add([photo(name) for name in NAMES[begin : begin + 4]], model=OWL.digest)
        yield made


def change(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace most rows, and compact as if half an hour had passed."""
    archive.delete(NAMES[:30])
    archive.add([photo("new")], model=OWL.digest)
    with monkeypatch.context() as later:
        later.setattr(OldVersions, "keep_s", lambda *_: 0.0)
        with pytest.warns(UserWarning, match="removes every version"):
            archive._store.compact()


def test_a_slow_export_ends_in_the_state_it_began_with(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.open(archive.path) as reader:
        stream = reader.iter_batches(["id"], model=OWL.digest, batch_rows=5)
        found = next(stream).to_pylist()
        change(archive, monkeypatch)
        found += [row for batch in stream for row in batch.to_pylist()]
    assert [row["id"] for row in found] == NAMES
    assert all(row["code"] for row in found)
    assert archive._store.pins() == {}
    assert archive.verify() == []


def test_a_version_is_unpinned_when_an_export_is_given_up(archive: Archive) -> None:
    stream = archive.iter_batches(batch_rows=5)
    assert list(archive._store.pins().values()) == [archive.generation]
    del stream
    gc.collect()
    assert archive._store.pins() == {}


def test_an_export_that_cannot_keep_its_version_says_that_the_archive_went_on(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> str:
        raise PreconditionError("the folder is for reading only")

    monkeypatch.setattr(Store, "pin", refused)
    with Archive.open(archive.path) as reader:
        stream = reader.iter_batches(batch_rows=5)
        next(stream)
        change(archive, monkeypatch)
        with pytest.raises(PreconditionError, match="export it again") as raised:
            list(stream)
        assert "backup" not in str(raised.value)
        assert len(list(reader.iter_batches(batch_rows=5))) == 3


def test_an_export_of_an_archive_that_is_damaged_says_so(archive: Archive) -> None:
    stream = archive.iter_batches(batch_rows=5)
    next(stream)
    for path in (archive.path / "store/observations.lance/data").iterdir():
        path.unlink()
    with pytest.raises(ArchiveDamagedError):
        list(stream)


def test_the_next_writer_removes_the_pins_of_a_killed_process_and_no_others(
    archive: Archive,
) -> None:
    archive.close()
    store = Store(archive.path / "store")
    killed = subprocess.run(
        [sys.executable, "-c", _KEEPS, str(archive.path / "store")],
        capture_output=True,
        check=False,
        text=True,
    ).stdout.strip()
    mine = pin_name(while_running=True)
    left = {mine, pin_name(), "mine", "x-b-c-d"}  # the last two are not names of `pin_name`
    for name in left:
        store.pin(name, store.version)
    assert store.pins().keys() == {killed, *left}
    with Archive.open(archive.path, write=True):
        assert store.pins().keys() == left
    store.unpin(mine)


_KEEPS = """
import os, sys
from pathlib import Path
from bittern.index.store import Store
from bittern.index.versions import pin_name
store = Store(Path(sys.argv[1]))
name = pin_name(while_running=True)
store.pin(name, store.version)
print(name, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_backup_keeps_its_version_while_a_writer_cleans_up(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real, copies = state(archive), backup_module._copied, []

    def slow(path: Path, target: Path) -> None:
        real(path, target)
        copies.append(path)
        if len(copies) == 1:
            change(archive, monkeypatch)

    monkeypatch.setattr(backup_module, "_copied", slow)
    backup(archive.path, tmp_path / "copy")
    assert len(copies) > 5
    with Archive.open(tmp_path / "copy") as copy:
        assert state(copy) == before
        assert copy.verify() == []
    assert archive._store.pins() == {}


def test_models_that_only_snapshots_need_are_kept(archive: Archive) -> None:
    archive.register_model(BAT, {"card.json": b"{}"})
    archive.take_snapshot("both")
    archive.add([photo(name, record=BAT) for name in NAMES], model=BAT.digest)
    archive.writer.switch_model(BAT.digest)
    assert [record.digest for record in archive.writer.drop_retired()] == [OWL.digest]
    header = archive._folder.read_header()
    assert models_in_use(archive._folder, header) == [BAT.digest, OWL.digest]
    assert (archive.path / "models" / OWL.digest).is_dir()
    archive.drop_snapshot("both")
    assert models_in_use(archive._folder, header) == [BAT.digest]
