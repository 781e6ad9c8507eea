"""iNatSounds 2024 (Chasmai et al., NeurIPS 2024, arXiv 2506.00343): species' names to sounds.

The data set's own main figure is the mean over species of the average precision of all recordings
of a split; asked by name, that is `AP` here, with one query per species. Its evaluation uses 1,212
of its 5,569 species, those that `evaluation` marks.

``train.json``, ``val.json`` and ``test.json`` are COCO-style, with ``audio``, ``categories`` and
``annotations``, one annotation per recording. The release writes ``NaN`` where a location's
uncertainty is unknown, which is not JSON; it is read as null. The file of 137,012 recordings has
about 45 MB, so it is read whole, in a second and 200 MB of memory, into columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    MediaFiles,
    Suite,
    check,
    check_files,
    skipped_files,
)
from bittern.benchmarks.eval.suites.soundscapes import Fitting, check_soundscapes, soundscape_tasks
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    TEXT,
    Classes,
    Items,
    Protocol,
    Relevance,
    Task,
    TrainingSplit,
)
from bittern.benchmarks.eval.tasks.prompts import (
    AUDIO_PROMPTS,
    check_templates,
    prompts_note,
    text_queries,
    with_fallbacks,
)
from bittern.benchmarks.eval.tasks.splits import by_protocol
from bittern.errors import InvalidInputError, LayoutError, QrelsError
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
        lenient: leave out annotations that name what is unknown, annotations that come twice,
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
    for position, row in enumerate(members["audio"]):
        number = _integer(path, "audio", position, row, "id")
        if number in rows:
            _refuse(path, f"audio[{position}] has the id {number} of another recording")
        rows[number] = position
        files.append(_text(path, "audio", position, row, "file_name"))
    labels, left_out = _labels(path, members["annotations"], rows, categories, lenient)
    entries = [
        _file(path, name, file, categories.get(label))
        for file, label in zip(files, labels.tolist(), strict=True)
    ]
    _check_unique(path, entries)
    kept = np.flatnonzero(labels >= 0)
    licences = _licences(members["licenses"])
    audio = members["audio"]
    return Split(
        name=name,
        categories=categories,
        files=[entries[row] for row in kept],
        labels=labels[kept],
        holders=[str(audio[row].get("rights_holder") or "")[:_MAX_TEXT] for row in kept],
        licences=[licences.get(str(audio[row].get("license")), "") for row in kept],
        left_out=[f"{path.name}: {sentence}" for sentence in left_out],
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
        wrong = next(
            (position for position, row in enumerate(rows) if not isinstance(row, dict)), None
        )
        if wrong is not None:
            _refuse(path, f"{member}[{wrong}] is no object with named values")
    licences = value.get("licenses")
    members["licenses"] = licences if isinstance(licences, list) else []
    return members


def _categories(path: Path, rows: list[Any]) -> dict[int, Category]:
    found: dict[int, Category] = {}
    for position, row in enumerate(rows):
        number = _integer(path, "categories", position, row, "id")
        if number in found:
            _refuse(path, f"categories[{position}] has the id {number} of another category")
        if row.get("evaluation") not in (0, 1, False, True):
            _refuse(
                path, f"categories[{position}] does not say by evaluation 0 or 1 if it is asked"
            )
        taxon = {rank: str(row[rank]) for rank in RANKS if row.get(rank)}
        taxon["scientificName"] = _text(path, "categories", position, row, "name")
        if row.get("common_name"):
            taxon["vernacularName"] = str(row["common_name"])
        folder = _text(path, "categories", position, row, "audio_dir_name")
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
    for position, annotation in enumerate(annotations):
        audio = _integer(path, "annotations", position, annotation, "audio_id")
        category = _integer(path, "annotations", position, annotation, "category_id")
        row = rows.get(audio)
        if row is None or category not in categories:
            which = f"audio_id {audio}" if row is None else f"category_id {category}"
            unknown.append(f"annotations[{position}] ({which})")
        elif labels[row] == category:
            again.append(f"annotations[{position}] (audio_id {audio})")
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
    sentences = [
        f"{some_of(len(those), len(whole), noun)} {agreeing(len(those), *verbs)}{rest}: "
        f"{_some(those)}"
        for those, (whole, noun), verbs, rest in troubles
        if those
    ]
    if sentences and not lenient:
        raise QrelsError(
            f"{path.name}: {'; '.join(sentences)}. Unpack it again, or leave these out with "
            "--unknown skip",
            field="data",
        )
    if not (labels >= 0).any():
        raise QrelsError(f"{path.name}: no recording has an annotation", field="data")
    return labels, sentences


def _file(path: Path, split: str, name: str, category: Category | None) -> str:
    """Below the data folder: ``test/<audio_dir_name>/<name>.wav``."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        _refuse(path, f"file_name {name[:80]!r} leads out of the data folder")
    if len(relative.parts) == 1 and category is not None:
        return f"{split}/{category.folder}/{name}"
    return name if relative.parts[0] == split else f"{split}/{name}"


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


