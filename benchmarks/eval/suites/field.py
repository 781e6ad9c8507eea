"""The sample that ships with Bittern, or any labelled manifest.

Queries are the labels as plain words (text→image, text→audio), and recordings whose label some
picture has (audio→image). Items with the same label are relevant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bittern
from bittern.benchmarks.eval.suites.base import (
    RECORDING_QUERIES,
    DataFile,
    Missing,
    Suite,
    check_options,
    described,
)
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    IMAGE,
    TEXT,
    Classes,
    Items,
    Protocol,
    QuerySet,
    Relevance,
    Task,
)
from bittern.benchmarks.eval.tasks.prompts import (
    prompts_note,
    text_queries,
    with_fallbacks,
)
from bittern.benchmarks.eval.tasks.splits import leave_out_unanswerable
from bittern.errors import BitternError, LayoutError, LimitExceededError
from bittern.service.sources import read_source
from bittern.text import agreeing, counted, some_of
from bittern.types import MediaItem

MAX_ITEMS = 1_000_000
"""Most entries: they are kept in memory."""
_NAMED = 3


def listed_media(path: Path, missing: Missing) -> tuple[list[MediaItem], list[str]]:
    """The usable entries, and sentences on what was left out.

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


PROMPTS = ("{name}",)
"""The label as it is."""
MANIFEST = "manifest.csv"
SAMPLE = Path(bittern.__file__).parent / "sample" / MANIFEST
"""The sample media that ship with Bittern."""


class FieldSuite(Suite):
    """A labelled manifest; the shipped sample where none is given."""

    name = "field"
    about = "Bittern's sample archive (85 photographs, 26 recordings), or any labelled manifest"
    layout: Sequence[DataFile] = (
        DataFile(
            MANIFEST,
            "a manifest with the columns media and label; --data may name the file itself",
            "Bittern itself (bittern/sample) where --data is not given",
            "3 MB with its media",
        ),
    )
    needs_data = False
    measures: Sequence[str] = ("AP", "R-prec", "hit@5", "MRR", "nDCG@10")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is read.

        Raises:
            LayoutError: there is no manifest.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        _check_protocol(protocol)
        self._manifest(data)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """Those of text→image, text→audio and audio→image that the model and the labels allow.

        Raises:
            LayoutError: there is no manifest, it cannot be read, has no labels, or rows of no use
                (unless the protocol skips those).
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        self.check(data, protocol)
        manifest = self._manifest(data)
        listed = _listed(manifest, protocol)
        found = []
        for by, target in ((TEXT, IMAGE), (TEXT, AUDIO), (AUDIO, IMAGE)):
            items = listed.labelled(target)
            if {by, target} <= towers and items:
                queries = [] if by == TEXT else listed.labelled(by)
                if by == TEXT or _answerable(queries, items):
                    found.append(_task(by, target, queries, items, listed.left_out, protocol))
        return found

    def _manifest(self, data: Path | None) -> Path:
        if data is None:
            return SAMPLE
        path = data / MANIFEST if data.is_dir() else data
        if not path.is_file():
            state = "lacks the manifest of field" if data.is_dir() else "does not exist"
            raise LayoutError(
                f"{data} {state}:\n  {described(self.layout[0])}\nPut it there, or leave --data "
                "out for the sample",
                field="data",
            )
        return path


def _check_protocol(protocol: Protocol) -> None:
    check_options(
        "field",
        "its classes are the manifest's labels, and all of its items are ranked",
        protocol,
        {
            "level": protocol.level != "species",
            "novel": protocol.novel != "none",
            "database": bool(protocol.database),
            "soundscapes": bool(protocol.soundscapes),
        },
    )


@dataclass(frozen=True)
class _Listed:
    """What a manifest lists, in its order."""

    media: Sequence[MediaItem]
    left_out: Sequence[str]

    def labelled(self, modality: str) -> list[MediaItem]:
        """The photographs, or the recordings, that have a label."""
        return [item for item in self.media if item.modality == modality and _label(item)]


def _label(item: MediaItem) -> str:
    return str(item.metadata.get("label") or "").strip()


def _listed(manifest: Path, protocol: Protocol) -> _Listed:
    media, left_out = listed_media(manifest, protocol.missing)
    unlabelled = sum(not _label(item) for item in media)
    if unlabelled == len(media):
        raise LayoutError(
            f"{manifest} has no column 'label' with relevance classes; add one", field="data"
        )
    if unlabelled:
        have = agreeing(unlabelled, "has no label and is", "have no label and are")
        left_out.append(f"{counted(unlabelled, 'item')} {have} not ranked")
    return _Listed(media, left_out)


def _answerable(queries: Sequence[MediaItem], items: Sequence[MediaItem]) -> list[MediaItem]:
    labels = {_label(item) for item in items}
    return [query for query in queries if _label(query) in labels]


def _task(
    by: str,
    target: str,
    queries: Sequence[MediaItem],
    items: Sequence[MediaItem],
    left_out: Sequence[str],
    protocol: Protocol,
) -> Task:
    names = sorted({_label(item) for item in items})
    position = {name: number for number, name in enumerate(names)}
    classes = Classes(names, _taxa(names, items))
    ranked = _items(items, target, position)
    sentences = list(left_out)
    if by == TEXT:
        questions = text_queries(classes, np.arange(len(names)), protocol, PROMPTS)
    else:
        answerable = _answerable(queries, items)
        if len(answerable) < len(queries):
            gone = [item for item in queries if item not in answerable]
            have = agreeing(
                len(gone),
                "has a label that no picture has, and is",
                "have labels that no picture has, and are",
            )
            first = ", ".join(item.media for item in gone[:_NAMED])
            more = ", ..." if len(gone) > _NAMED else ""
            sentences.append(
                f"{some_of(len(gone), len(queries), 'recording')} {have} not asked ({first}{more})"
            )
        questions = _recordings(answerable, by, position)
    task = Task(
        name=f"{by}→{target}",
        queries=questions,
        items=ranked,
        relevance=Relevance.by_class(questions.classes, ranked.classes),
        classes=classes,
        left_out=tuple(sentences),
        notes=(
            "What has the same label is relevant",
            prompts_note(protocol, PROMPTS) if by == TEXT else RECORDING_QUERIES,
        ),
    )
    if by == TEXT:
        task = with_fallbacks(task, protocol, PROMPTS)
    return leave_out_unanswerable(task)


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


def _items(media: Sequence[MediaItem], modality: str, position: dict[str, int]) -> Items:
    return Items(
        ids=[item.occurrence_id for item in media],
        modality=modality,
        contents=media,
        classes=np.array([position[_label(item)] for item in media], np.int32),
        side=modality,
    )


def _recordings(media: Sequence[MediaItem], modality: str, position: dict[str, int]) -> QuerySet:
    return QuerySet(
        ids=[item.occurrence_id for item in media],
        modality=modality,
        contents=media,
        classes=np.array([position[_label(item)] for item in media], np.int32),
        side=modality,
    )
