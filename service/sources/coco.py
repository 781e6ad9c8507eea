"""COCO-style JSON: iNaturalist's data sets (iNat 2017-2024, INQUIRE), iNatSounds, camera traps.

``images`` (or ``audio``) lists the media, ``categories`` the species, and ``annotations`` says
which medium shows which. Camera-trap files (LILA) have several annotations for a picture.

The file is read in two passes, the first for what the media are annotated with, and neither is
held in memory: 13 bytes for each annotation (three times that while they are being sorted) and
the categories and licences are. iNat 2024, of 5,000,000 pictures and more than a gigabyte, takes
60 MB then.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from bittern.errors import BitternError, ManifestError
from bittern.index.columns import Value
from bittern.service.sources.base import Listed, SourceOptions, failed
from bittern.service.sources.field_values import checked, event_date, kept_columns, licence, text
from bittern.service.sources.json_items import Element, elements, first_keys
from bittern.service.sources.media_locator import MediaPlaces, modality_of_media
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
"""Annotations of nothing that are listed one by one; the rest is counted."""
BETWEEN_LABELS = " | "


def is_coco(path: Path) -> bool:
    """Whether a file looks like COCO-style JSON, by the keys near its beginning."""
    return path.suffix.lower() == ".json" and path.is_file() and bool(_MARKS & first_keys(path))


def coco_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media of a COCO-style file.

    `file_name` becomes the `occurrenceID`: the ids of images are numbers that every data set
    counts anew. See docs/reference/sources-coco.md for what becomes of the other fields.

    Raises:
        ManifestError: it is not JSON, or not of this form.
        SourceNotFoundError: there is no such folder as `options.media`.
    """
    places = MediaPlaces(path, options)
    known = _Known()
    for element in elements(path, _ABOUT_MEDIA, flat=True):
        try:
            known.take(element)
        except ManifestError as error:
            place = element.place(path.name)
            yield failed(place, place, error)
    known.sort()
    for element in elements(path, _MEDIA, flat=True):
        place = element.place(path.name)
        name = place
        try:
            row = _object(element)
            known.meet(text(row.get("id")))
            name = text(row.get("file_name")) or place
            yield Listed(_item(row, element.member, known, places), place)
        except BitternError as error:
            yield failed(name, place, error)
    yield from _without_their_like(path, known)


def _without_their_like(path: Path, known: _Known) -> Iterator[Listed]:
    """The first annotations that name a medium or category that the file has not, and a count.

    They are read once more for it, which whole files need not be.
    """
    count = known.lost()
    if not count:
        return
    listed = 0
    for element in elements(path, frozenset({"annotations"}), flat=True):
        wrong = known.wrong(element.value) if isinstance(element.value, dict) else ""
        if not wrong:
            continue
        place = element.place(path.name)
        if listed == _LISTED:
            error = ManifestError(
                f"{count - listed} more annotations name media or categories that are not in the "
                "file, from this one on"
            )
            yield failed(place, place, error)
            return
        listed += 1
        yield failed(place, place, ManifestError(wrong))


def _object(element: Element) -> dict[str, Any]:
    if element.unusable:
        raise ManifestError(element.unusable)
    if not isinstance(element.value, dict):
        raise ManifestError("it is no object with named values")
    return element.value


