"""Answers of xeno-canto's interface, versions 2 and 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bittern.errors import ManifestError
from bittern.service.sources import SourceOptions, read_source
from bittern.service.sources.field_values import event_date
from bittern.service.sources.xeno_canto import xeno_canto_entries
from bittern.types import AddResult, AddStatus, MediaItem


def recording(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": str(number), "gen": "Botaurus", "sp": "stellaris", "ssp": "", "grp": "birds",
        "en": "Eurasian Bittern", "rec": "Rosa Example", "cnt": "Poland", "loc": "Biebrza",
        "lat": "53.5", "lon": "22.75", "alt": "100", "type": "song", "sex": "male",
        "stage": "adult", "method": "field recording", "url": f"//xeno-canto.org/{number}",
        "file": f"https://xeno-canto.org/{number}/download", "file-name": f"XC{number}-boom.mp3",
        "sono": {"small": "//xeno-canto.org/small.png"}, "osci": {},
        "lic": "//creativecommons.org/licenses/by-nc-sa/4.0/", "q": "A", "length": "0:41",
        "time": "05:30", "date": "2021-04-18", "uploaded": "2021-04-20",
        "also": ["Acrocephalus schoenobaenus", "Locustella naevia"], "rmk": "", "smp": 44100,
        **more,
    }  # fmt: skip


def page(*recordings: Any) -> dict[str, Any]:
    return {
        "numRecordings": str(len(recordings)),
        "numSpecies": "1",
        "page": 1,
        "numPages": 1,
        "recordings": list(recordings),
    }


def written(folder: Path, content: Any, *media: str, name: str = "page1.json") -> Path:
    for each in media:
        (folder / each).write_bytes(b"media")
    (folder / name).write_text(json.dumps(content))
    return folder / name


def entries(path: Path, **options: Any) -> list[Any]:
    return [listed.entry for listed in xeno_canto_entries(path, SourceOptions(**options))]


def test_recording_gets_its_species_position_date_and_licence(tmp_path: Path) -> None:
    source = read_source(written(tmp_path, page(recording(7)), "XC7.mp3"))
    (item,) = source.entries
    assert source.format == "xeno-canto"
    assert source.listed[0].position == "page1.json, recordings[0]"
    assert isinstance(item, MediaItem)
    assert (item.occurrence_id, item.modality, item.media) == ("XC7", "audio", "XC7.mp3")
    assert item.metadata == {
        "scientificName": "Botaurus stellaris", "genus": "Botaurus",
        "species": "Botaurus stellaris", "vernacularName": "Eurasian Bittern", "grp": "birds",
        "rightsHolder": "Rosa Example", "country": "Poland", "locality": "Biebrza",
        "decimalLatitude": 53.5, "decimalLongitude": 22.75, "alt": "100", "soundType": "song",
        "sex": "male", "lifeStage": "adult", "method": "field recording",
        "references": "https://xeno-canto.org/7", "license": "CC-BY-NC-SA-4.0", "q": "A",
        "length": "0:41", "eventDate": "2021-04-18T05:30", "uploaded": "2021-04-20",
        "also": "Acrocephalus schoenobaenus | Locustella naevia", "smp": "44100",
    }  # fmt: skip


def test_version_2_calls_the_longitude_lng(tmp_path: Path) -> None:
    old = recording(7)
    old["lng"] = old.pop("lon")
    (item,) = entries(written(tmp_path, page(old), "XC7.mp3"))
    assert item.metadata["decimalLongitude"] == 22.75


@pytest.mark.parametrize("name", ["XC7.wav", "7.mp3", "7.flac", "XC7-boom.mp3"])
def test_media_are_found_by_number_or_by_their_own_name(tmp_path: Path, name: str) -> None:
    (item,) = entries(written(tmp_path, page(recording(7)), name))
    assert item.path == tmp_path / name


def test_media_are_fetched_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, page(recording(7)))
    (missing,) = entries(path)
    assert missing.status is AddStatus.FAILED
    assert "--fetch https://xeno-canto.org/" in missing.message
    (item,) = entries(path, fetch=("https://xeno-canto.org/",))
    assert item.url == "https://xeno-canto.org/7/download"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda rows: page(*rows),
        lambda rows: [page(rows[0]), page(*rows[1:])],
        lambda rows: rows,
    ],
    ids=["a page", "a list of pages", "a list of recordings"],
)
def test_one_file_may_hold_a_page_or_a_list(tmp_path: Path, wrap: Any) -> None:
    path = written(tmp_path, wrap([recording(7), recording(8)]), "XC7.mp3", "XC8.mp3")
    source = read_source(path)
    assert source.format == "xeno-canto"
    assert [item.occurrence_id for item in source.entries] == ["XC7", "XC8"]


def test_pages_of_a_folder_come_in_their_order_and_repeats_are_skipped(tmp_path: Path) -> None:
    written(tmp_path, page(recording(10)), "XC10.mp3", name="page10.json")
    written(tmp_path, page(recording(2), recording(1)), "XC2.mp3", name="page2.json")
    written(tmp_path, page(recording(1)), "XC1.mp3", name="page1.json")
    (tmp_path / "notes.json").write_text('{"mine": [1]}')
    source = read_source(tmp_path)
    assert source.format == "xeno-canto"
    assert [e.occurrence_id for e in source.entries] == ["XC1", "XC2", "XC1", "XC10"]
    skipped = source.entries[2]
    assert isinstance(skipped, AddResult)
    assert skipped.status is AddStatus.SKIPPED


def test_a_broken_page_costs_its_own_recordings_only(tmp_path: Path) -> None:
    written(tmp_path, page(recording(1)), "XC1.mp3", name="page1.json")
    (tmp_path / "page2.json").write_text('{"numRecordings": "1", "recordings": [')
    written(tmp_path, page(recording(3)), "XC3.mp3", name="page3.json")
    first, broken, last = entries(tmp_path)
    assert (first.occurrence_id, last.occurrence_id) == ("XC1", "XC3")
    assert broken.status is AddStatus.FAILED
    assert "page2.json is not valid JSON" in broken.message


def test_a_folder_of_media_with_some_other_json_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"media")
    (tmp_path / "settings.json").write_text('{"recordings": 3}')
    assert read_source(tmp_path).format == "folder"


def test_what_nobody_identified_has_no_species(tmp_path: Path) -> None:
    mystery = recording(7, gen="Mystery", sp="mystery", en="Identity unknown")
    genus = recording(8, sp="sp.", en="")
    unknown, only_genus = entries(written(tmp_path, page(mystery, genus), "XC7.mp3", "XC8.mp3"))
    assert not {"scientificName", "genus", "vernacularName"} & unknown.metadata.keys()
    assert unknown.metadata["en"] == "Identity unknown"
    assert only_genus.metadata["scientificName"] == "Botaurus"
    assert "species" not in only_genus.metadata


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("2010-00-00", "", "2010"),
        ("2010-05-00", "08:30", "2010-05"),
        ("2010-05-09", "8:30", "2010-05-09T08:30"),
        ("2010-05-09", "?:?", "2010-05-09"),
        ("0000-00-00", "08:30", ""),
        ("2010-13-01", "", ""),
        ("before 1990", "", ""),
        ("2010", "", "2010"),
        ("2020-01-02 03:04:05+00:00", "", "2020-01-02T03:04:05+00:00"),
    ],
)
def test_dates_keep_their_known_parts(date: str, time: str, expected: str) -> None:
    assert event_date(date, time) == expected


def test_wrong_rows_are_listed_with_their_position_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [None, recording(1, id="?"), recording(2, id=[2]), recording(3, lat="95"), recording(7)]
    *wrong, item = entries(written(tmp_path, page(*rows), "XC3.mp3", "XC7.mp3"))
    assert [each.status for each in wrong] == [AddStatus.FAILED] * 4
    for at, each in enumerate(wrong):
        assert each.message.startswith(f"page1.json, recordings[{at}]: ")
    assert item.occurrence_id == "XC7"


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, page(recording(7)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestError, match=r"page1\.json is not valid JSON"):
        entries(path)


@pytest.mark.parametrize(
    "name", ["XC7 - Eurasian Bittern - Botaurus stellaris.mp3", "bittern_xc7-boom.WAV"]
)
def test_a_recording_is_found_by_the_number_in_the_name_of_its_download(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path, page(recording(7)), "XC77 - other.mp3", "AXC7.mp3", "XC7.txt", name)
    [item] = entries(path)
    assert (item.media, item.path) == (name, tmp_path / name)


def test_an_error_lists_a_few_of_the_searched_names(tmp_path: Path) -> None:
    [entry] = entries(written(tmp_path, page(recording(7))))
    assert "'XC7.mp3', '7.mp3', 'XC7.wav' and 10 other names" in entry.message
    assert len(entry.message) < 500
