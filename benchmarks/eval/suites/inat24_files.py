"""iNaturalist 2024's `train.json`, 5,000,000 images of 10,000 species, as compact columns.

The file is COCO-style: ``images`` with ``id`` and ``file_name``, ``categories`` with names and
ranks, ``annotations`` with ``image_id`` and ``category_id``, ``licenses``; in whatever order. It is
read once, element by element. An image takes about 80 bytes then, and up to 270 while the file is
read (1,000,000 images: 21 s, 270 MB at the peak): what is made for it (a `MediaItem`, with its path
and names) is made when it is asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import coco_taxon, json_elements, wrong_layout
from bittern.benchmarks.eval.suites.base import Piece
from bittern.benchmarks.eval.suites.inat24_columns import Column, Texts, places_of
from bittern.benchmarks.eval.tasks import IMAGE, Classes
from bittern.errors import LayoutError, QrelsError
from bittern.service.sources.field_values import licence, text
from bittern.text import agreeing, some_of
from bittern.types import MediaItem

MAX_CATEGORIES = 1_000_000
"""Most species of a file."""
MAX_IMAGES = 50_000_000
"""Most images of a file."""
_RELEASE = "the iNaturalist 2024 (iNat24) release of INQUIRE"
METADATA = Piece(
    "train.json|inat24/train.json",
    "iNat24's images, species and labels, COCO-style",
    f'{_RELEASE}, unpacked from "train.json.tar.gz"',
    "438 MB packed, over 1 GB unpacked",
)
IMAGES = Piece(
    "train/|inat24/train/",
    "iNat24's 5,000,000 training images, in a folder for each of 10,000 species",
    f'{_RELEASE}, unpacked from "train.tar.gz"',
    "441 GB",
)
LISTED = "images that train.json lists"
_MEMBERS = ("images", "annotations", "categories")
_NAMED = 3
_INT64 = 1 << 63


@dataclass(frozen=True)
class Images:
    """The images, in the order of the file.

    Attributes:
        ids: int64 [n], unique.
        paths: below the folder of `train.json`: ``train/<species>/<uuid>.jpg``; unique.
        rights: rights holders.
        licences: short names.
        classes: int32 [n], species among `species`, -1 for none.
        species: names and ranks.
        left_out: sentences on annotations that were left out.
    """

    ids: NDArray[np.int64]
    paths: Texts
    rights: Texts
    licences: Texts
    classes: NDArray[np.int32]
    species: Classes
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, places: NDArray[np.int64]) -> Images:
        """Some of the images."""
        return replace(
            self,
            ids=self.ids[places],
            paths=self.paths.only(places),
            rights=self.rights.only(places),
            licences=self.licences.only(places),
            classes=self.classes[places],
        )

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of images by id; -1 for those that there are not."""
        return places_of(ids, self.ids)


@dataclass(frozen=True)
class Photographs:
    """The images as media, one by one.

    Attributes:
        images: which.
        root: the folder that their paths are relative to.
    """

    images: Images
    root: Path

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int, /) -> MediaItem:
        images, path = self.images, self.images.paths[place]
        number = int(images.classes[place])
        metadata = dict(images.species.taxa[number]) if number >= 0 else {}
        metadata["rightsHolder"] = images.rights[place]
        metadata["license"] = images.licences[place]
        return MediaItem(
            occurrence_id=str(images.ids[place]),
            media=path,
            modality=IMAGE,
            path=self.root / path,
            media_root=str(self.root),
            metadata={column: value for column, value in metadata.items() if value},
        )


def read_images(path: Path, unknown: Literal["error", "skip"] = "error") -> Images:
    """The images of a `train.json`.

    Args:
        path: the file.
        unknown: whether annotations of images or categories that it has not end the run.

    Raises:
        LayoutError: it is no JSON, not of this layout, or an id or path stands twice.
        QrelsError: annotations of unknown images or categories, unless these are left out; an
            image of several species.
    """
    reading = _Reading(path)
    take = {
        "images": reading.image,
        "annotations": reading.annotation,
        "categories": reading.category,
        "licenses": reading.licence,
    }
    for element in json_elements(path, _MEMBERS, METADATA.origin, ("licenses",)):
        take[element.member](element.value, element.place(path.name))
    return reading.images(unknown)


