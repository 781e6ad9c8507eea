"""Annotated soundscapes (Kahl, Navine et al., Zenodo, 2022): species' names to long recordings.

    soundscape_data/    long recordings, FLAC
    annotations.csv     Filename, Start Time (s), End Time (s), Low Freq (Hz), High Freq (Hz),
                        Species eBird Code: one line per box
    species.csv         Species eBird Code, Scientific Name, Common Name

A sound that could not be identified has the code ``????``. Recordings with every call marked are
the hard case of searching sounds: most of an hour is silence or another species.

Where windows begin and end is only known once recordings are cut for an encoder. So a task has
recordings as its items, and becomes one over windows with their owners and spans. A window answers
a query for a species if one annotation of it shares with the window at least half a second, or at
least half of the annotation where that is less. So a call that is cut in two by the edge of a
window is found in at least one of the two, and no window is relevant for the last milliseconds of
a call. (The rule is ours; published ones range from any overlap at all to whole seconds, with
windows of fixed length.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    MediaFiles,
    Suite,
    check,
    check_files,
    skipped_files,
    table_rows,
    wrong_layout,
)
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
from bittern.benchmarks.eval.tasks.splits import (
    NOVEL,
    SEEN,
    Chosen,
    by_protocol,
    leave_out_unanswerable,
)
from bittern.benchmarks.eval.tasks.windows import window_ids
from bittern.errors import InvalidInputError, LayoutError, QrelsError
from bittern.text import agreeing, counted, some_of

ORIGIN = "a collection of fully annotated soundscape recordings on Zenodo (Kahl, Navine et al.)"
FOLDER = "soundscape_data"
SUFFIXES = frozenset({".flac", ".wav", ".ogg", ".mp3"})
UNIDENTIFIED = "????"
FILE, START, END, CODE = "Filename", "Start Time (s)", "End Time (s)", "Species eBird Code"
SCIENTIFIC, COMMON = "Scientific Name", "Common Name"
_TOLD = 5


@dataclass(frozen=True)
class Collection:
    """Recordings, and what was annotated in them.

    Attributes:
        names: of the recordings, in order of the alphabet; those in which nothing was annotated
            are among them.
        species: Darwin Core names by code.
        recordings: int64 [a], the recording of each annotation.
        starts: float64 [a], seconds.
        ends: float64 [a], seconds, later than `starts`.
        codes: the species of each annotation.
        left_out: sentences, with counts.
    """

    names: Sequence[str]
    species: Mapping[str, Mapping[str, str]]
    recordings: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    codes: Sequence[str]
    left_out: Sequence[str] = ()


def read_collection(data: Path, protocol: Protocol) -> Collection:
    """Read a collection; annotations of nothing known are refused, or left out.

    Raises:
        LayoutError: a table cannot be read or is of another form; recordings are missing.
        QrelsError: annotations of unknown species, with times that cannot be, or none at all.
    """
    species = _species(data / "species.csv")
    boxes, troubles, harmless = _boxes(data / "annotations.csv", species)
    if troubles and protocol.unknown == "error":
        raise QrelsError(
            f"{data / 'annotations.csv'}: {'; '.join(troubles)}. Correct them, or leave them out "
            "by --unknown skip",
            field="data",
        )
    annotated = sorted({name for name, *_ in boxes})
    if not annotated:
        raise QrelsError(
            f"{data / 'annotations.csv'} has no annotation of a species of species.csv; take both "
            f"from {ORIGIN}",
            field="data",
        )
    what = "recordings that annotations.csv names"
    there = check_files(data / FOLDER, annotated, protocol.missing, what)
    known = {name for name, here in zip(annotated, there.tolist(), strict=True) if here}
    names = sorted(known | set(_recordings(data / FOLDER)))
    position = {name: number for number, name in enumerate(names)}
    kept = [box for box in boxes if box[0] in known]
    left_out = [*troubles, *harmless, *skipped_files(there, what)]
    return Collection(
        names=names,
        species=species,
        recordings=np.array([position[box[0]] for box in kept], np.int64),
        starts=np.array([box[1] for box in kept], np.float64),
        ends=np.array([box[2] for box in kept], np.float64),
        codes=[box[3] for box in kept],
        left_out=left_out,
    )


def _species(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line, row in table_rows(path, (CODE, SCIENTIFIC, COMMON), ORIGIN, filled=(CODE,)):
        code = row[CODE].strip()
        if code == UNIDENTIFIED:
            continue
        if code in found:
            got = f"'{code[:40]}' again in line {line}"
            raise wrong_layout(path, "one line per code", got, f"take it from {ORIGIN}")
        taxon = {"vernacularName": row.get(COMMON, ""), "scientificName": row.get(SCIENTIFIC, "")}
        if taxon["scientificName"]:
            taxon["genus"] = taxon["scientificName"].split()[0]
        found[code] = {column: name for column, name in taxon.items() if name}
        if not found[code]:
            raise LayoutError(
                f"{path}, line {line}: the species '{code[:40]}' has no name to ask for; take it "
                f"from {ORIGIN}",
                field="data",
            )
    if not found:
        raise wrong_layout(path, "species", "none", f"take it from {ORIGIN}")
    return found


_Box = tuple[str, float, float, str]


def _boxes(
    path: Path, species: Mapping[str, Mapping[str, str]]
) -> tuple[list[_Box], list[str], list[str]]:
    """The annotations that can be used, and sentences: on those that cannot, and on those that
    need not.
    """
    boxes: dict[_Box, None] = {}
    unknown: Counter[str] = Counter()
    never: list[int] = []
    unidentified = again = lines = 0
    for line, row in table_rows(path, (FILE, START, END, CODE), ORIGIN):
        lines += 1
        code = row[CODE].strip()
        start, end = _seconds(path, line, row[START]), _seconds(path, line, row[END])
        if code == UNIDENTIFIED:
            unidentified += 1
        elif code not in species:
            unknown[code] += 1
        elif not 0 <= start < end < math.inf:
            never.append(line)
        else:
            box = (row[FILE].strip(), start, end, code)
            again += box in boxes
            boxes[box] = None
    troubles = []
    if unknown:
        most = ", ".join(f"'{code[:40]}' ({count})" for code, count in unknown.most_common(_TOLD))
        more = f" and {len(unknown) - _TOLD} more codes" if len(unknown) > _TOLD else ""
        troubles.append(
            f"{some_of(unknown.total(), lines, 'annotation')} "
            f"{agreeing(unknown.total(), 'is of a code', 'are of codes')} that species.csv lacks: "
            f"{most}{more}"
        )
    if never:
        first = ", ".join(str(line) for line in never[:_TOLD])
        more = ", ..." if len(never) > _TOLD else ""
        bad = agreeing(len(never), "ends before it begins, or is", "end before they begin, or are")
        troubles.append(
            f"{some_of(len(never), lines, 'annotation')} {bad} at no time: "
            f"{agreeing(len(never), 'that in line', 'those in lines')} {first}{more}"
        )
    harmless = []
    if unidentified:
        mark = agreeing(unidentified, "marks a sound", "mark sounds")
        harmless.append(
            f"{some_of(unidentified, lines, 'annotation')} {mark} that the annotators could not "
            f"identify ({UNIDENTIFIED}); {agreeing(unidentified, 'it is', 'they are')} left out"
        )
    if again:
        repeat = agreeing(again, "repeats another and counts", "repeat others and count")
        harmless.append(f"{some_of(again, lines, 'annotation')} {repeat} once")
    return list(boxes), troubles, harmless


def _seconds(path: Path, line: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        got = f"{text[:40]!r} in line {line}"
        raise wrong_layout(path, "times in seconds", got, f"take it from {ORIGIN}") from None


def _recordings(folder: Path) -> list[str]:
    return [
        each.name
        for each in folder.iterdir()
        if each.suffix.lower() in SUFFIXES and each.is_file() and not each.name.startswith(".")
    ]


MIN_OVERLAP_S = 0.5
"""So many seconds of an annotation make a window right."""
_TOLERANCE_S = 1e-3  # spans are float32: 0.2 ms at the end of an hour


@dataclass(frozen=True)
class Annotations:
    """What was annotated, when, in which recording.

    Attributes:
        recordings: int64 [a], places of items.
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


