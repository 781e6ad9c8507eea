from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from dwca.read import DwCAReader

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.service.sources import Source, SourceOptions, read_source
from bittern.service.sources.tables import MAX_LINE_BYTES
from tests.sources.archives import (
    AUDUBON,
    DC,
    DWC,
    EVENT,
    FIXTURES,
    MULTIMEDIA,
    OCCURRENCE,
    SAMPLE,
    archive,
    failures,
    items,
    picture_archive,
    table,
    zipped,
)

FIXTURE = FIXTURES / "darwin_core"
HERE = SourceOptions(media=str(SAMPLE))
IMAGES = SourceOptions(media=str(SAMPLE / "images"))


def read(path: Path, options: SourceOptions = HERE) -> Source:
    source = read_source(path, options)
    assert source.format == "darwin-core"
    return source


# What is read


def test_media_come_with_their_occurrences_in_any_order_of_the_tables() -> None:
    found = items(read(FIXTURE))
    assert list(found) == [
        "urn:fixture:occ:1",
        "urn:fixture:occ:1#media=images/calf-1.webp",
        "urn:fixture:occ:2",
        "urn:fixture:occ:3",
        "urn:fixture:occ:3#media=audio/cat-1.ogg",
    ]
    crow = found["urn:fixture:occ:2"]
    assert crow.path == SAMPLE / "audio" / "crow-1.ogg"
    assert (crow.media, crow.media_root) == ("audio/crow-1.ogg", str(SAMPLE.resolve()))
    assert crow.modality == "audio"
    assert crow.metadata["scientificName"] == "Corvus corone"


def test_the_licence_of_a_medium_wins_over_that_of_its_occurrence() -> None:
    found = items(read(FIXTURE))
    crow = found["urn:fixture:occ:2"].metadata
    assert crow["license"] == "CC-BY-NC-4.0"
    assert crow["rightsHolder"] == "B. Listener"
    assert crow["references"] == "https://media.example.org/page/crow"
    alpaca = found["urn:fixture:occ:1"].metadata
    assert alpaca["license"] == "CC0-1.0"
    assert alpaca["rightsHolder"] == "Museum of Fixtures"


def test_coordinates_come_with_what_was_done_to_them() -> None:
    crow = items(read(FIXTURE))["urn:fixture:occ:2"].metadata
    assert crow["decimalLatitude"] == "52.5"
    assert crow["coordinateUncertaintyInMeters"] == "12000"
    assert crow["informationWithheld"] == "exact locality withheld"
    assert crow["dataGeneralizations"] == "coordinates rounded to 0.1 degree"


def test_dates_stay_text_and_defaults_of_meta_xml_fill_in() -> None:
    alpaca = items(read(FIXTURE))["urn:fixture:occ:1"].metadata
    assert alpaca["eventDate"] == "2021-05-12/2021-05-14"
    assert alpaca["geodeticDatum"] == "WGS84"


def test_a_zip_and_a_zip_with_a_folder_in_it_read_like_the_folder(tmp_path: Path) -> None:
    plain = read(FIXTURE).entries
    assert read(zipped(FIXTURE, tmp_path / "a.zip")).entries == plain
    assert read(zipped(FIXTURE, tmp_path / "b.zip", below="archive/")).entries == plain


def test_the_formats_own_library_reads_the_same_values() -> None:
    other = {"occurrenceID", "type", "license", "rightsHolder", "references"}
    ours = items(read(FIXTURE))
    compared = 0
    with DwCAReader(str(FIXTURE)) as reader:
        for row in reader:
            item = ours.get(row.data[f"{DWC}occurrenceID"])
            if item is None:
                continue
            media = {medium.data[f"{DC}identifier"] for medium in row.extensions}
            assert item.metadata["accessURI"] in media or not media
            for term, value in row.data.items():
                if (name := term.rpartition("/")[2]) not in other:
                    assert item.metadata.get(name, "") == value, name
                    compared += 1
    assert compared > 50


