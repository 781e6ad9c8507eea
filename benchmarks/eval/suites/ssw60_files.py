"""The tables of SSW60: ``taxa.csv``, and ``asset_id,label,split`` of recordings and photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import (
    check_files,
    left_out_files,
    table_rows,
    wrong_layout,
)
from bittern.errors import LayoutError, QrelsError
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
    told = f"{path.name}: {are} not in taxa.csv: {', '.join(unknown[:_TOLD])}"
    if unknown and not lenient:
        raise QrelsError(
            f"{told}{more}. Take both tables from {ORIGIN}, or leave these out by --unknown skip",
            field="data",
        )
    return Assets(
        ids=[f"{name}/{asset}" for asset in lines],
        files=[f"{name}/{asset}{suffix}" for asset in lines],
        labels=np.array(labels, np.int32),
        splits=splits,
        holders=holders,
        left_out=[told + more] if unknown else [],
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
    left_out += left_out_files(there, what)
    kept = assets.only(there)
    return Assets(kept.ids, kept.files, kept.labels, kept.splits, kept.holders, left_out)


def _label(path: Path, line: int, row: Mapping[str, str]) -> int:
    told = row["label"]
    if not (told.isascii() and told.isdigit() and len(told) < 9):
        raise wrong_layout(
            path, "numbers as labels", f"{told[:40]!r} in line {line}", f"take it from {ORIGIN}"
        )
    return int(told)
