from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bittern
from bittern.errors import InvalidInputError, ManifestError, SourceNotFoundError
from bittern.service.training.examples import (
    MAX_CAPTION_CHARS,
    MAX_LABEL_CHARS,
    MAX_LABELS,
    Example,
    Examples,
    names_of_folder,
    names_of_row,
    read_labels,
    read_pairs,
)
from bittern.service.training.split import split, split_by_modality
from tests.engine.training_media import training_request

SAMPLE = Path(bittern.__file__).parent / "sample" / "manifest.csv"


def manifest(folder: Path, text: str, *, media: tuple[str, ...] = ("a.jpg", "b.jpg")) -> Path:
    """A manifest, and the (empty) files beside it: nothing is decoded here."""
    for name in media:
        touch(folder / name)
    path = folder / "birds.csv"
    path.write_text(text, encoding="utf-8")
    return path


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def some(*groups: str) -> Examples:
    items = [Example(f"{g}-{i}", Path(f"{g}-{i}.jpg"), "image", group=g) for i, g in pairs(groups)]
    return Examples(Path("m.csv"), tuple(items))


def pairs(groups: tuple[str, ...]) -> list[tuple[int, str]]:
    return list(enumerate(groups))


# Pairs


def test_the_sample_gives_a_pair_for_every_picture_and_recording() -> None:
    examples = read_pairs(SAMPLE)
    assert examples.modalities == {"image": 85, "audio": 26}
    assert examples.skipped == ()
    by_id = {example.id: example for example in examples}
    assert by_id["alpaca-1"].captions == (
        "a photo of alpaca",
        "Vicugna pacos",
        "Vicugna pacos with common name alpaca",
    )
    assert by_id["alpaca-1"].group == "vicugna pacos"
    assert all(example.path.is_file() for example in examples)
    assert len({example.id for example in examples}) == len(examples)


def test_recordings_of_the_sample_are_captioned_as_sounds() -> None:
    for example in read_pairs(SAMPLE).of("audio"):
        assert example.modality == "audio"
        [caption] = example.captions
        assert caption.startswith("The sound of ")


def test_items_of_one_species_share_a_group_whatever_they_are_called(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "media,vernacularName,scientificName\na.jpg,calf,Bos taurus\nb.jpg,cow,Bos  Taurus\n",
    )
    assert read_pairs(path).groups == {"bos taurus": 2}


def test_ranks_become_the_taxonomy(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "media,kingdom,class,scientificName,scientificNameAuthorship\n"
        'a.jpg,Animalia,Aves,"Strix aluco Linnaeus, 1758","Linnaeus, 1758"\n',
    )
    [example] = read_pairs(path)
    assert (
        example.captions
        == (
            "Strix aluco",
            "Animalia Aves Strix aluco",
            "a photo of Strix aluco",
            "Strix aluco with common name Strix aluco",
        )[:3]
    )


