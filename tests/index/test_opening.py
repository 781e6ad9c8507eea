"""Opening: what is no archive, what is a damaged one, who may write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bittern.errors import (
    ArchiveDamagedError,
    ArchiveLockedError,
    ArchiveNotFoundError,
    ArchiveVersionError,
    PreconditionError,
)
from bittern.index.archive import Archive
from bittern.index.folder import FORMAT_VERSION
from tests.index.samples import BAT, OWL, ids, photo


@pytest.fixture
def path(archive: Archive) -> Path:
    archive.add([photo("a"), photo("b")], model=OWL.digest)
    archive.close()
    return archive.path


def test_an_archive_can_be_opened_again(path: Path) -> None:
    with Archive.open(path) as again:
        assert ids(again) == ["a", "b"]
        assert again.model_records() == [OWL]
        assert again.name == "marsh"
        assert again.model_folder(OWL.digest).joinpath("card.json").read_bytes() == b"{}"


def test_create_opens_an_existing_archive(path: Path) -> None:
    with Archive.create(path, name="other") as again:
        assert ids(again) == ["a", "b"]
        assert again.name == "marsh"


def test_an_archive_has_the_name_it_was_given(tmp_path: Path) -> None:
    Archive.create(tmp_path / "x", name="The marsh").close()
    with Archive.open(tmp_path / "x") as archive:
        assert archive.stats().name == "The marsh"


def test_making_an_archive_prints_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from bittern.index.archive import Archive; Archive.create(sys.argv[1]).close()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LANCEDB_LOG"}
    made = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "new")],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert (made.stdout, made.stderr) == (b"", b"")
    assert (tmp_path / "new" / "archive.json").is_file()


def test_an_archive_opened_for_reading_says_how_to_open_it_for_writing(path: Path) -> None:
    with (
        Archive.open(path) as archive,
        pytest.raises(PreconditionError, match=r"bittern\.open\(path, write=True\)"),
    ):
        archive.delete(["a"])


def test_the_other_folders_of_an_archive_are_no_foreign_files(tmp_path: Path) -> None:
    for name in ("jobs", "reports", "snapshots", "lost-found", "derived"):
        (tmp_path / name).mkdir()
    with Archive.create(tmp_path) as made:
        assert made.verify() == []


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(PreconditionError, match=r"holiday\.jpg"):
        Archive.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


def test_an_archive_of_which_creation_was_interrupted_can_be_created_again(path: Path) -> None:
    fresh = path.with_name("fresh")
    Archive.create(fresh).close()
    (fresh / "archive.json").unlink()
    with Archive.create(fresh) as archive:
        assert ids(archive) == []


def test_an_archive_that_lost_its_header_is_not_made_anew(path: Path) -> None:
    (path / "archive.json").unlink()
    with pytest.raises(ArchiveDamagedError, match=r"archive\.json"):
        Archive.create(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such folder; make one with: bittern index"),
        ("empty", "is empty; make one with: bittern index"),
        ("file", "it is a file"),
        ("photos", r"holds no archive\.json"),
    ],
)
def test_a_path_without_an_archive_is_not_found(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "marsh"
    if kind == "file":
        path.touch()
    elif kind != "missing":
        path.mkdir()
    if kind == "photos":
        (path / "holiday.jpg").touch()
    with pytest.raises(ArchiveNotFoundError, match=message):
        Archive.open(path)


def test_no_archive_is_created_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PreconditionError, match="it is a file"):
        Archive.create(tmp_path / "file")


def changes_files(folder: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Damage: the files of a folder of the store's table have another content."""

    def harm(path: Path) -> None:
        for file in (path / "store" / "observations.lance" / folder).iterdir():
            file.write_bytes(change(file.read_bytes()))

    return harm


def removes(name: str) -> Callable[[Path], object]:
    """Damage: a folder or file of the archive is gone."""

    def harm(path: Path) -> None:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink()

    return harm


def header_is(text: str) -> Callable[[Path], object]:
    """Damage: `archive.json` has another content."""
    return lambda path: (path / "archive.json").write_text(text)


