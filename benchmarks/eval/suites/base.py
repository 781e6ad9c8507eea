"""Suites: their data files, the options that they do not have, and how both are checked.

A missing file is named with its origin and size, all missing files in one message.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.benchmarks.eval.tasks.prompts import check_templates
from bittern.errors import InvalidInputError, LayoutError
from bittern.text import agreeing

Missing = Literal["error", "skip"]
Pair = tuple[str, str]
"""Modality of the queries, and of the items."""
_NAMED = 3
"""Missing files that a message names."""


@dataclass(frozen=True)
class DataFile:
    """A file or folder that a layout needs.

    Attributes:
        path: below the data folder; several alternatives are separated by ``|``.
        what: its content.
        origin: where it comes from, in words (project, release, file name); no address is fetched.
        size: roughly, in words.
        optional: whether some tasks do without it.
    """

    path: str
    what: str
    origin: str
    size: str
    optional: bool = False


@dataclass(frozen=True)
class Limit:
    """An option of the protocol that a suite does not have, or has with few values.

    Attributes:
        option: a field of `Protocol`.
        why: the suite does not have it; for the message.
        allowed: values besides the protocol's default.
    """

    option: str
    why: str
    allowed: Sequence[str] = ()

    def check(self, suite: str, protocol: Protocol) -> None:
        """Refuse other values.

        Raises:
            InvalidInputError: the protocol has one.
        """
        value = getattr(protocol, self.option)
        if value == getattr(Protocol(), self.option) or value in self.allowed:
            return
        given = f"--{self.option.replace('_', '-')} {str(value)[:60]}"
        choice = f"choose {', '.join(self.allowed)}, or " if self.allowed else ""
        raise InvalidInputError(
            f"{suite} has no {given}: {self.why}; {choice}leave the option out",
            field=self.option,
        )


class Suite(ABC):
    """A benchmark with its published layout.

    Attributes:
        name: on the command line.
        about: one line for people, with its paper.
        layout: the files in its data folder.
        limits: options that it does not have.
        needs_data: whether `--data` must be given.
        pairs: modality of the queries, and of the items, of its tasks.
        measures: names of the measures that its papers report, the main one first.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    layout: ClassVar[Sequence[DataFile]]
    limits: ClassVar[Sequence[Limit]] = ()
    needs_data: ClassVar[bool] = True
    pairs: ClassVar[Sequence[Pair]]
    measures: ClassVar[Sequence[str]]

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is loaded.

        Raises:
            LayoutError: files are missing; all of them are named in one message.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        self.check_options(protocol)
        self.folder(data, protocol)

    def check_options(self, protocol: Protocol) -> None:
        """Refuse prompts that cannot be filled, and options that the suite does not have."""
        if protocol.prompts:
            check_templates(protocol.prompts)
        for limit in self.limits:
            limit.check(self.name, protocol)

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The data folder, with every file that the protocol needs."""
        del protocol
        return check_layout(data, self.layout, self.name)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """The tasks that the data and the model's towers allow, layout and options checked first.

        Args:
            data: the data folder.
            protocol: how it is run.
            towers: modalities that the model has towers for.

        Raises:
            LayoutError: files are missing, or are not in the published layout.
            QrelsError: judgements that cannot be used.
            LimitExceededError: more items or queries than fit.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        self.check(data, protocol)
        pairs = [pair for pair in self.pairs if towers.issuperset(pair)]
        return self.make(self.folder(data, protocol), protocol, pairs) if pairs else []

    @abstractmethod
    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """The tasks; see `tasks`.

        Args:
            root: what `folder` returns.
            protocol: how it is run, checked.
            pairs: those of the suite's pairs that the model has towers for, at least one.
        """


