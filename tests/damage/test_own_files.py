"""An archive has files and folders of its own only: nothing follows a link in it, or leaves it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bittern.errors import ArchiveDamagedError, BitternError, InvalidInputError, PreconditionError
from bittern.files import check_output_file, replace_file, writing_file
from bittern.index.archive import Archive
from bittern.index.backup import backup
from bittern.index.folder import ArchiveFolder
from bittern.index.repair import repair
from bittern.index.verify import verified_files
from bittern.service.export.folder import write_folder
from tests.damage.judging import contents, make_full, use
from tests.golden.make import HERON, photo
from tests.index.samples import BAT, ids

TABLE = "store/observations.lance"
OWN = (
    "archive.json",
    "archive.copy.json",
    "backup.json",
    "derived",
    "derived/rows.json",
    "jobs",
    "lock",
    "lost-found",
    "models",
    f"models/{HERON.digest}",
    f"models/{HERON.digest}/card.json",
    "models/.new-begun",
    f"models/{'f' * 64}",
    "reports",
    "snapshots",
    "snapshots/spring.json",
    "snapshots.lock",
    "store",
    TABLE,
    f"{TABLE}/_deletions",
    f"{TABLE}/_indices",
    f"{TABLE}/_transactions",
    f"{TABLE}/_versions",
    f"{TABLE}/data",
    f"{TABLE}/tree",
    "sums",
    ".archive-begun",
    ".sums-begun",
)
"""Paths that Bittern reads, writes, moves or deletes."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with every kind of file."""
    path = tmp_path_factory.mktemp("template") / "marsh"
    make_full(path)
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "marsh")


def moved_outside(path: Path, name: str, outside: Path) -> None:
    """Move a file or folder of an archive out of it, and leave a link."""
    if not (path / name).exists():
        (path / name).mkdir()
        (path / name / "precious.tmp").write_text("precious")
    outside.mkdir()
    (path / name).rename(outside / "moved")
    (path / name).symlink_to(outside / "moved")


@pytest.mark.parametrize("name", OWN)
def test_what_a_link_leads_to_is_neither_read_nor_changed(
    path: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    moved_outside(path, name, outside)
    before = contents(outside)
    for write in (False, True):
        with pytest.raises(ArchiveDamagedError, match=f"{name} is a symbolic link to {outside}"):
            Archive.open(path, write=write)
    [found] = verified_files(ArchiveFolder(path)).findings
    assert (found.kind, found.path) == ("link", name)
    for dry_run in (True, False):
        with pytest.raises(ArchiveDamagedError, match=f"{name} is a symbolic link to {outside}"):
            repair(path, dry_run=dry_run)
    use(path)
    assert contents(outside) == before
    assert (path / name).is_symlink()


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    "make",
    [
        loop,
        lambda path: path.symlink_to("nothing"),
        lambda path: path.symlink_to("models"),
        os.mkfifo,
    ],
    ids=["loop", "dangling", "inside", "pipe"],
)
@pytest.mark.parametrize("name", ["derived", "archive.copy.json", "lock", f"{TABLE}/_indices/x"])
def test_links_anywhere_and_pipes_are_refused(
    path: Path, make: Callable[[Path], None], name: str
) -> None:
    there = path / name
    shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)
    make(there)
    assert [one.path for one in verified_files(ArchiveFolder(path)).findings] == [name]
    for call in (Archive.open, repair, lambda path: backup(path, path.with_name("copy"))):
        with pytest.raises(ArchiveDamagedError, match=f"{name} is"):
            call(path)


def test_other_links_in_the_folder_and_a_link_to_the_archive_do_no_harm(
    path: Path, tmp_path: Path
) -> None:
    (path / "pictures").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(path)
    with Archive.open(tmp_path / "link", write=True) as archive:
        archive.add([photo("e", HERON)], model=HERON.digest)
        assert archive.verify() == []
        assert "e" in ids(archive)
    assert repair(tmp_path / "link").steps == []


