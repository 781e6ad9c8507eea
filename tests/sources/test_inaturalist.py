from __future__ import annotations

import csv
import gzip
import shutil
import zipfile
from pathlib import Path

import pytest

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.service.sources import Source, SourceOptions, read_source
from bittern.service.sources.field_values import licence
from tests.sources.archives import FIXTURES, SAMPLE, copied, failures, items

EXPORT = FIXTURES / "inaturalist_export" / "observations-1.csv"
OPEN_DATA = FIXTURES / "inaturalist_open_data"
BUCKET = "https://inaturalist-open-data.s3.amazonaws.com/"
SITE = "https://www.inaturalist.org/observations/"
SECRETS = ("52.431234", "13.554321", "the nest by the old mill")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Media as people keep them: by the ids of photographs, and by the names of sounds."""
    folder = tmp_path / "media"
    for name in ("5001/original.jpg", "5002/medium.jpeg", "5003.jpg", "6001/medium.webp",
                 "6001/original.webp", "6003.webp"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SAMPLE / "images" / "cow-1.webp", folder / name)
    shutil.copyfile(SAMPLE / "audio" / "cat-1.ogg", folder / "801.ogg")
    return folder


def read(path: Path, media: Path | None = None, **options: tuple[str, ...]) -> Source:
    return read_source(path, SourceOptions(media=media and str(media), **options))  # type: ignore[arg-type]


def edited(path: Path, to: Path, **cells: dict[str, str]) -> Path:
    """A copy of an export; `id102={"geoprivacy": ""}` changes a cell of that row."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(cells.get(f"id{row['id']}", {}))
    with to.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return to


# The export


def test_photographs_and_sounds_of_an_export_are_listed_with_their_observations(
    media: Path,
) -> None:
    source = read(EXPORT, media)
    assert source.format == "inaturalist"
    found = items(source)
    assert {name: item.media for name, item in found.items()} == {
        f"{SITE}101": "5001/original.jpg",
        f"{SITE}102": "5002/medium.jpeg",
        f"{SITE}103": "5003.jpg",
        f"{SITE}103#media=801.ogg": "801.ogg",
    }
    assert not failures(source)
    alpaca = found[f"{SITE}101"]
    assert alpaca.modality == "image"
    expected = {
        "catalogNumber": "101",
        "eventDate": "2024-05-01",
        "decimalLatitude": "52.51",
        "coordinateUncertaintyInMeters": 12.0,
        "coordinates_obscured": False,
        "scientificName": "Vicugna pacos",
        "vernacularName": "Alpaca",
        "taxonRank": "species",
        "class": "Mammalia",
        "license": "CC-BY-NC-4.0",
        "rightsHolder": "A. Keeper",
        "references": f"{SITE}101",
        "quality_grade": "research",
        "country": "Germany",
        "occurrenceRemarks": 'in a field,\nbehind a "fence"',
    }
    assert {name: alpaca.metadata[name] for name in expected} == expected
    assert found[f"{SITE}103#media=801.ogg"].modality == "audio"
    assert found[f"{SITE}103"].metadata["taxonRank"] == "genus"


def test_the_true_position_of_an_obscured_observation_is_never_stored(media: Path) -> None:
    crow = items(read(EXPORT, media))[f"{SITE}102"].metadata
    assert (crow["decimalLatitude"], crow["decimalLongitude"]) == ("52.4", "13.6")
    assert crow["coordinateUncertaintyInMeters"] == 27654.0
    assert crow["coordinates_obscured"] is True
    assert crow["geoprivacy"] == "obscured"
    assert crow["dataGeneralizations"] == "coordinates obscured by iNaturalist"
    assert not [v for v in crow.values() for secret in SECRETS if secret in str(v)]
    assert not [name for name in crow if "private" in name]


@pytest.mark.parametrize(
    "cells",
    [
        {"geoprivacy": ""},
        {"coordinates_obscured": ""},
        {"geoprivacy": "", "coordinates_obscured": "", "taxon_geoprivacy": "obscured"},
        {"geoprivacy": "", "coordinates_obscured": ""},
    ],
)
def test_any_sign_of_obscuring_counts(tmp_path: Path, media: Path, cells: dict[str, str]) -> None:
    path = edited(EXPORT, tmp_path / "e.csv", id102=cells)
    crow = items(read(path, media))[f"{SITE}102"].metadata
    assert crow["coordinateUncertaintyInMeters"] == 27654.0
    assert "dataGeneralizations" in crow


def test_an_obscured_position_without_public_accuracy_is_uncertain_by_a_whole_cell(
    tmp_path: Path, media: Path
) -> None:
    path = edited(EXPORT, tmp_path / "e.csv", id102={"public_positional_accuracy": ""})
    crow = items(read(path, media))[f"{SITE}102"].metadata
    assert crow["coordinateUncertaintyInMeters"] == 31_500.0


