"""Annotated soundscapes (Kahl, Navine et al., Zenodo, 2022): species' names to long recordings.

    soundscape_data/    long recordings, FLAC
    annotations.csv     Filename, Start Time (s), End Time (s), Low Freq (Hz), High Freq (Hz),
                        Species eBird Code: one line per box
    species.csv         Species eBird Code, Scientific Name, Common Name

A sound that could not be identified has the code ``????``. Recordings with every call marked are
the hard case of searching sounds: most of an hour is silence or another species.

Where windows begin and end is only known once recordings are cut for an encoder. So a task has
recordings as its items, and becomes one over windows with their owners and spans. A window is
relevant for a species if one annotation of it shares with the window at least half a second, or at
least half of the annotation where that is less. So a call that is cut in two by the edge of a
window is found in at least one of the two, and no window is relevant for the last milliseconds of
a call. (The rule is ours; published ones range from any overlap at all to whole seconds, with
windows of fixed length.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    Limit,
    Pair,
    Suite,
    check_files,
    check_layout,
    skipped_files,
)
from bittern.benchmarks.eval.suites.readers import SuiteFile
from bittern.benchmarks.eval.suites.species import SpeciesMedia, SpeciesTask
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    TEXT,
    Classes,
    Protocol,
    Relevance,
    Task,
    TrainingSplit,
    ranges,
)
from bittern.benchmarks.eval.tasks.splits import NOVEL, SEEN, leave_out_unanswerable
from bittern.errors import InvalidInputError, QrelsError
from bittern.text import agreeing, counted, first_few, some_of

_ORIGIN = "a collection of fully annotated soundscape recordings on Zenodo (Kahl, Navine et al.)"
_PAGE = "the collection's page on Zenodo (Kahl, Navine et al., 2022)"
_FOLDER = "soundscape_data"
_SUFFIXES = frozenset({".flac", ".wav", ".ogg", ".mp3"})
_UNIDENTIFIED = "????"
_FILE, _START, _END, _CODE = "Filename", "Start Time (s)", "End Time (s)", "Species eBird Code"
_SCIENTIFIC, _COMMON = "Scientific Name", "Common Name"
_NAMED = 5
_SPLITS = "soundscapes have no published splits"
MIN_OVERLAP_S = 0.5
"""Seconds of an annotation that make a window relevant."""
_TOLERANCE_S = 1e-3  # spans are float32: 0.2 ms at the end of an hour
_WINDOWS_DIFFER = (
    "Windows are cut as the encoder takes them, and their times decide which of them are relevant: "
    "two encoders with other windows are not ranked on the same items"
)


class Soundscapes(Suite):
    """Names of species against annotated soundscapes."""

    name = "soundscapes"
    about = (
        "Annotated soundscapes (collections of Kahl, Navine et al. on Zenodo, 2022): names of "
        "species against windows of long recordings"
    )
    layout = (
        DataFile(
            f"{_FOLDER}/",
            "the recordings (FLAC)",
            f"{_PAGE}, {_FOLDER}.zip, unpacked",
            "a few to some tens of GB, by collection",
        ),
        DataFile("annotations.csv", "one line per marked call", _PAGE, "a few MB"),
        DataFile("species.csv", "names of the species codes", _PAGE, "a few KB"),
    )
    limits = (
        Limit("level", "species of soundscapes come without higher ranks", ("species", "genus")),
        Limit("database", _SPLITS),
        Limit("fit_on", _SPLITS, ("items",)),
    )
    measures = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")
    pairs = ((TEXT, AUDIO),)

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """Names against windows and, unless every window is an item, against recordings."""
        return soundscape_tasks(root, protocol)


def check_soundscapes(data: Path | None, protocol: Protocol) -> None:
    """Check a collection that another suite searches as well.

    Raises:
        LayoutError: files are missing.
        InvalidInputError: the protocol has a rank that species tables lack.
    """
    Soundscapes.limits[0].check(Soundscapes.name, protocol)
    check_layout(data, Soundscapes.layout, Soundscapes.name)


def soundscape_tasks(
    data: Path, protocol: Protocol, *, fitted: Task | None = None, prefix: str = ""
) -> list[Task]:
    """The tasks of a collection.

    Args:
        data: its folder.
        protocol: how it is run.
        fitted: a task of other data whose training split systems are fitted on, at the same level;
            queries are then seen or novel by whether that split has their class.
        prefix: of the tasks' names.

    Raises:
        LayoutError: files are missing, or are not in the published layout.
        QrelsError: annotations that cannot be used.
        InvalidInputError: the classes lack the level.
    """
    check_soundscapes(data, protocol)
    collection = read_collection(data, protocol)
    task = _over_annotations(collection, protocol)
    if fitted is not None:
        task = _with_training(task, fitted)
    task, annotations = _over_recordings(task, collection)
    name = f"{prefix}text→audio, windows"
    windows = replace(task, name=name, notes=(*task.notes, _WINDOWS_DIFFER))
    windows = replace(windows, by_window=partial(windows_as_items, windows, annotations))
    if protocol.windows == "separate":
        return [windows]
    rule = (
        "A recording is relevant for each species that is annotated in it; it counts by the "
        f"{protocol.windows} over its windows."
    )
    name = f"{prefix}text→audio, recordings"
    return [windows, replace(task, name=name, notes=(*task.notes, rule))]


def _over_annotations(collection: Collection, protocol: Protocol) -> Task:
    """The task with annotations as items: an annotation has one class, a recording many."""
    annotations, taxa = collection.annotations, collection.taxa
    names = [taxon.get("vernacularName") or taxon["scientificName"] for taxon in taxa]
    items = collection.recordings.only(annotations.recordings)
    items = replace(items, classes=annotations.classes)
    note = (
        f"{counted(len(collection.recordings), 'recording')} with "
        f"{counted(len(annotations), 'annotation')} of {len(np.unique(annotations.classes)):,} "
        "species; a stretch may be of several at once."
    )
    return SpeciesTask(
        classes=Classes(names, taxa),
        items=items.items,
        protocol=protocol,
        left_out=collection.left_out,
        more_notes=[note],
    ).task()


def _over_recordings(task: Task, collection: Collection) -> tuple[Task, Annotations]:
    """The task with recordings as items, and the annotations with the task's classes."""
    classes = task.items.classes
    annotations = replace(collection.annotations, classes=classes).only(classes >= 0)
    relevance = _relevance(task, annotations.classes, annotations.recordings)
    return replace(task, items=collection.recordings.items, relevance=relevance), annotations


