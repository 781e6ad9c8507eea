"""Each kind of file holds what it should, and can be read by those who know it."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bittern.errors import PreconditionError, QueryError
from bittern.index.archive import Archive
from bittern.service.export.files import MAX_CHUNK_BYTES, file_chunks, write_file
from bittern.service.export.rows import (
    ExportRows,
    rows_of_archive,
    rows_of_hits,
    rows_of_observations,
)
from bittern.service.export.writers import (
    FORMATS,
    WRITERS,
    format_of,
    harmless,
    inaturalist_id,
    writer_of,
)
from bittern.types import Hit, Observation

TABLES = ("csv", "jsonl", "geojson", "raven", "ids")


def written(rows: ExportRows, name: str) -> bytes:
    return b"".join(WRITERS[name].chunks(rows))


def text(rows: ExportRows, name: str) -> str:
    return written(rows, name).decode()


def cells(rows: ExportRows, name: str = "csv") -> list[dict[str, str]]:
    lines = io.StringIO(text(rows, name), newline="")
    return list(csv.DictReader(lines, delimiter="\t" if name == "raven" else ","))


def hits(archive: Archive) -> list[Hit]:
    observations = archive.list().observations
    return [Hit(rank, 1.5 * rank, o) for rank, o in enumerate(reversed(observations), 1)]


def seen(**metadata: Any) -> Observation:
    return Observation("a", "a", "image", "a.jpg", metadata=metadata)


@pytest.mark.parametrize("name", ["csv", "parquet", "jsonl", "geojson", "raven"])
def test_on_the_machine_that_has_the_media_files_are_named_by_their_path_too(
    marsh: Archive, media: Path, name: str
) -> None:
    found = hits(marsh)
    for rows in (rows_of_archive(marsh, paths=True), rows_of_hits(found, paths=True)):
        data = written(rows, name)
        if name == "parquet":
            paths = pq.read_table(io.BytesIO(data))["mediaPath"].to_pylist()
            assert set(paths) >= {str(media / "heron.jpg"), str(media / "frogs.wav")}
        else:
            assert str(media / "frogs.wav") in data.decode()
    for rows in (rows_of_archive(marsh), rows_of_hits(found)):  # as a server sends them
        assert str(media).encode() not in written(rows, name)


def test_the_path_gives_way_to_metadata_of_that_name() -> None:
    named = Hit(1, 0.5, replace(seen(mediapath="theirs"), media_root="/ours"))
    [row] = cells(rows_of_hits([named], paths=True))
    assert (row["mediapath"], "mediaPath" in row) == ("theirs", False)


def test_csv_has_darwin_core_names_and_every_other_column(marsh: Archive) -> None:
    heron, owl, *_ = cells(rows_of_archive(marsh))
    assert (heron["occurrenceID"], heron["associatedMedia"]) == ("heron", "heron.jpg")
    assert (heron["eventDate"], heron["license"]) == ("2024-05-17", "CC-BY-4.0")
    assert (heron["individualCount"], heron["captive"]) == ("3", "false")
    assert owl["eventDate"] == ""
    assert "media" not in heron


def test_a_column_that_is_called_associated_media_already_is_kept() -> None:
    [row] = cells(rows_of_observations([seen(associatedMedia="https://x/y.jpg")]))
    assert (row["media"], row["associatedMedia"]) == ("a.jpg", "https://x/y.jpg")


def test_coordinates_are_as_fine_as_they_were_given(marsh: Archive) -> None:
    names = ("decimalLatitude", "decimalLongitude", "coordinateUncertaintyInMeters")
    heron, owl, *_ = cells(rows_of_archive(marsh))
    assert [heron[name] for name in names] == ["52.1", "-0.25", ""]
    assert [owl[name] for name in names] == ["7", "4", "28000"]
    lines = text(rows_of_archive(marsh), "geojson").splitlines()
    assert '"coordinates": [-0.25, 52.1]' in lines[1]
    assert '"coordinates": [4, 7]' in lines[2]


@given(st.floats(-180, 180), st.floats(-90, 90))
@settings(max_examples=60, deadline=None)
def test_no_number_changes_on_its_way(longitude: float, latitude: float) -> None:
    point = {"decimalLongitude": longitude, "decimalLatitude": latitude}
    [row] = cells(rows_of_observations([seen(**point)]))
    assert {name: float(row[name]) for name in point} == point
    [feature] = json.loads(text(rows_of_observations([seen(**point)]), "geojson"))["features"]
    assert feature["geometry"]["coordinates"] == [longitude, latitude]


@pytest.mark.parametrize(
    "evil",
    [
        "=cmd|'/C calc'!A0",
        "@SUM(1)",
        "+1+cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1+1",
        "＝1+1",
        "-A1",
        "\x1f=1",
        "\u200b\x85 @SUM(1)",
        "\ufeff-2+3",
    ],
)
def test_a_cell_that_a_spreadsheet_would_run_becomes_text(evil: str) -> None:
    [row] = cells(rows_of_observations([seen(vernacularName=evil)]))
    assert row["vernacularName"] == f"'{evil}" == harmless(evil)


@pytest.mark.parametrize(
    "good", ["-5", "+44 20 7946 0018", "-0.25", "Bubo bubo", "a=b", "", "'x", "-", "- 5,5"]
)
def test_what_no_spreadsheet_runs_stays_as_it_is(good: str) -> None:
    [row] = cells(rows_of_observations([seen(vernacularName=good)]))
    assert row["vernacularName"] == good == harmless(good)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
@example("\x1f=")
@example("\u2064@x")
@settings(max_examples=200, deadline=None)
def test_csv_keeps_every_other_text(value: str) -> None:
    [row] = cells(rows_of_observations([seen(vernacularName=value)]))
    unseen = [c for c in value if unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp")]
    visible = value.lstrip("".join(unseen))
    runs = visible[:1] in tuple("=@＝＠") or value[:1] in tuple("\t\r")
    signed = visible[:1] in tuple("+-＋－") and re.search(r"[^0-9 .,:/]", visible[1:])
    assert row["vernacularName"] == (f"'{value}" if runs or signed else value)


def test_json_lines_hold_what_is_known_and_nothing_else(marsh: Archive) -> None:
    heron, owl, nowhere, *frogs = map(
        json.loads, text(rows_of_archive(marsh), "jsonl").splitlines()
    )
    assert (heron["individualCount"], heron["captive"]) == (3, False)
    assert "eventDate" not in owl
    assert nowhere["vernacularName"].startswith("=")
    assert [(f["start_s"], f["end_s"]) for f in frogs] == [(0, 3), (3, 6)]


def test_parquet_keeps_types_and_all_rows(marsh: Archive, tmp_path: Path) -> None:
    data = written(rows_of_archive(marsh), "parquet")
    table = pq.read_table(io.BytesIO(data))
    assert table.num_rows == 5
    assert table.schema.field("decimalLatitude").type == pa.float64()
    assert table["captive"].to_pylist()[0] is False


def test_geojson_is_a_feature_collection(marsh: Archive) -> None:
    collection = json.loads(text(rows_of_archive(marsh), "geojson"))
    assert collection["type"] == "FeatureCollection"
    heron, owl, nowhere, *frogs = collection["features"]
    assert heron["id"] == "heron"
    assert heron["geometry"] == {"type": "Point", "coordinates": [-0.25, 52.1]}
    assert heron["properties"]["license"] == "CC-BY-4.0"
    assert not {"decimalLatitude", "decimalLongitude"} & heron["properties"].keys()
    assert owl["properties"]["coordinateUncertaintyInMeters"] == 28_000
    assert nowhere["geometry"] is None
    assert nowhere["properties"]["decimalLatitude"] == 1.5
    assert [frog["properties"]["start_s"] for frog in frogs] == [0, 3]


def test_a_selection_table_holds_windows_of_recordings(marsh: Archive) -> None:
    rows = rows_of_archive(marsh)
    first, second = cells(rows, "raven")
    assert rows.left_out == 3
    assert list(first)[:7] == [
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
    ]
    assert (first["Selection"], first["Begin Time (s)"], first["End Time (s)"]) == ("1", "0", "3")
    assert (second["Selection"], second["Begin Time (s)"]) == ("2", "3")
    assert (first["Begin File"], first["Begin Path"]) == ("frogs.wav", "frogs.wav")
    assert first["Species"] == "Rana temporaria"


def test_hits_have_their_rank_and_distance_everywhere(marsh: Archive) -> None:
    first = cells(rows_of_hits(hits(marsh)))[0]
    assert (first["rank"], first["distance"], first["occurrenceID"]) == ("1", "1.5", "frogs")
    assert list(first)[:2] == ["rank", "distance"]
    line = json.loads(text(rows_of_hits(hits(marsh)), "jsonl").splitlines()[2])
    assert (line["rank"], line["distance"]) == (3, 4.5)
    table = pq.read_table(io.BytesIO(written(rows_of_hits(hits(marsh)), "parquet")))
    assert table["rank"].to_pylist() == [1, 2, 3, 4, 5]
    selection = cells(rows_of_hits(hits(marsh)), "raven")[1]
    assert (selection["Rank"], selection["Distance"]) == ("2", "3")
    feature = json.loads(text(rows_of_hits(hits(marsh)), "geojson"))["features"][0]
    assert feature["properties"]["rank"] == 1


def test_metadata_called_rank_stay_beside_that_of_the_search() -> None:
    hit = Hit(1, 2.0, seen(rank="colonel", mixed=1))
    other = Hit(2, 3.0, seen(mixed="x", flag=True))
    first, second = cells(rows_of_hits([hit, other]))
    assert (first["rank"], first["rank_"], first["mixed"]) == ("1", "colonel", "1")
    assert (second["mixed"], second["flag"]) == ("x", "true")


def test_numbers_of_inaturalist_come_once_each_and_the_others_are_counted(marsh: Archive) -> None:
    rows = rows_of_archive(marsh)
    assert text(rows, "ids") == "123456\n"
    assert (rows.done, rows.left_out) == (5, 4)
    again = rows_of_observations([seen(references="https://inaturalist.org/observations/7")] * 3)
    assert text(again, "ids") == "7\n"
    assert again.left_out == 0


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("https://www.inaturalist.org/observations/42", 42),
        ("http://inaturalist.ca/observations/42?locale=fr", 42),
        ("https://uk.inaturalist.org/observations/42#media=x.jpg", 42),
        ("https://www.inaturalist.org/photos/42", None),
        ("https://notinaturalist.org/observations/42", None),
        ("https://inaturalist.org.evil/observations/x", None),
        ("42", None),
        ("", None),
    ],
)
def test_a_number_is_taken_from_addresses_of_observations_only(
    address: str, number: int | None
) -> None:
    assert inaturalist_id({"references": address}) == number
    assert inaturalist_id({"occurrenceID": address}) == number


@pytest.mark.parametrize("name", WRITERS)
def test_an_export_of_nothing_is_a_whole_file(marsh: Archive, name: str) -> None:
    for rows in (rows_of_archive(marsh, "false"), rows_of_hits([])):
        data = written(rows, name)
        assert (rows.done, rows.total) == (0, 0)
        if name == "parquet":
            assert pq.read_table(io.BytesIO(data)).num_rows == 0
        if name == "geojson":
            assert json.loads(data)["features"] == []
        if name in ("csv", "raven"):
            assert data.count(b"\n") == 1


@pytest.mark.parametrize("name", WRITERS)
def test_batches_make_no_difference(marsh: Archive, name: str) -> None:
    whole, single = rows_of_archive(marsh), rows_of_archive(marsh)
    single.stream = (
        batch.slice(row, 1) for batch in rows_of_archive(marsh).stream for row in range(5)
    )
    one, many = written(whole, name), written(single, name)
    if name == "parquet":
        assert pq.read_table(io.BytesIO(one)).equals(pq.read_table(io.BytesIO(many)))
    else:
        assert one == many
    assert whole.left_out == single.left_out


def test_chunks_are_small_and_count(marsh: Archive) -> None:
    long = [seen(remarks="x" * 60_000) for _ in range(40)]
    sent = list(file_chunks(WRITERS["jsonl"], rows_of_observations(long)))
    assert max(len(chunk.data) for chunk in sent) == MAX_CHUNK_BYTES
    assert b"".join(chunk.data for chunk in sent).count(b"\n") == 40
    assert sent[-1] == (b"", 40, 40, 0)


def test_a_file_appears_when_it_is_complete(marsh: Archive, tmp_path: Path) -> None:
    to = tmp_path / "out.csv"
    to.write_text("before")

    def broken() -> Any:
        yield from list(file_chunks(WRITERS["csv"], rows_of_archive(marsh)))[:1]
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_file(broken(), to, "csv")
    assert to.read_text() == "before"
    assert [path.name for path in tmp_path.glob("out*")] == ["out.csv"]


def test_progress_is_reported_and_an_abandoned_stream_is_closed(
    marsh: Archive, tmp_path: Path
) -> None:
    to = tmp_path / "out.csv"
    steps: list[tuple[int, int]] = []
    done = write_file(
        file_chunks(WRITERS["csv"], rows_of_archive(marsh)),
        to,
        "csv",
        lambda d, t: steps.append((d, t)),
    )
    assert (done.observations, done.path, steps[-1]) == (5, to, (5, 5))
    closed = []

    def stream() -> Any:
        try:
            yield from file_chunks(WRITERS["csv"], rows_of_archive(marsh))
        finally:
            closed.append(True)

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    wanted = stream()
    with pytest.raises(KeyboardInterrupt):
        write_file(wanted, to, "csv", interrupted)
    assert closed == [True]


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.b.parquet", "parquet"),
        ("a.jsonl", "jsonl"),
        ("a.geojson", "geojson"),
        ("a/", "folder"),
        ("a.csv/", "folder"),
    ],
)
def test_the_suffix_of_a_name_decides_the_format(to: str, name: str) -> None:
    assert format_of(to) == name
    assert format_of(to, "ids") == "ids"


@pytest.mark.parametrize(
    ("to", "format_", "words"),
    [
        ("a.docx", None, ".geojson"),
        ("a", None, "or in / for a folder"),
        ("a.txt", None, "name one: raven, ids"),
        ("a.csv", "xlsx", "formats: csv, parquet"),
    ],
)
def test_a_name_without_a_known_suffix_is_refused(to: str, format_: str | None, words: str) -> None:
    with pytest.raises(QueryError) as caught:
        format_of(to, format_)
    assert words in caught.value.message


def test_a_folder_has_no_writer() -> None:
    assert set(FORMATS) - set(WRITERS) == {"folder"}
    with pytest.raises(PreconditionError, match="on the machine that has the archive"):
        writer_of("folder")