def test_without_a_licence_all_rights_are_reserved(media: Path) -> None:
    found = items(read(EXPORT, media))
    assert found[f"{SITE}102"].metadata["license"] == "all rights reserved"
    assert found[f"{SITE}103"].metadata["license"] == "CC0-1.0"


def test_the_zip_of_an_export_reads_like_its_csv(tmp_path: Path, media: Path) -> None:
    with zipfile.ZipFile(tmp_path / "observations-1.zip", "w") as archive:
        archive.write(EXPORT, "observations-1.csv")
        archive.writestr("README.txt", "Columns: …")
    zipped = read(tmp_path / "observations-1.zip", media)
    assert zipped.format == "inaturalist"
    assert zipped.entries == read(EXPORT, media).entries


def test_an_address_is_fetched_where_that_was_allowed_and_named_where_not(tmp_path: Path) -> None:
    path = copied("inaturalist_export/observations-1.csv", tmp_path / "e.csv")
    source = read(path, fetch=(BUCKET,))
    assert items(source)[f"{SITE}101"].url == f"{BUCKET}photos/5001/medium.jpg"
    (sound,) = failures(source)
    assert "--fetch https://static.inaturalist.org/" in sound.message
    assert "e.csv, line 5" in sound.message


def test_a_photograph_is_not_taken_by_its_size_alone(tmp_path: Path) -> None:
    shutil.copyfile(SAMPLE / "images" / "cow-1.webp", tmp_path / "medium.jpg")
    path = copied("inaturalist_export/observations-1.csv", tmp_path / "e.csv")
    assert not items(read(path))


def test_wrong_rows_of_an_export_are_listed_and_the_others_are_read(
    tmp_path: Path, media: Path
) -> None:
    path = edited(EXPORT, tmp_path / "e.csv", id101={"latitude": "north"}, id102={"id": ""})
    with path.open("a") as file:
        file.write("105,too,short\n")
    source = read(path, media)
    assert list(items(source)) == [f"{SITE}103", f"{SITE}103#media=801.ogg"]
    latitude, no_id, short = (each.message for each in failures(source))
    assert "e.csv, line 2: column 'decimalLatitude' takes numbers, not 'north'" in latitude
    assert "the row has no id" in no_id
    assert "line 7: the row has 3 cells, the header 53" in short