def test_a_source_can_be_iterated_again() -> None:
    source = read(FIXTURE)
    assert list(source) == list(source)


def test_audubon_core_is_read_by_its_own_terms(tmp_path: Path) -> None:
    ac, rights = "http://rs.tdwg.org/ac/terms/", "http://ns.adobe.com/xap/1.0/rights/"
    terms = ["", f"{DC}identifier", f"{ac}accessURI", "http://purl.org/dc/elements/1.1/type",
             f"{rights}UsageTerms", f"{rights}Owner", f"{ac}furtherInformationURL"]  # fmt: skip
    rows = [
        terms,
        ("1", "urn:medium:1", "https://m.example.org/images/cow-1.webp", "StillImage",
         "CC BY-SA 4.0", "A. Keeper", "https://m.example.org/page"),
    ]  # fmt: skip
    path = archive(
        tmp_path / "a",
        [
            table("core", OCCURRENCE, "o.txt", ["occurrenceID"]),
            table("extension", AUDUBON, "m.txt", terms),
        ],
        {"o.txt": [("occurrenceID",), ("1",)], "m.txt": rows},
    )
    (cow,) = items(read(path)).values()
    assert cow.media == "images/cow-1.webp"
    assert cow.metadata["license"] == "CC-BY-SA-4.0"
    assert cow.metadata["rightsHolder"] == "A. Keeper"
    assert cow.metadata["references"] == "https://m.example.org/page"
    assert cow.metadata["identifier"] == "urn:medium:1"


def test_occurrences_of_events_get_the_metadata_of_the_event(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a",
        [
            table("core", EVENT, "e.txt", ["eventID", "eventDate", "locality"]),
            table("extension", OCCURRENCE, "o.txt", ["eventID", "occurrenceID", "locality"]),
            table("extension", MULTIMEDIA, "m.txt", ["eventID", "occurrenceID", f"{DC}identifier"]),
        ],
        {
            "e.txt": [("id", "d", "l"), ("e1", "2020-01-01", "a wood"), ("e2", "2021", "a lake")],
            "o.txt": [("id", "o", "l"), ("e1", "o1", ""), ("e1", "o2", "its edge")],
            "m.txt": [
                ("id", "o", "i"),
                ("e1", "o2", "images/cow-1.webp"),
                ("e1", "o1", "images/cat-1.webp"),
                ("e2", "", "images/calf-1.webp"),
                ("e3", "", "images/alpaca-1.webp"),
            ],
        },
    )
    source = read(path)
    metadata = {name: item.metadata for name, item in items(source).items()}
    assert list(metadata) == ["o1", "o2", "e2"]
    assert (metadata["o1"]["eventDate"], metadata["o1"]["locality"]) == ("2020-01-01", "a wood")
    assert (metadata["o2"]["eventDate"], metadata["o2"]["locality"]) == ("2020-01-01", "its edge")
    assert metadata["e2"]["eventDate"] == "2021"
    assert "no event has the id 'e3'" in failures(source)[0].message


def test_quotes_separators_and_line_ends_are_those_of_meta_xml(tmp_path: Path) -> None:
    rules = (
        'encoding="ISO-8859-1" fieldsTerminatedBy=";" linesTerminatedBy="\\r" fieldsEnclosedBy="\'"'
    )
    path = archive(
        tmp_path / "a",
        [
            table("core", OCCURRENCE, "o.csv", ["occurrenceID", "locality", "associatedMedia"],
                  rules=rules, header_lines=2)
        ],
        {"o.csv": "x;y;z\ro;l;m\r1;'M\xfcritz; east';images/cow-1.webp\r".encode("latin-1")},
    )  # fmt: skip
    (cow,) = items(read(path)).values()
    assert cow.metadata["locality"] == "M\xfcritz; east"