def test_a_recording_with_a_scientific_name_only_is_captioned_with_it(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media,scientificName\na.wav,Strix aluco\n", media=("a.wav",))
    [example] = read_pairs(path)
    assert example.captions == ("The sound of Strix aluco",)


def test_a_caption_column_is_used_if_there_is_one_and_preferred_to_names(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media,Caption,vernacularName\na.jpg,  An owl \t at dusk,owl\n")
    [example] = read_pairs(path)
    assert example.captions == ("An owl at dusk",)
    assert example.group == "owl"
    [named] = read_pairs(path, templates=["this is {common}"])
    assert named.captions == ("this is owl",)


@pytest.mark.parametrize("heading", ["What It Shows", "what it shows", "What_It_Shows"])
def test_a_caption_column_may_have_any_heading(tmp_path: Path, heading: str) -> None:
    path = manifest(tmp_path, "media;What It Shows;caption\na.jpg;an owl;none\n")
    [example] = read_pairs(path, caption_column=heading)
    assert example.captions == ("an owl",)
    assert example.group == "an owl"


def test_a_missing_caption_column_is_refused_with_the_existing_columns(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media,habitat,remarks\na.jpg,wood,shy\n")
    with pytest.raises(ManifestError, match=r"habitat, remarks.*--caption-column"):
        read_pairs(path)
    with pytest.raises(ManifestError, match=r"no column 'text' with captions.*habitat, remarks"):
        read_pairs(path, caption_column="text")


def test_rows_that_cannot_be_used_are_listed_with_line_and_reason(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "media,caption\n"
        "a.jpg,an owl\n"
        "gone.jpg,a crow\n"
        "b.jpg,\n"
        "\n"
        f"c.jpg,{'long ' * 1000}\n"
        "./a.jpg,an owl again\n"
        "d.jpg,one,two\n"
        'e.jpg,"a\nb"\n',
        media=("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"),
    )
    examples = read_pairs(path)
    assert [example.captions for example in examples] == [("an owl",), ("a b",)]
    reasons = {skipped.where: skipped.reason for skipped in examples.skipped}
    assert list(reasons) == [f"birds.csv, line {line}" for line in (3, 4, 6, 7, 8)]
    for line, words in {
        3: "gone.jpg",
        4: "'b.jpg': the column 'caption' holds no caption",
        6: f"limit is {MAX_CAPTION_CHARS}",
        7: "same file is in birds.csv, line 2",
        8: "3 cells",
    }.items():
        assert words in reasons[f"birds.csv, line {line}"]


def test_strict_refuses_a_source_for_one_bad_row(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media,caption\na.jpg,an owl\ngone.jpg,a crow\n")
    with pytest.raises(ManifestError, match=r"1 of 2 entries.*line 3.*gone\.jpg") as caught:
        read_pairs(path, strict=True)
    assert caught.value.details == {"skipped": "1", "usable": "1"}


@pytest.mark.parametrize("text", ["media,caption\nx.jpg,owl\ny.jpg,owl\n", "media,name\nx.jpg,a\n"])
def test_a_source_without_one_usable_row_says_why(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match=r"line 2: there is no file 'x\.jpg'"):
        read_pairs(manifest(tmp_path, text))


def test_a_column_of_empty_captions_counts_as_missing(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media,caption\na.jpg,\nb.jpg,\n")
    with pytest.raises(ManifestError, match="columns with something in them are none"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"media\n\xff\xfe\n", "UTF-8"), (b"file,caption\n", "no column 'media'"), (b"", "is empty")],
)
def test_other_files_than_manifests_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "birds.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=words):
        read_pairs(path)


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        read_pairs(tmp_path / "nowhere.csv")
    with pytest.raises(SourceNotFoundError):
        read_pairs(tmp_path)


@pytest.mark.parametrize("templates", [["a photo"], ["{colour}"], ["{common"]])
def test_templates_that_cannot_be_filled_are_refused(templates: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="template"):
        read_pairs(SAMPLE, templates=templates)


def test_rows_without_a_name_for_the_template_are_skipped() -> None:
    examples = read_pairs(SAMPLE, templates=["{scientific}"])
    assert len(examples) == 111 - 28
    assert len(examples.skipped) == 28
    assert "scientificName" in examples.skipped[0].reason


# Folders


def test_a_folder_names_its_media_by_its_subfolders(tmp_path: Path) -> None:
    for name in ("Strix aluco/1.jpg", "Strix aluco/in flight/2.jpg", "tawny_owl/1.wav", "x.jpg"):
        touch(tmp_path / name)
    examples = read_pairs(tmp_path)
    assert [(e.id, e.captions, e.group) for e in examples] == [
        ("Strix aluco/1.jpg", ("a photo of Strix aluco",), "strix aluco"),
        ("Strix aluco/in flight/2.jpg", ("a photo of Strix aluco",), "strix aluco"),
        ("tawny_owl/1.wav", ("The sound of tawny owl",), "tawny owl"),
    ]
    [skipped] = examples.skipped
    assert skipped.where == "x.jpg"
    assert "no subfolder" in skipped.reason


def test_a_folder_name_fills_a_template_for_either_kind_of_name(tmp_path: Path) -> None:
    touch(tmp_path / "Strix aluco" / "1.jpg")
    [example] = read_pairs(tmp_path, templates=["{scientific}, perched"])
    assert example.captions == ("Strix aluco, perched",)


def test_known_layouts_of_folder_names_are_split() -> None:
    inat = names_of_folder("00017_Animalia_Chordata_Aves_Strigiformes_Strigidae_Strix_aluco")
    assert inat.scientific == "Strix aluco"
    assert inat.taxonomy == "Animalia Chordata Aves Strigiformes Strigidae Strix aluco"
    birdnet = names_of_folder("Strix aluco_Tawny Owl")
    assert (birdnet.scientific, birdnet.common) == ("Strix aluco", "Tawny Owl")
    assert names_of_folder("my_seven_cats_of_the_last_summer").common.startswith("my seven cats")


def test_names_of_a_row_are_tidied() -> None:
    names = names_of_row({"vernacularName": " tawny \n owl ", "species": "Strix aluco"})
    assert (names.common, names.scientific, names.taxonomy) == ("tawny owl", "Strix aluco", "")


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    touch(tmp_path / "owl" / "1.jpg")
    with pytest.raises(InvalidInputError, match="no column 'text'"):
        read_pairs(tmp_path, caption_column="text")
    with pytest.raises(InvalidInputError, match="no column 'kind'"):
        read_labels(tmp_path, label_column="kind")


# Labels


def test_the_sample_has_a_label_for_every_item() -> None:
    examples = read_labels(SAMPLE)
    assert len(examples) == 111
    assert examples.groups["cat"] == 6
    assert {"wrasse", "owl"} <= set(examples.classes)
    assert all(not example.captions for example in examples)


def test_an_item_may_have_several_labels(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media,label\na.jpg,owl| night |owl|\nb.jpg,day\n")
    examples = read_labels(path)
    assert examples[0].labels == ("night", "owl")
    assert examples[0].group == "night|owl"
    assert examples.classes == ("day", "night", "owl")


def test_a_folder_of_class_folders_has_their_names_as_labels(tmp_path: Path) -> None:
    for name in ("tawny_owl/1.jpg", "crow/1.jpg", "crow/2.wav"):
        touch(tmp_path / name)
    assert [example.labels for example in read_labels(tmp_path)] == [
        ("crow",),
        ("crow",),
        ("tawny_owl",),
    ]


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"all 2 .* one class, 'owl'"):
        read_labels(manifest(tmp_path, "media,label\na.jpg,owl\nb.jpg,owl\n"))


def test_a_missing_label_column_is_refused_with_the_existing_columns(tmp_path: Path) -> None:
    path = manifest(tmp_path, "media,scientificName\na.jpg,Strix aluco\nb.jpg,Pica pica\n")
    with pytest.raises(ManifestError, match=r"'label'.*scientificName.*--label-column"):
        read_labels(path)
    assert len(read_labels(path, label_column="dwc:scientificname").classes) == 2


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "holds no label"),
        ("| |", "holds no label"),
        ("x" * (MAX_LABEL_CHARS + 1), "200 characters"),
        ("|".join(str(i) for i in range(MAX_LABELS + 1)), "101 labels"),
    ],
)
def test_rows_with_unusable_labels_are_skipped(tmp_path: Path, cell: str, reason: str) -> None:
    text = f"media,label\na.jpg,owl\nb.jpg,crow\nc.jpg,{cell}\n"
    examples = read_labels(manifest(tmp_path, text, media=("a.jpg", "b.jpg", "c.jpg")))
    assert len(examples) == 2
    [skipped] = examples.skipped
    assert skipped.where == "birds.csv, line 4"
    assert reason in skipped.reason


