from __future__ import annotations

from pathlib import Path

import pytest

from bittern.errors import InvalidInputError, ManifestError, SourceNotFoundError
from bittern.service.sources import SourceOptions, read_source
from bittern.service.sources.folder import names_of_siblings
from bittern.service.sources.globs import matcher
from bittern.types import AddResult, MediaItem


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def media(root: Path, **options: tuple[str, ...]) -> list[str]:
    return [e.media for e in read_source(root, SourceOptions(**options)) if _is_item(e)]  # type: ignore[union-attr,arg-type]


def _is_item(entry: object) -> bool:
    return isinstance(entry, MediaItem)


def test_files_come_before_folders_in_order_and_hidden_ones_not_at_all(tmp_path: Path) -> None:
    folder(tmp_path, "b.jpg", "a/2.wav", "a/1.JPG", ".a/3.jpg", ".c.jpg", "notes.txt")
    assert media(tmp_path) == ["b.jpg", "a/1.JPG", "a/2.wav"]
    source = read_source(tmp_path)
    assert list(source) == list(source)


def test_a_missing_or_empty_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(SourceNotFoundError, match="no media"):
        read_source(tmp_path)
    (tmp_path / "a.txt.bak").write_text("media")
    with pytest.raises(ManifestError, match="is not a folder, not a table"):
        read_source(tmp_path / "a.txt.bak")


def test_globs_choose_files_and_folders(tmp_path: Path) -> None:
    folder(tmp_path, "1.JPG", "1.wav", "2023/a.jpg", "2023/thumbs/a.jpg", "2024/b.jpg")
    assert media(tmp_path, include=("*.jpg",), exclude=("thumbs", "2024/**")) == [
        "1.JPG",
        "2023/a.jpg",
    ]
    with pytest.raises(SourceNotFoundError, match="--include"):
        media(tmp_path, include=("*.tif",))


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("**/*.jpg", "c.jpg", True),
        ("**/*.jpg", "a/b/c.jpg", True),
        ("2023/*.jpg", "2023/a/b.jpg", False),
        ("a*b*c", "abc", True),
        ("a*a", "a", False),
        ("[!0-9]?.wav", "ab.wav", True),
        ("[!0-9]?.wav", "1b.wav", False),
        ("[z-a]", "z", False),
        ("[]^]", "^", True),
        ("a.b", "a\nb", False),
    ],
)
def test_globs_mean_what_they_say(glob: str, path: str, fits: bool) -> None:
    fitted = matcher([glob], "include")
    assert fitted is not None
    assert fitted(path) is fits


@pytest.mark.parametrize("glob", ["", "/etc/*", "../*.jpg", "x" * 300])
def test_a_glob_that_means_nothing_is_refused(glob: str) -> None:
    with pytest.raises(InvalidInputError, match="not a valid glob"):
        matcher([glob], "include")


def test_many_asterisks_take_no_time() -> None:
    fitted = matcher(["*a" * 50 + "b"], "include")
    assert fitted is not None
    assert not fitted("a" * 5_000)


