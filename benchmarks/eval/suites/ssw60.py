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
from dataclasses import replace
from pathlib import Path

import numpy as np

from bittern.benchmarks.eval.suites.base import DataFile, Pair, Suite, check_layout, found
from bittern.benchmarks.eval.suites.readers import SuiteFile
from bittern.benchmarks.eval.suites.species import SpeciesMedia, SpeciesTask, as_queries
from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, TEXT, Classes, Protocol, Task
from bittern.errors import InvalidInputError, QrelsError
from bittern.text import agreeing, counted, first_few, some_of

_ORIGIN = "ssw60.tar.gz of the SSW60 release (Van Horn et al., ECCV 2022)"
_HOLDERS = ("photographer", "rights_holder")
_NOT_RELEASED = "13e5d907"
"""A NABirds photograph of a redstart that the tables list and the release's archive lacks, as
others who unpacked it report."""
_SETS: Mapping[str, Sequence[str]] = {
    "inat": ("images_inat",),
    "nabirds": ("images_nabirds",),
    "both": ("images_inat", "images_nabirds"),
}
_QUERY_SPLIT = "test"
_ARCHIVE = "ssw60.tar.gz, 31 GB with its videos (visipedia/ssw60)"
_TAXA = DataFile("taxa.csv", "names of the 60 species", _ARCHIVE, "a few KB")


def _table(name: str, medium: str, media: str, size: str) -> Sequence[DataFile]:
    return (
        DataFile(f"{name}.csv", f"split and species of each {medium}", _ARCHIVE, "about 1 MB"),
        DataFile(f"{name}/", media, _ARCHIVE, size),
    )


_TABLES: Mapping[str, Sequence[DataFile]] = {
    "audio_ml": _table("audio_ml", "recording", "3,861 recordings, WAV 22.05 kHz", "about 1.7 GB"),
    "images_inat": _table(
        "images_inat", "photograph", "21,600 photographs of iNat2021", "a few GB"
    ),
    "images_nabirds": _table(
        "images_nabirds", "photograph", "10,221 photographs of NABirds", "a few GB"
    ),
}


