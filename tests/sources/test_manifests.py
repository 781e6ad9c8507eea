from __future__ import annotations

import codecs
import datetime
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bittern.errors import ManifestError
from bittern.service.jobs.description import JobSpec
from bittern.service.sources import SourceOptions, read_source
from bittern.service.sources.headings import column_names
from bittern.service.sources.tables import Table
from bittern.types import AddResult, MediaItem
from tests.sources.archives import failures
from tests.sources.archives import items as items_of


def manifest(folder: Path, text: str | bytes, *media: str) -> Path:
    for name in media:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    path = folder / "m.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def items(path: Path, **options: Any) -> list[MediaItem]:
    entries = list(read_source(path, SourceOptions(**options)))
    assert all(isinstance(e, MediaItem) for e in entries), entries
    return entries  # type: ignore[return-value]


def test_columns_are_renamed_on_request(tmp_path: Path) -> None:
    path = manifest(tmp_path, "File Path,Species,media\na.jpg,Strix aluco,7\n", "a.jpg")
    [item] = items(path, rename={"file path": "media", "Species": "scientificName"})
    assert item.media == "a.jpg"
    assert item.metadata == {"scientificName": "Strix aluco", "media_2": "7"}


@pytest.mark.parametrize(
    ("headings", "names"),
    [
        (["Scientific name", "lat", "LONGITUDE"],
         ["scientificName", "decimalLatitude", "decimalLongitude"]),
        (["date", "Event-Date", "name", "", "lng"],
         ["date", "eventDate", "name", "column_4", "decimalLongitude"]),
        (["LONGITUDE", "lng"], ["decimalLongitude", "lng"]),
        (["lat", "decimalLatitude"], ["lat", "decimalLatitude"]),
        (["dwc:scientificName", "DECIMALLATITUDE"], ["scientificName", "decimalLatitude"]),
        (["http://rs.tdwg.org/dwc/terms/eventDate"], ["eventDate"]),
        (["id", "row", "start_s", "code_x"], ["id_", "row_", "start_s_", "column_code_x"]),
        (["Länge", "物種", "100m", "2nd"], ["Lange", "column_2", "column_100m", "column_2nd"]),
        (["Nest box (old)", "Nest box", "nest-box"], ["Nest_box_old", "Nest_box", "nest_box_2"]),
        (["id", "associatedMedia"], ["id_", "media"]),
        (["media", "associatedMedia"], ["media", "associatedMedia"]),
        (["dwc:associatedMedia"], ["media"]),
        (["http://rs.tdwg.org/dwc/terms/associatedMedia", "media"], ["associatedMedia", "media"]),
    ],
)  # fmt: skip
def test_headings_become_names_that_an_archive_can_keep(
    headings: list[str], names: list[str]
) -> None:
    assert column_names(headings, {}) == names


def test_a_heading_that_keeps_its_own_name_is_no_alias() -> None:
    assert column_names(["lat"], {"lat": "lat"}) == ["lat"]