class _Reading:
    """What has been met of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids, self._about, self._label = array("q"), array("q"), array("q")
        self._keys = array("Q")
        self._paths, self._rights = Column(split=True), Column(split=False)
        self._licences = Column(split=False)
        self._licence_names: dict[str, str] = {}
        self._categories: dict[int, int] = {}
        self._names: list[str] = []
        self._taxa: list[dict[str, str]] = []

    def image(self, row: Mapping[str, Any], where: str) -> None:
        if len(self._ids) == MAX_IMAGES:
            raise LayoutError(f"{self._path} has more than {MAX_IMAGES:,} images", field="data")
        self._ids.append(self._number(row, "id", where))
        name = text(row.get("file_name"))
        if not name:
            raise self._wrong("images with 'id' and 'file_name'", row, where)
        self._paths.add(name)
        self._keys.append(xxhash.xxh3_64_intdigest(name.encode()))
        self._rights.add(text(row.get("rights_holder")))
        self._licences.add(text(row.get("license")))

    def annotation(self, row: Mapping[str, Any], where: str) -> None:
        self._about.append(self._number(row, "image_id", where))
        self._label.append(self._number(row, "category_id", where))

    def category(self, row: Mapping[str, Any], where: str) -> None:
        own = self._number(row, "id", where)
        name = text(row.get("name"))
        if not name:
            raise self._wrong("categories with 'id' and 'name'", row, where)
        if own in self._categories:
            raise self._twice(f"category id {own}", where)
        if len(self._names) == MAX_CATEGORIES:
            raise LayoutError(
                f"{self._path} has more than {MAX_CATEGORIES:,} categories", field="data"
            )
        self._categories[own] = len(self._names)
        self._names.append(name)
        self._taxa.append(coco_taxon(row))

    def licence(self, row: Mapping[str, Any], where: str) -> None:
        del where
        told = text(row.get("url"))
        short = licence(told)
        self._licence_names[text(row.get("id"))] = (
            short if short != told else text(row.get("name")) or told
        )

    def images(self, unknown: Literal["error", "skip"]) -> Images:
        """All of it, checked."""
        ids = np.frombuffer(self._ids, np.int64)
        paths = self._paths.texts()
        self._refuse_twice(ids, paths)
        classes, told = self._classes(ids, unknown)
        licences = self._licences.texts()
        named = [self._licence_names.get(each, each) for each in licences.starts]
        return Images(
            ids,
            paths,
            self._rights.texts(),
            replace(licences, starts=named),
            classes,
            Classes(self._names, self._taxa),
            told,
        )

    def _classes(
        self, ids: NDArray[np.int64], unknown: Literal["error", "skip"]
    ) -> tuple[NDArray[np.int32], list[str]]:
        about = np.frombuffer(self._about, np.int64)
        images = places_of(about, ids)
        known = np.fromiter(self._categories, np.int64, len(self._categories))
        labels = places_of(np.frombuffer(self._label, np.int64), known)
        told = []
        lost = (images < 0) | (labels < 0)
        if lost.any():
            told.append(self._lost(images, labels, lost))
            if unknown == "error":
                raise QrelsError(
                    f"{told[0]}; take {METADATA.origin}, or leave them out with --unknown skip"
                )
        images, labels = images[~lost], labels[~lost]
        classes = np.full(len(ids), -1, np.int32)
        classes[images] = labels
        several = np.flatnonzero(classes[images] != labels)
        if len(several):
            raise QrelsError(
                f"{self._path}: image {ids[images[several[0]]]} is labelled with several "
                "categories; iNat24 has one for each image: take the published file"
            )
        bare = int(np.count_nonzero(classes < 0))
        if bare:
            have = agreeing(bare, "has no label and answers", "have no label and answer")
            told.append(f"{some_of(bare, len(ids), 'image')} {have} no query")
        return classes, told

    def _lost(
        self, images: NDArray[np.int64], labels: NDArray[np.int64], lost: NDArray[np.bool_]
    ) -> str:
        first = [
            f"image {self._about[i]}" if images[i] < 0 else f"category {self._label[i]}"
            for i in np.flatnonzero(lost)[:_NAMED]
        ]
        number = int(lost.sum())
        names = agreeing(number, "names an image or category", "name images or categories")
        return (
            f"{some_of(number, len(lost), 'annotation')} in {self._path.name} {names} that "
            f"{agreeing(number, 'is', 'are')} not in it ({', '.join(first)})"
        )

    def _refuse_twice(self, ids: NDArray[np.int64], paths: Texts) -> None:
        ordered = np.sort(ids)
        again = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(again):
            raise self._twice(f"image id {ordered[again[0]]}", self._path.name)
        keys = np.frombuffer(self._keys, np.uint64)
        order = np.argsort(keys, kind="stable")
        for i in np.flatnonzero(keys[order][1:] == keys[order][:-1]).tolist():
            one, other = paths[int(order[i])], paths[int(order[i + 1])]
            if one == other:
                raise self._twice(f"image file '{one}'", self._path.name)

    def _number(self, row: Mapping[str, Any], key: str, where: str) -> int:
        value = text(row.get(key))
        if not value.isascii() or not value.removeprefix("-").isdigit() or len(value) > 19:
            raise self._wrong(f"a whole number as '{key}'", row, where)
        number = int(value)
        if not -_INT64 <= number < _INT64:
            raise self._wrong(f"a whole number as '{key}'", row, where)
        return number

    def _wrong(self, expected: str, row: Mapping[str, Any], where: str) -> LayoutError:
        got = ", ".join(
            f"'{key[:40]}': {str(value)[:40]!r}" for key, value in list(row.items())[:6]
        )
        return wrong_layout(
            self._path, expected, f"{where}: {got or 'nothing'}", f"take {METADATA.origin}"
        )

    def _twice(self, what: str, where: str) -> LayoutError:
        return LayoutError(
            f"{where}: {what} stands twice in {self._path}; take it from {METADATA.origin}",
            field="data",
        )
