from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bittern.benchmarks.eval.suites.inat24 import INat24
from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.errors import LayoutError, QrelsError
from bittern.types import MediaItem
from tests.eval.conftest import Miniatures
from tests.eval.miniatures import inat24

TOWERS = frozenset({"text", "image"})
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def whole(miniatures: Miniatures) -> Path:
    return miniatures("inat24")


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def only_task(data: Path, **options: Any) -> Task:
    (task,) = INat24().tasks(data, Protocol(**options), TOWERS)
    return task


def answers(task: Task) -> dict[str, list[str]]:
    """Ids of the items that are relevant to each query, as photographs of the sample."""
    photos = {str(own): photo for own, photo, _ in inat24.IMAGES}
    return {
        own: [photos[task.items.ids[i]] for i in task.relevance.of(query).tolist()]
        for query, own in enumerate(task.queries.ids)
    }


def changed(data: Path, change: Change) -> Path:
    content = json.loads((data / "train.json").read_text("utf-8"))
    change(content)
    inat24.write(data, content)
    return data


def test_every_species_is_searched_by_its_common_name(whole: Path) -> None:
    task = only_task(whole)
    assert task.name == "text→image"
    assert (len(task.queries), len(task.items), len(task.classes)) == (11, 14, 11)
    assert task.queries.contents[0] == ("a photo of Domestic Cattle",)
    assert task.queries.contents[10] == ("a photo of Papilio machaon",)
    assert task.notes == (
        "A query is the prompt 'a photo of {common}'",
        "1 of 11 classes has no common name and is searched by its scientific name",
    )
    assert list(task.left_out) == []


def test_photographs_of_the_species_are_what_is_relevant(whole: Path) -> None:
    found = answers(only_task(whole))
    assert found["Bos_taurus"] == ["calf-1", "cow-1"]
    assert found["Panthera_onca"] == ["jaguars-1"]
    assert sum(len(photos) for photos in found.values()) == 14


def test_items_are_made_when_needed_with_names_and_rights(whole: Path) -> None:
    task = only_task(whole)
    item = task.items.contents[4]
    assert isinstance(item, MediaItem)
    assert item.occurrence_id == "1004" == task.items.ids[4]
    assert item.media == inat24.path_of("giraffe-1")
    assert item.metadata["scientificName"] == "Giraffa camelopardalis"
    assert item.metadata["family"] == "Giraffidae"
    assert item.metadata["rightsHolder"] == "observer 2"
    assert item.metadata["license"] == "Attribution License"
    other = task.items.contents[1]
    assert isinstance(other, MediaItem)
    assert other.metadata["license"] == "CC-BY-NC-4.0"
    assert item.path is not None
    with Image.open(item.path) as picture:
        assert max(picture.size) == 96


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), "nothing in 'annotations'"),
        (lambda c: c.update(images=[]), "nothing in 'images'"),
        (lambda c: c["images"][3].pop("file_name"), "train.json, images[3]"),
        (lambda c: c["images"][3].update(id="x7"), "expected a whole number as 'id'"),
        (lambda c: c["images"][3].update(id=1.5), "expected a whole number as 'id'"),
        (lambda c: c["annotations"][3].pop("image_id"), "whole number as 'image_id'"),
        (lambda c: c["categories"][3].pop("name"), "train.json, categories[3]"),
        (lambda c: c["images"][3].update(id=1002), "image id 1002 occurs twice"),
        (
            lambda c: c["images"][3].update(file_name=c["images"][2]["file_name"]),
            f"image file '{inat24.path_of('goat-1')}' occurs twice",
        ),
        (lambda c: c["categories"][3].update(id=2), "category id 2 occurs twice"),
        (lambda c: c["images"][3].update(file_name="../../x.jpg"), "leads out of the data"),
    ],
)
def test_metadata_of_another_layout_are_refused(data: Path, change: Change, message: str) -> None:
    with pytest.raises(LayoutError) as refused:
        only_task(changed(data, change))
    assert message in str(refused.value)


@pytest.mark.parametrize("cut", [0, 1, 200, -2])
def test_damaged_metadata_are_refused(data: Path, cut: int) -> None:
    path = data / "train.json"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(LayoutError, match=r"train\.json"):
        only_task(data)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["annotations"][3].update(image_id=77), "image 77"),
        (lambda c: c["annotations"][3].update(category_id=99), "category 99"),
    ],
)
def test_annotation_of_something_unknown_ends_the_run_unless_it_is_skipped(
    data: Path, change: Change, named: str
) -> None:
    changed(data, change)
    with pytest.raises(QrelsError, match=rf"1 of 14 annotations .*\({named}\).*--unknown skip"):
        only_task(data)
    task = only_task(data, unknown="skip")
    assert any(sentence.startswith("1 of 14 annotations") for sentence in task.left_out)
    assert "1 of 14 images has no label and answers no query" in task.left_out
    assert "Capra_nubiana" not in answers(task)


def test_image_of_two_species_is_refused(data: Path) -> None:
    extra = {"id": 1, "image_id": 1003, "category_id": 0}
    with pytest.raises(QrelsError, match="image 1003 is labelled with several categories"):
        only_task(changed(data, lambda c: c["annotations"].append(extra)))


def test_species_without_images_is_left_out_for_and_counted(data: Path) -> None:
    extra = {"id": 11, "name": "Bubo bubo", "common_name": "Eagle-Owl"}
    task = only_task(changed(data, lambda c: c["categories"].append(extra)))
    assert len(task.queries) == 11
    assert list(task.left_out) == [
        "1 of 12 queries has no relevant item and was left out (Bubo bubo)",
    ]


def test_lists_may_come_in_any_order(whole: Path, data: Path) -> None:
    content = json.loads((data / "train.json").read_text("utf-8"))
    inat24.write(data, dict(reversed(content.items())))
    first, second = only_task(whole), only_task(data)
    assert answers(first) == answers(second)
    assert list(first.items.ids) == list(second.items.ids)
