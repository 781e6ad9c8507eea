"""Metadata: Darwin Core types, new columns, and what cannot be stored."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.errors import MetadataError, PreconditionError
from bittern.index.archive import Archive
from bittern.index.columns import (
    DARWIN_CORE,
    MAX_COLUMNS,
    MAX_ITEM_COLUMNS,
    MetadataColumns,
    check_metadata,
)
from bittern.types import AddStatus
from tests.index.samples import OWL, photo


def stored(archive: Archive, **metadata: object) -> dict[str, object]:
    result = archive.add([photo("a", metadata)], model=OWL.digest)[0]
    assert result.status is AddStatus.ADDED, result.message
    return dict(archive.get("a").metadata)


def test_values_come_back_with_their_types(archive: Archive) -> None:
    metadata = {
        "scientificName": "Botaurus stellaris",
        "decimalLatitude": 52.5,
        "individualCount": 3,
        "wingspan": 1.3,
        "captive": False,
        "note": "d'après l'Œuvre; -- \"x\" 鷺",
        "order": "Pelecaniformes",
        "class": "Aves",
    }
    assert stored(archive, **metadata) == metadata
    types = archive.stats().columns
    assert (types["individualCount"], types["wingspan"], types["captive"]) == (
        "int64",
        "double",
        "bool",
    )


def test_nothing_is_stored_for_none_or_for_empty_numbers(archive: Archive) -> None:
    assert stored(archive, genus=None, unknownTerm=None, decimalLatitude="", family="") == {
        "family": ""
    }
    assert "unknownTerm" not in archive.stats().columns


def test_numbers_written_as_text_fit_columns_of_numbers(archive: Archive) -> None:
    found = stored(archive, decimalLatitude=" -33.9 ", coordinateUncertaintyInMeters="10", year=1)
    assert found == {
        "decimalLatitude": -33.9,
        "coordinateUncertaintyInMeters": 10.0,
        "year": 1,
    }
    archive.add([photo("b", {"year": "2024"}), photo("c", {"year": 2025.0})], model=OWL.digest)
    assert archive.get("b").metadata == {"year": 2024}
    assert archive.get("c").metadata == {"year": 2025}


COORDINATES = ("decimalLatitude", "decimalLongitude", "coordinateUncertaintyInMeters")
WRITTEN = st.from_regex(r"[0-8]?[0-9](\.[0-9]{1,8})?", fullmatch=True)
"""Degrees as they stand in a manifest."""


def decimals(shown: object) -> int:
    """Number of decimals of a shown number."""
    exponent = Decimal(str(shown)).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


@pytest.mark.parametrize(
    ("given_as", "shown"),
    [
        ("7", "7"),
        ("4.0", "4"),
        ("52.10", "52.1"),
        ("-0", "0"),
        (7, "7"),
        (4.0, "4"),
        ("0.1", "0.1"),
    ],
)
def test_a_coordinate_is_shown_without_decimals_that_were_not_given(
    archive: Archive, given_as: object, shown: str
) -> None:
    found = stored(archive, **dict.fromkeys(COORDINATES, given_as))
    assert {name: str(value) for name, value in found.items()} == dict.fromkeys(COORDINATES, shown)


@given(texts=st.lists(WRITTEN, min_size=1, max_size=20))
@settings(max_examples=15, deadline=None)
def test_no_coordinate_is_shown_finer_than_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("coordinates")
    with Archive.create(folder / "marsh") as archive:
        archive.register_model(OWL, {})
        items = [photo(f"p{i}", dict.fromkeys(COORDINATES, text)) for i, text in enumerate(texts)]
        archive.add(items, model=OWL.digest)
        query = np.ones(64, dtype=np.float32)
        hits = archive.search(query, model=OWL.digest, k=50, metric="hamming").hits
        ways: dict[str, list[Mapping[str, Any]]] = {
            "get": [archive.get(f"p{i}").metadata for i in range(len(texts))],
            "list": [o.metadata for o in archive.list().observations],
            "search": [
                h.observation.metadata for h in sorted(hits, key=lambda h: h.observation.row)
            ],
            "export": exported(archive, folder / "all.csv"),
        }
    for way, shown in ways.items():
        for text, metadata in zip(texts, shown, strict=True):
            for name in COORDINATES:
                assert decimals(metadata[name]) <= decimals(text), (way, name, text)
                assert float(str(metadata[name])) == float(text), (way, name, text)


def exported(archive: Archive, to: Path) -> list[Mapping[str, Any]]:
    """Cells of the archive's CSV file, as they are written."""
    (batch,) = archive.iter_batches(COORDINATES)
    with pyarrow.csv.CSVWriter(to, batch.schema) as writer:
        writer.write_batch(batch)
    _, *lines = to.read_text().splitlines()
    return [dict(zip(COORDINATES, line.split(","), strict=True)) for line in lines]


