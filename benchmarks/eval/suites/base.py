"""What a suite is, and what suites share: the layout of the data folder, its tables and media.

A missing file of the layout is named with its origin and size, all of them in one message.
Everything is read within limits: JSON element by element, tables row by row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.benchmarks.eval.tasks.prompts import RANKS, check_templates
from bittern.errors import InvalidInputError, LayoutError, ManifestError
from bittern.service.sources.field_values import text
from bittern.service.sources.json_items import Element, elements, first_keys
from bittern.service.sources.tables import Table
from bittern.text import agreeing
from bittern.types import MediaItem


@dataclass(frozen=True)
class DataFile:
    """A file or folder that a layout needs.

    Attributes:
        path: below the data folder; several alternatives are separated by ``|``.
        what: what is in it.
        origin: where it comes from, in words (project, release, file name); no address is fetched.
        size: how large it is, roughly, in words.
        optional: whether some tasks do without.
    """

    path: str
    what: str
    origin: str
    size: str
    optional: bool = False


class Suite(Interface):
    """A benchmark with its published layout.

    Attributes:
        name: on the command line.
        about: one line for people, with its paper.
        layout: what its data folder holds.
        needs_data: whether `--data` must be given.
        measures: names of the measures that its papers report, the main one first.
    """

    name: str
    about: str
    layout: Sequence[DataFile]
    needs_data: bool
    measures: Sequence[str]

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is loaded.

        Raises:
            LayoutError: files are missing; all of them are named in one message.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        from bittern.benchmarks.eval.suites.base import check

        del protocol
        if self.needs_data:
            check(data, self.layout, self.name)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """The tasks that the data and the model's towers allow, the layout checked first.

        Args:
            data: the data folder.
            protocol: how it is run.
            towers: modalities that the model has towers for.

        Raises:
            LayoutError: files are missing, or are not in the published layout; all of them are
                named in one message, with origin and size.
            QrelsError: judgements that cannot be used.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        ...


MAX_ROWS = 20_000_000
"""Most rows of a table."""
_NAMED = 3
"""Missing files that a message names."""
_KEYS = 12

Missing = Literal["error", "skip"]


def check(data: Path | None, layout: Sequence[DataFile], suite_name: str) -> Path:
    """The data folder, with every piece in it that is not optional.

    Args:
        data: the data folder.
        layout: what it has to hold.
        suite_name: for messages.

    Raises:
        LayoutError: there is no such folder, or files are missing; every one of them is named.
    """
    wanted = "\n".join(f"  {described(file)}" for file in layout)
    if data is None:
        raise LayoutError(
            f"{suite_name} needs its data: give their folder with --data. It holds:\n{wanted}",
            field="data",
        )
    if not data.is_dir():
        state = "is a file, no folder" if data.exists() else "does not exist"
        raise LayoutError(
            f"the data folder {data} {state}; {suite_name} needs a folder that holds:\n{wanted}",
            field="data",
        )
    lacking = [file for file in layout if not file.optional and found(data, file) is None]
    if lacking:
        listed = "\n".join(f"  {described(file)}" for file in lacking)
        them = agreeing(len(lacking), "it", "them")
        raise LayoutError(
            f"{data} lacks {len(lacking)} of {suite_name}'s {len(layout)} files:\n"
            f"{listed}\nBittern does not fetch {them}: put {them} there under "
            f"{agreeing(len(lacking), 'this name', 'these names')}, or give another --data",
            field="data",
            details={"missing": ", ".join(file.path for file in lacking)},
        )
    return data


def check_options(
    suite: str, why: str, protocol: Protocol, unsupported: Mapping[str, bool]
) -> None:
    """Refuse prompts that cannot be filled, and options that a suite does not have.

    Args:
        suite: its name.
        why: it does not have these options.
        protocol: how it is run.
        unsupported: per option, whether it was given.

    Raises:
        InvalidInputError: an option or a prompt cannot be used.
    """
    if protocol.prompts:
        check_templates(protocol.prompts)
    given = [option for option, is_given in unsupported.items() if is_given]
    if given:
        options = " and no ".join(f"--{option}" for option in given)
        raise InvalidInputError(
            f"{suite} has no {options} to choose: {why}; leave the option out",
            field=given[0].replace("-", "_"),
        )


def described(file: DataFile) -> str:
    """A piece in one line: its path, what it is, where it comes from, how large it is."""
    path = " or ".join(file.path.split("|"))
    optional = "; optional" if file.optional else ""
    return f"{path}: {file.what}; from {file.origin}; {file.size}{optional}"