def test_meta_xml_without_rules_means_commas_and_quotes(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a",
        [table("core", OCCURRENCE, "o.csv", ["occurrenceID", "locality", "associatedMedia"],
               rules="", header_lines=0)],
        {"o.csv": b'1,"a wood,\nat ""night""",images/cow-1.webp\n'},
    )  # fmt: skip
    (cow,) = items(read(path)).values()
    assert cow.metadata["locality"] == 'a wood,\nat "night"'


# Where media are


def test_media_are_found_by_the_file_name_in_their_address(tmp_path: Path) -> None:
    path = picture_archive(tmp_path / "a", [("1", "https://x.example.org/a/b/cow-1.webp?size=9")])
    (cow,) = items(read(path, IMAGES)).values()
    assert cow.media == "cow-1.webp"


def test_a_file_is_not_taken_for_the_media_of_two_addresses(tmp_path: Path) -> None:
    rows = [("1", "https://x.example.org/cow-1.webp"), ("1", "https://y.example.org/cow-1.webp")]
    source = read(picture_archive(tmp_path / "a", rows), IMAGES)
    assert len(items(source)) == 1
    assert "https://x.example.org/cow-1.webp" in failures(source)[0].message


def test_missing_media_are_listed_with_both_remedies(tmp_path: Path) -> None:
    path = picture_archive(tmp_path / "a", [("1", "https://x.example.org/a/none.jpg")])
    (failure,) = failures(read(path))
    assert failure.reason == "SOURCE_NOT_FOUND"
    for words in (
        "media.txt, line 2",
        str(SAMPLE),
        "none.jpg",
        "https://x.example.org/a/none.jpg",
        "--media FOLDER",
        "--fetch https://x.example.org/",
    ):
        assert words in failure.message


def test_addresses_are_fetched_only_where_that_was_allowed(tmp_path: Path) -> None:
    rows = [("1", "https://x.example.org/a/1.jpg"), ("1", "https://evil.example.org/2.jpg")]
    options = SourceOptions(fetch=("https://x.example.org/a/",))
    source = read(picture_archive(tmp_path / "a", rows), options)
    (item,) = items(source).values()
    assert (item.url, item.path) == ("https://x.example.org/a/1.jpg", None)
    assert len(failures(source)) == 1


@pytest.mark.parametrize("name", ["../secret.jpg", "images/../../secret.jpg", "..\\secret.jpg"])
def test_a_row_cannot_climb_out_of_the_folder_with_the_media(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"not for strangers")
    source = read(picture_archive(tmp_path / "a", [("1", name)]), SourceOptions())
    assert not items(source)
    assert "leads out of the media folder" in failures(source)[0].message


@pytest.mark.parametrize("begins", ["", "file://"])
def test_of_an_absolute_path_only_the_file_name_is_used(tmp_path: Path, begins: str) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"not for strangers")
    source = read(picture_archive(tmp_path / "a", [("1", f"{begins}{secret}")]), SourceOptions())
    assert not items(source)
    assert failures(source)[0].reason == "SOURCE_NOT_FOUND"


def test_a_link_that_leads_out_is_followed_only_below_a_folder_that_was_named(
    tmp_path: Path,
) -> None:
    path = picture_archive(tmp_path / "a", [("1", "cow.webp")])
    (path / "cow.webp").symlink_to(SAMPLE / "images" / "cow-1.webp")
    refused = read(path, SourceOptions())
    assert "is a link that leaves" in failures(refused)[0].message
    assert len(items(read(path, SourceOptions(media=str(path))))) == 1


# Rows that are of no use