def test_a_job_that_0_1_0_wrote_down_renames_its_columns() -> None:
    old = {"kind": "index", "target": "a", "source": "b", "reading": {"columns": {"file": "media"}}}
    assert JobSpec.from_json(old).reading.rename == {"file": "media"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"nothing": "media"}, "no column 'nothing'"),
        ({"a": "media", "b": "media"}, "two columns cannot have one name"),
        ({"a": " "}, "needs a new name"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(columns: dict[str, str], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        column_names(["a", "b"], columns)


def test_a_manifest_without_media_suggests_columns(tmp_path: Path) -> None:
    path = manifest(tmp_path, "id,File Path,species\n1,a.jpg,x\n")
    with pytest.raises(ManifestError, match="--rename 'File Path'=media"):
        read_source(path)


def test_media_are_found_below_the_given_folder(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    path = manifest(tmp_path, "media\nDCIM\\a.jpg\n", "cards/DCIM/a.jpg")
    [item] = items(path, media=str(tmp_path / "cards"))
    assert item.path == tmp_path / "cards" / "DCIM" / "a.jpg"
    assert item.media_root == str(tmp_path / "cards")


def test_an_address_is_media_only_where_it_may_be_fetched(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media\nhttps://h.org/p/1.jpg?size=2\nfile:///etc/a.jpg\n")
    first, second = read_source(path, SourceOptions(fetch=("https://h.org/p",)))
    assert isinstance(first, MediaItem)
    assert (first.url, first.path) == ("https://h.org/p/1.jpg?size=2", None)
    assert isinstance(second, AddResult)
    refused, _ = read_source(path)
    assert isinstance(refused, AddResult)
    assert "--fetch https://h.org/" in refused.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_utf_8_and_marked_utf_16_are_read(tmp_path: Path, encoding: str) -> None:
    text = "media;name\né.jpg;Eisvögel\n"
    path = manifest(tmp_path, text.encode(encoding), "é.jpg")
    [item] = items(path)
    assert item.metadata == {"name": "Eisvögel"}


def test_other_encodings_are_refused_with_line_and_remedy(tmp_path: Path) -> None:
    path = manifest(tmp_path, b"media\na.jpg\n" + "é.jpg\n".encode("latin-1"), "a.jpg")
    with pytest.raises(ManifestError, match=r"line 3.*iconv"):
        read_source(path)
    cut = manifest(tmp_path, codecs.BOM_UTF16_LE + b"m")
    with pytest.raises(ManifestError, match="UTF-16"):
        read_source(cut)


def test_bad_rows_are_listed_with_their_line_and_the_others_are_read(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "occurrenceID,media,type\n"
        "a,red.png,StillImage\n"
        "b,missing.png,StillImage\n"
        "a,red.png,StillImage\n"
        "c,,StillImage\n"
        "d,green.png\n"
        "e,m.csv,\n"
        "f,blue.png,StillImage\n",
        "red.png",
        "green.png",
        "blue.png",
    )
    source = read_source(path)
    assert list(items_of(source)) == ["a", "f"]
    words = ("missing.png", "line 2 already", "not a path", "2 cells", "suffix")
    for line, word, failure in zip((3, 4, 5, 6, 7), words, failures(source), strict=True):
        assert failure.message.startswith(f"m.csv, line {line}: ")
        assert word in failure.message


def test_parquet_keeps_types(tmp_path: Path) -> None:
    manifest(tmp_path, "", "a.jpg", "b.jpg")
    table = pa.table(
        {
            "media": ["a.jpg", "b.jpg"],
            "count": pa.array([3, None], pa.int32()),
            "lat": [52.5, float("nan")],
            "wild": [True, False],
            "when": [datetime.datetime(2024, 5, 3, 4, 5), None],
            "tags": [["x"], []],
            "species": pa.array(["Pica pica", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    first, second = items(tmp_path / "m.parquet")
    assert first.metadata == {
        "count": 3,
        "decimalLatitude": 52.5,
        "wild": True,
        "when": "2024-05-03T04:05:00",
        "species": "Pica pica",
    }
    assert second.metadata == {"wild": False}


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 not PAR1")
    with pytest.raises(ManifestError, match="Parquet"):
        read_source(tmp_path / "m.parquet")


def test_an_unknown_format_is_refused_with_the_list_of_formats(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="folder, manifest"):
        read_source(tmp_path, SourceOptions(format="zip"))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_decimal_comma_is_read_where_it_separates_nothing(tmp_path: Path, separator: str) -> None:
    text = "media;lat;lon;coordinateUncertaintyInMeters;note\na.jpg;46,50;-7,1;12,5;1,5 m\n"
    path = manifest(tmp_path, text.replace(";", separator), "a.jpg")
    [item] = items(path)
    assert item.metadata == {
        "decimalLatitude": "46.50",
        "decimalLongitude": "-7.1",
        "coordinateUncertaintyInMeters": "12.5",
        "note": "1,5 m",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('media,lat\na.jpg,"46,5"\n', "not '46,5'"),
        ("media;lat\na.jpg;46.5.1\n", "not '46.5.1'"),
        ("media;lat\na.jpg;146,5\n", "between -90 and 90"),
        ("media\tcoordinateUncertaintyInMeters\na.jpg\t1,000\n", "may mean 1000 or 1.000"),
    ],
)
def test_an_invalid_number_is_reported_with_its_line_and_a_remedy(
    tmp_path: Path, text: str, words: str
) -> None:
    [entry] = read_source(manifest(tmp_path, text, "a.jpg"))
    assert isinstance(entry, AddResult)
    assert entry.message.startswith("m.csv, line 2: ")
    assert words in entry.message
    assert "correct the cell" in entry.message or "without a comma" in entry.message


def test_a_row_without_a_name_is_reported_by_its_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"media": ["", "a.jpg"]}), tmp_path / "man.parquet")
    manifest(tmp_path, "", "a.jpg")
    entry = next(iter(read_source(tmp_path / "man.parquet")))
    assert isinstance(entry, AddResult)
    assert entry.occurrence_id == "man.parquet, row 1"
    assert entry.message.startswith(entry.occurrence_id)


EXPORT = (
    "id,occurrenceID,modality,{media},start_s,end_s,species\n"
    '"o1#t=0,3",o1,audio,a,0,3,Pica pica\n'
    '"o1#t=3,6",o1,audio,a,3,6,Pica pica\n'
    '"o2#t=0,3",o2,audio,gone.wav,0,3,\n'
    '"o2#t=3,6",o2,audio,gone.wav,3,6,\n'
    "o3,o3,image,b.jpg,,,\n"
)


@pytest.mark.parametrize("heading", ["media", "associatedMedia"])
def test_windows_of_a_recording_in_an_export_of_ours_are_one_item(
    tmp_path: Path, heading: str
) -> None:
    path = manifest(tmp_path, EXPORT.format(media=heading), "a", "b.jpg")
    recording, gone, photograph = read_source(path)
    assert isinstance(recording, MediaItem)
    assert isinstance(photograph, MediaItem)
    assert isinstance(gone, AddResult)
    assert (recording.occurrence_id, recording.modality) == ("o1", "audio")
    assert recording.metadata == {"species": "Pica pica"}
    assert (photograph.occurrence_id, photograph.modality) == ("o3", "image")
    assert photograph.metadata == {}


def test_tables_that_are_no_exports_keep_columns_of_such_names(tmp_path: Path) -> None:
    path = manifest(tmp_path, "id,media,start_s\n7,a.jpg,3\n8,a.jpg,4\n", "a.jpg")
    item, again = read_source(path)
    assert isinstance(item, MediaItem)
    assert item.metadata == {"id_": "7", "start_s_": "3"}
    assert isinstance(again, AddResult)


def write(path: Path, store_schema: bool, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=store_schema)
    return path


@pytest.mark.parametrize("kind", ["dictionary", "plain", "large"])
def test_a_small_parquet_file_with_long_texts_takes_little_memory(
    tmp_path: Path, kind: str
) -> None:
    count, text = 1024, "x" * (100 << 10)
    path = tmp_path / "m.parquet"
    names = pa.array([f"{n}.png" for n in range(count)])
    if kind == "dictionary":
        notes = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int8()), pa.array([text]))
        write(path, False, media=names, note=notes)
    else:
        table = pa.table({"media": names, "note": pa.array([text] * count)})
        if kind == "large":
            table = table.set_column(1, "note", table["note"].cast(pa.large_string()))
        pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    try:
        found, wrong = 0, ""
        for row in Table(path.name, path).rows(lambda headings: headings):
            found += 1
            wrong += row.error
            most = max(most, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if kind == "dictionary":
        assert found == count
    else:  # one page of 100 MiB, which is unpacked as a whole or not at all
        assert found == 1
        assert "1,024 rows from here on have 102," in wrong
    assert peak < 64 << 20
    assert most < 64 << 20


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_cell_that_is_too_long_fails_its_row_alone(tmp_path: Path, dictionary: bool) -> None:
    for name in "abc":
        (tmp_path / f"{name}.png").touch()
    long = ["short", "x" * ((1 << 20) + 1), None]
    table = pa.table({"media": ["a.png", "b.png", "c.png"], "note": long, "n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "m.parquet", use_dictionary=dictionary)
    first, second, third = read_source(tmp_path / "m.parquet").entries
    assert isinstance(first, MediaItem)
    assert (first.metadata["note"], first.metadata["n"]) == ("short", 1)
    assert isinstance(second, AddResult)
    assert second.reason == "MANIFEST"
    assert "row 2: the cell in column 'note' has 1,048,577 bytes" in second.message
    assert isinstance(third, MediaItem)
    assert third.metadata == {"n": 3}


def test_a_row_that_is_too_long_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    wide = {f"c{n}": ["x" * (1 << 20), "short"] for n in range(5)}
    pq.write_table(pa.table({"media": ["a.png", "a.png"], **wide}), tmp_path / "m.parquet")
    bad, good = read_source(tmp_path / "m.parquet").entries
    assert isinstance(bad, AddResult)
    assert "more than 4 MiB" in bad.message
    assert isinstance(good, MediaItem)


def test_row_groups_of_a_parquet_file_follow_each_other(tmp_path: Path) -> None:
    for n in range(7):
        (tmp_path / f"{n}.png").touch()
    table = pa.table({"media": [f"{n}.png" for n in range(7)], "kind": ["a", "b"] * 3 + ["c"]})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=3)
    found = items(tmp_path / "m.parquet")
    assert [item.media for item in found] == [f"{n}.png" for n in range(7)]
    assert [item.metadata["kind"] for item in found] == ["a", "b"] * 3 + ["c"]


@pytest.mark.parametrize("name", ["empty.csv", "empty.parquet", "empty.json", "empty.zip", "empty"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ManifestError, match=r"is empty, a file of 0 bytes"):
        read_source(tmp_path / name)


def test_a_table_of_blank_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blank.csv").write_text("\n\n")
    with pytest.raises(ManifestError, match="is empty: it has no header"):
        read_source(tmp_path / "blank.csv")


def test_a_zip_of_photographs_and_a_damaged_zip_are_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("1.jpg", bytes(5_000))
    with pytest.raises(ManifestError, match="unpack it"):
        read_source(path)
    path.write_bytes(path.read_bytes()[:3_000])
    with pytest.raises(ManifestError, match="damaged or incomplete"):
        read_source(path)


@pytest.mark.parametrize(
    ("name", "format_", "words"),
    [
        ("", "coco", "is a folder; the format coco needs a file"),
        ("", "manifest", "is a folder; the format manifest needs a file"),
        ("", "inaturalist", "is a folder; the format inaturalist needs a file"),
        ("1.jpg", "folder", "is a file; the format folder needs a folder"),
    ],
)
def test_a_folder_is_refused_for_a_format_of_files_and_the_other_way_round(
    tmp_path: Path, name: str, format_: str, words: str
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    with pytest.raises(ManifestError, match=words):
        read_source(tmp_path / name, SourceOptions(format=format_))


def test_an_error_lists_twenty_columns_at_most(tmp_path: Path) -> None:
    headings = [f"column {n}" for n in range(30)]
    (tmp_path / "wide.csv").write_text(",".join(headings) + "\n")
    with pytest.raises(ManifestError, match=r"column 19, \.\.\.: name"):
        read_source(tmp_path / "wide.csv")
    with pytest.raises(ManifestError, match=r"column 19, \.\.\.$"):
        column_names(headings, {"file": "media"})