class SSW60(Suite):
    """Sounds, photographs and names of 60 birds against each other."""

    name = "ssw60"
    about = (
        "SSW60 (arXiv 2207.10664): recordings, photographs and names of 60 birds against each other"
    )
    layout = (_TAXA, *(file for pair in _TABLES.values() for file in pair))
    measures = ("AP", "AP_hits@50", "nDCG@10", "P@10", "R-prec", "MRR")
    pairs = ((AUDIO, IMAGE), (TEXT, AUDIO), (TEXT, IMAGE), (IMAGE, AUDIO))

    def check_options(self, protocol: Protocol) -> None:
        """Refuse unknown databases."""
        super().check_options(protocol)
        _database(protocol)

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The data folder, before the towers of a model are known.

        Either the recordings or the photographs may be wholly absent; `make` refuses that where
        they are needed.
        """
        sets, _ = _database(protocol)
        kinds = [_files(["audio_ml"]), _files(_SETS[sets])]
        if data is not None and data.is_dir():
            some = [kind for kind in kinds if any(found(data, file) for file in kind)]
            kinds = some or kinds
        return check_layout(data, [_TAXA, *(file for kind in kinds for file in kind)], self.name)

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """audio→image, text→audio, text→image and image→audio, as far as there are towers."""
        sets, _ = _database(protocol)
        used = {modality for pair in pairs for modality in pair}
        tables = {AUDIO: ["audio_ml"], IMAGE: _SETS[sets]}
        tables = {modality: names for modality, names in tables.items() if modality in used}
        files = [file for names in tables.values() for file in _files(names)]
        check_layout(root, [_TAXA, *files], self.name)
        taxa = read_taxa(root)
        classes = Classes([taxon["vernacularName"] for taxon in taxa], taxa)
        media = {m: _used_media(root, names, taxa, protocol) for m, names in tables.items()}
        return [_task(by, of, media, classes, protocol) for by, of in pairs]


def _files(tables: Sequence[str]) -> list[DataFile]:
    return [file for table in tables for file in _TABLES[table]]


def _database(protocol: Protocol) -> tuple[str, str]:
    """The photographs and the split that are searched."""
    words = [word for word in protocol.database.split(":") if word]
    sets = [word for word in words if word in _SETS]
    splits = [word for word in words if word not in _SETS]
    if len(sets) > 1 or len(splits) > 1:
        raise InvalidInputError(
            f"--database {protocol.database[:80]} is no choice of photographs and split; give for "
            f"example both:test, inat:train or nabirds, with photographs of {', '.join(_SETS)}",
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


def _task(
    by: str, of: str, media: Mapping[str, SpeciesMedia], classes: Classes, protocol: Protocol
) -> Task:
    """Queries of one modality against items of another."""
    sets, split = _database(protocol)
    photographs = "iNat2021 and NABirds" if sets == "both" else sets
    by_media = media.get(by)
    fitted = protocol.fit_on == "training"
    return SpeciesTask(
        classes=classes,
        items=media[of].of_split(split).items,
        protocol=protocol,
        queries=as_queries(by_media.of_split(_QUERY_SPLIT).items) if by_media else None,
        training=media[of].of_split("train").items if fitted else None,
        training_queries=(
            as_queries(by_media.of_split("train").items) if by_media and fitted else None
        ),
        left_out=[line for m in (by, of) if m in media for line in media[m].left_out],
        notes=[
            f"The {split} split is searched.",
            *([f"Queries are of the {_QUERY_SPLIT} split."] if by_media else []),
        ],
        more_notes=[f"Photographs are those of {photographs}."] if IMAGE in (by, of) else [],
    ).task()


def read_taxa(data: Path) -> list[dict[str, str]]:
    """The species, in order of their labels, as Darwin Core names.

    Raises:
        LayoutError: the table cannot be read, or its labels are not 0, 1, 2 and so on.
    """
    table = SuiteFile(data / "taxa.csv", _ORIGIN)
    columns = ("label", "common_name", "scientific_name", "family", "order")
    taxa: dict[int, dict[str, str]] = {}
    for line, row in table.rows(columns):
        label = _label(table, line, row)
        if label in taxa:
            raise table.wrong("one line per label", f"{label} again in line {line}")
        taxa[label] = {
            "kingdom": "Animalia",
            "phylum": "Chordata",
            "class": "Aves",  # all 60 are birds, and the table need not say so
            "order": row["order"],
            "family": row["family"].split()[0],
            "genus": row["scientific_name"].split()[0],
            "scientificName": row["scientific_name"],
            "vernacularName": row["common_name"],
        }
    if sorted(taxa) != list(range(len(taxa))) or not taxa:
        raise table.wrong("labels 0, 1, 2 and so on", f"{sorted(taxa)[:10]}")
    return [taxa[label] for label in range(len(taxa))]


def _used_media(
    root: Path, tables: Sequence[str], taxa: Sequence[Mapping[str, str]], protocol: Protocol
) -> SpeciesMedia:
    """The media of some tables, of the splits that are used, whose files exist."""
    _, split = _database(protocol)
    whole = _read_media(root, tables, taxa, protocol)
    known = sorted(set(whole.splits or ()))
    if split not in known:
        raise InvalidInputError(
            f"{', '.join(tables)} have no split '{split[:60]}', but {', '.join(known)}; give one "
            "of these as --database",
            field="database",
        )
    used = {split, _QUERY_SPLIT, *(["train"] if protocol.fit_on == "training" else [])}
    chosen = whole.only(np.flatnonzero([each in used for each in whole.splits or ()]))
    absent = [_NOT_RELEASED in f and not (root / f).is_file() for f in chosen.files]
    if any(absent):
        gone = [chosen.files[i] for i in np.flatnonzero(absent).tolist()]
        are = agreeing(
            len(gone), "is not in the release; it is", "are not in the release; they are"
        )
        sentence = (
            f"{counted(len(gone), 'NABirds photograph')} that the tables list {are} left out "
            f"({', '.join(gone)})"
        )
        chosen = chosen.only(np.flatnonzero(np.logical_not(absent)))
        chosen = replace(chosen, left_out=(*chosen.left_out, sentence))
    names = " and ".join(f"{table}.csv" for table in tables)
    return chosen.present(protocol.missing, f"files that {names} list")


def _read_media(
    root: Path, tables: Sequence[str], taxa: Sequence[Mapping[str, str]], protocol: Protocol
) -> SpeciesMedia:
    """All photographs or recordings of some tables.

    Raises:
        LayoutError: a table cannot be read, or lists an asset twice.
        QrelsError: a label is not in ``taxa.csv``.
    """
    modality, suffix = (AUDIO, ".wav") if tables[0] == "audio_ml" else (IMAGE, ".jpg")
    lines: dict[str, int] = {}
    labels, splits, holders, left_out = [], [], [], []
    for name in tables:
        table = SuiteFile(root / f"{name}.csv", _ORIGIN)
        unknown, rows = [], 0
        for line, row in table.rows(("asset_id", "label", "split")):
            rows += 1
            asset, label = f"{name}/{row['asset_id']}", _label(table, line, row)
            if asset in lines:
                raise table.error(
                    f"{table.path}, line {line}: asset_id {row['asset_id'][:80]} is in line "
                    f"{lines[asset]} already"
                )
            if label >= len(taxa):
                unknown.append(f"{label} (line {line})")
                continue
            lines[asset] = line
            labels.append(label)
            splits.append(row["split"])
            holders.append(next((row[column] for column in _HOLDERS if column in row), ""))
        if unknown:
            are = agreeing(len(unknown), "is", "are")
            left_out.append(
                f"{table.path.name}: {some_of(len(unknown), rows, 'label')} {are} not in taxa.csv: "
                f"{first_few(unknown, 5)}"
            )
            if protocol.unknown == "error":
                raise QrelsError(
                    f"{left_out[-1]}. Take both tables from {_ORIGIN}, or skip these with "
                    "--unknown skip",
                    field="data",
                )
    return SpeciesMedia(
        root=root,
        modality=modality,
        ids=list(lines),
        files=[asset + suffix for asset in lines],
        classes=np.array(labels, np.int32),
        taxa=taxa,
        columns={"rightsHolder": holders},
        splits=splits,
        left_out=left_out,
    )


def _label(table: SuiteFile, line: int, row: Mapping[str, str]) -> int:
    text = row["label"]
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise table.wrong("numbers as labels", f"{text[:40]!r} in line {line}")
    return int(text)
