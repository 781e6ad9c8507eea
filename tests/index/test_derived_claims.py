"""Derived sets with impossible content and correct checksums are refused in one line of the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.index import generation_files
from bittern.index.archive import Archive
from bittern.index.derived_files import DerivedFiles, _digest, read_array, write_array
from bittern.index.generation import Generation
from bittern.index.generation_files import GenerationFiles
from bittern.index.store import Store
from tests.index.samples import OWL, photo

ROWS = 50
CODES = f"codes-{OWL.code_column}"


@pytest.fixture
def path(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generation_files, "STORED_FROM", 1)
    archive.add([photo(f"p{i}", seed=i) for i in range(ROWS)], model=OWL.digest)
    answer(archive)
    archive.close()
    assert sets(archive.path).names() == [CODES, "rows"]
    return archive.path


def answer(archive: Archive) -> list[str]:
    hits = archive.search(np.ones(64), model=OWL.digest, k=ROWS + 5, metric="hamming").hits
    return [hit.observation.id for hit in hits]


def sets(path: Path) -> DerivedFiles:
    return DerivedFiles(path / "derived", Store(path / "store"))


def claim(path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the description of a set, and its checksum accordingly."""
    file = path / "derived" / f"{name}.json"
    outer = json.loads(file.read_text())
    change(outer["set"])
    outer["xxh3"] = _digest(outer["set"])
    file.write_text(json.dumps(outer))


def replace(path: Path, name: str, **arrays: np.ndarray) -> None:
    """Put other arrays into a set."""

    def change(value: dict[str, Any]) -> None:
        for key, array in arrays.items():
            file = path / "derived" / f"{name}.other.{key}.npy"
            value["files"][key] = write_array(file, [array])

    claim(path, name, change)


def as_of(generation: int) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(generation=generation)


def check_built_again(path: Path, caplog: pytest.LogCaptureFixture, *names: str) -> None:
    """Search finds everything; each of these sets is refused in one line, then sound."""
    with caplog.at_level(logging.WARNING), Archive.open(path) as archive:
        assert len(set(answer(archive))) == ROWS
        assert len(archive._current()) == ROWS
    lines = [record.getMessage() for record in caplog.records if "derived" in record.getMessage()]
    assert len(lines) == len(names)
    assert all(any(f"{name}.json is not used" in line for line in lines) for name in names)
    caplog.clear()
    with caplog.at_level(logging.WARNING), Archive.open(path) as archive:
        assert len(set(answer(archive))) == ROWS
    assert not [r for r in caplog.records if "derived" in r.getMessage()]


@pytest.mark.parametrize("beginning", [b"PK\x03\x04", b"\x80\x04", b"\x93NUMPY\x03\x00"])
def test_a_file_with_the_magic_number_of_another_format_is_damage(
    path: Path, beginning: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for file in (path / "derived").glob("*.npy"):
        file.write_bytes(beginning + file.read_bytes()[len(beginning) :])
    assert all("damaged" in sets(path).damage(name) for name in ("rows", CODES))
    check_built_again(path, caplog, "rows", CODES)


INVALID_FIELDS: list[tuple[str, object]] = [
    ("shape", [float("inf")]),
    ("shape", [-1]),
    ("shape", [True]),
    ("shape", [1.0]),
    ("shape", "1"),
    ("shape", []),
    ("shape", [1 << 62, 1 << 62]),
    ("shape", None),
    ("dtype", "i4,(2"),
    ("dtype", "|O"),
    ("dtype", ["<i8"]),
    ("dtype", {}),
    ("file", "../../archive.json"),
    ("file", None),
    ("file", "\0"),
    ("bytes", 10**400),
]
INVALID_FILES: list[object] = [[1], None, {"first": None}, {str(i): {} for i in range(65)}]


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda value, key=key, field=field: value["files"]["first"].update({key: field})
            for key, field in INVALID_FIELDS
        ),
        *(lambda value, files=files: value.update(files=files) for files in INVALID_FILES),
    ],
)
def test_an_impossible_description_of_arrays_is_damage(
    path: Path, change: Callable[[dict[str, Any]], None], caplog: pytest.LogCaptureFixture
) -> None:
    claim(path, "rows", change)
    assert sets(path).damage("rows")
    check_built_again(path, caplog, "rows")