def _integer(path: Path, member: str, position: int, row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        _refuse(path, f"{member}[{position}] has {value!r:.40} where {key} should be a number")
    return value


def _text(path: Path, member: str, position: int, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT:
        _refuse(path, f"{member}[{position}] has {value!r:.40} where {key} should be a text")
    if "\0" in value or not (value.isascii() or _encodable(value)):
        _refuse(path, f"{member}[{position}] has a {key} that is no text: {value!r:.60}")
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


ORIGIN = "the iNatSounds 2024 release (visipedia/inat_sounds)"
SPLITS = ("train", "val", "test")
_NAMED = 3
_BY_WINDOWS = {
    "max": "A recording counts by its best window (--windows max)",
    "mean": "A recording counts by the mean distance of its windows (--windows mean)",
    "separate": "Every window is an item, right where its recording is (--windows separate)",
}
_SIZES = {"train": ("137,012", "81 GB", "14 MB"), "val": ("45,698", "25 GB", "3.7 MB")}
_SIZES["test"] = ("49,527", "27 GB", "4.0 MB")


def _layout(split: str, *, optional: bool) -> tuple[DataFile, DataFile]:
    recordings, size, table = _SIZES[split]
    return (
        DataFile(
            f"{split}.json",
            f"annotations of the {split} split",
            f"{ORIGIN}, {split}.json.tar.gz, unpacked",
            f"{table} packed",
            optional,
        ),
        DataFile(
            f"{split}/",
            f"{recordings} recordings, WAV 22.05 kHz",
            f"{ORIGIN}, {split}.tar.gz, unpacked",
            size,
            optional,
        ),
    )


class INatSounds(Suite):
    """Names of species against the recordings of a split."""

    name = "inatsounds"
    about = "iNatSounds 2024 (arXiv 2506.00343): names of species against recordings"
    layout: Sequence[DataFile] = (
        *_layout("test", optional=False),
        *_layout("val", optional=True),
        *_layout("train", optional=True),
    )
    needs_data = True
    measures: Sequence[str] = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout, of the splits that are used, and the options."""
        _checked(data, protocol)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """Names of the evaluated species against the split ``protocol.database``, else ``test``;
        against soundscapes as well where the protocol names some.

        Raises:
            LayoutError: files are missing, or are not in the published layout.
            QrelsError: annotations that cannot be used.
            InvalidInputError: there is no such split, or it is what systems are to be fitted on.
        """
        root = _checked(data, protocol)
        if not {TEXT, AUDIO} <= towers:
            return []
        lenient = protocol.unknown == "skip"
        splits = [read_split(root, split, lenient=lenient) for split in _used(protocol)]
        return _tasks(root, splits, protocol)


def _used(protocol: Protocol) -> list[str]:
    """The split that is searched, and that which is fitted on."""
    return [protocol.database or "test", *(["train"] if protocol.fit_on == "training" else [])]


def _checked(data: Path | None, protocol: Protocol) -> Path:
    """The data folder, if what the protocol asks for can be run on it."""
    split, *fitted = _used(protocol)
    if split not in SPLITS:
        raise InvalidInputError(
            f"iNatSounds has no split '{split[:60]}'; give --database {', '.join(SPLITS)}",
            field="database",
        )
    if split in fitted:
        raise InvalidInputError(
            "the training split is both fitted on and searched; search another --database, or "
            "--fit-on items",
            field="database",
        )
    if protocol.prompts:
        check_templates(protocol.prompts)
    wanted = [file for each in (split, *fitted) for file in _layout(each, optional=False)]
    root = check(data, wanted, INatSounds.name)
    if protocol.soundscapes:
        check_soundscapes(Path(protocol.soundscapes), protocol)
    return root


def _tasks(root: Path, splits: Sequence[Split], protocol: Protocol) -> list[Task]:
    categories = _agreed(splits)
    present = set(np.unique(np.concatenate([split.labels for split in splits])).tolist())
    numbers = [n for n, c in categories.items() if c.evaluated or n in present]
    taxa = [categories[number].taxon for number in numbers]
    classes = Classes([t.get("vernacularName", t["scientificName"]) for t in taxa], taxa)
    position = {number: row for row, number in enumerate(numbers)}
    searched = splits[0]
    items, left_out = _items(root, searched, categories, position, protocol)
    evaluated = np.array([categories[number].evaluated for number in numbers], np.bool_)
    queries = text_queries(classes, np.flatnonzero(evaluated), protocol, AUDIO_PROMPTS)
    training = None
    if len(splits) > 1:
        training, more = _training(root, splits[1], categories, position, classes, protocol)
        left_out += more
    notes = [f"The {searched.name} split is searched. {_told_evaluated(classes, evaluated)}"]
    notes.append(prompts_note(protocol, AUDIO_PROMPTS))
    notes.append(f"{_BY_WINDOWS[protocol.windows]}; others report averages over a file's windows")
    task = Task(
        name="text→audio",
        queries=queries,
        items=items,
        relevance=Relevance.by_class(queries.classes, items.classes),
        classes=classes,
        training=training,
        left_out=left_out,
        notes=notes,
    )
    task = with_fallbacks(by_protocol(task, protocol, AUDIO_PROMPTS), protocol, AUDIO_PROMPTS)
    if not protocol.soundscapes:
        return [task]
    # Novel to the soundscapes is what is not in the training part, which by now is so parted.
    fitting = Fitting(task.training, task.classes) if task.training else None
    plain = replace(protocol, novel="none")
    folder = Path(protocol.soundscapes)
    return [task, *soundscape_tasks(folder, plain, fitting=fitting, prefix="soundscapes ")]


def _told_evaluated(classes: Classes, evaluated: NDArray[np.bool_]) -> str:
    """Which species are asked for, in a sentence."""
    number = int(evaluated.sum())
    sentences = (
        f"{some_of(number, len(classes), 'species', 'species')} {agreeing(number, 'is', 'are')} "
        "asked for, which the data set marks for evaluation"
    )
    others = [classes.names[i] for i in np.flatnonzero(~evaluated).tolist()]
    more = ", ..." if len(others) > _NAMED else ""
    first = f"{', '.join(others[:_NAMED])}{more}"
    return (
        f"{sentences}; recordings of the others are searched as well ({first})"
        if others
        else sentences
    )


def _agreed(splits: Sequence[Split]) -> dict[int, Category]:
    """The categories of all splits; an id means the same species in each."""
    found: dict[int, Category] = {}
    for split in splits:
        for number, category in split.categories.items():
            known = found.setdefault(number, category)
            if known.taxon["scientificName"] != category.taxon["scientificName"]:
                raise LayoutError(
                    f"category {number} is {known.taxon['scientificName'][:60]} in "
                    f"{splits[0].name}.json and {category.taxon['scientificName'][:60]} in "
                    f"{split.name}.json: they are of different releases; take both from {ORIGIN}",
                    field="data",
                )
    return found


def _items(
    root: Path,
    split: Split,
    categories: Mapping[int, Category],
    position: Mapping[int, int],
    protocol: Protocol,
) -> tuple[Items, list[str]]:
    """The recordings of a split that are there."""
    what = f"recordings that {split.name}.json lists"
    there = check_files(root, split.files, protocol.missing, what)
    rows = np.flatnonzero(there).tolist()
    labels = split.labels[there].tolist()
    files = [split.files[row] for row in rows]
    taxa = [categories[label].taxon for label in labels]
    ids = [file.rpartition(".")[0] or file for file in files]
    ids = ids if len(set(ids)) == len(ids) else files
    media = MediaFiles(
        root,
        ids,
        files,
        AUDIO,
        {
            "vernacularName": [taxon.get("vernacularName", "") for taxon in taxa],
            "scientificName": [taxon["scientificName"] for taxon in taxa],
            "rightsHolder": [split.holders[row] for row in rows],
            "license": [split.licences[row] for row in rows],
        },
    )
    classes: NDArray[np.int32] = np.array([position[label] for label in labels], np.int32)
    items = Items(ids, AUDIO, media, classes, AUDIO, splits=[split.name] * len(ids))
    return items, [*split.left_out, *skipped_files(there, what)]


def _training(
    root: Path,
    split: Split,
    categories: Mapping[int, Category],
    position: Mapping[int, int],
    classes: Classes,
    protocol: Protocol,
) -> tuple[TrainingSplit, list[str]]:
    """The recordings of the training split, and the names of all their species."""
    items, left_out = _items(root, split, categories, position, protocol)
    queries = text_queries(classes, np.unique(items.classes), protocol, AUDIO_PROMPTS)
    return TrainingSplit(items, queries), [
        f"Of the training split: {sentence}" for sentence in left_out
    ]