def test_wrong_rows_are_listed_by_file_and_line_and_the_others_are_read(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a",
        [
            table("core", OCCURRENCE, "o.txt", ["occurrenceID", "decimalLatitude"]),
            table("extension", MULTIMEDIA, "m.txt", ["", f"{DC}identifier"]),
        ],
        {
            "o.txt": b"id\tlat\n1\t5\n2\n3\t95\n4\t\xff\n\n5\t7\textra\n",
            "m.txt": [
                ("id", "i"),
                ("1", "images/cow-1.webp"),
                ("3", "images/cat-1.webp"),
                ("1", ""),
                ("1", "images/cow-1.webp"),
                ("7", "images/calf-1.webp"),
                ("1", "film.mp4"),
            ],
        },
    )
    source = read(path)
    assert list(items(source)) == ["1"]
    messages = sorted(each.message for each in failures(source))
    for words, message in zip(
        [
            "m.txt, line 3: decimalLatitude must be between -90 and 90, not '95'",
            "m.txt, line 4: the row names no media",
            "m.txt, line 5: 'images/cow-1.webp' is listed twice",
            "m.txt, line 6: no occurrence has the id '7'",
            "m.txt, line 7: 'film.mp4' may be a picture or a sound",
            "o.txt, line 3: the row has 1 cells",
            "o.txt, line 5: the line is not utf-8 text",
            "o.txt, line 7: the row has 3 cells, the header 2",
        ],
        messages,
        strict=True,
    ):
        assert words in message


def test_occurrences_with_one_id_do_not_take_each_others_media(tmp_path: Path) -> None:
    path = picture_archive(tmp_path / "a", [("1", "images/cow-1.webp")])
    with (path / "occurrence.txt").open("a") as file:
        file.write("1\tFelis catus\n")
    source = read(path)
    assert items(source)["1"].metadata["scientificName"] == "Bos taurus"
    assert "an earlier row has the id '1'" in failures(source)[0].message


def test_a_line_without_an_end_costs_its_row_and_no_memory(tmp_path: Path) -> None:
    path = picture_archive(tmp_path / "a", [])
    endless = b"1\t" + b"x" * (2 * MAX_LINE_BYTES)
    (path / "media.txt").write_bytes(b"id\ti\n" + endless + b"\n1\timages/cow-1.webp\n")
    source = read(path)
    assert list(items(source)) == ["1"]
    assert "media.txt, line 2: the line is longer than" in failures(source)[0].message


# Archives that are of no use


def core(attributes: str) -> str:
    return f"<core {attributes}><files><location>o.txt</location></files></core>"


def test_gbifs_simple_download_is_refused_with_the_download_to_choose(tmp_path: Path) -> None:
    simple = tmp_path / "0012345.csv"
    simple.write_text("gbifID\tdatasetKey\toccurrenceID\tmediaType\n1\tx\ty\tStillImage\n")
    with zipfile.ZipFile(tmp_path / "0012345.zip", "w") as archive_:
        archive_.write(simple, simple.name)
    for path in (simple, tmp_path / "0012345.zip"):
        with pytest.raises(ManifestError, match=r"simple format.*Darwin Core Archive"):
            read_source(path)


def test_an_archive_without_media_is_refused(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a",
        [table("core", OCCURRENCE, "o.txt", ["occurrenceID"])],
        {"o.txt": [("id",), ("1",)]},
    )
    with pytest.raises(ManifestError, match="names no media"):
        read_source(path)
    with pytest.raises(SourceNotFoundError, match="none of the occurrences"):
        read_source(picture_archive(tmp_path / "b", []))