def _relevance(task: Task, classes: NDArray[np.int32], items: NDArray[np.int64]) -> Relevance:
    """The relevant items of the task's queries, from pairs of class and item, which may repeat."""
    pairs = Relevance.by_class(task.queries.classes, classes)
    return Relevance.from_pairs(pairs.queries, items[pairs.items], len(task.queries))


def _with_training(task: Task, fitted: Task) -> Task:
    """The task with another task's training split, its queries seen or novel by that split.

    Classes are the same where their scientific names are; classes that only the other data set has
    come behind the task's own.
    """
    training = fitted.training
    if training is None:
        return task
    names, taxa = list(task.classes.names), list(task.classes.taxa)
    known = {_scientific(taxon): position for position, taxon in enumerate(taxa)}
    known.pop("", None)
    position = np.empty(len(fitted.classes), np.int32)
    for number, taxon in enumerate(fitted.classes.taxa):
        same = known.get(_scientific(taxon))
        position[number] = len(names) if same is None else same
        if same is None:
            names.append(fitted.classes.names[number])
            taxa.append(taxon)
    classes = training.items.classes
    items = replace(training.items, classes=np.where(classes < 0, np.int32(-1), position[classes]))
    queries = replace(training.queries, classes=position[training.queries.classes])
    seen = np.isin(task.queries.classes, items.classes)
    groups = {SEEN: seen, NOVEL: ~seen}
    return replace(
        task,
        classes=Classes(names, taxa),
        training=TrainingSplit(items, queries),
        groups={name: group for name, group in groups.items() if group.any()},
    )


def _scientific(taxon: Mapping[str, str]) -> str:
    return taxon.get("scientificName", "").lower()


# Windows as items


@dataclass(frozen=True)
class Annotations:
    """Calls in recordings.

    Attributes:
        recordings: int64 [a], positions of items.
        starts: float64 [a], seconds from the recording's beginning.
        ends: float64 [a], seconds, later than `starts`.
        classes: int32 [a], among `Task.classes`.
    """

    recordings: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    classes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.recordings)

    def only(self, kept: NDArray[np.bool_]) -> Annotations:
        """Some of them."""
        return Annotations(
            self.recordings[kept], self.starts[kept], self.ends[kept], self.classes[kept]
        )