def windows_as_items(
    task: Task,
    annotations: Annotations,
    owners: NDArray[np.int64],
    spans: NDArray[np.float32],
    *,
    min_overlap_s: float = MIN_OVERLAP_S,
) -> Task:
    """A task over windows, of one over recordings.

    Args:
        task: its items are recordings.
        annotations: of those recordings.
        owners: int64 [rows], the recording of each window, not falling.
        spans: float32 [rows, 2], start and end in seconds, rising within a recording.
        min_overlap_s: seconds of an annotation, or half of it, that a window needs.

    Returns:
        a task whose items are the windows, one per row, with ids such as ``dawn.flac#t=3,6``.
        Queries that no window answers are left out, and counted in `left_out`.

    Raises:
        InvalidInputError: the owners are no recordings of the task.
        QrelsError: nothing is left to ask.
    """
    if len(owners) and not (owners[0] >= 0 and owners[-1] < len(task.items)):
        raise InvalidInputError(
            f"windows belong to recordings {owners[0]} to {owners[-1]}, and {task.name} has "
            f"{len(task.items)}: they are of other data; embed these recordings again"
        )
    items = Items(
        ids=window_ids(task.items.ids, owners, spans),
        modality=task.items.modality,
        contents=Chosen(task.items.contents, owners),
        classes=np.full(len(owners), -1, np.int32),
        side=task.items.side,
    )
    classes, rows = _heard(annotations, owners, spans, min_overlap_s)
    rule = (
        f"Every window is an item, right for a species if it shares {min_overlap_s:g} s with one "
        "of its annotations, or half of it where that is less."
    )
    whole = replace(
        task,
        items=items,
        relevance=gathered(task.queries.classes, *unique_pairs(classes, rows)),
        notes=(*task.notes, rule),
        by_window=None,
    )
    return leave_out_unanswerable(whole)