@pytest.mark.parametrize(
    "name", ["derived", "models", "snapshots", "snapshots.lock", "sums", f"{TABLE}/data"]
)
def test_a_link_that_appears_while_an_archive_is_open_is_not_followed(
    path: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    with Archive.open(path, write=True) as archive:
        moved_outside(path, name, outside)
        before, first = contents(outside), ids(archive)[0]
        for change in (
            lambda: archive.add([photo("e", HERON)], model=HERON.digest),
            lambda: archive.register_model(BAT, {"card.json": b"{}"}),
            lambda: archive.delete([first]),
            lambda: archive.take_snapshot("summer"),
            lambda: archive.drop_snapshot("spring"),
            lambda: archive.restore("spring"),
            lambda: archive.writer.drop_retired(),
            lambda: archive._follower.derived.write("rows", {"kinds": np.ones(3, np.int8)}),
        ):
            with suppress(BitternError):
                change()
        assert [one.path for one in archive.verification().findings] == [name]
        assert contents(outside) == before


def test_a_backup_writes_through_no_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / ".copy.partial").symlink_to(tmp_path / "outside")
    with pytest.raises(PreconditionError, match="is a symbolic link"):
        backup(path, tmp_path / "copy")
    (tmp_path / ".copy.partial").unlink()
    backup(path, tmp_path / "copy")
    moved_outside(tmp_path / "copy", "derived", tmp_path / "home")
    before = contents(tmp_path / "home")
    with pytest.raises(ArchiveDamagedError, match="derived is a symbolic link"):
        backup(path, tmp_path / "copy")
    assert contents(tmp_path / "home") == before
    assert contents(tmp_path / "outside") == {}


def test_a_file_in_the_place_of_the_folder_of_snapshots_is_a_typed_error(path: Path) -> None:
    shutil.rmtree(path / "snapshots")
    (path / "snapshots").write_bytes(b"x")
    with (
        Archive.open(path) as archive,
        pytest.raises(PreconditionError, match="snapshots cannot be written to"),
    ):
        archive.take_snapshot("summer")


def test_no_archive_is_made_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "marsh").mkdir()
    (tmp_path / "marsh" / "models").symlink_to(tmp_path / "outside")
    with pytest.raises(ArchiveDamagedError, match="models is a symbolic link"):
        Archive.create(tmp_path / "marsh")
    assert [one.name for one in (tmp_path / "marsh").iterdir()] == ["models"]


@pytest.mark.parametrize(
    "name", ["archive.json", "hits.csv", "models/hits.csv", "hits.csv.partial"]
)
def test_nothing_else_is_written_into_an_archive(path: Path, name: str) -> None:
    before = contents(path)
    for write in (
        check_output_file,
        lambda to: write_folder([], to.with_name("new"), []),
        lambda to: backup(path, to.with_name("new")),
        lambda to: Archive.create(to.with_name("new")),
    ):
        with pytest.raises(InvalidInputError, match=r"archive at|contains the other"):
            write(path / name)
    assert contents(path) == before


def test_a_file_that_replaces_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for name in ("a", "b", "b.partial"):
        (tmp_path / name).symlink_to(precious)
    replace_file(tmp_path / "a", b"new")
    with writing_file(tmp_path / "b") as stream:
        stream.write(b"new")
    assert precious.read_text() == "precious"
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"new", b"new"]


@pytest.fixture(params=[0o077, 0o027, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_and_folders_of_an_archive_and_its_backup_follow_the_umask(
    umask: int, tmp_path: Path
) -> None:
    make_full(tmp_path / "marsh")
    for _ in range(2):
        backup(tmp_path / "marsh", tmp_path / "copy")
    (tmp_path / "copy" / "archive.json").write_bytes(b"{}")
    repair(tmp_path / "copy")
    for one in tmp_path.rglob("*"):
        wanted = (0o777 if one.is_dir() else 0o666) & ~umask
        assert oct(one.stat().st_mode & 0o777) == oct(wanted), one