def windows_as_items(
    task: Task, annotations: Annotations, owners: NDArray[np.int64], spans: NDArray[np.float32]
) -> Task:
    """A task over windows, of one over recordings.

    Args:
        task: its items are recordings.
        annotations: of those recordings.
        owners: int64 [rows], the recording of each window, not falling.
        spans: float32 [rows, 2], start and end in seconds, rising within a recording.

    Returns:
        a task whose items are the windows, one per row, with ids such as ``dawn.flac#t=3,6``.
        Queries that no window answers are skipped, and counted in `left_out`.

    Raises:
        InvalidInputError: the owners are no recordings of the task.
        QrelsError: no query is left.
    """
    if len(owners) and not (owners[0] >= 0 and owners[-1] < len(task.items)):
        raise InvalidInputError(
            f"windows belong to recordings {owners[0]} to {owners[-1]}, and {task.name} has "
            f"{len(task.items)}: they are of other data; embed these recordings again"
        )
    rule = (
        f"Every window is an item, relevant for a species if it shares {MIN_OVERLAP_S:g} s with "
        "one of its annotations, or half of it where that is less."
    )
    whole = replace(
        task,
        items=task.items.over_windows(owners, spans),
        relevance=_relevance(task, *_overlaps(annotations, owners, spans)),
        notes=(*task.notes, rule),
        by_window=None,
    )
    return leave_out_unanswerable(whole)