@dataclass
class _Known:
    """What a file says about its media, apart from the list of them."""

    licences: dict[str, str] = field(default_factory=dict)
    categories: list[tuple[str, dict[str, Value]]] = field(default_factory=list)
    _number_of: dict[str, int] = field(default_factory=dict)
    _media: Any = field(default_factory=lambda: array("Q"))
    _category: Any = field(default_factory=lambda: array("i"))
    _sorted_media: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    _sorted_category: NDArray[np.intc] = field(default_factory=lambda: np.empty(0, np.intc))
    _met: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    _defined: set[int] = field(default_factory=set)

    def take(self, element: Element) -> None:
        row = _object(element)
        if element.member == "annotations":
            medium, category = _named(row)
            if not medium or not category:
                raise ManifestError(
                    "the annotation needs an image_id or audio_id and a category_id"
                )
            # The categories may stand behind the annotations: numbered by whichever comes first.
            self._media.append(_key(medium))
            self._category.append(self._number(category))
            return
        own = text(row.get("id"))
        if not own:
            raise ManifestError("it has no id")
        if element.member == "licenses":
            address, name = text(row.get("url")), text(row.get("name"))
            short = licence(address)
            self.licences[own] = short if address and short != address else name or address
        else:
            number = self._number(own)
            self.categories[number] = _category(row)
            self._defined.add(number)

    def _number(self, category: str) -> int:
        number = self._number_of.get(category)
        if number is None:
            number = len(self.categories)
            if number >= MAX_CATEGORIES:
                raise ManifestError(f"the file has more than {MAX_CATEGORIES:,} categories")
            self._number_of[category] = number
            self.categories.append(("", {"category_id": category}))
        return number

    def sort(self) -> None:
        """After the last `take`: make the categories of a medium findable."""
        media = np.frombuffer(self._media, dtype=np.uint64)
        order = np.argsort(media, kind="stable")
        self._sorted_media = media[order]
        self._sorted_category = np.frombuffer(self._category, dtype=np.intc)[order]
        self._media, self._category = array("Q"), array("i")
        self._met = np.zeros(len(order), np.bool_)

    def meet(self, medium: str) -> None:
        """Say that the file lists a medium."""
        self._met[self._span(medium)] = True

    def lost(self) -> int:
        """How many annotations name a category that there is not, or a medium not met."""
        defined = np.zeros(len(self.categories), np.bool_)
        defined[list(self._defined)] = True
        return int(np.count_nonzero(~(self._met & defined[self._sorted_category])))

    def wrong(self, annotation: dict[str, Any]) -> str:
        """What of an annotation the file has not; empty if it has both."""
        medium, category = _named(annotation)
        if not medium or not category:
            return ""
        if not self._met[self._span(medium)].all():
            return f"it is about '{medium[:60]}', which is not among the images or audio"
        if self._number_of.get(category) not in self._defined:
            return f"its category_id '{category[:60]}' is not among the categories"
        return ""

    def _span(self, medium: str) -> slice:
        """Where the annotations of a medium are."""
        key = np.uint64(_key(medium))
        start, stop = (np.searchsorted(self._sorted_media, key, side) for side in ("left", "right"))
        return slice(int(start), int(stop))

    def of(self, medium: str) -> list[tuple[str, dict[str, Value]]]:
        """The different categories of a medium, in the order of the file."""
        numbers = dict.fromkeys(self._sorted_category[self._span(medium)].tolist())
        return [self.categories[number] for number in numbers]


def _named(annotation: dict[str, Any]) -> tuple[str, str]:
    """The ids of the medium and of the category that an annotation names."""
    medium = text(annotation.get("image_id", annotation.get("audio_id")))
    return medium, text(annotation.get("category_id"))


def _key(medium: str) -> int:
    # Ids are numbers in some files and texts in others. Of 5 million, two share a key with a
    # probability of less than one in a million.
    return xxhash.xxh3_64_intdigest(medium.encode())


def _category(row: dict[str, Any]) -> tuple[str, dict[str, Value]]:
    """A category's name, and what it tells about a medium that shows nothing else."""
    name = text(row.get("name"))
    columns: dict[str, Value] = {"category_id": text(row.get("id"))}
    ranks = {rank: text(row.get(rank)) for rank in _RANKS}
    columns.update({rank: told for rank, told in ranks.items() if told})
    columns["supercategory"] = text(row.get("supercategory"))
    columns["vernacularName"] = text(row.get("common_name"))
    epithet = text(row.get("specific_epithet"))
    if any(ranks.values()) or epithet:
        columns["scientificName"] = name
        columns["species"] = f"{ranks['genus']} {epithet}" if ranks["genus"] and epithet else ""
    return name, {column: value for column, value in columns.items() if value != ""}


def _item(row: dict[str, Any], member: str, known: _Known, places: MediaPlaces) -> MediaItem:
    name = text(row.get("file_name"))
    if not name:
        raise ManifestError("it has no file_name")
    video = PurePosixPath(name).suffix.lower() in _VIDEO_SUFFIXES
    modality = modality_of_media(
        name, "video" if video else "image" if member == "images" else "audio"
    )
    addresses = [text(row.get(each)) for each in _ADDRESSES if text(row.get(each))]
    found = places.find(name, addresses=addresses)
    return MediaItem(
        occurrence_id=name,
        media=found.media,
        modality=modality,
        path=found.path,
        media_root=found.media_root,
        metadata=checked(_metadata(row, member, known)),
        url=found.url,
    )


def _metadata(row: dict[str, Any], member: str, known: _Known) -> dict[str, Value]:
    own = text(row.get("id"))
    rest = {k: v for k, v in row.items() if k not in ("id", "file_name", "license")}
    columns: dict[str, Value] = {"image_id" if member == "images" else "audio_id": own}
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
    told = text(row.get("license"))
    columns["license"] = known.licences.get(told) or licence(told)
    categories = known.of(own) if own else []
    columns["label"] = BETWEEN_LABELS.join(name for name, _ in categories if name)
    if len(categories) == 1:
        columns.update(categories[0][1])
    return {**kept_columns(rest), **columns}