def test_a_circular_link_is_reported_and_not_followed(tmp_path: Path) -> None:
    folder(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    item, link = list(read_source(tmp_path))
    assert isinstance(item, MediaItem)
    assert isinstance(link, AddResult)
    assert (link.status, link.reason) == ("skipped", "LINKED_FOLDER")


def test_an_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    folder(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    failed, item = list(read_source(tmp_path))
    assert isinstance(failed, AddResult)
    assert "Permission denied" in failed.message
    assert isinstance(item, MediaItem)


def test_a_name_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    (tmp_path / "\udcff.jpg").touch()
    [entry] = read_source(tmp_path)
    assert isinstance(entry, AddResult)
    assert "UTF-8" in entry.message


def test_folders_of_species_become_names(tmp_path: Path) -> None:
    folder(tmp_path, "Strix aluco/1.jpg", "Bubo bubo/x/1.wav", "unknown/1.jpg")
    names_of = {
        e.media: dict(e.metadata) for e in read_source(tmp_path) if isinstance(e, MediaItem)
    }
    assert names_of["Strix aluco/1.jpg"] == {
        "scientificName": "Strix aluco",
        "taxonRank": "species",
        "genus": "Strix",
        "species": "Strix aluco",
    }
    assert names_of["Bubo bubo/x/1.wav"]["species"] == "Bubo bubo"
    assert names_of["unknown/1.jpg"] == {}


@pytest.mark.parametrize(
    "folders",
    [
        ["Summer holidays", "Canon eos", "New folder"],
        ["Costa rica", "Sierra nevada"],
        ["Summer holidays", "Turdus merula", "Bubo bubo"],
        ["Campus visit"],
        ["Strix aluco"],
        ["strix aluco", "Bubo bubo"],
        ["00001_Animalia_Strix_aluco"],
        ["00001_Minerals_Chordata_Aves_Strigiformes_Strigidae_Strix_aluco"],
    ],
)
def test_folders_that_may_be_anything_get_no_names(folders: list[str]) -> None:
    assert names_of_siblings(folders, "photos") == {}


def test_families_ranks_and_long_names_are_understood() -> None:
    [owl] = names_of_siblings(["Strix aluco"], "Strigidae").values()
    assert (owl["family"], owl["species"]) == ("Strigidae", "Strix aluco")
    names_of = names_of_siblings(["Motacilla alba yarrellii", "Pica_pica", "Corvus sp."], "birds")
    assert [names["taxonRank"] for names in names_of.values()] == ["subspecies", "species", "genus"]
    long = "00001_Animalia_Chordata_Aves_Strigiformes_Strigidae_Strix_aluco"
    [names] = names_of_siblings([long, "Summer holidays"], "train").values()
    assert names["order"] == "Strigiformes"
    assert names["scientificName"] == "Strix aluco"


def test_a_source_with_globs_is_what_fits_below_the_folder_it_begins_with(tmp_path: Path) -> None:
    folder(tmp_path, "gbif/1.JPG", "gbif/1.wav", "gbif/deep/2.jpg", "other/3.jpg", "gbif.jpg")
    source = read_source(tmp_path / "gbif" / "*.jpg")
    [item] = source.entries
    assert isinstance(item, MediaItem)
    assert (item.occurrence_id, item.path) == ("1.JPG", tmp_path / "gbif" / "1.JPG")
    assert source.format == "folder"
    assert media(tmp_path / "*" / "*.jpg") == ["gbif/1.JPG", "other/3.jpg"]
    assert media(tmp_path / "gbif" / "**" / "*.jpg") == ["1.JPG", "deep/2.jpg"]
    assert media(tmp_path / "g*", exclude=("deep",)) == ["gbif.jpg", "gbif/1.JPG", "gbif/1.wav"]


def test_a_folder_named_like_a_glob_is_that_folder(tmp_path: Path) -> None:
    folder(tmp_path, "birds [2024]/1.jpg", "birds 2/2.jpg")
    assert media(tmp_path / "birds [2024]") == ["1.jpg"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gbif/*.tif", "no photograph or recording"),
        ("nowhere/*.jpg", "no folder .*nowhere"),
    ],
)
def test_globs_that_nothing_fits_are_refused(tmp_path: Path, source: str, words: str) -> None:
    folder(tmp_path, "gbif/1.jpg")
    with pytest.raises(SourceNotFoundError, match=words):
        read_source(tmp_path / source)


def test_globs_in_the_source_and_beside_it_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, "1.jpg")
    with pytest.raises(InvalidInputError, match="--include"):
        media(tmp_path / "*.jpg", include=("1*",))


def test_names_that_are_no_ids_become_some_that_are(tmp_path: Path) -> None:
    folder(tmp_path, "a#t=1,2.wav", "c#1%t=.jpg")
    items = [e for e in read_source(tmp_path) if isinstance(e, MediaItem)]
    assert {item.occurrence_id: item.media for item in items} == {
        "a%23t=1,2.wav": "a#t=1,2.wav",
        "c#1%t=.jpg": "c#1%t=.jpg",
    }
    assert all(item.path is not None and item.path.is_file() for item in items)
