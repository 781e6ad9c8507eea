"""The sample that ships with Bittern, or any labelled manifest.

Queries are the labels as plain words (text→image, text→audio), and recordings whose label some
picture has (audio→image). Items with the same label are relevant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import bittern
from bittern.benchmarks.eval.suites.base import DataFile, Limit, Missing, Suite, described
from bittern.benchmarks.eval.suites.species import SpeciesTask, as_queries
from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, TEXT, Classes, Items, Protocol, Task
from bittern.benchmarks.eval.tasks.prompts import VERBATIM
from bittern.errors import BitternError, LayoutError, LimitExceededError
from bittern.service.sources import read_source
from bittern.text import agreeing, counted, some_of
from bittern.types import MediaItem

MAX_ITEMS = 1_000_000
"""Most entries: they are kept in memory."""
_NAMED = 3
_MANIFEST = "manifest.csv"
SAMPLE = Path(bittern.__file__).parent / "sample" / _MANIFEST
"""The sample media that ship with Bittern."""
_LABELS = "its classes are the manifest's labels, and all of its items are ranked"


class FieldSuite(Suite):
    """A labelled manifest; the shipped sample where none is given."""

    name = "field"
    about = "Bittern's sample archive (85 photographs, 26 recordings), or any labelled manifest"
    layout = (
        DataFile(
            _MANIFEST,
            "a manifest with the columns media and label; --data may name the file itself",
            "Bittern itself (bittern/sample) where --data is not given",
            "3 MB with its media",
        ),
    )
    limits = tuple(Limit(name, _LABELS) for name in ("level", "novel", "database", "soundscapes"))
    needs_data = False
    measures = ("AP", "R-prec", "hit@5", "MRR", "nDCG@10")

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The manifest."""
        if data is None:
            return SAMPLE
        path = data / _MANIFEST if data.is_dir() else data
        if not path.is_file():
            state = "lacks the manifest of field" if data.is_dir() else "does not exist"
            raise LayoutError(
                f"{data} {state}:\n  {described(self.layout[0])}\nPut it there, or leave --data "
                "out for the sample",
                field="data",
            )
        return path

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """Those of text→image, text→audio and audio→image that the model and the labels allow."""
        self.check_options(protocol)
        media, left_out = _labelled(self.folder(data, protocol), protocol.missing)
        tasks = [
            _task(by, media[by] if by != TEXT else [], media[target], left_out, protocol)
            for by, target in ((TEXT, IMAGE), (TEXT, AUDIO), (AUDIO, IMAGE))
            if {by, target} <= towers and media[target]
        ]
        return [task for task in tasks if task is not None]


def _labelled(manifest: Path, missing: Missing) -> tuple[dict[str, list[MediaItem]], list[str]]:
    """The photographs and the recordings that have a label, and sentences on the others."""
    media, left_out = listed_media(manifest, missing)
    unlabelled = sum(not _label(item) for item in media)
    if unlabelled == len(media):
        raise LayoutError(
            f"{manifest} has no column 'label' with relevance classes; add one", field="data"
        )
    if unlabelled:
        have = agreeing(unlabelled, "has no label and is", "have no label and are")
        left_out.append(f"{counted(unlabelled, 'item')} {have} not ranked")
    return {
        modality: [item for item in media if item.modality == modality and _label(item)]
        for modality in (IMAGE, AUDIO)
    }, left_out


def _label(item: MediaItem) -> str:
    return str(item.metadata.get("label") or "").strip()


def _task(
    by: str,
    queries: Sequence[MediaItem],
    items: Sequence[MediaItem],
    left_out: Sequence[str],
    protocol: Protocol,
) -> Task | None:
    """One task; None where no recording has the label of a picture."""
    names = sorted({_label(item) for item in items})
    numbers = {name: number for number, name in enumerate(names)}
    task = SpeciesTask(
        classes=Classes(names, _taxa(names, items)),
        items=_items(items, numbers),
        protocol=protocol,
        prompts=VERBATIM,
        left_out=left_out,
        notes=["What has the same label is relevant"],
    )
    if by == TEXT:
        return task.task()
    recordings = _items(queries, numbers) if queries else None
    if recordings is None or (recordings.classes < 0).all():
        return None
    gone = [item.media for item in queries if _label(item) not in numbers]
    if gone:
        have = agreeing(
            len(gone),
            "has a label that no picture has, and is",
            "have labels that no picture has, and are",
        )
        first = ", ".join(gone[:_NAMED]) + (", ..." if len(gone) > _NAMED else "")
        sentence = f"{some_of(len(gone), len(queries), 'recording')} {have} not asked ({first})"
        task = replace(task, left_out=(*left_out, sentence))
        recordings = recordings.only(np.flatnonzero(recordings.classes >= 0))
    return replace(task, queries=as_queries(recordings)).task()


def _items(media: Sequence[MediaItem], numbers: Mapping[str, int]) -> Items:
    classes = np.array([numbers.get(_label(item), -1) for item in media], np.int32)
    modality = media[0].modality
    return Items([item.occurrence_id for item in media], modality, media, classes, modality)


def _taxa(names: Sequence[str], items: Sequence[MediaItem]) -> list[dict[str, str]]:
    """The labels as common names, and the scientific name where all items of a label have one."""
    scientific: dict[str, set[str]] = {name: set() for name in names}
    for item in items:
        scientific[_label(item)].add(str(item.metadata.get("scientificName") or ""))
    taxa = []
    for name in names:
        own = scientific[name].pop() if len(scientific[name]) == 1 else ""
        taxa.append({"vernacularName": name} | ({"scientificName": own} if own else {}))
    return taxa


def listed_media(path: Path, missing: Missing) -> tuple[list[MediaItem], list[str]]:
    """The usable entries of a source, and sentences on what was left out.

    Args:
        path: a folder, a manifest, or a file of another format of `bittern.service.sources`.
        missing: whether an entry of no use (its file is not there, say) ends it.

    Raises:
        LayoutError: it cannot be read, or has entries of no use that may not be skipped.
        LimitExceededError: more than 1,000,000 entries.
    """
    media: list[MediaItem] = []
    unusable: list[str] = []
    try:
        for entry in read_source(path):
            if len(media) + len(unusable) >= MAX_ITEMS:
                raise LimitExceededError(
                    f"{path} lists more than {MAX_ITEMS:,} items, which is the limit; index them "
                    "and give the archive to the suite custom, which takes one of any size",
                    field="data",
                )
            if isinstance(entry, MediaItem):
                media.append(entry)
            else:
                unusable.append(entry.message or f"{entry.occurrence_id} is {entry.status}")
    except LimitExceededError:
        raise
    except BitternError as error:
        raise LayoutError(error.message, field="data") from error
    first = "; ".join(unusable[:_NAMED])
    if unusable and missing == "error":
        raise LayoutError(
            f"{counted(len(unusable), 'entry', 'entries')} of {path} cannot be used: {first}; mend "
            f"{(them := agreeing(len(unusable), 'it', 'them'))}, or leave {them} out with "
            "--missing skip",
            field="data",
        )
    entries = counted(len(unusable), "entry", "entries")
    was = agreeing(len(unusable), "was", "were")
    sentences = [f"{entries} of {path.name} cannot be used and {was} left out ({first})"]
    return media, sentences if unusable else []
