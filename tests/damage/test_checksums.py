"""A commit has checksums when it is acknowledged; one of a killed writer gets them later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import xxhash

from bittern.errors import ArchiveDamagedError, ArchiveVersionError
from bittern.index.archive import Archive
from bittern.index.checksums import (
    TABLE_PREFIX,
    Checksum,
    append_checksums,
    checksum_of,
    read_checksums,
    replace_checksums,
    stored_files,
)
from bittern.index.commit_log import CommitLog
from bittern.index.repair import repair
from tests.damage.judging import contents
from tests.history.states import newest_files, newest_manifest
from tests.index.samples import OWL, ids, photo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        archive.add([photo("a"), photo("b")], model=OWL.digest)
    return tmp_path / "marsh"


def unsummed(path: Path) -> list[str]:
    """Files of the store that have no checksum."""
    known = read_checksums(path).files
    return [key for key in stored_files(path / "store").keys if key not in known]


def test_every_file_has_its_checksum_when_a_commit_is_acknowledged(path: Path) -> None:
    with Archive.open(path, write=True) as archive:
        for turn in range(12):
            archive.add([photo(f"new {turn}", {"turn": turn})], model=OWL.digest)
            assert unsummed(path) == []
            archive.delete([f"new {turn}"])
            assert unsummed(path) == []
    assert unsummed(path) == []
    for key, recorded in read_checksums(path).files.items():
        if (path / key).exists():
            assert checksum_of(path / key) == recorded


def test_a_commit_that_was_never_recorded_is_adopted_by_the_next_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CommitLog, "record", lambda self: None)
        with Archive.open(path, write=True) as archive:
            archive.add([photo("unrecorded")], model=OWL.digest)
    assert unsummed(path) != []
    with Archive.open(path) as archive:
        assert archive.verification().without_checksums == len(unsummed(path))
        assert archive.verify() == []
    Archive.open(path, write=True).close()
    assert unsummed(path) == []
    with Archive.open(path) as archive:
        assert ids(archive) == ["a", "b", "unrecorded"]


@pytest.mark.parametrize("folder", ["data", "_deletions"])
def test_a_commit_without_checksums_is_not_adopted_if_its_rows_cannot_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CommitLog, "record", lambda self: None)
        with Archive.open(path, write=True) as archive:
            archive.add([photo("c"), photo("d")], model=OWL.digest)
            archive.delete(["c"])
    [new] = [key for key in unsummed(path) if f"/{folder}/" in key]
    (path / new).write_bytes(b"damaged")
    with pytest.raises(ArchiveDamagedError, match="rows of the archive"):
        Archive.open(path, write=True)
    assert new in unsummed(path)


def test_a_lost_file_of_a_snapshot_is_still_reported_after_the_next_commits(path: Path) -> None:
    with Archive.open(path, write=True) as archive:
        archive.delete(["a"])
        archive.take_snapshot("spring")
        [lost] = (path / "store/observations.lance/_deletions").iterdir()
        archive.delete(["b"])
    lost.unlink()
    for _ in range(2):
        with Archive.open(path, write=True) as archive:
            archive.add([photo("c", {"tally": 1})], model=OWL.digest, on_duplicate="overwrite")
            assert any(lost.name in problem for problem in archive.verify())


def test_an_archive_without_checksums_gets_them_at_the_first_write(path: Path) -> None:
    (path / "sums").unlink()
    with Archive.open(path) as archive:
        assert archive.verify() == []
    assert not (path / "sums").exists()
    Archive.open(path, write=True).close()
    assert unsummed(path) == []


def test_a_torn_last_line_is_no_damage(path: Path) -> None:
    with (path / "sums").open("ab") as stream:
        stream.write(b"0123 torn")
    with Archive.open(path) as archive:
        assert archive.verify() == []
    with Archive.open(path, write=True) as archive:
        archive.add([photo("after")], model=OWL.digest)
    assert not read_checksums(path).torn
    assert unsummed(path) == []


def test_the_last_line_of_a_file_counts(tmp_path: Path) -> None:
    first, second = Checksum("0" * 32, 1), Checksum("1" * 32, 2)
    append_checksums(tmp_path, {"a": first, "b c\n": first})
    append_checksums(tmp_path, {"a": second, "b c\n": None})
    found = read_checksums(tmp_path)
    assert (found.files, found.lines, found.torn, found.damaged) == ({"a": second}, 4, False, [])
    replace_checksums(tmp_path, found.files)
    assert read_checksums(tmp_path).lines == 1


HOSTILE = [
    f'"{path}"'
    for path in (
        f"{TABLE_PREFIX}data/../../../../precious/thesis.txt",
        "models/../../precious/thesis.txt",
        "/etc/passwd",
        "../precious/thesis.txt",
        "store//x",
        "store/./x",
        r"store\\x",
        r"store/\u0000",
        r"store/\ud800",
        "store/" + "x" * 5_000,
        "",
    )
] + ["7", "{}", "null", "[" * 100_000]


@pytest.mark.parametrize("path_json", HOSTILE, ids=range(len(HOSTILE)))
def test_a_line_with_a_path_outside_the_archive_is_damage_and_nothing_there_is_touched(
    path: Path, path_json: str
) -> None:
    precious = path.parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("precious")
    before = contents(precious)
    add_line(path, f"{'0' * 32} 8 {path_json}")
    lines = read_checksums(path).lines
    with Archive.open(path) as archive:
        assert archive.verify() == [
            f"sums is damaged in line {lines}; run bittern verify --repair: it writes the "
            "checksums again from the sound files"
        ]
    assert repair(path).steps == ["write the checksums again"]
    assert repair(path).steps == []
    assert contents(precious) == before


def add_line(path: Path, rest: str) -> None:
    """Add a line with a valid check."""
    with (path / "sums").open("ab") as log:
        log.write(f"{xxhash.xxh3_64_hexdigest(rest.encode())} {rest}\n".encode())


@pytest.mark.parametrize("size", ["-1", "1" * 19, "9" * 5_000, "1_0", "٣", "1.0", ""])
def test_a_line_with_a_size_that_no_file_has_is_damage(path: Path, size: str) -> None:
    add_line(path, f'{"0" * 32} {size} "models/{OWL.digest}/card.json"')
    log = read_checksums(path)
    assert log.damaged == [log.lines]


@pytest.mark.parametrize("version", [10**6, 2**63, 2**64 - 1])
def test_a_line_of_a_version_far_above_the_newest_does_not_keep_repair_busy(
    path: Path, version: int
) -> None:
    key = f"{TABLE_PREFIX}_versions/{2**64 - 1 - version:020}.manifest"
    append_checksums(path, {key: Checksum("0" * 32, 1)})
    before = newest_manifest(path)
    assert repair(path).steps == ["write the checksums again"]
    assert repair(path).steps == []
    assert newest_manifest(path) == before
    with Archive.open(path) as archive:
        assert archive.verify() == []
        assert ids(archive) == ["a", "b"]


def test_the_log_does_not_grow_with_commits_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bittern.index.commit_log._MOST_OBSOLETE_LINES", 0)
    append_checksums(
        path, {f"{TABLE_PREFIX}data/gone-{n}": Checksum("0" * 32, 1) for n in range(100)}
    )
    with Archive.open(path, write=True) as archive:
        for turn in range(60):
            archive.add([photo(f"new {turn}")], model=OWL.digest)
    assert not any("gone" in key for key in read_checksums(path).files)
    assert unsummed(path) == []


def test_a_lost_commit_is_noticed_though_the_one_before_is_whole(path: Path) -> None:
    newest_manifest(path).unlink()
    with pytest.raises(ArchiveDamagedError, match=r"is missing.*add --repair"):
        Archive.open(path)
    done = repair(path)
    assert done.given_up
    with Archive.open(path) as archive:
        assert archive.verify() == []


def test_a_store_of_newer_features_is_refused_and_left_alone(path: Path) -> None:
    newest = newest_manifest(path)
    data = newest.read_bytes()
    # Field 9, the features that a reader must know, once more: the last one counts.
    start = int.from_bytes(data[-16:-8], "little")
    flagged = data[start + 4 : -16] + b"\x48\x80\x80\x40"
    newest.write_bytes(data[:start] + len(flagged).to_bytes(4, "little") + flagged + data[-16:])
    (path / "sums").unlink()
    before = {one: one.read_bytes() for one in path.rglob("*") if one.is_file()}
    for write in (False, True):
        with pytest.raises(ArchiveVersionError, match=r"newer LanceDB.*pip install -U"):
            Archive.open(path, write=write)
    with pytest.raises(ArchiveVersionError, match="newer LanceDB"):
        repair(path)
    assert {one: one.read_bytes() for one in path.rglob("*") if one.is_file()} == before


def test_a_changed_header_says_how_to_change_it_on_purpose(path: Path) -> None:
    header = json.loads((path / "archive.json").read_text("utf-8"))
    header["name"] = "mire"
    (path / "archive.json").write_text(json.dumps(header), "utf-8")
    with pytest.raises(ArchiveDamagedError, match="delete the line with xxh3"):
        Archive.open(path)
    del header["xxh3"]
    (path / "archive.json").write_text(json.dumps(header), "utf-8")
    with Archive.open(path) as archive:
        assert archive.name == "mire"


def test_an_interrupted_repair_is_continued_by_the_next(path: Path, tmp_path: Path) -> None:
    with Archive.open(path, write=True) as archive:
        archive.add([photo("c")], model=OWL.digest)
    newest_files(path)[-1].unlink()

    class CutOffError(Exception):
        """What stands for a kill."""

    for steps in range(20):
        copy = tmp_path / f"cut-{steps}"
        shutil.copytree(path, copy)
        seen: list[str] = []

        def count(what: str, seen: list[str] = seen, most: int = steps) -> None:
            if len(seen) == most:
                raise CutOffError
            seen.append(what)

        try:
            repair(copy, on_step=count)
        except CutOffError:
            repair(copy)
        else:
            assert steps > 1
            break
        with Archive.open(copy) as archive:
            assert ids(archive) == ["a", "b"]
            assert archive.verify() == []
        assert repair(copy).steps == []
