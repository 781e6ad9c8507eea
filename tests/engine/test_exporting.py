"""Exports of an archive with a model: the same file in process and over the wire."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bittern.api import ArchiveAPI
from bittern.errors import (
    FilterError,
    InvalidInputError,
    PreconditionError,
    QueryError,
)
from bittern.service.export.writers import WRITERS
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import index_source
from bittern.service.local.archive import LocalArchive
from bittern.service.sources import SourceOptions, read_source
from bittern.types import MediaItem
from tests.engine.toy import fill_folder

FORMATS = {"csv": "out.csv", "parquet": "out.parquet", "jsonl": "out.jsonl"}


def test_an_export_holds_the_rows_that_match(
    archive: ArchiveAPI, local: LocalArchive, tmp_path: Path
) -> None:
    for name in FORMATS.values():
        done = archive.export(tmp_path / name, where="modality = 'audio'")
        assert (done.observations, done.left_out) == (5, 0)
        assert b"two.wav" in (tmp_path / name).read_bytes()
    table = pq.read_table(tmp_path / "out.parquet")
    code = local.archive.code("sounds/red.wav", local.registry.find().digest)
    row = table["id"].to_pylist().index("sounds/red.wav")
    assert table["code"][row].as_py() == code.tobytes()
    assert table.schema.field("code").type == pa.binary(8)
    assert table.schema.metadata[b"bittern.digest"].decode() == local.registry.find().digest
    assert b"little-endian" in table.schema.metadata[b"bittern.bit_order"]


@pytest.mark.parametrize("name", WRITERS)
def test_both_kinds_of_archive_write_the_same_but_for_paths(
    local: LocalArchive, remote: ArchiveAPI, name: str, tmp_path: Path
) -> None:
    here = local.export(tmp_path / "here", format=name)
    there = remote.export(tmp_path / "there", format=name)
    nearest = remote.search("red", k=3)
    remote.export(tmp_path / "hits", format=name, hits=nearest)
    local.export(tmp_path / "local-hits", format=name, hits=nearest)
    chunks = WRITERS[name].chunks(local.rows(codes=WRITERS[name].codes))
    assert b"".join(chunks) == (tmp_path / "there").read_bytes()
    assert (tmp_path / "hits").read_bytes() == (tmp_path / "local-hits").read_bytes()
    assert (here.observations, here.left_out) == (there.observations, there.left_out)


def test_a_table_of_an_archive_has_paths_which_are_no_metadata_when_it_is_indexed_again(
    local: LocalArchive, media: Path, options: IndexOptions, tmp_path: Path
) -> None:
    local.export(tmp_path / "all.csv")
    local.export(tmp_path / "hits.csv", hits=local.search("red"))
    for name in ("all.csv", "hits.csv"):
        rows = list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        assert {row["mediaPath"] for row in rows} == {
            str(media / row["associatedMedia"]) for row in rows
        }
    items = list(read_source(tmp_path / "all.csv", SourceOptions(media=str(media))).entries)
    assert len(items) == 7
    assert all(isinstance(item, MediaItem) and not item.metadata for item in items)


def test_an_export_without_matches_is_an_empty_file_with_columns(
    archive: ArchiveAPI, tmp_path: Path
) -> None:
    for name in FORMATS.values():
        assert archive.export(tmp_path / name, where="id = 'nobody'").observations == 0
    assert (tmp_path / "out.csv").read_text().startswith("id,occurrenceID,modality,associated")
    assert pq.read_table(tmp_path / "out.parquet").schema.field("code").type == pa.binary(8)


def test_an_export_shows_coordinates_no_finer_than_the_manifest(
    empty: LocalArchive, tmp_path: Path, options: IndexOptions
) -> None:
    names = ["decimalLatitude", "decimalLongitude", "coordinateUncertaintyInMeters"]
    folder = fill_folder(tmp_path / "m")
    manifest = folder / "manifest.csv"
    manifest.write_text(f"media,{','.join(names)}\nred.png,7,4.0,52.10\n")
    assert index_source(empty, read_source(manifest).entries, options).failures == []
    archive = empty
    for name in ("all.jsonl", "all.csv"):
        assert archive.export(tmp_path / name).observations == 1
    [row] = csv.DictReader((tmp_path / "all.csv").read_text().splitlines())
    assert [row[name] for name in names] == ["7", "4", "52.1"]
    [known] = map(json.loads, (tmp_path / "all.jsonl").read_text().splitlines())
    assert [str(known[name]) for name in names] == ["7", "4", "52.1"]


def test_hits_are_written_as_they_were_found(archive: ArchiveAPI, tmp_path: Path) -> None:
    result = archive.search("red", target="audio", k=3)
    done = archive.export(tmp_path / "hits.jsonl", hits=result)
    lines = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    assert done.observations == 3
    assert [(line["rank"], line["id"]) for line in lines] == [
        (hit.rank, hit.observation.id) for hit in result.hits
    ]


def test_a_folder_has_the_media_and_can_be_indexed_again(
    local: LocalArchive, tmp_path: Path, options: IndexOptions
) -> None:
    assert local.export(tmp_path / "all", format="folder").observations == 7
    done = local.export(f"{tmp_path}/hits/", hits=local.search("red", k=2))
    assert (done.format, done.observations) == ("folder", 2)
    again = LocalArchive.open(tmp_path / "archive")
    assert again.archive.path.exists()
    again.close()
    sources = [read_source(tmp_path / name / "manifest.csv").entries for name in ("all", "hits")]
    assert [len(source) for source in sources] == [7, 2]


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    archive: ArchiveAPI, tmp_path: Path
) -> None:
    result = archive.search("red")
    with pytest.raises(QueryError, match=r"\.csv"):
        archive.export(tmp_path / "out.docx")
    with pytest.raises(QueryError, match="already filtered"):
        archive.export(tmp_path / "out.csv", hits=result, where="id = 'x'")
    with pytest.raises(FilterError, match="no column 'nosuch'"):
        archive.export(tmp_path / "out.csv", where="nosuch = 1")
    with pytest.raises(InvalidInputError, match="no folder"):
        archive.export(tmp_path / "nowhere" / "out.csv")
    with pytest.raises(InvalidInputError, match="is a folder"):
        archive.export(tmp_path, format="csv")
    assert not list(tmp_path.glob("out*"))


def test_a_folder_of_a_server_is_refused_with_what_to_do(
    remote: ArchiveAPI, tmp_path: Path
) -> None:
    for hits in (None, remote.search("red")):
        with pytest.raises(PreconditionError, match="on the machine that has the archive"):
            remote.export(tmp_path / "out", format="folder", hits=hits)
    assert not (tmp_path / "out").exists()
