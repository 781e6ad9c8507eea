"""SSW60 (Van Horn et al., ECCV 2022, arXiv 2207.10664): 60 birds by name, by sound and by sight.

What is right is of the same species: recordings and photographs are of different birds. The data
set was made to classify videos, so those who retrieve in it choose their own protocols, and
figures compare only where split and photographs are the same. ``protocol.database`` says both:
the photographs ``inat``, ``nabirds`` or ``both``, the split, or both with a colon between them;
``both:test`` unless told otherwise. Queries by photograph or recording are always of the test
split. The videos are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import check, found
from bittern.benchmarks.eval.prompts import (
    AUDIO_PROMPTS,
    IMAGE_PROMPTS,
    asked_in_words,
    check_templates,
    told_prompts,
)
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.splits import by_protocol
from bittern.benchmarks.eval.suites.base import Piece, Suite
from bittern.benchmarks.eval.suites.media_files import ASKED_BY_RECORDING, MediaFiles
from bittern.benchmarks.eval.suites.ssw60_files import (
    Assets,
    read_assets,
    read_taxa,
    with_files,
)
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    IMAGE,
    TEXT,
    Asked,
    Classes,
    Items,
    Relevance,
    Task,
    TrainingPart,
)
from bittern.errors import InvalidInputError

SETS: dict[str, Sequence[str]] = {"inat": ("images_inat",), "nabirds": ("images_nabirds",)}
SETS["both"] = ("images_inat", "images_nabirds")
PAIRS = ((AUDIO, IMAGE), (TEXT, AUDIO), (TEXT, IMAGE), (IMAGE, AUDIO))
"""What is asked with, and what is searched."""
_QUERY_SPLIT = "test"
_ARCHIVE = "ssw60.tar.gz, 31 GB with its videos (visipedia/ssw60)"
_TAXA = Piece("taxa.csv", "names of the 60 species", _ARCHIVE, "a few KB")
_PIECES = {
    "audio_ml": (
        Piece("audio_ml.csv", "split and species of each recording", _ARCHIVE, "under 1 MB"),
        Piece("audio_ml/", "3,861 recordings, WAV 22.05 kHz", _ARCHIVE, "about 1.7 GB"),
    ),
    "images_inat": (
        Piece("images_inat.csv", "split and species of each photograph", _ARCHIVE, "about 1 MB"),
        Piece("images_inat/", "21,600 photographs of iNat2021", _ARCHIVE, "a few GB"),
    ),
    "images_nabirds": (
        Piece("images_nabirds.csv", "split and species of each photograph", _ARCHIVE, "under 1 MB"),
        Piece("images_nabirds/", "10,221 photographs of NABirds", _ARCHIVE, "a few GB"),
    ),
}


class SSW60(Suite):
    """Sounds, photographs and names of 60 birds against each other."""

    name = "ssw60"
    about = (
        "SSW60 (arXiv 2207.10664): recordings, photographs and names of 60 birds against each other"
    )
    pieces: Sequence[Piece] = (_TAXA, *(piece for pair in _PIECES.values() for piece in pair))
    needs_data = True
    measures: Sequence[str] = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Refuse what cannot be run before anything is loaded.

        What a model has towers for is not known yet, so either the recordings or the photographs
        that are chosen may be wholly absent; `tasks` misses them if they are wanted after all.

        Raises:
            LayoutError: pieces are missing without which no task can be run.
            InvalidInputError: the protocol asks for what this suite has not.
        """
        sets, _ = _database(protocol)
        if protocol.prompts:
            check_templates(protocol.prompts)
        kinds = [_PIECES["audio_ml"], [piece for table in SETS[sets] for piece in _PIECES[table]]]
        if data is not None and data.is_dir():
            some = [kind for kind in kinds if any(found(data, piece) for piece in kind)]
            kinds = some or kinds
        check(data, [_TAXA, *(piece for kind in kinds for piece in kind)], self.name)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """audio→image, text→audio, text→image and image→audio, as far as there are towers.

        Raises:
            LayoutError: pieces are missing, or are not in the published layout.
            QrelsError: labels that are not in ``taxa.csv``.
            InvalidInputError: there are no such photographs or no such split, or they are what
                systems are to be fitted on.
        """
        sets, split = _database(protocol)
        pairs = [pair for pair in PAIRS if towers.issuperset(pair)]
        used = {modality for pair in pairs or PAIRS for modality in pair}
        tables = [
            *(["audio_ml"] if AUDIO in used else []),
            *(SETS[sets] if IMAGE in used else []),
        ]
        root = check(data, [_TAXA, *(p for t in tables for p in _PIECES[t])], self.name)
        if not pairs:
            return []
        taxa = read_taxa(root)
        classes = Classes([taxon["vernacularName"] for taxon in taxa], taxa)
        world = _World(root, classes, sets, split, protocol)
        if AUDIO in used:
            world.assets[AUDIO] = world.read(["audio_ml"])
        if IMAGE in used:
            world.assets[IMAGE] = world.read(SETS[sets])
        return [by_protocol(world.task(*pair), protocol) for pair in pairs]