def check_layout(data: Path | None, layout: Sequence[DataFile], suite: str) -> Path:
    """The data folder, with every file in it that is not optional.

    Args:
        data: the data folder.
        layout: what it must hold.
        suite: name of the suite.

    Raises:
        LayoutError: there is no such folder, or files are missing; every one of them is named.
    """
    wanted = "\n".join(f"  {described(file)}" for file in layout)
    if data is None:
        raise LayoutError(
            f"{suite} needs its data: give their folder with --data. It holds:\n{wanted}",
            field="data",
        )
    if not data.is_dir():
        state = "is a file, no folder" if data.exists() else "does not exist"
        raise LayoutError(
            f"the data folder {data} {state}; {suite} needs a folder that holds:\n{wanted}",
            field="data",
        )
    lacking = [file for file in layout if not file.optional and found(data, file) is None]
    if lacking:
        listed = "\n".join(f"  {described(file)}" for file in lacking)
        them = agreeing(len(lacking), "it", "them")
        raise LayoutError(
            f"{data} lacks {len(lacking)} of {suite}'s {len(layout)} files:\n"
            f"{listed}\nBittern does not fetch {them}: put {them} there under "
            f"{agreeing(len(lacking), 'this name', 'these names')}, or give another --data",
            field="data",
            details={"missing": ", ".join(file.path for file in lacking)},
        )
    return data


def described(file: DataFile) -> str:
    """A file in one line: its path, its content, its origin, its size."""
    path = " or ".join(file.path.split("|"))
    optional = "; optional" if file.optional else ""
    return f"{path}: {file.what}; from {file.origin}; {file.size}{optional}"


def found(data: Path, file: DataFile) -> Path | None:
    """Path of a file, the first of its alternatives that exists; a folder must not be empty.

    A path that ends with ``/`` is a folder, any other a file.

    Raises:
        LayoutError: it exists and may not be read.
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
    """Path of a file that `check_layout` has seen.

    Raises:
        LayoutError: it does not exist (any more).
    """
    path = found(data, file)
    if path is None:
        raise LayoutError(f"{data} lacks: {described(file)}", field="data")
    return path


def check_files(root: Path, paths: Sequence[str], missing: Missing, what: str) -> NDArray[np.bool_]:
    """Which of the listed files exist, bool [n]. Each folder is listed once, no file is opened.

    Args:
        root: folder of the paths.
        paths: relative to `root`, with ``/``; up to millions.
        missing: whether missing files end the run; at least one must exist.
        what: for messages, in the plural: ``images that train.json lists``.

    Raises:
        LayoutError: a path leads out of `root`; files are missing and may not; all are missing.
    """
    folders: dict[str, array[int]] = {}
    for i, path in enumerate(paths):
        folders.setdefault(path.rpartition("/")[0], array("q")).append(i)
    exist = np.zeros(len(paths), np.bool_)
    for folder, members in folders.items():
        if folder.startswith("/") or "\0" in folder or ".." in folder.split("/"):
            raise LayoutError(
                f"of the {what} one lies in '{folder[:200]}', which leads out of the data folder; "
                "take the published file",
                field="data",
            )
        names = _files_of(root / folder)
        for i in members:
            exist[i] = paths[i].rpartition("/")[2] in names
    lacking = np.flatnonzero(~exist)
    if len(lacking) and (missing == "error" or len(lacking) == len(paths)):
        them = agreeing(len(lacking), "it", "them")
        first = ", ".join(paths[int(i)] for i in lacking[:_NAMED])
        raise LayoutError(
            f"none of {len(paths):,} {what} exists below {root}, for example {first}"
            if len(lacking) == len(paths)
            else f"{len(lacking):,} of {len(paths):,} {what} {agreeing(len(lacking), 'is', 'are')} "
            f"missing, the first: {first}; restore {them} below {root}, or leave {them} out with "
            "--missing skip (the report counts missing files)",
            field="data",
        )
    return exist


def skipped_files(exist: NDArray[np.bool_], what: str) -> list[str]:
    """The sentence for `Task.left_out` on missing files; none where all exist."""
    lacking = int(np.count_nonzero(~exist))
    if not lacking:
        return []
    was = agreeing(lacking, "is missing and was", "are missing and were")
    return [f"{lacking:,} of {len(exist):,} {what} {was} skipped"]


def _files_of(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.is_dir()}
    except OSError:
        return set()
