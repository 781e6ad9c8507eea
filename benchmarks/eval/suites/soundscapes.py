"""Annotated soundscapes: names of species against long recordings, and windows of them.

Recordings with every call marked are the hard case of searching sounds: most of an hour is silence
or another species. The layout is that of the collections on Zenodo (`soundscapes_files`); what of
a recording is right is decided window by window (`soundscapes_windows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import check
from bittern.benchmarks.eval.prompts import (
    AUDIO_PROMPTS,
    asked_in_words,
    check_templates,
    told_prompts,
    with_fallbacks,
)
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.splits import NOVEL, SEEN, Chosen, by_protocol
from bittern.benchmarks.eval.suites.base import Piece, Suite
from bittern.benchmarks.eval.suites.media_files import MediaFiles
from bittern.benchmarks.eval.suites.soundscapes_files import (
    FOLDER,
    Collection,
    read_collection,
)
from bittern.benchmarks.eval.suites.soundscapes_windows import (
    Annotations,
    gathered,
    unique_pairs,
    windows_as_items,
)
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    TEXT,
    Classes,
    Items,
    Relevance,
    Task,
    TrainingPart,
)
from bittern.errors import InvalidInputError
from bittern.text import counted

_PAGE = "the collection's page on Zenodo (Kahl, Navine et al., 2022)"
PIECES = (
    Piece(
        f"{FOLDER}/",
        "the recordings (FLAC)",
        f"{_PAGE}, {FOLDER}.zip, unpacked",
        "a few to some tens of GB, by collection",
    ),
    Piece("annotations.csv", "one line per marked call", _PAGE, "a few MB"),
    Piece("species.csv", "names of the species codes", _PAGE, "a few KB"),
)

ENCODERS_WINDOWS = (
    "Windows are cut as the encoder takes them, and which of them are right depends on where they "
    "are: two encoders with other windows are not ranked on the same items"
)


@dataclass(frozen=True)
class Fitting:
    """What systems are fitted on, from another data set, with its own classes.

    Attributes:
        part: its items and queries.
        classes: what its classes are, of the same rank as those of the soundscapes' task.
    """

    part: TrainingPart
    classes: Classes


class Soundscapes(Suite):
    """Names of species against annotated soundscapes."""

    name = "soundscapes"
    about = (
        "Annotated soundscapes (collections of Kahl, Navine et al. on Zenodo, 2022): names of "
        "species against windows of long recordings"
    )
    pieces: Sequence[Piece] = PIECES
    needs_data = True
    measures: Sequence[str] = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Refuse what cannot be run before anything is loaded. See `Suite.check`."""
        if protocol.database or protocol.fit_on == "training":
            raise InvalidInputError(
                "soundscapes have no published splits: leave out --database, and --fit-on items",
                field="database",
            )
        check_soundscapes(data, protocol)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """Names against windows and, unless each window is to be an item, against recordings.

        Raises:
            LayoutError: pieces are missing, or are not in the published layout.
            QrelsError: annotations that cannot be used.
            InvalidInputError: a split is asked for, or a rank that the species table has not.
        """
        self.check(data, protocol)
        root = check(data, self.pieces, self.name)
        return soundscape_tasks(root, protocol) if {TEXT, AUDIO} <= towers else []


def check_soundscapes(data: Path | None, protocol: Protocol) -> None:
    """Refuse what cannot be run on a collection, before anything is loaded.

    Raises:
        LayoutError: pieces are missing.
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
        LayoutError: pieces are missing, or are not in the published layout.
        QrelsError: annotations that cannot be used.
        InvalidInputError: the classes do not tell the level.
    """
    check_soundscapes(data, protocol)
    collection = read_collection(data, protocol)
    codes = {code: number for number, code in enumerate(collection.species)}
    labels = np.array([codes[code] for code in collection.codes], np.int32)
    told = _of_annotations(data, collection, labels, protocol)
    told = with_fallbacks(by_protocol(told, protocol, AUDIO_PROMPTS), protocol, AUDIO_PROMPTS)
    if fitting is not None:
        told = _fitted(told, fitting)
    whole, annotations = _of_recordings(told, data, collection)
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
    asked = asked_in_words(classes, np.arange(len(collection.species)), protocol, AUDIO_PROMPTS)
    return Task(
        name=f"{TEXT}→{AUDIO}",
        asked=asked,
        items=Items(Chosen(media.ids, owners), AUDIO, Chosen(media, owners), labels, AUDIO),
        relevance=Relevance.by_class(asked.classes, labels),
        classes=classes,
        left_out=collection.left_out,
        notes=[
            told_prompts(protocol, AUDIO_PROMPTS),
            f"{counted(len(collection.names), 'recording')} with "
            f"{counted(len(labels), 'annotation')} of {len(np.unique(labels)):,} species; a "
            "stretch may be of several at once.",
        ],
    )


def _of_recordings(task: Task, data: Path, collection: Collection) -> tuple[Task, Annotations]:
    """The same with recordings as items, and its annotations with the classes that it came to."""
    classes = task.items.classes
    told = classes >= 0
    annotations = Annotations(
        recordings=collection.recordings[told],
        starts=collection.starts[told],
        ends=collection.ends[told],
        classes=classes[told],
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
    relevance = gathered(task.asked.classes, *pairs)
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
    known = {_scientific(taxon): place for place, taxon in enumerate(taxa)}
    known.pop("", None)
    place = np.empty(len(fitting.classes), np.int32)
    for number, taxon in enumerate(fitting.classes.taxa):
        same = known.get(_scientific(taxon))
        place[number] = len(names) if same is None else same
        if same is None:
            names.append(fitting.classes.names[number])
            taxa.append(taxon)
    told = fitting.part.items.classes
    items = replace(fitting.part.items, classes=np.where(told < 0, np.int32(-1), place[told]))
    queries = replace(fitting.part.queries, classes=place[fitting.part.queries.classes])
    # Here seen is what the training part has, not a split of this run's own.
    seen = np.isin(task.asked.classes, items.classes)
    groups = {SEEN: seen, NOVEL: ~seen}
    return replace(
        task,
        classes=Classes(names, taxa),
        training=TrainingPart(items, queries),
        groups={name: group for name, group in groups.items() if group.any()},
    )


def _scientific(taxon: Mapping[str, str]) -> str:
    return taxon.get("scientificName", "").lower()