def test_an_archive_of_names_is_refused(tmp_path: Path) -> None:
    taxa = table("core", "http://rs.tdwg.org/dwc/terms/Taxon", "t.txt", ["scientificName"])
    path = archive(tmp_path / "a", [taxa], {"t.txt": [("n",), ("Bos",)]})
    with pytest.raises(ManifestError, match="its core has the type taxon"):
        read_source(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    path = picture_archive(tmp_path / "a", [("1", "images/cow-1.webp")])
    (path / "media.txt").unlink()
    with pytest.raises(SourceNotFoundError, match=r"has no file 'media\.txt'.*occurrence\.txt"):
        read_source(zipped(path, tmp_path / "a.zip"))


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><archive>&x;</archive>', "document type"),
        ("<archive><core>", "not XML"),
        ("<archive/>", "0 core tables"),
        ('<archive><core rowType="Occurrence"/></archive>', "without a file"),
        ("<archive>" + core('encoding="utf-16"') + "</archive>", "utf-16"),
        ("<archive>" + core('ignoreHeaderLines="-1"') + "</archive>", "ignoreHeaderLines"),
        (
            "<archive>" + core('fieldsTerminatedBy="||"') + "</archive>",
            "must be one character",
        ),
        ("<archive>" + core("") * 2 + "</archive>", "2 core tables"),
    ],
)
def test_a_meta_xml_that_is_wrong_or_hostile_is_refused(
    tmp_path: Path, content: str, wrong: str
) -> None:
    (tmp_path / "meta.xml").write_text(content)
    with pytest.raises(ManifestError, match=wrong):
        read_source(tmp_path)


@pytest.mark.parametrize("name", ["../o.txt", "/etc/passwd", "https://x.example.org/o.txt"])
def test_meta_xml_names_files_inside_the_archive_only(tmp_path: Path, name: str) -> None:
    outside = table("core", OCCURRENCE, name, ["occurrenceID", "associatedMedia"])
    with pytest.raises(ManifestError, match="not inside the package"):
        read_source(archive(tmp_path / "a", [outside], {}))


def test_a_table_that_is_a_link_out_of_the_archive_is_refused(tmp_path: Path) -> None:
    path = picture_archive(tmp_path / "a", [("1", "images/cow-1.webp")])
    outside = (path / "media.txt").rename(tmp_path / "outside.txt")
    (path / "media.txt").symlink_to(outside)
    with pytest.raises(ManifestError, match="is a link that leaves"):
        read_source(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = picture_archive(tmp_path / "a", [("1", "images/cow-1.webp")])
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.write(path / "meta.xml", "meta.xml")
        bomb.write(path / "occurrence.txt", "occurrence.txt")
        with bomb.open("media.txt", "w") as member:
            for _ in range(80):
                member.write(b"\n" * (1 << 20))
    with pytest.raises(ManifestError, match="would grow"):
        read_source(tmp_path / "bomb.zip")


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(FIXTURE, tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as whole:
        begins = whole.getinfo("multimedia.txt").header_offset
    content[begins + 60 : begins + 100] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="cannot be unpacked"):
        read_source(path)
    path.write_bytes(b"PK garbage")
    with pytest.raises(ManifestError):
        read_source(path)


def test_a_decimal_comma_is_read_in_a_table_with_tabs(tmp_path: Path) -> None:
    folder = archive(
        tmp_path / "a",
        [
            table(
                "core", OCCURRENCE, "o.txt", ["occurrenceID", "decimalLatitude", "associatedMedia"]
            )
        ],
        {"o.txt": [("id", "lat", "media"), ("1", "46,5", "a.jpg"), ("2", "north", "a.jpg")]},
    )
    (folder / "a.jpg").touch()
    source = read(folder, SourceOptions())
    assert items(source)["1"].metadata["decimalLatitude"] == "46.5"
    [failure] = failures(source)
    assert failure.message.startswith("o.txt, line 3: ")
    assert "correct the cell" in failure.message


def test_a_file_below_the_media_is_found_by_the_whole_path_of_its_address(tmp_path: Path) -> None:
    folder = picture_archive(
        tmp_path / "a",
        [("1", f"https://h.org/photos/{n}/original.jpg") for n in (12, 13)],
    )
    for n in (12, 13):
        (tmp_path / "m" / "photos" / str(n)).mkdir(parents=True)
        (tmp_path / "m" / "photos" / str(n) / "original.jpg").touch()
    found = items(read(folder, SourceOptions(media=str(tmp_path / "m"))))
    assert [item.media for item in found.values()] == [
        "photos/12/original.jpg",
        "photos/13/original.jpg",
    ]
