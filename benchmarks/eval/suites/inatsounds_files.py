"""The annotation files of iNatSounds 2024: ``train.json``, ``val.json`` and ``test.json``.

COCO-style JSON with ``audio``, ``categories`` and ``annotations``, one annotation per recording.
The release writes ``NaN`` where a location's uncertainty is unknown, which is no JSON; it is taken
as nothing here. That of 137,012 recordings is about 45 MB, so it is read whole, in a second and
200 MB of memory; what is kept are columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bittern.errors import LayoutError, QrelsError
from bittern.text import agreeing, some_of

MAX_FILE_BYTES = 256 << 20
"""Largest annotation file: that of the training split has about 45 MB."""
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
_MAX_TEXT = 1000
_MEMBERS = ("audio", "categories", "annotations")


@dataclass(frozen=True)
class Category:
    """A species.

    Attributes:
        id: of its file, the same number in all splits.
        taxon: Darwin Core ranks, `scientificName` and `vernacularName`.
        folder: `audio_dir_name`.
        evaluated: whether the data set's own evaluation asks for it.
    """

    id: int
    taxon: Mapping[str, str]
    folder: str
    evaluated: bool


@dataclass(frozen=True)
class Split:
    """One split, as columns.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        categories: by their ids.
        files: per recording, its file below the data folder.
        labels: int64 [n], category id of each.
        holders: per recording, its rights holder.
        licences: per recording, the name of its licence.
        left_out: sentences on what is not in the columns, with counts.
    """

    name: str
    categories: Mapping[int, Category]
    files: Sequence[str]
    labels: NDArray[np.int64]
    holders: Sequence[str]
    licences: Sequence[str]
    left_out: Sequence[str] = ()


def read_split(data: Path, name: str, *, lenient: bool = False) -> Split:
    """Read the annotations of one split.

    Args:
        data: the data folder.
        name: ``train``, ``val`` or ``test``.
        lenient: leave out annotations that name what there is not, annotations that come twice,
            and recordings without one, rather than refuse them.

    Raises:
        LayoutError: the file cannot be read, or is of another form.
        QrelsError: its annotations name recordings or categories that it has not, or give a
            recording two species.
    """
    path = data / f"{name}.json"
    members = _members(path)
    categories = _categories(path, members["categories"])
    rows: dict[int, int] = {}
    files: list[str] = []
    for place, row in enumerate(members["audio"]):
        number = _integer(path, "audio", place, row, "id")
        if number in rows:
            _refuse(path, f"audio[{place}] has the id {number} of another recording")
        rows[number] = place
        files.append(_text(path, "audio", place, row, "file_name"))
    labels, left_out = _labels(path, members["annotations"], rows, categories, lenient)
    placed = [
        _file(path, name, file, categories.get(label))
        for file, label in zip(files, labels.tolist(), strict=True)
    ]
    _check_unique(path, placed)
    kept = np.flatnonzero(labels >= 0)
    licences = _licences(members["licenses"])
    audio = members["audio"]
    return Split(
        name=name,
        categories=categories,
        files=[placed[row] for row in kept],
        labels=labels[kept],
        holders=[str(audio[row].get("rights_holder") or "")[:_MAX_TEXT] for row in kept],
        licences=[licences.get(str(audio[row].get("license")), "") for row in kept],
        left_out=[f"{path.name}: {told}" for told in left_out],
    )


def _members(path: Path) -> dict[str, list[Any]]:
    """The lists of the file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            _refuse(path, f"it has more than {MAX_FILE_BYTES >> 20} MiB")
        with path.open(encoding="utf-8") as file:
            value = json.load(file, parse_constant=lambda _: None)
    except OSError as error:
        raise LayoutError(f"{path} cannot be read: {error.strerror}", field="data") from error
    except (ValueError, RecursionError) as error:
        raise LayoutError(
            f"{path.name} is damaged or no JSON: {error}; unpack {path.name}.tar.gz of the "
            "release again",
            field="data",
        ) from error
    if not isinstance(value, dict):
        _refuse(path, "it holds no object")
    lacking = [m for m in _MEMBERS if not isinstance(value.get(m), list) or not value[m]]
    if lacking:
        has = ", ".join(list(value)[:10])[:200] or "nothing"
        _refuse(path, f"it has no list of {' and '.join(lacking)}, but {has}")
    members = {member: value[member] for member in _MEMBERS}
    for member, rows in members.items():
        wrong = next((place for place, row in enumerate(rows) if not isinstance(row, dict)), None)
        if wrong is not None:
            _refuse(path, f"{member}[{wrong}] is no object with named values")
    told = value.get("licenses")
    members["licenses"] = told if isinstance(told, list) else []
    return members


