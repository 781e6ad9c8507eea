"""iNatSounds 2024 (Chasmai et al., NeurIPS 2024, arXiv 2506.00343): species' names against sounds.

The data set's own main figure is the mean over species of the average precision of all recordings
of a split; asked by name, that is `AP` here, with one query per species. Its evaluation asks for
1,212 of its 5,569 species, those that `evaluation` marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import check, check_files, left_out_files
from bittern.benchmarks.eval.prompts import (
    AUDIO_PROMPTS,
    asked_in_words,
    check_templates,
    told_prompts,
    with_fallbacks,
)
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.splits import by_protocol
from bittern.benchmarks.eval.suites.base import Piece, Suite
from bittern.benchmarks.eval.suites.inatsounds_files import Category, Split, read_split
from bittern.benchmarks.eval.suites.media_files import MediaFiles
from bittern.benchmarks.eval.suites.soundscapes import (
    Fitting,
    check_soundscapes,
    soundscape_tasks,
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
from bittern.errors import InvalidInputError, LayoutError
from bittern.text import agreeing, some_of

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


def _pieces(split: str, *, optional: bool) -> tuple[Piece, Piece]:
    recordings, size, table = _SIZES[split]
    return (
        Piece(
            f"{split}.json",
            f"annotations of the {split} split",
            f"{ORIGIN}, {split}.json.tar.gz, unpacked",
            f"{table} packed",
            optional,
        ),
        Piece(
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
    pieces: Sequence[Piece] = (
        *_pieces("test", optional=False),
        *_pieces("val", optional=True),
        *_pieces("train", optional=True),
    )
    needs_data = True
    measures: Sequence[str] = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Refuse what cannot be run before anything is loaded: of the splits, only those that are
        used must be there. See `Suite.check`.
        """
        _checked(data, protocol)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """Names of the evaluated species against the split ``protocol.database``, else ``test``;
        against soundscapes as well where the protocol names some.

        Raises:
            LayoutError: pieces are missing, or are not in the published layout.
            QrelsError: annotations that cannot be used.
            InvalidInputError: there is no such split, or it is what systems are to be fitted on.
        """
        root = _checked(data, protocol)
        if not {TEXT, AUDIO} <= towers:
            return []
        lenient = protocol.unknown == "skip"
        told = [read_split(root, split, lenient=lenient) for split in _used(protocol)]
        return _tasks(root, told, protocol)


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
    wanted = [piece for each in (split, *fitted) for piece in _pieces(each, optional=False)]
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
    place = {number: row for row, number in enumerate(numbers)}
    searched = splits[0]
    items, left_out = _items(root, searched, categories, place, protocol)
    evaluated = np.array([categories[number].evaluated for number in numbers], np.bool_)
    asked = asked_in_words(classes, np.flatnonzero(evaluated), protocol, AUDIO_PROMPTS)
    training = None
    if len(splits) > 1:
        training, more = _training(root, splits[1], categories, place, classes, protocol)
        left_out += more
    notes = [f"The {searched.name} split is searched. {_told_evaluated(classes, evaluated)}"]
    notes.append(told_prompts(protocol, AUDIO_PROMPTS))
    notes.append(f"{_BY_WINDOWS[protocol.windows]}; others report averages over a file's windows")
    task = Task(
        name="text→audio",
        asked=asked,
        items=items,
        relevance=Relevance.by_class(asked.classes, items.classes),
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
    told = (
        f"{some_of(number, len(classes), 'species', 'species')} {agreeing(number, 'is', 'are')} "
        "asked for, which the data set marks for evaluation"
    )
    others = [classes.names[i] for i in np.flatnonzero(~evaluated).tolist()]
    more = ", ..." if len(others) > _NAMED else ""
    first = f"{', '.join(others[:_NAMED])}{more}"
    return f"{told}; recordings of the others are searched as well ({first})" if others else told


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
    place: Mapping[int, int],
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
    classes: NDArray[np.int32] = np.array([place[label] for label in labels], np.int32)
    items = Items(ids, AUDIO, media, classes, AUDIO, splits=[split.name] * len(ids))
    return items, [*split.left_out, *left_out_files(there, what)]


def _training(
    root: Path,
    split: Split,
    categories: Mapping[int, Category],
    place: Mapping[int, int],
    classes: Classes,
    protocol: Protocol,
) -> tuple[TrainingPart, list[str]]:
    """The recordings of the training split, and the names of all their species."""
    items, left_out = _items(root, split, categories, place, protocol)
    queries = asked_in_words(classes, np.unique(items.classes), protocol, AUDIO_PROMPTS)
    return TrainingPart(items, queries), [f"Of the training split: {told}" for told in left_out]
