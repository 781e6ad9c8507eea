"""`bittern export` and `bittern search --output`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import bittern
from bittern.service.grpc.server import serve
from tests.cli.conftest import Run
from tests.service.fake_archive import FakeArchive


def test_an_archive_is_exported_in_the_format_that_the_name_says(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    done = run("export", archive, "--output", tmp_path / "all.csv", "--where", "modality = 'image'")
    assert done.status == 0
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert f"all.csv: {len(rows)} observations" in done.err
    assert {row["modality"] for row in rows} == {"image"}
    assert all(row["associatedMedia"] for row in rows)


def test_a_selection_table_says_how_many_photographs_it_left_out(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    done = run("export", archive, "--output", tmp_path / "calls.txt", "--format", "raven")
    assert done.status == 0
    assert "skipped (no windows of recordings)" in done.err
    refused = run("export", archive, "--output", tmp_path / "calls.txt")
    assert (refused.status, "raven, ids" in refused.err) == (2, True)


def test_hits_are_saved_beside_being_shown(run: Run, archive: Path, tmp_path: Path) -> None:
    to = tmp_path / "hits.geojson"
    done = run("search", archive, "a bird", "-k", 3, "--output", to, "--json")
    hits = json.loads(done.out)["hits"]
    features = json.loads(to.read_text())["features"]
    assert [feature["id"] for feature in features] == [hit["id"] for hit in hits]
    assert [feature["properties"]["rank"] for feature in features] == [1, 2, 3]


def test_hits_are_saved_with_their_media(run: Run, archive: Path, tmp_path: Path) -> None:
    done = run(
        "search", archive, "a bird", "-k", 2, "--target", "image", "--output", f"{tmp_path}/h/"
    )
    assert done.status == 0
    assert "2 files; copied from " in done.err
    with (tmp_path / "h" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all((tmp_path / "h" / row["media"]).is_file() for row in rows)
    assert all(row["license"] for row in rows)


def test_a_file_that_cannot_be_saved_is_refused_before_the_search(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    for arguments in (
        ("--output", "x.docx"),
        ("--format", "csv"),
        ("--output", tmp_path / "no/x.csv"),
    ):
        done = run("search", archive, "a bird", *arguments)
        assert (done.status, done.out) == (2, "")


def test_media_of_a_strange_archive_are_copied_from_named_folders_only(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    done = run("export", archive, "--output", f"{tmp_path}/h/", "--media", tmp_path)
    assert done.status == 1
    assert "outside the folders" in " ".join(done.err.split())
    assert not (tmp_path / "h").exists()
    misused = run("export", archive, "--output", tmp_path / "h.csv", "--media", tmp_path)
    assert misused.status == 2


def test_an_archive_behind_a_server_is_exported(run: Run, tmp_path: Path) -> None:
    to = tmp_path / "all.jsonl"
    with serve({"herons": FakeArchive()}, listen=":0") as server:
        done = run("export", server.address, "--output", to, "--archive", "herons")
        folder = run("export", server.address, "--output", f"{tmp_path}/all/")
    assert (done.status, len(to.read_text().splitlines())) == (0, 20)
    assert folder.status == 1
    assert "on the machine that has the archive" in " ".join(folder.err.split())


def test_an_archive_is_exported_as_it_was(run: Run, archive: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    with bittern.open(copy, write=True) as opened:
        before = [o.id for o in opened.list()]
        opened.take_snapshot("spring")
        opened.delete(before[0])
    for name, ids in ((None, before[1:]), ("spring", before)):
        where = () if name is None else ("--snapshot", name)
        assert run("export", copy, "--output", tmp_path / "all.jsonl", *where).status == 0
        lines = (tmp_path / "all.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == ids