def _database(protocol: Protocol) -> tuple[str, str]:
    """The photographs and the split that are searched."""
    parts = [part for part in protocol.database.split(":") if part]
    sets = [part for part in parts if part in SETS]
    splits = [part for part in parts if part not in SETS]
    if len(sets) > 1 or len(splits) > 1:
        raise InvalidInputError(
            f"--database {protocol.database[:80]} is no choice of photographs and split; give for "
            f"example both:test, inat:train or nabirds, with photographs of {', '.join(SETS)}",
            field="database",
        )
    split = splits[0] if splits else "test"
    if protocol.fit_on == "training" and split == "train":
        raise InvalidInputError(
            "the training split is both fitted on and searched; search another split with "
            "--database, or --fit-on items",
            field="database",
        )
    return (sets[0] if sets else "both"), split


@dataclass
class _World:
    """What all tasks of a run share.

    Attributes:
        root: the data folder.
        classes: the species.
        sets: which photographs.
        split: what is searched.
        protocol: how it is run.
        assets: by modality, of all splits that are used.
    """

    root: Path
    classes: Classes
    sets: str
    split: str
    protocol: Protocol

    def __post_init__(self) -> None:
        self.assets: dict[str, Assets] = {}

    def read(self, tables: Sequence[str]) -> Assets:
        """What the tables list for the splits that are used, and is there."""
        lenient = self.protocol.unknown == "skip"
        suffix = ".wav" if tables == ["audio_ml"] else ".jpg"
        read = [
            read_assets(self.root, table, suffix, len(self.classes), lenient=lenient)
            for table in tables
        ]
        whole = read[0]
        for more in read[1:]:
            whole = whole.and_also(more)
        known = sorted(set(whole.splits))
        if self.split not in known:
            raise InvalidInputError(
                f"{', '.join(tables)} have no split '{self.split[:60]}', but {', '.join(known)}; "
                "give one of these as --database",
                field="database",
            )
        used = {self.split, _QUERY_SPLIT}
        used |= {"train"} if self.protocol.fit_on == "training" else set()
        chosen = whole.only(np.array([each in used for each in whole.splits], np.bool_))
        what = f"files that {' and '.join(f'{table}.csv' for table in tables)} list"
        return with_files(self.root, chosen, self.protocol.missing, what)

    def task(self, by: str, of: str) -> Task:
        """One table: queries of one modality against items of another."""
        searched = self.assets[of].of(self.split)
        items = self._items(of, searched)
        asked = self._asked(by, of, _QUERY_SPLIT, np.arange(len(self.classes)))
        training = None
        if self.protocol.fit_on == "training":
            part = self._items(of, self.assets[of].of("train"))
            training = TrainingPart(part, self._asked(by, of, "train", np.unique(part.classes)))
        photographs = "iNat2021 and NABirds" if self.sets == "both" else self.sets
        notes = [f"The {self.split} split is searched."]
        if by == TEXT:
            prompts = AUDIO_PROMPTS if of == AUDIO else IMAGE_PROMPTS
            notes.append(told_prompts(self.protocol, prompts))
        else:
            notes.append(f"Queries are of the {_QUERY_SPLIT} split.")
        if by == AUDIO:
            notes.append(ASKED_BY_RECORDING)
        if IMAGE in (by, of):
            notes.append(f"Photographs are those of {photographs}.")
        left_out = [told for m in (by, of) if m in self.assets for told in self.assets[m].left_out]
        return Task(
            name=f"{by}→{of}",
            asked=asked,
            items=items,
            relevance=Relevance.by_class(asked.classes, items.classes),
            classes=self.classes,
            training=training,
            left_out=left_out,
            notes=notes,
        )

    def _items(self, modality: str, assets: Assets) -> Items:
        media = self._media(modality, assets)
        return Items(assets.ids, modality, media, assets.labels, modality, splits=assets.splits)

    def _asked(self, by: str, of: str, split: str, labels: NDArray[np.integer]) -> Asked:
        """Queries: names of some species, or what a split has of a modality."""
        if by == TEXT:
            prompts = AUDIO_PROMPTS if of == AUDIO else IMAGE_PROMPTS
            return asked_in_words(self.classes, labels, self.protocol, prompts)
        assets = self.assets[by].of(split)
        return Asked(assets.ids, by, self._media(by, assets), assets.labels, by)

    def _media(self, modality: str, assets: Assets) -> MediaFiles:
        taxa = [self.classes.taxa[label] for label in assets.labels.tolist()]
        names = {
            name: [taxon[name] for taxon in taxa] for name in ("vernacularName", "scientificName")
        }
        metadata = {**names, "rightsHolder": assets.holders}
        return MediaFiles(self.root, assets.ids, assets.files, modality, metadata)
