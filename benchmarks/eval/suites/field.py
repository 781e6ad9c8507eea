"""The sample that ships with Bittern, or any labelled manifest.

Queries are the labels as plain words (text→image, text→audio), and recordings whose label some
picture has (audio→image). Items with the same label are relevant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import bittern
from bittern.benchmarks.eval.suites.base import DataFile, Limit, Missing, Pair, Suite, described
from bittern.benchmarks.eval.suites.species import SpeciesTask, as_queries
from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, TEXT, Classes, Items, Protocol, Task
from bittern.benchmarks.eval.tasks.prompts import VERBATIM
from bittern.errors import BitternError, LayoutError, LimitExceededError
from bittern.service.sources import read_source
from bittern.text import agreeing, counted, first_few, some_of
from bittern.types import MediaItem

MAX_ITEMS = 1_000_000
"""Most entries: they are kept in memory."""
_SHOWN = 3
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
    pairs = ((TEXT, IMAGE), (TEXT, AUDIO), (AUDIO, IMAGE))

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

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """Those of text→image, text→audio and audio→image that the labels allow."""
        media, left_out = _labelled(root, protocol.missing)
        tasks = [
            _task(media[by] if by != TEXT else None, media[target], left_out, protocol)
            for by, target in pairs
            if media[target]
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
    recordings: Sequence[MediaItem] | None,
    media: Sequence[MediaItem],
    left_out: Sequence[str],
    protocol: Protocol,
) -> Task | None:
    """Labels, or recordings, against media; None where no recording has the label of a medium."""
    names = sorted({_label(item) for item in media})
    numbers = {name: number for number, name in enumerate(names)}
    task = SpeciesTask(
        classes=Classes(names, _taxa(names, media)),
        items=media_items(media, [numbers[_label(item)] for item in media]),
        protocol=protocol,
        prompts=VERBATIM,
        left_out=left_out,
        notes=["Items with the same label are relevant"],
    )
    if recordings is None:
        return task.task()
    queries = [item for item in recordings if _label(item) in numbers]
    if not queries:
        return None
    if gone := [item.media for item in recordings if _label(item) not in numbers]:
        have = agreeing(
            len(gone),
            "has a label that no picture has, and was",
            "have labels that no picture has, and were",
        )
        of = some_of(len(gone), len(recordings), "recording")
        task = replace(task, left_out=(*left_out, f"{of} {have} left out ({first_few(gone)})"))
    labelled = media_items(queries, [numbers[_label(item)] for item in queries])
    return replace(task, queries=as_queries(labelled)).task()


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


def media_items(media: Sequence[MediaItem], classes: Sequence[int] | None = None) -> Items:
    """Media of one modality as items, with their classes if they have any."""
    numbers = [-1] * len(media) if classes is None else classes
    ids, modality = [item.occurrence_id for item in media], media[0].modality
    return Items(ids, modality, media, np.array(numbers, np.int32), modality)


def listed_media(path: Path, missing: Missing) -> tuple[list[MediaItem], list[str]]:
    """The usable entries of a source, and sentences on what was left out.

    Args:
        path: a folder, a manifest, or a file of another format of `bittern.service.sources`.
        missing: whether an unusable entry (its file is missing, say) ends the run.

    Raises:
        LayoutError: it cannot be read, or has unusable entries that may not be skipped.
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
    if not unusable:
        return media, []
    entries, first = counted(len(unusable), "entry", "entries"), "; ".join(unusable[:_SHOWN])
    if missing == "error":
        them = agreeing(len(unusable), "it", "them")
        raise LayoutError(
            f"{entries} of {path} cannot be used: {first}; mend {them}, or leave {them} out with "
            "--missing skip",
            field="data",
        )
    was = agreeing(len(unusable), "was", "were")
    return media, [f"{entries} of {path.name} cannot be used and {was} left out ({first})"]