HARMED_DATA = [
    removes("store/observations.lance/data"),
    changes_files("data", lambda _: b""),
    changes_files("data", lambda data: data[: len(data) // 2]),
    changes_files("data", lambda _: b"not lance" * 50),
]


def name_a_model_without_codes(path: Path) -> None:
    header = json.loads((path / "archive.json").read_text())
    header["models"].append(BAT.to_json())
    header.pop("xxh3", None)  # somebody who changes it on purpose takes the checksum out
    (path / "archive.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (removes("archive.json"), "archive.json"),
        (removes("store"), "store"),
        (removes("store/observations.lance"), "observations"),
        (removes("store/observations.lance/_versions"), "store"),
        *((harm, "data") for harm in HARMED_DATA),
        (changes_files("_versions", lambda data: data[: len(data) // 2]), "store"),
        (header_is("{"), "archive.json"),
        (header_is('{"format_version": 1}'), "archive.json"),
        (header_is("[" * 100_000), "archive.json"),
        (name_a_model_without_codes, BAT.digest[:16]),
    ],
)
def test_a_damaged_archive_says_what_is_wrong(
    path: Path, harm: Callable[[Path], object], named: str
) -> None:
    harm(path)
    with pytest.raises(ArchiveDamagedError) as caught, Archive.open(path) as archive:
        archive.search(np.ones(64), model=OWL.digest, k=1, metric="hamming")
    assert named in caught.value.message
    assert "backup" in caught.value.message
    for inside in ("/rustc/", ".cargo", ".rs:"):
        assert inside not in caught.value.message


@pytest.mark.parametrize("harm", HARMED_DATA)
def test_damaged_data_files_are_damage_to_every_reader(
    path: Path, harm: Callable[[Path], object]
) -> None:
    with Archive.open(path) as archive:
        harm(path)
        for read in (
            lambda: archive.get("a"),
            lambda: archive.list(),
            lambda: archive.list(where="genus = 'x'"),
            lambda: archive.code("a", OWL.digest),
            lambda: list(archive.iter_batches()),
            lambda: archive.verify(),
        ):
            with pytest.raises(ArchiveDamagedError):
                read()


def test_a_lost_model_folder_is_named_and_the_rest_can_be_read(path: Path) -> None:
    shutil.rmtree(path / "models" / OWL.digest)
    with Archive.open(path) as archive:
        assert ids(archive) == ["a", "b"]
        with pytest.raises(ArchiveDamagedError, match=OWL.digest):
            archive.model_folder(OWL.digest)


def test_registering_again_brings_lost_files_back(path: Path) -> None:
    shutil.rmtree(path / "models" / OWL.digest)
    with Archive.open(path, write=True) as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        assert archive.verify() == []


def test_an_archive_of_a_newer_version_is_refused(path: Path) -> None:
    header = json.loads((path / "archive.json").read_text())
    header["format_version"] = FORMAT_VERSION + 1
    (path / "archive.json").write_text(json.dumps(header))
    with pytest.raises(ArchiveVersionError, match=f"format version {FORMAT_VERSION + 1}"):
        Archive.open(path)


# Locks


def test_a_second_writer_is_refused_and_readers_are_not(path: Path) -> None:
    with Archive.open(path, write=True):
        with pytest.raises(ArchiveLockedError, match="wait"):
            Archive.open(path, write=True)
        with pytest.raises(ArchiveLockedError):
            Archive.create(path)
        with Archive.open(path) as reader:
            assert ids(reader) == ["a", "b"]
    with Archive.open(path, write=True) as archive:
        assert archive.delete(["a"]) == ["a"]


def test_a_writer_in_another_process_is_noticed_and_its_death_frees_the_lock(path: Path) -> None:
    script = (
        "import sys; from bittern.index.archive import Archive\n"
        "a = Archive.open(sys.argv[1], write=True); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ArchiveLockedError):
            Archive.open(path, write=True)
    finally:
        other.kill()
        other.communicate()
    Archive.open(path, write=True).close()


def test_a_failed_opening_gives_the_lock_back(path: Path) -> None:
    store, aside = path / "store", path / "aside"
    (store / "observations.lance").rename(aside)
    with pytest.raises(ArchiveDamagedError):
        Archive.open(path, write=True)
    aside.rename(store / "observations.lance")
    Archive.open(path, write=True).close()


def test_reading_changes_no_file(path: Path) -> None:
    def files() -> dict[str, str]:
        return {
            str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in path.rglob("*")
            if file.is_file()
        }

    before = files()
    (path / "lock").unlink(missing_ok=True)
    before.pop("lock", None)
    with Archive.open(path) as reader:
        reader.search(np.ones(64), model=OWL.digest, k=1, metric="asymmetric")
        reader.list(where="order IS NULL")
        reader.stats()
        assert reader.verify() == []
    assert files() == before