def found(data: Path, file: DataFile) -> Path | None:
    """Where a piece is, the first of its alternatives that is there; a folder must hold something.

    A path that ends with ``/`` is a folder, any other a file.

    Raises:
        LayoutError: it is there, and may not be read.
    """
    for each in file.path.split("|"):
        path = data / each.strip()
        try:
            if path.is_file() and not each.strip().endswith("/"):
                return path
            if path.is_dir() and each.strip().endswith("/") and any(path.iterdir()):
                return path
        except OSError as error:
            raise LayoutError(f"{path} cannot be read: {error.strerror}", field="data") from error
    return None


def path_of(data: Path, file: DataFile) -> Path:
    """Where a file is that `check` has seen.

    Raises:
        LayoutError: it is not there (any more).
    """
    path = found(data, file)
    if path is None:
        raise LayoutError(f"{data} lacks: {described(file)}", field="data")
    return path


def check_files(root: Path, paths: Sequence[str], missing: Missing, what: str) -> NDArray[np.bool_]:
    """Which of the listed files are there, bool [n]. A folder is listed once, no file looked at.

    Args:
        root: what the paths are relative to.
        paths: with ``/``; up to millions.
        missing: whether files that are not there end the run; at least one must be there.
        what: for messages, in the plural: ``images that train.json lists``.

    Raises:
        LayoutError: a path leads out of `root`; files are missing and may not; all are missing.
    """
    folders: dict[str, int] = {}
    owner = np.empty(len(paths), np.int64)
    for i, path in enumerate(paths):
        owner[i] = folders.setdefault(path.rpartition("/")[0], len(folders))
    for folder in folders:
        _refuse_way_out(folder, what)
    there = np.zeros(len(paths), np.bool_)
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(folders) + 1))
    for number, folder in enumerate(folders):
        names = _files_of(root / folder)
        for i in order[ends[number] : ends[number + 1]].tolist():
            there[i] = paths[i].rpartition("/")[2] in names
    lacking = len(paths) - int(np.count_nonzero(there))
    if lacking and (missing == "error" or lacking == len(paths)):
        raise LayoutError(_not_there(root, paths, there, what), field="data")
    return there


def skipped_files(there: NDArray[np.bool_], what: str) -> list[str]:
    """The sentence for `Task.left_out` on files that were skipped; none where all are there."""
    lacking = int(np.count_nonzero(~there))
    if not lacking:
        return []
    was = agreeing(lacking, "is not there and was", "are not there and were")
    return [f"{lacking:,} of {len(there):,} {what} {was} skipped"]


def wrong_layout(
    path: Path, expected: str, got: str, remedy: str, *, published: bool = True
) -> LayoutError:
    """The error for a file that is there, but in no layout that is known.

    Args:
        path: the file.
        expected: what the published layout has.
        got: what the file has.
        remedy: what to do.
        published: whether the layout is one that somebody has published, and not one's own.
    """
    layout = "the published layout" if published else "the layout that is read"
    return LayoutError(
        f"{path} is not in {layout}: expected {expected}, found {got}; {remedy}",
        field="data",
        details={"expected": expected, "found": got},
    )


def json_elements(
    path: Path, members: Sequence[str], origin: str, also: Sequence[str] = ()
) -> Iterator[Element]:
    """The elements of some lists of a JSON object, in the order of the file, nested values left
    out; every one of them is an object.

    Args:
        path: the file; it may be larger than memory.
        members: names of the lists. Each must have an element.
        origin: where the right file comes from.
        also: names of lists that it may lack.

    Raises:
        LayoutError: it is not JSON (from some byte on), lacks a list or has an empty one, or an
            element is no object.
    """
    expected = "lists " + ", ".join(f"'{m}'" for m in members)
    keys = first_keys(path)
    remedy = f"take it from {origin}"
    if keys and not keys & ({*members} | {"info", "licenses", "categories"}):
        raise wrong_layout(path, expected, _told(keys), remedy)
    met: set[str] = set()
    try:
        for element in elements(path, frozenset({*members, *also}), flat=True):
            if element.unusable or not isinstance(element.value, dict) or not element.member:
                reason = element.unusable or "it is no object with named values"
                raise wrong_layout(
                    path, expected, f"{element.position(path.name)}: {reason}", remedy
                )
            met.add(element.member)
            yield element
    except ManifestError as error:
        raise LayoutError(f"{error.message}; {remedy}", field="data") from error
    lacking = [m for m in members if m not in met]
    if lacking:
        none = ", ".join(f"'{m}'" for m in lacking)
        raise wrong_layout(path, expected, f"{_told(keys)}, nothing in {none}", remedy)


