"""COCO-style JSON: iNaturalist's data sets (iNat 2017-2024, INQUIRE), iNatSounds, camera traps.

``images`` (or ``audio``) lists the media, ``categories`` the species, and ``annotations`` says
which medium shows which. Camera-trap files (LILA) have several annotations for a picture.

The file is read in two passes: annotations, then media. Annotations go to disk; categories and
licences are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from bittern.errors import ManifestError
from bittern.index.columns import Value
from bittern.service.sources.base import Listed, SourceOptions, failed, listed
from bittern.service.sources.field_values import (
    BETWEEN,
    checked,
    event_date,
    kept_columns,
    licence,
    text,
)
from bittern.service.sources.json_items import Element, elements, first_keys
from bittern.service.sources.listing import Listing
from bittern.service.sources.media_locator import modality_of_media
from bittern.types import MediaItem

MAX_CATEGORIES = 1_000_000
"""Most categories of a file."""
_MEDIA = frozenset({"images", "audio"})
_ABOUT_MEDIA = frozenset({"categories", "annotations", "licenses"})
_MARKS = _MEDIA | {"annotations", "categories"}
_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
_VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".webm"})
_ADDRESSES = ("url", "coco_url", "flickr_url")
_RENAMED = {
    "rights_holder": "rightsHolder",
    "latitude": "decimalLatitude",
    "longitude": "decimalLongitude",
    "location_uncertainty": "coordinateUncertaintyInMeters",
}
_DATES = ("date", "datetime", "date_captured")
_ALWAYS_TEXT = ("location", "seq_id")
_LISTED = 3
"""Annotations without medium or category that are listed one by one; the rest is counted."""


def is_coco(path: Path) -> bool:
    """Whether a file looks like COCO-style JSON, by the keys near its beginning."""
    return path.suffix.lower() == ".json" and path.is_file() and bool(_MARKS & first_keys(path))


def coco_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media of a COCO-style file.

    `file_name` becomes the `occurrenceID`: the numeric ids of images are unique only within a data
    set. See docs/reference/source-formats.md for the other fields.

    Raises:
        ManifestError: it is not JSON, or not of this form.
        SourceNotFoundError: the folder `options.media` does not exist.
    """
    with _Media(path, options) as media:
        yield from media.entries()


class _Media(Listing):
    """One pass over one file: media, joined with their categories.

    Attributes:
        licences: name by id.
        categories: name and columns by id.
    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        super().__init__(path, options)
        self.licences: dict[str, str] = {}
        self.categories: dict[str, tuple[str, dict[str, Value]]] = {}

    def entries(self) -> Iterator[Listed]:
        """The media in the order of the file, then annotations of unknown media."""
        about_media = elements(self.path, _ABOUT_MEDIA, flat=True)
        yield from self.stored(about_media, self._store)
        for element in elements(self.path, _MEDIA, flat=True):
            row = element.value
            name = text(row.get("file_name")) if isinstance(row, dict) else ""
            yield listed(name, element.position, partial(self._item, element))
        yield from self._lost_annotations()

    def _store(self, element: Element) -> None:
        row = element.fields()
        if element.member == "annotations":
            medium = text(row.get("image_id", row.get("audio_id")))
            category = text(row.get("category_id"))
            if not medium or not category:
                raise ManifestError(
                    "the annotation needs an image_id or audio_id and a category_id"
                )
            self.tables.add("annotations", medium, [element.number, category])
            return
        own = text(row.get("id"))
        if not own:
            raise ManifestError("it has no id")
        if element.member == "licenses":
            address, name = text(row.get("url")), text(row.get("name"))
            short = licence(address)
            self.licences[own] = short if address and short != address else name or address
        elif len(self.categories) < MAX_CATEGORIES:
            self.categories[own] = _category(row)
        else:
            raise ManifestError(f"the file has more than {MAX_CATEGORIES:,} categories")

    def _lost_annotations(self) -> Iterator[Listed]:
        """The first annotations that name a medium or category that the file lacks; a count."""
        file, lost = self.path.name, 0
        for medium, (number, category) in self.tables.rows("annotations"):
            if not self.tables.has("media", medium):
                wrong = f"it is about '{medium[:60]}', which is not among the images or audio"
            elif category not in self.categories:
                wrong = f"its category_id '{category[:60]}' is not among the categories"
            else:
                continue
            lost += 1
            if lost <= _LISTED:
                yield failed("", f"{file}, annotations[{number}]", ManifestError(wrong))
        if lost > _LISTED:
            error = ManifestError(
                f"{lost - _LISTED} more annotations name media or categories that are not in the "
                "file"
            )
            yield failed(file, f"{file}, annotations", error)

    def _categories_of(self, medium: str) -> list[tuple[str, dict[str, Value]]]:
        """The different categories of a medium, in the order of the file."""
        found = dict.fromkeys(category for _, category in self.tables.find("annotations", medium))
        return [self.categories.get(each, ("", {"category_id": each})) for each in found]

    def _item(self, element: Element) -> MediaItem:
        row, is_image = element.fields(), element.member == "images"
        self.tables.add_first("media", text(row.get("id")))
        name = text(row.get("file_name"))
        if not name:
            raise ManifestError("it has no file_name")
        video = PurePosixPath(name).suffix.lower() in _VIDEO_SUFFIXES
        modality = modality_of_media(name, "video" if video else "image" if is_image else "audio")
        addresses = [text(row.get(each)) for each in _ADDRESSES if text(row.get(each))]
        found = self.locator.find(name, addresses=addresses)
        id_column = "image_id" if is_image else "audio_id"
        return found.item(name, modality, checked(self._metadata(row, id_column)))

    def _metadata(self, row: dict[str, Any], id_column: str) -> dict[str, Value]:
        own = text(row.get("id"))
        rest = {k: v for k, v in row.items() if k not in ("id", "file_name", "license")}
        columns: dict[str, Value] = {id_column: own}
        for heading in _DATES:
            date = event_date(text(rest.get(heading)))
            if date and "eventDate" not in columns:
                columns["eventDate"] = date
                del rest[heading]
        for heading, term in _RENAMED.items():
            value = rest.pop(heading, None)
            if isinstance(value, str | int | float):
                columns[term] = value
        for heading in _ALWAYS_TEXT:
            if heading in rest:
                columns[heading] = text(rest.pop(heading))
        number = text(row.get("license"))
        columns["license"] = self.licences.get(number) or licence(number)
        categories = self._categories_of(own) if own else []
        columns["label"] = BETWEEN.join(name for name, _ in categories if name)
        if len(categories) == 1:
            columns.update(categories[0][1])
        return {**kept_columns(rest), **columns}


def _category(row: dict[str, Any]) -> tuple[str, dict[str, Value]]:
    """A category's name, and the columns of a medium with this category only."""
    name = text(row.get("name"))
    columns: dict[str, Value] = {"category_id": text(row.get("id"))}
    ranks = {rank: text(row.get(rank)) for rank in _RANKS}
    columns.update({rank: name for rank, name in ranks.items() if name})
    columns["supercategory"] = text(row.get("supercategory"))
    columns["vernacularName"] = text(row.get("common_name"))
    epithet = text(row.get("specific_epithet"))
    if any(ranks.values()) or epithet:
        columns["scientificName"] = name
        columns["species"] = f"{ranks['genus']} {epithet}" if ranks["genus"] and epithet else ""
    return name, {column: value for column, value in columns.items() if value != ""}
