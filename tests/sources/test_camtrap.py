"""Camtrap DP packages of version 1.0, as folders and as zips."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bittern.errors import BitternError, ManifestError
from bittern.service.sources import SourceOptions, read_source
from bittern.service.sources.camtrap import camtrap_entries
from bittern.types import AddResult, AddStatus, MediaItem

SCHEMAS = "https://raw.githubusercontent.com/tdwg/camtrap-dp"
DEPLOYMENT = {
    "deploymentID": "d1", "locationID": "l1", "locationName": "Old oak", "latitude": "53.5",
    "longitude": "22.75", "coordinateUncertainty": "100", "deploymentStart": "2020-05-01T00:00:00Z",
    "deploymentEnd": "2020-07-01T00:00:00Z", "setupBy": "Rosa Example", "cameraID": "cam7",
    "cameraModel": "Reconyx-PC800", "habitat": "forest",
}  # fmt: skip
OBSERVED = {
    "observationID": "o1", "deploymentID": "d1", "mediaID": "m1", "eventID": "e1",
    "eventStart": "2020-05-30T02:57:37Z", "eventEnd": "2020-05-30T02:59:00Z",
    "observationLevel": "media", "observationType": "animal", "scientificName": "Vulpes vulpes",
    "count": "2", "lifeStage": "adult", "sex": "female", "behavior": "running",
    "classificationMethod": "human", "classificationProbability": "0.9",
}  # fmt: skip


def medium(own: str, **more: str) -> dict[str, str]:
    return {
        "mediaID": own, "deploymentID": "d1", "captureMethod": "activityDetection",
        "timestamp": "2020-05-30T02:58:00Z", "filePath": f"media/{own}.jpg", "filePublic": "true",
        "fileName": f"{own}.jpg", "fileMediatype": "image/jpeg", "exifData": "",
        "favorite": "false", "mediaComments": "", **more,
    }  # fmt: skip


def described(version: str = "1.0.1", **more: Any) -> dict[str, Any]:
    tables = ("deployments", "media", "observations")
    return {
        "resources": [
            {"name": name, "path": f"{name}.csv", "profile": "tabular-data-resource",
             "format": "csv", "encoding": "utf-8",
             "schema": f"{SCHEMAS}/{version}/{name}-table-schema.json"}
            for name in tables
        ],
        "profile": f"{SCHEMAS}/{version}/camtrap-dp-profile.json",
        "name": "a-package",
        "created": "2023-02-06T11:23:03Z",
        "contributors": [{"title": "Rosa Example"}, {"title": "An institute",
                                                     "role": "rightsHolder"}],
        "licenses": [{"name": "CC0-1.0", "scope": "data"},
                     {"path": "http://creativecommons.org/licenses/by/4.0/", "scope": "media"}],
        "coordinatePrecision": 0.001,
        "taxonomic": [
            {"scientificName": "Vulpes vulpes", "taxonID": "https://example.org/5BSG3",
             "taxonRank": "species", "family": "Canidae",
             "vernacularNames": {"nld": "vos", "eng": "red fox"}}
        ],
        **more,
    }  # fmt: skip


def table(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def package(
    folder: Path,
    media: list[dict[str, str]],
    observations: list[dict[str, str]],
    *,
    deployments: list[dict[str, str]] | None = None,
    description: dict[str, Any] | None = None,
) -> Path:
    (folder / "media").mkdir()
    for row in media:
        if row["filePath"].startswith("media/"):
            (folder / row["filePath"]).write_bytes(b"media")
    (folder / "datapackage.json").write_text(json.dumps(description or described()))
    (folder / "deployments.csv").write_text(table(deployments or [DEPLOYMENT]))
    (folder / "media.csv").write_text(table(media))
    (folder / "observations.csv").write_text(table(observations or [{**OBSERVED, "mediaID": "-"}]))
    return folder


def entries(path: Path, **options: Any) -> list[Any]:
    return [listed.entry for listed in camtrap_entries(path, SourceOptions(**options))]


def seen(folder: Path, *observations: dict[str, str], **more: str) -> dict[str, Any]:
    (item,) = entries(package(folder, [medium("m1", **more)], list(observations)))
    assert isinstance(item, MediaItem), item
    return dict(item.metadata)


def test_medium_gets_its_deployment_its_observation_and_the_licence(tmp_path: Path) -> None:
    source = read_source(package(tmp_path, [medium("m1")], [OBSERVED]))
    (item,) = source.entries
    assert source.format == "camtrap-dp"
    assert source.listed[0].position == "media.csv, line 2"
    assert isinstance(item, MediaItem)
    assert (item.occurrence_id, item.modality, item.media) == ("m1", "image", "media/m1.jpg")
    assert item.path == tmp_path / "media/m1.jpg"
    assert item.metadata == {
        "captureMethod": "activityDetection", "favorite": "false", "filePublic": True,
        "eventDate": "2020-05-30T02:58:00Z", "license": "CC-BY-4.0",
        "rightsHolder": "An institute", "coordinatePrecision": 0.001, "deploymentID": "d1",
        "decimalLatitude": 53.5, "decimalLongitude": 22.75,
        "coordinateUncertaintyInMeters": 100.0, "locationID": "l1", "locationName": "Old oak",
        "cameraID": "cam7", "cameraModel": "Reconyx-PC800", "habitat": "forest", "eventID": "e1",
        "observationLevel": "media", "observationType": "animal", "label": "Vulpes vulpes",
        "scientificName": "Vulpes vulpes", "species": "Vulpes vulpes", "vernacularName": "red fox",
        "taxonID": "https://example.org/5BSG3", "taxonRank": "species", "family": "Canidae",
        "sex": "female", "lifeStage": "adult", "behavior": "running", "individualCount": 2.0,
        "classificationMethod": "human", "classificationProbability": 0.9,
    }  # fmt: skip


def test_who_set_the_camera_up_is_not_kept(tmp_path: Path) -> None:
    assert "Rosa Example" not in str(seen(tmp_path, OBSERVED))


def test_several_species_become_one_text_and_no_species(tmp_path: Path) -> None:
    badger = {**OBSERVED, "observationID": "o2", "scientificName": "Meles meles"}
    metadata = seen(tmp_path, OBSERVED, badger)
    assert metadata["label"] == "Vulpes vulpes | Meles meles"
    assert not {"scientificName", "sex", "individualCount"} & metadata.keys()


def test_several_observations_of_one_species_give_no_count(tmp_path: Path) -> None:
    male = {**OBSERVED, "observationID": "o2", "sex": "male", "count": "1"}
    metadata = seen(tmp_path, OBSERVED, male)
    assert metadata["scientificName"] == "Vulpes vulpes"
    assert metadata["sex"] == "female | male"
    assert "individualCount" not in metadata


@pytest.mark.parametrize("kind", ["human", "vehicle", "blank"])
def test_pictures_without_animals_are_kept_and_marked(tmp_path: Path, kind: str) -> None:
    row = {**OBSERVED, "observationType": kind, "scientificName": "", "count": ""}
    metadata = seen(tmp_path, row)
    assert (metadata["observationType"], metadata["label"]) == (kind, kind)
    assert "scientificName" not in metadata


@pytest.mark.parametrize("event", ["e1", ""], ids=["by its id", "by its time"])
def test_observations_of_an_event_hold_for_its_media(tmp_path: Path, event: str) -> None:
    of_event = {**OBSERVED, "mediaID": "", "observationLevel": "event"}
    metadata = seen(tmp_path, of_event, eventID=event)
    assert metadata["scientificName"] == "Vulpes vulpes"
    assert (metadata["observationLevel"], metadata["eventID"]) == ("event", "e1")


def test_observations_of_another_event_do_not(tmp_path: Path) -> None:
    before = {
        **OBSERVED,
        "mediaID": "",
        "eventStart": "2020-05-30T01:00:00Z",
        "eventEnd": "2020-05-30T01:01:00Z",
    }
    other = {**OBSERVED, "observationID": "o2", "mediaID": "", "deploymentID": "d2"}
    assert "label" not in seen(tmp_path, before, other)


def test_observations_of_the_medium_go_before_those_of_its_event(tmp_path: Path) -> None:
    blank = {**OBSERVED, "observationID": "o2", "observationType": "blank", "scientificName": ""}
    of_event = {**OBSERVED, "mediaID": "", "observationLevel": "event"}
    assert seen(tmp_path, of_event, blank)["label"] == "blank"


def test_recordings_are_recognised_by_their_media_type(tmp_path: Path) -> None:
    row = medium("m1", filePath="media/m1.dat", fileMediatype="audio/wav")
    (item,) = entries(package(tmp_path, [row], [OBSERVED]))
    assert item.modality == "audio"


def test_addresses_are_fetched_only_where_allowed_and_public(tmp_path: Path) -> None:
    address = "https://multimedia.example.org/assets/6d65/file"
    public, private = (
        medium(own, filePath=address, filePublic=flag)
        for own, flag in (("m1", "true"), ("m2", "false"))
    )
    path = package(tmp_path, [public, private], [OBSERVED])
    assert all(each.status is AddStatus.FAILED for each in entries(path))
    item, refused = entries(path, fetch=("https://multimedia.example.org/",))
    assert item.url == address
    assert "filePublic is false" in refused.message


def test_downloaded_media_are_found_by_deployment_and_name(tmp_path: Path) -> None:
    path = package(tmp_path, [medium("m1", filePath="https://example.org/6d65/file")], [OBSERVED])
    (tmp_path / "d1").mkdir()
    (tmp_path / "d1/m1.jpg").write_bytes(b"media")
    (item,) = entries(path)
    assert item.path == tmp_path / "d1/m1.jpg"


@pytest.mark.parametrize("below", ["", "package/"])
def test_zip_is_read_where_it_lies(tmp_path: Path, below: str) -> None:
    folder = package(tmp_path, [medium("m1")], [OBSERVED])
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("datapackage.json", "deployments.csv", "media.csv", "observations.csv"):
            archive.write(folder / name, below + name)
            (folder / name).unlink()
    source = read_source(path)
    assert source.format == "camtrap-dp"
    (item,) = source.entries
    assert isinstance(item, MediaItem)
    assert item.path == tmp_path / "media/m1.jpg"
    assert item.metadata["scientificName"] == "Vulpes vulpes"


def test_gzipped_tables_are_read(tmp_path: Path) -> None:
    description = described()
    description["resources"][2]["path"] = "observations.csv.gz"
    folder = package(tmp_path, [medium("m1")], [OBSERVED], description=description)
    table_file = folder / "observations.csv"
    (folder / "observations.csv.gz").write_bytes(gzip.compress(table_file.read_bytes()))
    table_file.unlink()
    (item,) = entries(folder / "datapackage.json")
    assert item.metadata["scientificName"] == "Vulpes vulpes"


def test_wrong_rows_are_listed_with_their_position_and_the_others_are_read(tmp_path: Path) -> None:
    off = {**DEPLOYMENT, "deploymentID": "d2", "latitude": "95"}
    media = [
        medium("m1"),
        medium("m1"),
        medium("m2", deploymentID="d9"),
        medium("m3", filePath="../m3.jpg"),
        medium("m4", fileMediatype="video/mp4"),
        medium("", filePath="x.jpg"),
        medium("m6", deploymentID="d2"),
    ]
    path = package(
        tmp_path,
        media,
        [OBSERVED, {**OBSERVED, "observationID": ""}],
        deployments=[DEPLOYMENT, off, DEPLOYMENT],
    )
    listed = list(camtrap_entries(path, SourceOptions()))
    messages = [e.entry.message for e in listed if isinstance(e.entry, AddResult)]
    beginnings = [
        "deployments.csv, line 3: decimalLatitude must be",
        "deployments.csv, line 4: an earlier row has the deployment 'd1'",
        "observations.csv, line 3: the row has no observationID",
        "media.csv, line 3: an earlier row has the medium 'm1'",
        "media.csv, line 4: there is no deployment 'd9'",
        "media.csv, line 5: '../m3.jpg' leads out",
        "media.csv, line 6: 'media/m4.jpg' is a video",
        "media.csv, line 7: the row has no mediaID",
    ]
    assert [t[: len(b)] for t, b in zip(messages, beginnings, strict=True)] == beginnings
    items = [e.entry for e in listed if isinstance(e.entry, MediaItem)]
    assert [item.occurrence_id for item in items] == ["m1", "m6"]
    assert "decimalLatitude" not in items[1].metadata


def without_media_csv(folder: Path) -> None:
    (folder / "media.csv").unlink()


def without_file_path(folder: Path) -> None:
    text = (folder / "media.csv").read_text()
    (folder / "media.csv").write_text(text.replace("filePath", "path", 1))


def of_an_old_version(folder: Path) -> None:
    (folder / "datapackage.json").write_text(json.dumps(described("0.6")))


def without_observations(folder: Path) -> None:
    description = described()
    del description["resources"][2]
    (folder / "datapackage.json").write_text(json.dumps(description))


def with_a_table_elsewhere(folder: Path) -> None:
    description = described()
    description["resources"][1]["path"] = "../media.csv"
    (folder / "datapackage.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_media_csv, "no file 'media.csv'"),
        (without_file_path, "media.csv has no column filePath"),
        (of_an_old_version, "Camtrap DP 0.6"),
        (without_observations, "no resource 'observations'"),
        (with_a_table_elsewhere, "is not inside the package"),
    ],
)
def test_an_invalid_package_is_refused_as_a_whole(tmp_path: Path, spoil: Any, message: str) -> None:
    path = package(tmp_path, [medium("m1")], [OBSERVED])
    spoil(path)
    with pytest.raises(BitternError) as refused:
        entries(path)
    assert message in refused.value.message


def test_description_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, [medium("m1")], [OBSERVED])
    (path / "datapackage.json").write_text('{"camtrap-dp": ' + "[" * 100_000)
    with pytest.raises(ManifestError, match="not valid JSON"):
        entries(path)