def table_rows(
    path: Path,
    columns: Sequence[str],
    origin: str,
    filled: Sequence[str] | None = None,
    own: str = "",
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a CSV file, with their line numbers; empty cells are left out.

    Args:
        path: the file, UTF-8.
        columns: columns that it must have, once each; it may have more.
        origin: where the right file comes from.
        filled: those that no row may leave empty; None for all of `columns`.
        own: for a file that its user writes: what to do where it is wrong, in place of taking
            another one.

    Raises:
        LayoutError: it cannot be read, lacks columns, or a row is damaged or leaves a cell empty;
            it has more than 20,000,000 rows.
    """
    remedy = own or f"take it from {origin}"
    if not path.stat().st_size:
        raise LayoutError(f"{path} is empty; {remedy}", field="data")

    def names(headings: list[str]) -> list[str]:
        bare = [heading.strip() for heading in headings]
        if any(bare.count(column) != 1 for column in columns):
            got = "columns " + ", ".join(f"'{h[:60]}'" for h in bare[:_KEYS])
            expected = "columns " + ", ".join(columns)
            raise wrong_layout(path, expected, got, remedy, published=not own)
        return bare

    try:
        for row, (number, cells) in enumerate(Table(path.name, path).rows(names)):
            where = f"{path}, line {number}"
            if isinstance(cells, str):
                raise LayoutError(f"{where}: {cells}; {remedy}", field="data")
            empty = [c for c in (columns if filled is None else filled) if c not in cells]
            if empty:
                raise LayoutError(f"{where} has no {', '.join(empty)}; {remedy}", field="data")
            if row >= MAX_ROWS:
                raise LayoutError(f"{path} has more than {MAX_ROWS:,} rows", field="data")
            yield number, {column: str(value) for column, value in cells.items()}
    except ManifestError as error:
        raise LayoutError(f"{error.message}; {remedy}", field="data") from error
    except OSError as error:
        raise LayoutError(f"{path} cannot be read: {error.strerror}", field="data") from error


def coco_taxon(category: Mapping[str, object]) -> dict[str, str]:
    """Darwin Core ranks and names of a category of iNaturalist's COCO-style files.

    Args:
        category: with ``name``, ``common_name``, ``kingdom`` to ``genus``.
    """
    taxon = {rank: text(category.get(rank)) for rank in RANKS}
    taxon["scientificName"] = text(category.get("name"))
    taxon["vernacularName"] = text(category.get("common_name"))
    return {column: value for column, value in taxon.items() if value}


def _files_of(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.is_dir()}
    except OSError:
        return set()


def _refuse_way_out(folder: str, what: str) -> None:
    if folder.startswith("/") or "\0" in folder or ".." in folder.split("/"):
        raise LayoutError(
            f"of the {what} one lies in '{folder[:200]}', which leads out of the data folder; "
            "take the published file",
            field="data",
        )


def _not_there(root: Path, paths: Sequence[str], there: NDArray[np.bool_], what: str) -> str:
    gone = np.flatnonzero(~there)
    first = ", ".join(paths[int(i)] for i in gone[:_NAMED])
    if len(gone) == len(paths):
        return (
            f"not one of {len(paths):,} {what} is there, for example {first}; "
            f"looked for below {root}"
        )
    return (
        f"{len(gone):,} of {len(paths):,} {what} {agreeing(len(gone), 'is', 'are')} not there, "
        f"the first: {first}; restore {agreeing(len(gone), 'it', 'them')} below {root}, or pass "
        "--missing skip to evaluate what is there (the report counts what is not)"
    )


def _told(keys: Iterable[str]) -> str:
    named = sorted(keys)
    if not named:
        return "no object with keys at its beginning"
    return "keys " + ", ".join(f"'{key[:60]}'" for key in named[:_KEYS])


RECORDING_QUERIES = (
    "A recording that is asked with is the mean of its windows' embeddings, whatever --windows "
    "says of those that are searched"
)
"""For `Task.notes`, where recordings are queries."""


class MediaFiles(Sequence[Any]):
    """Photographs or recordings below a folder, as `MediaItem`s made when they are needed.

    Args:
        root: the data folder.
        ids: one per file.
        files: paths below `root`.
        modality: ``image`` or ``audio``.
        metadata: columns of names and rights, one sequence per column; empty texts are left out.
    """

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        files: Sequence[str],
        modality: str,
        metadata: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.ids, self.files = ids, files
        self._root, self._modality, self._metadata = root, modality, metadata or {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: Any, /) -> Any:
        """One item, or a list of those in a slice."""
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        values = {name: column[position] for name, column in self._metadata.items()}
        return MediaItem(
            occurrence_id=self.ids[position],
            media=self.files[position],
            modality=self._modality,
            path=self._root / self.files[position],
            media_root=str(self._root),
            metadata={name: value for name, value in values.items() if value},
        )