# Batches and splits


def held_out(examples: Examples, tmp_path: Path, **settings: Any) -> tuple[int, str]:
    """How many examples are held out, and the way."""
    wanted = training_request(tmp_path / "m.csv", tmp_path / "out", settings)
    [one] = split_by_modality(examples, wanted)
    return len(one.examples) - len(one.training), one.way


@pytest.mark.parametrize(("count", "held"), [(4, 2), (12, 6), (40, 20), (85, 30), (500, 30)])
@pytest.mark.parametrize("each", [1, 2])
def test_thirty_items_or_half_of_fewer_are_held_out_unless_a_share_is_given(
    tmp_path: Path, count: int, each: int, held: int
) -> None:
    examples = some(*[f"g{number // each}" for number in range(count)])
    assert held <= held_out(examples, tmp_path)[0] < held + each
    assert held_out(examples, tmp_path, validation_share=0.0) == (0, "nothing")


def test_two_items_are_trained_on_and_not_measured(tmp_path: Path) -> None:
    assert held_out(some("a", "b"), tmp_path) == (0, "nothing")


def test_a_share_that_is_given_is_kept(tmp_path: Path) -> None:
    examples = some(*[f"g{number // 3}" for number in range(300)])
    held, way = held_out(examples, tmp_path, validation_share=0.02)
    assert held < 15
    assert way == "items"


