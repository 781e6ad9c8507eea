"""iNaturalist 2024 (iNat24): species names to 5,000,000 images of 10,000 species.

`train.json` is COCO-style: ``images`` with ``id`` and ``file_name``, ``categories`` with names and
ranks, ``annotations`` with ``image_id`` and ``category_id``, ``licenses``; in any order. It is read
once, element by element, into compact columns: an image takes about 80 bytes then, and up to 270
while the file is read (1,000,000 images: 21 s, 270 MB at the peak). A `MediaItem` is made when it
is needed.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    Suite,
    check,
    check_files,
    coco_taxon,
    json_elements,
    path_of,
    skipped_files,
    wrong_layout,
)
from bittern.benchmarks.eval.tasks import IMAGE, TEXT, Classes, Items, Protocol, Relevance, Task
from bittern.benchmarks.eval.tasks.prompts import (
    IMAGE_PROMPTS,
    check_templates,
    prompts_note,
    text_queries,
    with_fallbacks,
)
from bittern.benchmarks.eval.tasks.splits import by_protocol
from bittern.errors import InvalidInputError, LayoutError, QrelsError
from bittern.service.sources.field_values import licence, text
from bittern.text import agreeing, some_of
from bittern.types import MediaItem

_CHUNK = 1 << 16


class Numbers(Sequence[str]):
    """Numbers as texts, made when they are needed.

    Args:
        values: int64 [n].
    """

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, path_of: Any, /) -> Any:
        """One of them, or a list of those in a slice."""
        if isinstance(path_of, slice):
            return [str(value) for value in self.values[path_of].tolist()]
        return str(self.values[path_of])


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Many texts of which most begin, or are, as others are.

    Attributes:
        starts: the different beginnings.
        start_of: int32 [n], which of them each text begins with.
        rests: a pyarrow array of the n rests; None where there are none.
    """

    starts: Sequence[str]
    start_of: NDArray[np.int32]
    rests: Any = None

    def __len__(self) -> int:
        return len(self.start_of)

    def __getitem__(self, path_of: Any, /) -> Any:
        """One of them, or a list of those in a slice."""
        if isinstance(path_of, slice):
            return [self[i] for i in range(*path_of.indices(len(self)))]
        start = self.starts[self.start_of[path_of]]
        return start if self.rests is None else start + self.rests[int(path_of)].as_py()

    def only(self, positions: NDArray[np.int64]) -> Texts:
        """Some of them."""
        rests = None if self.rests is None else self.rests.take(pa.array(positions))
        return replace(self, start_of=self.start_of[positions], rests=rests)


@dataclass
class Column:
    """Texts on their way into `Texts`.

    Attributes:
        split: whether they are paths, that begin alike up to the last slash; else they are the same
            as others.
    """

    split: bool
    _numbers: dict[str, int] = field(default_factory=dict)
    _start_of: Any = field(default_factory=lambda: array("i"))
    _chunks: list[Any] = field(default_factory=list)
    _rests: list[str] = field(default_factory=list)

    def add(self, value: str) -> None:
        """Take one more."""
        folder, slash, rest = value.rpartition("/") if self.split else (value, "", "")
        self._start_of.append(self._numbers.setdefault(folder + slash, len(self._numbers)))
        if self.split:
            self._rests.append(rest)
            if len(self._rests) == _CHUNK:
                self._pack()

    def _pack(self) -> None:
        self._chunks.append(pa.array(self._rests, pa.string()))
        self._rests = []

    def texts(self) -> Texts:
        """All of them, once nothing more is taken."""
        starts = np.frombuffer(self._start_of, np.intc).astype(np.int32)
        if not self.split:
            return Texts(list(self._numbers), starts)
        self._pack()
        rests = pa.chunked_array(self._chunks).cast(pa.large_string()).combine_chunks()
        return Texts(list(self._numbers), starts, rests)