def test_an_export_without_addresses_of_media_names_the_columns_to_select(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("id,observed_on,quality_grade,user_login\n1,2024-01-01,research,me\n")
    with pytest.raises(ManifestError, match="select them"):
        read_source(path)


def test_a_manifest_stays_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    cells = f"{SAMPLE}/images/cow-1.webp,1,2024-01-01,research,me"
    path.write_text(f"media,id,observed_on,quality_grade,user_login\n{cells}\n")
    assert read_source(path).format == "manifest"


# The open data


def test_local_photographs_are_joined_with_all_tables(media: Path) -> None:
    source = read(OPEN_DATA, media)
    assert source.format == "inaturalist-open-data"
    uuid = "0b4f8a3e-1d52-4a10-9c55-00000000000"
    found = items(source)
    assert {name: item.media for name, item in found.items()} == {
        f"{SITE}{uuid}1": "6001/original.webp",
        f"{SITE}{uuid}2": "6003.webp",
    }
    expected = {
        "photo_id": "6001",
        "photo_uuid": "aaaaaaaa-0000-4000-8000-000000000001",
        "kingdom": "Animalia",
        "order": "Artiodactyla",
        "genus": "Vicugna",
        "species": "Vicugna pacos",
        "scientificName": "Vicugna pacos",
        "taxonRank": "species",
        "eventDate": "2023-06-01",
        "decimalLatitude": 52.5,
        "coordinateUncertaintyInMeters": 15.0,
        "license": "CC-BY-NC-4.0",
        "rightsHolder": 'A. "Kee" Per',
    }
    alpaca = found[f"{SITE}{uuid}1"].metadata
    assert {name: alpaca[name] for name in expected} == expected
    minor = found[f"{SITE}{uuid}2"].metadata
    assert (minor["taxonRank"], minor["species"]) == ("subspecies", "Vicugna pacos")
    assert minor["rightsHolder"] == "listener"
    assert "decimalLatitude" not in minor


def test_files_that_no_row_is_about_are_listed(media: Path) -> None:
    messages = [failure.message for failure in failures(read(OPEN_DATA, media))]
    assert [each.rpartition(" ")[2] for each in messages] == [
        "'5001/original.jpg'",
        "'5002/medium.jpeg'",
        "'5003.jpg'",
    ]


def test_every_photograph_is_listed_where_they_may_be_fetched(media: Path) -> None:
    found = items(read(OPEN_DATA, media, fetch=(BUCKET,)))
    assert len(found) == 4
    assert [item.media for item in found.values() if item.url is None] == [
        "6001/original.webp",
        "6003.webp",
    ]
    assert f"{BUCKET}photos/6002/large.webp" in [item.url for item in found.values()]


def test_tables_with_gzip_read_like_plain_ones(tmp_path: Path, media: Path) -> None:
    for path in OPEN_DATA.iterdir():
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed = items(read(tmp_path, media))
    assert packed == items(read(OPEN_DATA, media))
    assert packed == items(read(tmp_path / "photos.csv.gz", media))


def test_names_are_left_out_where_their_tables_are_missing(tmp_path: Path, media: Path) -> None:
    folder = copied("inaturalist_open_data", tmp_path / "tables")
    (folder / "taxa.csv").unlink()
    (folder / "observers.csv").unlink()
    for item in items(read(folder, media)).values():
        assert "taxonID" in item.metadata
        assert not {"scientificName", "rightsHolder"} & set(item.metadata)


def test_wrong_rows_of_the_open_data_are_listed_and_the_others_are_read(
    tmp_path: Path, media: Path
) -> None:
    folder = copied("inaturalist_open_data", tmp_path / "tables")
    shutil.rmtree(media / "5002")
    shutil.copyfile(media / "5003.jpg", media / "6005.webp")
    with (folder / "photos.csv").open("a") as file:
        file.write("short\t1\n")
        file.write("u\t6005\tnowhere\t7\twebp\tCC0\t1\t1\t0\n")
    with (folder / "observations.csv").open("ab") as binary:
        binary.write(b"\xff\xfe\n")
    source = read(folder, media)
    assert len(items(source)) == 2
    messages = "\n".join(failure.message for failure in failures(source))
    assert "photos.csv, line 6: the row has 2 cells, the header 9" in messages
    assert "observations.csv, line 5: the line is not utf-8 text" in messages
    assert "photos.csv, line 7: no row of observations.csv has the uuid 'nowhere'" in messages


def test_open_data_without_media_say_how_files_are_named(tmp_path: Path) -> None:
    folder = copied("inaturalist_open_data", tmp_path / "tables")
    with pytest.raises(SourceNotFoundError, match="PHOTO_ID") as caught:
        read_source(folder)
    assert f"--fetch {BUCKET}" in caught.value.message


def test_a_table_that_is_needed_is_named_where_it_is_missing(tmp_path: Path) -> None:
    folder = copied("inaturalist_open_data", tmp_path / "tables")
    (folder / "observations.csv").unlink()
    with pytest.raises(SourceNotFoundError, match=r"observations\.csv"):
        read_source(folder)


def test_a_table_that_is_cut_off_is_refused(tmp_path: Path, media: Path) -> None:
    folder = copied("inaturalist_open_data", tmp_path / "tables")
    whole = gzip.compress((folder / "observations.csv").read_bytes())
    (folder / "observations.csv").unlink()
    (folder / "observations.csv.gz").write_bytes(whole[:-12])
    with pytest.raises(ManifestError, match=r"observations\.csv\.gz"):
        read_source(folder, SourceOptions(media=str(media)))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CC-BY-NC", "CC-BY-NC-4.0"),
        ("cc-by-nc-sa", "CC-BY-NC-SA-4.0"),
        ("CC_BY_NC_3_0", "CC-BY-NC-3.0"),
        ("http://creativecommons.org/licenses/by-nd/2.5/es/", "CC-BY-ND-2.5"),
        ("https://creativecommons.org/licenses/by/4.0/legalcode", "CC-BY-4.0"),
        ("CC0_1_0", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "PDM-1.0"),
        ("© somebody", "© somebody"),
    ],
)
def test_licences_have_one_spelling(text: str, code: str) -> None:
    assert licence(text, version="4.0") == code


def test_an_observation_without_an_id_is_reported_by_its_line(tmp_path: Path, media: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(
        "id,url,image_url,geoprivacy,taxon_id\n,,https://h.org/photos/5001/large.jpg,,7\n"
    )
    [failure] = failures(read(path, media))
    assert failure.occurrence_id == "export.csv, line 2"
    assert failure.message == "export.csv, line 2: the row has no id"


def test_contradictory_rows_are_kept_as_obscured(tmp_path: Path, media: Path) -> None:
    cells = {"geoprivacy": "private", "coordinates_obscured": "false"}
    found = items(read(edited(EXPORT, tmp_path / "e.csv", id101=cells), media))
    assert found[f"{SITE}101"].metadata["coordinates_obscured"] is True