@pytest.mark.parametrize(
    ("groups", "message"),
    [("a", r"gives 1 image item\."), ("aaa", r"3 image items, all of one group .*'a'")],
)
def test_items_of_one_group_are_refused_with_what_to_do(
    tmp_path: Path, groups: str, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        held_out(some(*groups), tmp_path)
    assert "bittern index" in caught.value.message


def test_every_example_is_on_one_side_of_the_split_in_its_order() -> None:
    examples = some(*("a" * 50 + "b" * 30 + "c" * 7 + "d"))
    training, validation = split(examples, 0.2, seed=1)
    assert sorted(e.id for e in (*training, *validation)) == sorted(e.id for e in examples)
    assert [e for e in examples if e in training.items] == list(training)
    assert validation.groups["a"] == 10
    assert validation.groups["b"] == 6
    assert 1 <= validation.groups["c"] <= 2
    assert set(training.groups) == set("abcd")


def test_small_groups_lose_their_share_on_average() -> None:
    examples = some(*[f"g{i // 2}" for i in range(1000)])
    _, validation = split(examples, 0.2, seed=3)
    assert len(validation) == pytest.approx(200, abs=45)
    assert max(validation.groups.values()) == 1


def test_a_split_depends_on_the_seed_and_not_on_the_order_or_other_groups() -> None:
    examples = some(*("a" * 40 + "b" * 40))
    _, first = split(examples, 0.25, seed=1)
    _, again = split(replace(examples, items=examples.items[::-1]), 0.25, seed=1)
    _, other = split(examples, 0.25, seed=2)
    _, alone = split(replace(examples, items=examples.items[:40]), 0.25, seed=1)
    assert {e.id for e in first} == {e.id for e in again}
    assert {e.id for e in first} != {e.id for e in other}
    assert {e.id for e in alone} == {e.id for e in first if e.group == "a"}


def test_whole_groups_can_be_held_out() -> None:
    examples = some(*[f"g{i // 5}" for i in range(500)])
    training, validation = split(examples, 0.2, seed=0, held_out="groups")
    assert not set(training.groups) & set(validation.groups)
    assert len(validation) == pytest.approx(100, abs=60)
    assert set(validation.groups.values()) == {5}


def test_a_share_that_holds_out_nothing_says_what_to_do() -> None:
    with pytest.raises(InvalidInputError, match=r"0 of 3 examples in 3 groups.*whole groups"):
        split(some("a", "b", "c"), 0.5, seed=0)


def test_the_digest_changes_with_the_captions() -> None:
    first, again = read_pairs(SAMPLE), read_pairs(SAMPLE)
    other = read_pairs(SAMPLE, templates=["{common}"])
    assert first.digest() == again.digest()
    assert len({first.digest(), other.digest(), read_labels(SAMPLE).digest()}) == 3