def ranks_of(ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of ids among unique known ones, int64; -1 for those that are not among them."""
    if not len(known):
        return np.full(len(ids), -1, np.int64)
    order = np.argsort(known, kind="stable")
    nearest = np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)
    found = order[nearest]
    return np.where(known[found] == ids, found, -1)


MAX_CATEGORIES = 1_000_000
"""Most species of a file."""
MAX_IMAGES = 50_000_000
"""Most images of a file."""
_RELEASE = "the iNaturalist 2024 (iNat24) release of INQUIRE"
METADATA = DataFile(
    "train.json|inat24/train.json",
    "iNat24's images, species and labels, COCO-style",
    f'{_RELEASE}, unpacked from "train.json.tar.gz"',
    "438 MB packed, over 1 GB unpacked",
)
IMAGES = DataFile(
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

    def only(self, positions: NDArray[np.int64]) -> Images:
        """Some of the images."""
        return replace(
            self,
            ids=self.ids[positions],
            paths=self.paths.only(positions),
            rights=self.rights.only(positions),
            licences=self.licences.only(positions),
            classes=self.classes[positions],
        )

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of images by id; -1 for those that there are not."""
        return ranks_of(ids, self.ids)


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

    def __getitem__(self, path_of: int, /) -> MediaItem:
        images, path = self.images, self.images.paths[path_of]
        number = int(images.classes[path_of])
        metadata = dict(images.species.taxa[number]) if number >= 0 else {}
        metadata["rightsHolder"] = images.rights[path_of]
        metadata["license"] = images.licences[path_of]
        return MediaItem(
            occurrence_id=str(images.ids[path_of]),
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
        take[element.member](element.value, element.position(path.name))
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
        url = text(row.get("url"))
        short = licence(url)
        self._licence_names[text(row.get("id"))] = (
            short if short != url else text(row.get("name")) or url
        )

    def images(self, unknown: Literal["error", "skip"]) -> Images:
        """All of it, checked."""
        ids = np.frombuffer(self._ids, np.int64)
        paths = self._paths.texts()
        self._refuse_twice(ids, paths)
        classes, sentences = self._classes(ids, unknown)
        licences = self._licences.texts()
        named = [self._licence_names.get(each, each) for each in licences.starts]
        return Images(
            ids,
            paths,
            self._rights.texts(),
            replace(licences, starts=named),
            classes,
            Classes(self._names, self._taxa),
            sentences,
        )

    def _classes(
        self, ids: NDArray[np.int64], unknown: Literal["error", "skip"]
    ) -> tuple[NDArray[np.int32], list[str]]:
        about = np.frombuffer(self._about, np.int64)
        images = ranks_of(about, ids)
        known = np.fromiter(self._categories, np.int64, len(self._categories))
        labels = ranks_of(np.frombuffer(self._label, np.int64), known)
        sentences = []
        lost = (images < 0) | (labels < 0)
        if lost.any():
            sentences.append(self._lost(images, labels, lost))
            if unknown == "error":
                raise QrelsError(
                    f"{sentences[0]}; take {METADATA.origin}, or leave them out with --unknown skip"
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
            sentences.append(f"{some_of(bare, len(ids), 'image')} {have} no query")
        return classes, sentences

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


SPLIT = "train"


class INat24(Suite):
    """Names of species find photographs of iNaturalist 2024."""

    name = "inat24"
    about = "iNaturalist 2024: species names to 5,000,000 photographs (arXiv 2411.02537)"
    layout: Sequence[DataFile] = (METADATA, IMAGES)
    needs_data = True
    measures: Sequence[str] = ("AP_minR@50", "AP", "nDCG@50", "R-prec", "P@10", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is loaded. See `Suite.check`."""
        refuse_other_splits(protocol, self.name)
        check_templates(tuple(protocol.prompts or IMAGE_PROMPTS))
        check(data, self.layout, self.name)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """One task, ``text→image``; none for a model without both towers. See `Suite.tasks`."""
        self.check(data, protocol)
        folder = check(data, self.layout, self.name)
        if not {TEXT, IMAGE} <= towers:
            return []
        images, left_out = images_there(folder, protocol)
        every = np.arange(len(images.species))
        queries = text_queries(images.species, every, protocol, IMAGE_PROMPTS)
        task = Task(
            name=f"{TEXT}→{IMAGE}",
            queries=queries,
            items=items_of(images, folder),
            relevance=Relevance.by_class(queries.classes, images.classes),
            classes=images.species,
            left_out=left_out,
        )
        task = by_protocol(task, protocol, IMAGE_PROMPTS)
        task = replace(task, notes=(*task.notes, prompts_note(protocol, IMAGE_PROMPTS)))
        return [with_fallbacks(task, protocol, IMAGE_PROMPTS)]


def refuse_other_splits(protocol: Protocol, suite_name: str) -> None:
    """iNat24 has been published as one split.

    Raises:
        InvalidInputError: another one is asked for.
    """
    if protocol.database not in ("", SPLIT):
        raise InvalidInputError(
            f"{suite_name} has no split '{protocol.database}': iNat24 is published as '{SPLIT}' "
            "alone; leave --database out",
            field="database",
        )


def images_there(folder: Path, protocol: Protocol) -> tuple[Images, list[str]]:
    """The images of a data folder whose files are there, and sentences on the others.

    Raises:
        LayoutError: `train.json` cannot be used; files are missing that must not be.
        QrelsError: annotations of what is unknown.
    """
    path = path_of(folder, METADATA)
    images = read_images(path, protocol.unknown)
    root = path_of(folder, IMAGES).parent
    there = check_files(root, images.paths, protocol.missing, LISTED)
    left_out = [*images.left_out, *skipped_files(there, LISTED)]
    return (images if there.all() else images.only(np.flatnonzero(there))), left_out


def items_of(images: Images, folder: Path) -> Items:
    """The images as what is ranked."""
    root = path_of(folder, IMAGES).parent
    return Items(Numbers(images.ids), IMAGE, Photographs(images, root), images.classes, IMAGE)