def _overlaps(
    annotations: Annotations,
    owners: NDArray[np.int64],
    spans: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Pairs of a class and a window that it is relevant for; pairs may repeat."""
    starts, ends = spans.astype(np.float64).T
    # All recordings on one axis of time, each with its own stretch of it: windows of a recording
    # rise in both starts and ends, so those that overlap an annotation are neighbours.
    latest = max([1.0, *(float(times.max()) for times in (ends, annotations.ends) if len(times))])
    stretch = 2.0 * latest
    own = annotations.recordings * stretch
    first = np.searchsorted(owners * stretch + ends, own + annotations.starts, "right")
    last = np.searchsorted(owners * stretch + starts, own + annotations.ends, "left")
    touched = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(annotations)), touched)
    rows = ranges(first, touched)
    begin, end = annotations.starts[which], annotations.ends[which]
    shared = np.minimum(ends[rows], end) - np.maximum(starts[rows], begin)
    needed = np.minimum(MIN_OVERLAP_S, (end - begin) / 2)
    enough = (shared >= needed - np.minimum(_TOLERANCE_S, needed / 2)) & (shared > 0)
    return annotations.classes[which][enough], rows[enough]


# The files


@dataclass(frozen=True)
class Collection:
    """Recordings, and their annotations.

    Attributes:
        recordings: in alphabetical order, those without an annotation too; without classes.
        taxa: Darwin Core names of the species.
        annotations: with the species as classes.
        left_out: sentences, with counts.
    """

    recordings: SpeciesMedia
    taxa: Sequence[Mapping[str, str]]
    annotations: Annotations
    left_out: Sequence[str]


def read_collection(data: Path, protocol: Protocol) -> Collection:
    """Read a collection; unusable annotations are refused, or skipped.

    Raises:
        LayoutError: a table cannot be read or is of another form; recordings are missing.
        QrelsError: annotations of unknown species, with impossible times, or none at all.
    """
    table = SuiteFile(data / "annotations.csv", _ORIGIN)
    species = _species(SuiteFile(data / "species.csv", _ORIGIN))
    boxes = _Boxes()
    for line, row in table.rows((_FILE, _START, _END, _CODE)):
        boxes.add(table, line, row, species)
    unusable = boxes.unusable()
    if unusable and protocol.unknown == "error":
        raise QrelsError(
            f"{table.path}: {'; '.join(unusable)}. Correct them, or skip them with --unknown skip",
            field="data",
        )
    annotated = sorted({name for name, *_ in boxes.found})
    if not annotated:
        raise QrelsError(
            f"{table.path} has no annotation of a species of species.csv; take both from {_ORIGIN}",
            field="data",
        )
    what = "recordings that annotations.csv names"
    exist = check_files(data / _FOLDER, annotated, protocol.missing, what)
    known = {name for name, exists in zip(annotated, exist.tolist(), strict=True) if exists}
    names = sorted(known | set(_recordings(data / _FOLDER)))
    position = {name: number for number, name in enumerate(names)}
    label = {code: number for number, code in enumerate(species)}
    kept = [box for box in boxes.found if box[0] in known]
    none = np.full(len(names), -1, np.int32)
    return Collection(
        recordings=SpeciesMedia(data / _FOLDER, AUDIO, names, names, none),
        taxa=[{"kingdom": "Animalia", **taxon} for taxon in species.values()],
        annotations=Annotations(
            recordings=np.array([position[box[0]] for box in kept], np.int64),
            starts=np.array([box[1] for box in kept], np.float64),
            ends=np.array([box[2] for box in kept], np.float64),
            classes=np.array([label[box[3]] for box in kept], np.int32),
        ),
        left_out=[*unusable, *boxes.harmless(), *skipped_files(exist, what)],
    )


def _recordings(folder: Path) -> list[str]:
    return [
        each.name
        for each in folder.iterdir()
        if each.suffix.lower() in _SUFFIXES and each.is_file() and not each.name.startswith(".")
    ]


def _species(table: SuiteFile) -> dict[str, dict[str, str]]:
    """Darwin Core names by code."""
    species: dict[str, dict[str, str]] = {}
    for line, row in table.rows((_CODE, _SCIENTIFIC, _COMMON), filled=(_CODE,)):
        code = row[_CODE].strip()
        if code == _UNIDENTIFIED:
            continue
        if code in species:
            raise table.wrong("one line per code", f"'{code[:40]}' again in line {line}")
        taxon = {"vernacularName": row.get(_COMMON, ""), "scientificName": row.get(_SCIENTIFIC, "")}
        if taxon["scientificName"]:
            taxon["genus"] = taxon["scientificName"].split()[0]
        species[code] = {column: name for column, name in taxon.items() if name}
        if not species[code]:
            raise table.error(f"{table.path}, line {line}: the species '{code[:40]}' has no name")
    if not species:
        raise table.wrong("species", "none")
    return species


class _Boxes:
    """Lines of ``annotations.csv``: usable ones, and how many others there are.

    Attributes:
        found: recording, start and end in seconds, and code; in order, each once.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, float, float, str], None] = {}
        self._unknown: Counter[str] = Counter()
        self._impossible: list[str] = []
        self._lines = self._unidentified = self._repeated = 0

    def add(
        self, table: SuiteFile, line: int, row: Mapping[str, str], species: Container[str]
    ) -> None:
        """Read a line."""
        self._lines += 1
        code = row[_CODE].strip()
        try:
            start, end = float(row[_START]), float(row[_END])
        except ValueError:
            times = f"{row[_START][:40]!r} and {row[_END][:40]!r} in line {line}"
            raise table.wrong("times in seconds", times) from None
        box = (row[_FILE].strip(), start, end, code)
        if code == _UNIDENTIFIED:
            self._unidentified += 1
        elif code not in species:
            self._unknown[code] += 1
        elif not 0 <= start < end < math.inf:
            self._impossible.append(str(line))
        elif box in self.found:
            self._repeated += 1
        else:
            self.found[box] = None

    def unusable(self) -> list[str]:
        """Sentences on unknown codes and impossible times."""
        sentences = []
        if number := self._unknown.total():
            codes = [f"'{code[:40]}' ({count})" for code, count in self._unknown.most_common()]
            sentences.append(
                f"{some_of(number, self._lines, 'annotation')} "
                f"{agreeing(number, 'is of a code', 'are of codes')} that species.csv lacks: "
                f"{first_few(codes, _NAMED)}"
            )
        if number := len(self._impossible):
            bad = agreeing(number, "ends before it begins, or is", "end before they begin, or are")
            sentences.append(
                f"{some_of(number, self._lines, 'annotation')} {bad} at no time: "
                f"{agreeing(number, 'that in line', 'those in lines')} "
                f"{first_few(self._impossible, _NAMED)}"
            )
        return sentences

    def harmless(self) -> list[str]:
        """Sentences on unidentified sounds and repeated lines."""
        sentences = []
        if number := self._unidentified:
            mark = agreeing(number, "marks a sound", "mark sounds")
            sentences.append(
                f"{some_of(number, self._lines, 'annotation')} {mark} that the annotators could "
                f"not identify ({_UNIDENTIFIED}); {agreeing(number, 'it is', 'they are')} left out"
            )
        if number := self._repeated:
            repeat = agreeing(number, "repeats another and counts", "repeat others and count")
            sentences.append(f"{some_of(number, self._lines, 'annotation')} {repeat} once")
        return sentences