def _categories(path: Path, rows: list[Any]) -> dict[int, Category]:
    found: dict[int, Category] = {}
    for place, row in enumerate(rows):
        number = _integer(path, "categories", place, row, "id")
        if number in found:
            _refuse(path, f"categories[{place}] has the id {number} of another category")
        if row.get("evaluation") not in (0, 1, False, True):
            _refuse(path, f"categories[{place}] does not say by evaluation 0 or 1 if it is asked")
        taxon = {rank: str(row[rank]) for rank in RANKS if row.get(rank)}
        taxon["scientificName"] = _text(path, "categories", place, row, "name")
        if row.get("common_name"):
            taxon["vernacularName"] = str(row["common_name"])
        folder = _text(path, "categories", place, row, "audio_dir_name")
        found[number] = Category(number, taxon, folder, bool(row["evaluation"]))
    return found


def _labels(
    path: Path,
    annotations: list[Any],
    rows: Mapping[int, int],
    categories: Mapping[int, Category],
    lenient: bool,
) -> tuple[NDArray[np.int64], list[str]]:
    """The category of each recording, -1 where there is none, and what was left out."""
    labels = np.full(len(rows), -1, np.int64)
    unknown, again = [], []
    for place, annotation in enumerate(annotations):
        audio = _integer(path, "annotations", place, annotation, "audio_id")
        category = _integer(path, "annotations", place, annotation, "category_id")
        row = rows.get(audio)
        if row is None or category not in categories:
            which = f"audio_id {audio}" if row is None else f"category_id {category}"
            unknown.append(f"annotations[{place}] ({which})")
        elif labels[row] == category:
            again.append(f"annotations[{place}] (audio_id {audio})")
        elif labels[row] >= 0:
            raise QrelsError(
                f"{path.name}: recording {audio} is annotated as category {labels[row]} and as "
                f"{category}; each has one species in this data set",
                field="data",
            )
        else:
            labels[row] = category
    names = list(rows)
    bare = [f"id {names[row]}" for row in np.flatnonzero(labels < 0)]
    troubles = (
        (
            unknown,
            (annotations, "annotation"),
            ("names a recording or category", "name recordings or categories"),
            " that it has not",
        ),
        (again, (annotations, "annotation"), ("repeats", "repeat"), " another"),
        (bare, (rows, "recording"), ("has", "have"), " no annotation"),
    )
    told = [
        f"{some_of(len(those), len(whole), noun)} {agreeing(len(those), *verbs)}{rest}: "
        f"{_some(those)}"
        for those, (whole, noun), verbs, rest in troubles
        if those
    ]
    if told and not lenient:
        raise QrelsError(
            f"{path.name}: {'; '.join(told)}. Unpack it again, or leave these out with "
            "--unknown skip",
            field="data",
        )
    if not (labels >= 0).any():
        raise QrelsError(f"{path.name}: no recording has an annotation", field="data")
    return labels, told


def _file(path: Path, split: str, name: str, category: Category | None) -> str:
    """Below the data folder: ``test/<audio_dir_name>/<name>.wav``."""
    told = PurePosixPath(name)
    if told.is_absolute() or ".." in told.parts or "\\" in name:
        _refuse(path, f"file_name {name[:80]!r} leads out of the data folder")
    if len(told.parts) == 1 and category is not None:
        return f"{split}/{category.folder}/{name}"
    return name if told.parts[0] == split else f"{split}/{name}"


def _check_unique(path: Path, files: Sequence[str]) -> None:
    seen: set[str] = set()
    for file in files:
        if file in seen:
            _refuse(path, f"two recordings have the file_name {file[:120]!r}")
        seen.add(file)


def _licences(rows: Sequence[Any]) -> dict[str, str]:
    return {
        str(row.get("id")): str(row.get("name") or "")[:_MAX_TEXT]
        for row in rows
        if isinstance(row, dict)
    }


def _integer(path: Path, member: str, place: int, row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        _refuse(path, f"{member}[{place}] has {value!r:.40} where {key} should be a number")
    return value


def _text(path: Path, member: str, place: int, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT:
        _refuse(path, f"{member}[{place}] has {value!r:.40} where {key} should be a text")
    if "\0" in value or not (value.isascii() or _encodable(value)):
        _refuse(path, f"{member}[{place}] has a {key} that is no text: {value!r:.60}")
    return value.strip()


def _encodable(value: str) -> bool:
    """Whether there are no halves of surrogate pairs in it, which no file is named by."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse(path: Path, wrong: str) -> NoReturn:
    raise LayoutError(
        f"{path.name} is not in the layout of iNatSounds 2024: {wrong}. Unpack "
        f"{path.name}.tar.gz of the release again",
        field="data",
    )