def test_a_number_too_large_to_count_by_ones_stays_as_it_is(archive: Archive) -> None:
    assert stored(archive, coordinateUncertaintyInMeters=1e300) == {
        "coordinateUncertaintyInMeters": 1e300
    }
    assert isinstance(archive.get("a").metadata["coordinateUncertaintyInMeters"], float)


def test_numbers_fit_columns_of_text(archive: Archive) -> None:
    assert stored(archive, scientificName=7, genus=True) == {
        "scientificName": "7",
        "genus": "true",
    }


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("decimalLatitude", "north", "'north'"),
        ("decimalLatitude", 90.5, "between -90 and 90"),
        ("decimalLatitude", float("nan"), "numbers"),
        ("decimalLatitude", True, "numbers"),
        ("decimalLongitude", -181, "between -180 and 180"),
        ("decimalLongitude", "1_0", "'1_0'"),
        ("coordinateUncertaintyInMeters", -1, "between 0"),
        ("note", ["a", "list"], "list"),
        ("note", b"bytes", "bytes"),
        ("note", "\ud800", "not Unicode"),
        ("note", "x" * (64 * 1024 + 1), "65536"),
        ("genus", 10**50, "64 bits"),
        ("tally", 2**63, "64 bits"),
        ("wing span", 1, "'wing span'"),
        ("län", 1, "'län'"),
        ("a.b", 1, "'a.b'"),
        ("", 1, "''"),
        ("x" * 65, 1, "up to 63"),
        ("1st", 1, "'1st'"),
        ("row", 1, "'row'"),
        ("ROW", 1, "'ROW'"),
        ("mediaRoot", "/", "'mediaRoot'"),
        ("occurrenceID", "a", "'occurrenceID'"),
        ("code_cafe", "a", "'code_cafe'"),
        ("embedding_", "a", "'embedding_'"),
        ("scientificname", "a", "case"),
    ],
)
def test_what_cannot_be_stored_fails_naming_column_and_value(
    archive: Archive, name: str, value: object, part: str
) -> None:
    result = archive.add([photo("a", {name: value})], model=OWL.digest)[0]
    assert (result.status, result.reason) == (AddStatus.FAILED, "METADATA")
    assert part in result.message
    assert len(result.message) < 300


def test_a_type_that_the_first_value_set_is_kept(archive: Archive) -> None:
    results = archive.add(
        [photo("a", {"tally": 3}), photo("b", {"tally": "many"}), photo("c", {"tally": 2.5})],
        model=OWL.digest,
    )
    assert [str(r.status) for r in results] == ["added", "failed", "failed"]
    assert "'many'" in results[1].message


def test_columns_that_differ_in_case_only_are_refused_within_one_item() -> None:
    with pytest.raises(Exception, match="'wind' and 'Wind' differ in case"):
        MetadataColumns({}).accept({"wind": 1, "Wind": 2})


def test_a_column_of_a_failed_item_is_not_added(archive: Archive) -> None:
    archive.add([photo("a", {"strange": 1, "decimalLatitude": 100}), photo("b")], model=OWL.digest)
    assert "strange" not in archive.stats().columns


def test_more_columns_than_the_limit_are_refused(archive: Archive) -> None:
    many = {f"c{i}": i for i in range(MAX_ITEM_COLUMNS)}
    rest = {f"d{i}": i for i in range(MAX_COLUMNS - len(DARWIN_CORE) - len(many))}
    items = [("a", many | {"extra": 1}), ("b", many), ("c", rest | {"extra": 1}), ("d", rest)]
    results = archive.add([photo(*item) for item in items], model=OWL.digest)
    assert [str(r.status) for r in results] == ["failed", "added", "failed", "added"]
    assert str(MAX_ITEM_COLUMNS) in results[0].message
    assert str(MAX_COLUMNS) in results[2].message
    assert archive.get("b").metadata == many
    with pytest.raises(MetadataError, match="251 metadata columns"):
        check_metadata(many | {"extra": 1})


def test_columns_without_values_make_room_for_others(archive: Archive) -> None:
    for letter in "ab":
        archive.add([photo(letter, {f"{letter}{i}": i for i in range(240)})], model=OWL.digest)
    archive.take_snapshot("full")
    archive.delete(["a"])
    new = {"a0": "text", **{f"c{i}": i for i in range(239)}}
    [result] = archive.add([photo("c", new)], model=OWL.digest)
    assert str(result.status) == "added"
    assert (len(archive.get("b").metadata), archive.get("c").metadata) == (240, new)
    assert "a1" not in archive.stats().columns
    with Archive.open(archive.path, snapshot="full") as then:
        assert then.get("a").metadata["a0"] == 0
    with pytest.raises(PreconditionError, match="'a0' held int64 then, 'a0' holds string now"):
        archive.restore("full")
    archive.delete(["c"])
    archive.add([photo("d", {f"d{i}": i for i in range(240)})], model=OWL.digest)
    archive.restore("full")
    assert archive.get("a").metadata["a239"] == 239