def test_an_empty_file_is_damage(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in (path / "derived").glob("rows.*.first.npy"):
        file.write_bytes(b"")
    claim(path, "rows", lambda value: value["files"]["first"].update(bytes=0))
    assert sets(path).damage("rows")
    check_built_again(path, caplog, "rows")


def test_whatever_a_library_raises_is_damage(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("bittern.index.derived_files.read_array", broken)
        assert "ZeroDivisionError" in sets(path).damage("rows")
        assert sets(path).read("rows") is None


def test_a_set_that_is_damaged_while_it_is_in_use_is_not_renewed(path: Path) -> None:
    files = sets(path)
    assert files.read("rows") is not None
    claim(path, "rows", lambda value: value.update(seen=[]))
    before = (path / "derived" / "rows.json").read_bytes()
    files.renew()
    assert (path / "derived" / "rows.json").read_bytes() == before


@pytest.mark.parametrize("count", [ROWS - 10, ROWS + 10, 1 << 39])
@pytest.mark.parametrize("earlier", [False, True])
def test_rows_that_the_store_does_not_have_are_not_used(
    path: Path, count: int, earlier: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one = {"first": [0], "lengths": [count], "ids": [0]}
    replace(path, "rows", **{key: np.array(value, np.int64) for key, value in one.items()})
    if earlier:
        claim(path, "rows", as_of(Store(path / "store").version - 1))
        with Archive.open(path) as archive:
            assert len(set(answer(archive))) == ROWS
            assert len(archive._current()) == ROWS
    else:
        check_built_again(path, caplog, "rows")


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("rows", {"ids": np.array([np.iinfo(np.int64).max - 3])}),
        ("rows", {"lengths": np.array([-1])}),
        ("rows", {"first": np.array([[0]])}),
        ("rows", {"kinds": np.zeros(3, dtype=np.int8)}),
        ("rows", {"kinds": np.zeros(1)}),
        (CODES, {"first_audio": np.array([1 << 62])}),
        (CODES, {"codes_image": np.zeros(5, np.uint8)}),
        (
            CODES,
            {
                "lengths_image": np.array([ROWS + 10]),
                "codes_image": np.zeros((ROWS + 10, 8), np.uint8),
            },
        ),
        (CODES, {"codes_image": np.zeros((ROWS, 9), np.uint8)}),
    ],
    ids=[
        "impossible ids",
        "negative length",
        "runs in two dimensions",
        "kinds of other rows",
        "kinds of another type",
        "impossible row",
        "codes in one dimension",
        "codes of missing rows",
        "codes of another width",
    ],
)
def test_intact_arrays_that_do_not_fit_the_store_are_not_used(
    path: Path, name: str, arrays: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    replace(path, name, **arrays)
    check_built_again(path, caplog, name)


@pytest.mark.parametrize(("rows", "dtype"), [(0, "|u1"), (5, "<i8"), (200_000, "<f4")])
def test_an_array_comes_back_read_only_and_is_what_numpy_reads(
    tmp_path: Path, rows: int, dtype: str
) -> None:
    array = np.arange(3 * rows).reshape((rows, 3), order="F").astype(dtype)
    description = json.loads(json.dumps(write_array(tmp_path / "a.npy", [array[:2], array[2:]])))
    again = read_array(tmp_path, description)
    assert not again.flags.writeable
    for found in (again, np.load(tmp_path / "a.npy")):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


def test_an_array_of_another_type_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are not stored"):
        write_array(tmp_path / "a.npy", [np.zeros(3, np.complex128)])
    assert not list(tmp_path.iterdir())


def test_a_snapshot_of_an_older_version_does_not_begin_with_newer_rows(path: Path) -> None:
    store = Store(path / "store", Store(path / "store").version - 1)
    kept = GenerationFiles(sets(path))
    assert kept.rows(store) is None
    assert len(Generation(store, files=kept)) == store.count()
