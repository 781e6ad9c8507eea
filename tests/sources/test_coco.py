"""COCO-style JSON, in the layouts of iNat, iNatSounds and camera traps."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from bittern.errors import ManifestError
from bittern.service.sources import SourceOptions, read_source, spill
from bittern.service.sources.coco import coco_entries
from bittern.types import AddResult, MediaItem

ALPACA: dict[str, Any] = {
    "id": 4821, "name": "Vicugna pacos", "common_name": "Alpaca", "supercategory": "Mammals",
    "kingdom": "Animalia", "phylum": "Chordata", "class": "Mammalia", "order": "Artiodactyla",
    "family": "Camelidae", "genus": "Vicugna", "specific_epithet": "pacos",
    "image_dir_name": "04821_Animalia_Chordata_Mammalia_Artiodactyla_Camelidae_Vicugna_pacos",
}  # fmt: skip
LICENCE = {
    "id": 1,
    "name": "Attribution-NonCommercial License",
    "url": "http://creativecommons.org/licenses/by-nc/4.0/",
}


def image(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "file_name": name, "license": 1, "rights_holder": "Rosa Example",
        "width": 500, "height": 375, "date": "2021-05-09 11:20:00+00:00", "latitude": 46.5,
        "longitude": 7.25, "location_uncertainty": 30, **more,
    }  # fmt: skip


def inat(**more: Any) -> dict[str, Any]:
    return {
        "info": {"year": 2024, "version": "1"},
        "images": [image(7, "train/alpaca.jpg")],
        "categories": [ALPACA],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 4821}],
        "licenses": [LICENCE],
        **more,
    }


def written(folder: Path, content: Any, *media: str) -> Path:
    for name in media:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"media")
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return path


def items(path: Path, **options: Any) -> list[MediaItem]:
    entries = [listed.entry for listed in coco_entries(path, SourceOptions(**options))]
    assert all(isinstance(entry, MediaItem) for entry in entries), entries
    return [entry for entry in entries if isinstance(entry, MediaItem)]


def failures(path: Path) -> list[str]:
    entries = [listed.entry for listed in coco_entries(path, SourceOptions())]
    return [e.message for e in entries if isinstance(e, AddResult) and e.status == "failed"]


def test_inat_image_gets_its_species_position_and_licence(tmp_path: Path) -> None:
    source = read_source(written(tmp_path, inat(), "train/alpaca.jpg"))
    (item,) = source.entries
    assert source.format == "coco"
    assert isinstance(item, MediaItem)
    assert (item.occurrence_id, item.modality) == ("train/alpaca.jpg", "image")
    assert item.path == tmp_path / "train/alpaca.jpg"
    assert item.metadata == {
        "image_id": "7", "scientificName": "Vicugna pacos", "vernacularName": "Alpaca",
        "kingdom": "Animalia", "phylum": "Chordata", "class": "Mammalia", "order": "Artiodactyla",
        "family": "Camelidae", "genus": "Vicugna", "species": "Vicugna pacos",
        "supercategory": "Mammals", "category_id": "4821", "label": "Vicugna pacos",
        "license": "CC-BY-NC-4.0", "rightsHolder": "Rosa Example", "width": 500, "height": 375,
        "eventDate": "2021-05-09T11:20:00+00:00", "decimalLatitude": 46.5,
        "decimalLongitude": 7.25, "coordinateUncertaintyInMeters": 30.0,
    }  # fmt: skip
    assert source.listed[0].position == "train.json, images[0]"


def test_lists_may_stand_in_any_order(tmp_path: Path) -> None:
    expected = items(written(tmp_path, inat(), "train/alpaca.jpg"))
    backwards = dict(reversed(inat().items()))
    assert items(written(tmp_path, backwards)) == expected


def test_inat_sounds_are_audio_of_their_species(tmp_path: Path) -> None:
    category = {**ALPACA, "audio_dir_name": "04821_alpaca", "evaluation": True}
    content = {
        "info": {},
        "audio": [{"id": 3, "file_name": "train/04821_alpaca/a.wav", "duration": 4.5, "license": 0,
                   "rights_holder": "R", "date": None, "latitude": None, "longitude": None,
                   "location_uncertainty": None}],
        "categories": [category],
        "annotations": [{"id": 1, "audio_id": 3, "category_id": 4821}],
    }  # fmt: skip
    (item,) = items(written(tmp_path, content, "train/04821_alpaca/a.wav"))
    assert item.modality == "audio"
    assert item.metadata["scientificName"] == "Vicugna pacos"
    assert (item.metadata["audio_id"], item.metadata["duration"]) == ("3", 4.5)
    assert "decimalLatitude" not in item.metadata


def camera_trap(annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": "S1/B04/0001", "file_name": "S1/B04/0001.JPG", "seq_id": "s1",
                    "seq_num_frames": 3, "frame_num": 1, "location": 4,
                    "datetime": "2009-06-13 07:22:01"}],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "empty"}, {"id": 1, "name": "mule deer"},
                       {"id": 2, "name": "coyote"}],
    }  # fmt: skip


def test_camera_trap_labels_are_no_scientific_names(tmp_path: Path) -> None:
    boxes = [{"id": n, "image_id": "S1/B04/0001", "category_id": 1, "bbox": [1, 2, 3, 4]}
             for n in range(3)]  # fmt: skip
    (item,) = items(written(tmp_path, camera_trap(boxes), "S1/B04/0001.JPG"))
    assert item.metadata == {
        "image_id": "S1/B04/0001", "seq_id": "s1", "seq_num_frames": 3, "frame_num": 1,
        "location": "4", "eventDate": "2009-06-13T07:22:01", "label": "mule deer",
        "category_id": "1",
    }  # fmt: skip


def test_several_species_in_one_picture_become_one_text_and_no_species(tmp_path: Path) -> None:
    fox = {"id": 2, "name": "Vulpes vulpes", "genus": "Vulpes", "specific_epithet": "vulpes"}
    both = inat(
        categories=[ALPACA, fox],
        annotations=[
            {"id": 1, "image_id": 7, "category_id": 4821},
            {"id": 2, "image_id": 7, "category_id": 2},
        ],
    )
    (item,) = items(written(tmp_path, both, "train/alpaca.jpg"))
    assert item.metadata["label"] == "Vicugna pacos | Vulpes vulpes"
    assert "scientificName" not in item.metadata
    assert "genus" not in item.metadata


def test_wrong_rows_are_listed_with_their_position_and_the_others_are_read(tmp_path: Path) -> None:
    content = inat(
        images=[
            5,
            image(1, "gone.jpg"),
            image(2, "../outside.jpg"),
            {"id": 3},
            image(4, "train/alpaca.jpg", latitude=200),
            image(5, "clip.mp4"),
            image(7, "train/alpaca.jpg"),
        ],
        annotations=[{"id": 1, "image_id": 7, "category_id": 4821}, "x", {"image_id": [1]}],
    )
    path = written(tmp_path, content, "train/alpaca.jpg")
    messages = failures(path)
    beginnings = [
        "train.json, annotations[1]: it is not a JSON object",
        "train.json, annotations[2]: the annotation needs an image_id",
        "train.json, images[0]: it is not a JSON object",
        "train.json, images[1]: the media were not found",
        "train.json, images[2]: '../outside.jpg' leads out",
        "train.json, images[3]: it has no file_name",
        "train.json, images[4]: decimalLatitude must be",
        "train.json, images[5]: 'clip.mp4' is a video",
    ]
    assert [t[: len(b)] for t, b in zip(messages, beginnings, strict=True)] == beginnings
    last = list(coco_entries(path, SourceOptions()))[-1].entry
    assert isinstance(last, MediaItem)
    assert last.metadata["scientificName"] == "Vicugna pacos"


def test_media_are_searched_in_the_given_folder(tmp_path: Path) -> None:
    other = tmp_path / "other"
    written(tmp_path, inat(), "other/train/alpaca.jpg")
    (item,) = items(tmp_path / "train.json", media=str(other))
    assert item.path == other / "train/alpaca.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [{"id": 1}', "before byte 21"),
        (b'{"annotations": [7, {"id": 1}', "after annotations[1]"),
        (b'{"images": [' + b"[" * 100_000, "not valid JSON"),
        (b'{"images": {"id": 1}}', "'images' is not a list"),
        (b'{"images": [{"latitude": NaN}]}', "write null"),
        (b'{"images": [1, ' + b"9" * 5000 + b"]}", "integer overflow"),
        (b'{"images": ["' + b"x" * 9_000_000 + b'"]}', "more than 8 MiB"),
        (b'{"images": []} {}', "trailing garbage"),
        (b"7", "neither an object nor a list"),
        (b"", "not valid JSON"),
    ],
)
def test_unreadable_json_is_refused_with_the_position(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(ManifestError) as refused:
        list(coco_entries(path, SourceOptions()))
    assert message in refused.value.message
    assert "train.json" in refused.value.message


def test_elements_beyond_all_reason_cost_only_themselves(tmp_path: Path) -> None:
    huge = image(1, "huge.jpg", remarks="x" * 2_000_000)
    many = image(2, "many.jpg", **{f"k{n}": n for n in range(10_001)})
    nested: Any = image(7, "train/alpaca.jpg")
    nested["deep"] = json.loads("[" * 500 + "]" * 500)
    path = written(tmp_path, inat(images=[huge, many, nested]), "train/alpaca.jpg")
    messages = failures(path)
    assert len(messages) == 2
    assert "1,048,576 characters" in messages[0]
    assert "10,000 values" in messages[1]


def test_memory_does_not_hold_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "IN_MEMORY_BYTES", 0)  # as for more ids than fit into it
    count = 6_000  # about 7 MiB as dictionaries
    content = inat(
        images=[image(n, f"train/{n}.jpg") for n in range(count)],
        annotations=[{"id": n, "image_id": n, "category_id": 4821} for n in range(count)],
    )
    path = written(tmp_path, content)
    del content
    next(coco_entries(path, SourceOptions()))  # imports are not counted
    tracemalloc.start()
    listed = sum(1 for _ in coco_entries(path, SourceOptions()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert listed == count
    assert peak < 6 << 20, f"{peak:,} bytes"


def test_annotations_of_unknown_media_and_categories_are_listed(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 4821},
        {"id": 2, "image_id": 8, "category_id": 4821},
        {"id": 3, "image_id": 7, "category_id": 99},
    ]
    path = written(tmp_path, inat(annotations=annotations), "train/alpaca.jpg")
    assert failures(path) == [
        "train.json, annotations[1]: it is about '8', which is not among the images or audio",
        "train.json, annotations[2]: its category_id '99' is not among the categories",
    ]


def test_many_annotations_of_nothing_are_counted(tmp_path: Path) -> None:
    annotations = [{"id": n, "image_id": 1000 + n, "category_id": 4821} for n in range(50)]
    path = written(tmp_path, inat(annotations=annotations))
    gone, *listed, rest = failures(path)
    assert "alpaca.jpg" in gone
    assert len(listed) == 3
    assert "47 more annotations" in rest


def test_an_annotation_is_not_wrong_because_the_file_of_its_image_is_gone(tmp_path: Path) -> None:
    assert len(failures(written(tmp_path, inat()))) == 1