def _heard(
    annotations: Annotations,
    owners: NDArray[np.int64],
    spans: NDArray[np.float32],
    min_overlap_s: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Pairs of a class and a window in which it is heard; a pair may come more than once."""
    starts, ends = spans.astype(np.float64).T
    # All recordings on one axis of time, each with its own stretch of it: windows of a recording
    # rise in both starts and ends, so those that an annotation touches stand together.
    latest = max([1.0, *(float(times.max()) for times in (ends, annotations.ends) if len(times))])
    stretch = 2.0 * latest
    mine = annotations.recordings * stretch
    first = np.searchsorted(owners * stretch + ends, mine + annotations.starts, "right")
    last = np.searchsorted(owners * stretch + starts, mine + annotations.ends, "left")
    touched = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(annotations)), touched)
    before = np.cumsum(touched) - touched
    rows = (np.arange(len(which)) - before[which] + first[which]).astype(np.int64)
    begin, end = annotations.starts[which], annotations.ends[which]
    shared = np.minimum(ends[rows], end) - np.maximum(starts[rows], begin)
    needed = np.minimum(min_overlap_s, (end - begin) / 2)
    enough = (shared >= needed - np.minimum(_TOLERANCE_S, needed / 2)) & (shared > 0)
    return annotations.classes[which][enough], rows[enough]


def unique_pairs(
    classes: NDArray[np.int32], items: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Pairs in order of class and item, none twice."""
    order = np.lexsort((items, classes))
    classes, items = classes[order], items[order]
    fresh = np.ones(len(items), np.bool_)
    fresh[1:] = (classes[1:] != classes[:-1]) | (items[1:] != items[:-1])
    return classes[fresh], items[fresh]


def gathered(
    queries: NDArray[np.int32], classes: NDArray[np.int32], items: NDArray[np.int64]
) -> Relevance:
    """Relevance where an item may have several classes.

    Args:
        queries: int32 [q], the class that each query asks for, -1 for none.
        classes: int32 [pairs], ascending.
        items: int64 [pairs], ascending within a class, none twice.
    """
    starts = np.searchsorted(classes, queries, "left")
    ends = np.where(queries < 0, starts, np.searchsorted(classes, queries, "right"))
    parts = [items[a:b] for a, b in zip(starts, ends, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
    found = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return Relevance(offsets, found, np.ones(len(found), np.int32))


_PAGE = "the collection's page on Zenodo (Kahl, Navine et al., 2022)"
PIECES = (
    DataFile(
        f"{FOLDER}/",
        "the recordings (FLAC)",
        f"{_PAGE}, {FOLDER}.zip, unpacked",
        "a few to some tens of GB, by collection",
    ),
    DataFile("annotations.csv", "one line per marked call", _PAGE, "a few MB"),
    DataFile("species.csv", "names of the species codes", _PAGE, "a few KB"),
)

ENCODERS_WINDOWS = (
    "Windows are cut as the encoder takes them, and which of them are right depends on where they "
    "are: two encoders with other windows are not ranked on the same items"
)


@dataclass(frozen=True)
class Fitting:
    """What systems are fitted on, from another data set, with its own classes.

    Attributes:
        training: its items and queries.
        classes: what its classes are, of the same rank as those of the soundscapes' task.
    """

    training: TrainingSplit
    classes: Classes


class Soundscapes(Suite):
    """Names of species against annotated soundscapes."""

    name = "soundscapes"
    about = (
        "Annotated soundscapes (collections of Kahl, Navine et al. on Zenodo, 2022): names of "
        "species against windows of long recordings"
    )
    layout: Sequence[DataFile] = PIECES
    needs_data = True
    measures: Sequence[str] = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is loaded. See `Suite.check`."""
        if protocol.database or protocol.fit_on == "training":
            raise InvalidInputError(
                "soundscapes have no published splits: leave out --database, and --fit-on items",
                field="database",
            )
        check_soundscapes(data, protocol)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """Names against windows and, unless each window is to be an item, against recordings.

        Raises:
            LayoutError: files are missing, or are not in the published layout.
            QrelsError: annotations that cannot be used.
            InvalidInputError: a split is asked for, or a rank that the species table has not.
        """
        self.check(data, protocol)
        root = check(data, self.layout, self.name)
        return soundscape_tasks(root, protocol) if {TEXT, AUDIO} <= towers else []


def check_soundscapes(data: Path | None, protocol: Protocol) -> None:
    """Refuse what cannot be run on a collection, before anything is loaded.

    Raises:
        LayoutError: files are missing.
        InvalidInputError: the protocol asks for a rank that species tables do not tell.
    """
    if protocol.level not in ("species", "genus"):
        raise InvalidInputError(
            f"the species of soundscapes come without their {protocol.level}; choose --level "
            "species or genus",
            field="level",
        )
    if protocol.prompts:
        check_templates(protocol.prompts)
    check(data, PIECES, Soundscapes.name)


def soundscape_tasks(
    data: Path, protocol: Protocol, *, fitting: Fitting | None = None, prefix: str = ""
) -> list[Task]:
    """The tasks of a collection.

    Args:
        data: its folder.
        protocol: how it is run.
        fitting: what systems are fitted on, if not on these recordings; queries are then told
            apart by whether their class is in it.
        prefix: of the tasks' names.

    Raises:
        LayoutError: files are missing, or are not in the published layout.
        QrelsError: annotations that cannot be used.
        InvalidInputError: the classes do not tell the level.
    """
    check_soundscapes(data, protocol)
    collection = read_collection(data, protocol)
    codes = {code: number for number, code in enumerate(collection.species)}
    labels = np.array([codes[code] for code in collection.codes], np.int32)
    task = _of_annotations(data, collection, labels, protocol)
    task = with_fallbacks(by_protocol(task, protocol, AUDIO_PROMPTS), protocol, AUDIO_PROMPTS)
    if fitting is not None:
        task = _fitted(task, fitting)
    whole, annotations = _of_recordings(task, data, collection)
    name = f"{prefix}text→audio, windows"
    windows = replace(whole, name=name, notes=(*whole.notes, ENCODERS_WINDOWS))
    windows = replace(windows, by_window=partial(windows_as_items, windows, annotations))
    if protocol.windows == "separate":
        return [windows]
    rule = (
        "A recording is right for a species that is annotated anywhere in it; it counts by the "
        f"{protocol.windows} over its windows."
    )
    recordings = replace(whole, name=f"{prefix}text→audio, recordings", notes=(*whole.notes, rule))
    return [windows, recordings]


def _of_annotations(
    data: Path,
    collection: Collection,
    labels: NDArray[np.int32],
    protocol: Protocol,
) -> Task:
    """The task with every annotation as an item: these have one class each, recordings many."""
    classes = _classes(collection)
    media = MediaFiles(data / FOLDER, collection.names, collection.names, AUDIO)
    owners = collection.recordings
    queries = text_queries(classes, np.arange(len(collection.species)), protocol, AUDIO_PROMPTS)
    return Task(
        name=f"{TEXT}→{AUDIO}",
        queries=queries,
        items=Items(Chosen(media.ids, owners), AUDIO, Chosen(media, owners), labels, AUDIO),
        relevance=Relevance.by_class(queries.classes, labels),
        classes=classes,
        left_out=collection.left_out,
        notes=[
            prompts_note(protocol, AUDIO_PROMPTS),
            f"{counted(len(collection.names), 'recording')} with "
            f"{counted(len(labels), 'annotation')} of {len(np.unique(labels)):,} species; a "
            "stretch may be of several at once.",
        ],
    )


def _of_recordings(task: Task, data: Path, collection: Collection) -> tuple[Task, Annotations]:
    """The same with recordings as items, and its annotations with the classes that it came to."""
    classes = task.items.classes
    labelled = classes >= 0
    annotations = Annotations(
        recordings=collection.recordings[labelled],
        starts=collection.starts[labelled],
        ends=collection.ends[labelled],
        classes=classes[labelled],
    )
    media = MediaFiles(data / FOLDER, collection.names, collection.names, AUDIO)
    items = Items(
        ids=collection.names,
        modality=AUDIO,
        contents=media,
        classes=np.full(len(media), -1, np.int32),
        side=AUDIO,
    )
    pairs = unique_pairs(annotations.classes, annotations.recordings)
    relevance = gathered(task.queries.classes, *pairs)
    return replace(task, items=items, relevance=relevance), annotations


def _classes(collection: Collection) -> Classes:
    taxa = [{"kingdom": "Animalia", **taxon} for taxon in collection.species.values()]
    names = [taxon.get("vernacularName") or taxon["scientificName"] for taxon in taxa]
    return Classes(names, taxa)


def _fitted(task: Task, fitting: Fitting) -> Task:
    """The task with what systems are fitted on, its queries told apart by whether that has them.

    Classes are the same where their scientific names are; those that only the other data set has
    come behind the task's own.
    """
    names, taxa = list(task.classes.names), list(task.classes.taxa)
    known = {_scientific(taxon): position for position, taxon in enumerate(taxa)}
    known.pop("", None)
    position = np.empty(len(fitting.classes), np.int32)
    for number, taxon in enumerate(fitting.classes.taxa):
        same = known.get(_scientific(taxon))
        position[number] = len(names) if same is None else same
        if same is None:
            names.append(fitting.classes.names[number])
            taxa.append(taxon)
    classes = fitting.training.items.classes
    items = replace(
        fitting.training.items, classes=np.where(classes < 0, np.int32(-1), position[classes])
    )
    queries = replace(fitting.training.queries, classes=position[fitting.training.queries.classes])
    # Here seen is what the training part has, not a split of this run's own.
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
