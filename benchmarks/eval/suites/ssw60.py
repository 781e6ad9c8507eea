"""SSW60 (Van Horn et al., ECCV 2022, arXiv 2207.10664): 60 birds by name, by sound and by sight.

Items of the same species are relevant: recordings and photographs are of different birds. The data
set was made to classify videos, so users choose their own protocols, and figures compare only where
split and photographs are the same. ``protocol.database`` names both: the photographs ``inat``,
``nabirds`` or ``both``, the split, or both with a colon between them; ``both:test`` by default.
Queries by photograph or recording are always of the test split. The videos are not used.

Files: ``taxa.csv``, and tables ``asset_id,label,split`` of recordings and photographs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    RECORDING_QUERIES,
    DataFile,
    MediaFiles,
    Suite,
    check,
    check_files,
    found,
    skipped_files,
    table_rows,
    wrong_layout,
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
    TrainingSplit,
)
from bittern.benchmarks.eval.tasks.prompts import (
    AUDIO_PROMPTS,
    IMAGE_PROMPTS,
    check_templates,
    prompts_note,
    text_queries,
)
from bittern.benchmarks.eval.tasks.splits import by_protocol
from bittern.errors import InvalidInputError, LayoutError, QrelsError
from bittern.text import agreeing, counted, some_of

ORIGIN = "ssw60.tar.gz of the SSW60 release (Van Horn et al., ECCV 2022)"
_HOLDERS = ("photographer", "rights_holder")
_NOT_RELEASED = "13e5d907"
"""A NABirds photograph of a redstart that the tables list and the release's archive lacks, as is
told by others who unpacked it."""
_TOLD = 5


@dataclass(frozen=True)
class Assets:
    """Photographs or recordings of one or more tables, as columns.

    Attributes:
        ids: ``images_inat/73542``.
        files: ``images_inat/73542.jpg``, below the data folder.
        labels: int32 [n], the species.
        splits: ``train``, ``test``, and what else the tables have.
        holders: rights holders, empty where they are not known.
        left_out: sentences, with counts.
    """

    ids: Sequence[str]
    files: Sequence[str]
    labels: NDArray[np.int32]
    splits: Sequence[str]
    holders: Sequence[str]
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, split: str) -> Assets:
        """Those of one split."""
        return self.only(np.array([each == split for each in self.splits], np.bool_))

    def only(self, kept: NDArray[np.bool_]) -> Assets:
        """Some of them."""
        rows = np.flatnonzero(kept).tolist()
        return Assets(
            ids=[self.ids[row] for row in rows],
            files=[self.files[row] for row in rows],
            labels=self.labels[kept],
            splits=[self.splits[row] for row in rows],
            holders=[self.holders[row] for row in rows],
            left_out=self.left_out,
        )

    def and_also(self, more: Assets) -> Assets:
        """Both."""
        return Assets(
            ids=[*self.ids, *more.ids],
            files=[*self.files, *more.files],
            labels=np.concatenate([self.labels, more.labels]),
            splits=[*self.splits, *more.splits],
            holders=[*self.holders, *more.holders],
            left_out=[*self.left_out, *more.left_out],
        )


def read_taxa(data: Path) -> list[dict[str, str]]:
    """The species, in order of their labels, as Darwin Core names.

    Raises:
        LayoutError: the table cannot be read, or its labels are not 0, 1, 2 and so on.
    """
    path = data / "taxa.csv"
    columns = ("label", "common_name", "scientific_name", "family", "order")
    found: dict[int, dict[str, str]] = {}
    for line, row in table_rows(path, columns, ORIGIN):
        label = _label(path, line, row)
        if label in found:
            raise wrong_layout(
                path,
                "one line per label",
                f"{label} again in line {line}",
                f"take it from {ORIGIN}",
            )
        found[label] = {
            "kingdom": "Animalia",
            "phylum": "Chordata",
            "class": "Aves",  # all 60 are birds, and the table need not say so
            "order": row["order"],
            "family": row["family"].split()[0],
            "genus": row["scientific_name"].split()[0],
            "scientificName": row["scientific_name"],
            "vernacularName": row["common_name"],
        }
    if sorted(found) != list(range(len(found))) or not found:
        raise wrong_layout(
            path,
            "labels 0, 1, 2 and so on",
            f"{sorted(found)[:10]}",
            f"take it from {ORIGIN}",
        )
    return [found[label] for label in range(len(found))]


def read_assets(data: Path, name: str, suffix: str, species: int, *, lenient: bool) -> Assets:
    """Read one table of photographs or recordings.

    Args:
        data: the data folder.
        name: of the table without ``.csv``, and of the folder: ``audio_ml``.
        suffix: of the files, ``.wav``.
        species: how many labels there are.
        lenient: leave out those of unknown species rather than refuse them.

    Raises:
        LayoutError: the table cannot be read, or lists an asset twice.
        QrelsError: a label is not in ``taxa.csv``.
    """
    path = data / f"{name}.csv"
    lines: dict[str, int] = {}
    labels, splits, holders, unknown = [], [], [], []
    for line, row in table_rows(path, ("asset_id", "label", "split"), ORIGIN):
        asset, label = row["asset_id"], _label(path, line, row)
        if asset in lines:
            raise LayoutError(
                f"{path}, line {line}: asset_id {asset[:80]} stands in line {lines[asset]} "
                f"already; take the table from {ORIGIN}",
                field="data",
            )
        if label >= species:
            unknown.append(f"{label} (line {line})")
            continue
        lines[asset] = line
        labels.append(label)
        splits.append(row["split"])
        holders.append(next((row[column] for column in _HOLDERS if column in row), ""))
    more = f" and {len(unknown) - _TOLD} more" if len(unknown) > _TOLD else ""
    are = f"{some_of(len(unknown), len(unknown) + len(lines), 'label')} " + agreeing(
        len(unknown), "is", "are"
    )
    sentence = f"{path.name}: {are} not in taxa.csv: {', '.join(unknown[:_TOLD])}"
    if unknown and not lenient:
        raise QrelsError(
            f"{sentence}{more}. Take both tables from {ORIGIN}, or leave these out with "
            "--unknown skip",
            field="data",
        )
    return Assets(
        ids=[f"{name}/{asset}" for asset in lines],
        files=[f"{name}/{asset}{suffix}" for asset in lines],
        labels=np.array(labels, np.int32),
        splits=splits,
        holders=holders,
        left_out=[sentence + more] if unknown else [],
    )


def with_files(data: Path, assets: Assets, missing: str, what: str) -> Assets:
    """Those whose files are there.

    Args:
        data: the data folder.
        assets: what the tables list.
        missing: ``error`` or ``skip``.
        what: for messages, in the plural.

    Raises:
        LayoutError: files are missing, and may not.
    """
    known = np.array([_NOT_RELEASED in name for name in assets.ids], np.bool_)
    absent = [i for i in np.flatnonzero(known).tolist() if not (data / assets.files[i]).is_file()]
    left_out = list(assets.left_out)
    if absent:
        released = np.ones(len(assets), np.bool_)
        released[absent] = False
        gone = [assets.files[i] for i in absent]
        assets = assets.only(released)
        photographs = counted(len(absent), "NABirds photograph")
        are = agreeing(
            len(absent), "is not in the release; it is", "are not in the release; they are"
        )
        left_out.append(f"{photographs} that the tables list {are} left out ({', '.join(gone)})")
    there = check_files(data, assets.files, "skip" if missing == "skip" else "error", what)
    left_out += skipped_files(there, what)
    kept = assets.only(there)
    return Assets(kept.ids, kept.files, kept.labels, kept.splits, kept.holders, left_out)


def _label(path: Path, line: int, row: Mapping[str, str]) -> int:
    text = row["label"]
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise wrong_layout(
            path, "numbers as labels", f"{text[:40]!r} in line {line}", f"take it from {ORIGIN}"
        )
    return int(text)


SETS: dict[str, Sequence[str]] = {"inat": ("images_inat",), "nabirds": ("images_nabirds",)}
SETS["both"] = ("images_inat", "images_nabirds")
PAIRS = ((AUDIO, IMAGE), (TEXT, AUDIO), (TEXT, IMAGE), (IMAGE, AUDIO))
"""What is asked with, and what is searched."""
_QUERY_SPLIT = "test"
_ARCHIVE = "ssw60.tar.gz, 31 GB with its videos (visipedia/ssw60)"
_TAXA = DataFile("taxa.csv", "names of the 60 species", _ARCHIVE, "a few KB")
_PIECES = {
    "audio_ml": (
        DataFile("audio_ml.csv", "split and species of each recording", _ARCHIVE, "under 1 MB"),
        DataFile("audio_ml/", "3,861 recordings, WAV 22.05 kHz", _ARCHIVE, "about 1.7 GB"),
    ),
    "images_inat": (
        DataFile("images_inat.csv", "split and species of each photograph", _ARCHIVE, "about 1 MB"),
        DataFile("images_inat/", "21,600 photographs of iNat2021", _ARCHIVE, "a few GB"),
    ),
    "images_nabirds": (
        DataFile(
            "images_nabirds.csv", "split and species of each photograph", _ARCHIVE, "under 1 MB"
        ),
        DataFile("images_nabirds/", "10,221 photographs of NABirds", _ARCHIVE, "a few GB"),
    ),
}


class SSW60(Suite):
    """Sounds, photographs and names of 60 birds against each other."""

    name = "ssw60"
    about = (
        "SSW60 (arXiv 2207.10664): recordings, photographs and names of 60 birds against each other"
    )
    layout: Sequence[DataFile] = (_TAXA, *(file for pair in _PIECES.values() for file in pair))
    needs_data = True
    measures: Sequence[str] = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is loaded.

        What a model has towers for is not known yet, so either the recordings or the photographs
        that are chosen may be wholly absent; `tasks` misses them if they are wanted after all.

        Raises:
            LayoutError: files are missing without which no task can be run.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        sets, _ = _database(protocol)
        if protocol.prompts:
            check_templates(protocol.prompts)
        kinds = [_PIECES["audio_ml"], [file for table in SETS[sets] for file in _PIECES[table]]]
        if data is not None and data.is_dir():
            some = [kind for kind in kinds if any(found(data, file) for file in kind)]
            kinds = some or kinds
        check(data, [_TAXA, *(file for kind in kinds for file in kind)], self.name)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """audio→image, text→audio, text→image and image→audio, as far as there are towers.

        Raises:
            LayoutError: files are missing, or are not in the published layout.
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
    chunks = [chunk for chunk in protocol.database.split(":") if chunk]
    sets = [chunk for chunk in chunks if chunk in SETS]
    splits = [chunk for chunk in chunks if chunk not in SETS]
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
        queries = self._asked(by, of, _QUERY_SPLIT, np.arange(len(self.classes)))
        training = None
        if self.protocol.fit_on == "training":
            chunk = self._items(of, self.assets[of].of("train"))
            training = TrainingSplit(chunk, self._asked(by, of, "train", np.unique(chunk.classes)))
        photographs = "iNat2021 and NABirds" if self.sets == "both" else self.sets
        notes = [f"The {self.split} split is searched."]
        if by == TEXT:
            prompts = AUDIO_PROMPTS if of == AUDIO else IMAGE_PROMPTS
            notes.append(prompts_note(self.protocol, prompts))
        else:
            notes.append(f"Queries are of the {_QUERY_SPLIT} split.")
        if by == AUDIO:
            notes.append(RECORDING_QUERIES)
        if IMAGE in (by, of):
            notes.append(f"Photographs are those of {photographs}.")
        left_out = [
            sentence for m in (by, of) if m in self.assets for sentence in self.assets[m].left_out
        ]
        return Task(
            name=f"{by}→{of}",
            queries=queries,
            items=items,
            relevance=Relevance.by_class(queries.classes, items.classes),
            classes=self.classes,
            training=training,
            left_out=left_out,
            notes=notes,
        )

    def _items(self, modality: str, assets: Assets) -> Items:
        media = self._media(modality, assets)
        return Items(assets.ids, modality, media, assets.labels, modality, splits=assets.splits)

    def _asked(self, by: str, of: str, split: str, labels: NDArray[np.integer]) -> QuerySet:
        """Queries: names of some species, or what a split has of a modality."""
        if by == TEXT:
            prompts = AUDIO_PROMPTS if of == AUDIO else IMAGE_PROMPTS
            return text_queries(self.classes, labels, self.protocol, prompts)
        assets = self.assets[by].of(split)
        return QuerySet(assets.ids, by, self._media(by, assets), assets.labels, by)

    def _media(self, modality: str, assets: Assets) -> MediaFiles:
        taxa = [self.classes.taxa[label] for label in assets.labels.tolist()]
        names = {
            name: [taxon[name] for taxon in taxa] for name in ("vernacularName", "scientificName")
        }
        metadata = {**names, "rightsHolder": assets.holders}
        return MediaFiles(self.root, assets.ids, assets.files, modality, metadata)
