"""What a training source lists, and its entries turned into examples one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from bittern.errors import InvalidInputError, ManifestError
from bittern.service.sources import Source, read_source
from bittern.service.sources.headings import column_names
from bittern.service.training.examples import Example, Examples, Skipped
from bittern.types import AddResult, MediaItem

_SHOWN = 3
Reading = Callable[[MediaItem], Example]
"""One item read; a `ManifestError` says why it cannot be an example."""


def list_media(source: Path) -> Listing:
    """What `bittern.service.sources.read_source` lists; nothing is decoded.

    Raises:
        SourceNotFoundError: nothing there, or no media in it.
        ManifestError: unreadable, or not one row has media that are there.
    """
    try:
        listed = read_source(source)
    except OSError as error:
        raise ManifestError(f"{source} cannot be read: {error}", field="source") from error
    listing = Listing(listed)
    listing.refuse_if_nothing_is_there()
    return listing


class Listing:
    """The media of a source, and the columns that say something about them.

    Attributes:
        is_folder: whether the source is a folder, not a manifest.
        columns: kept names of the columns that are not empty, in order.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.is_folder = source.path.is_dir()
        self.columns: dict[str, None] = {}
        for entry in source:
            if isinstance(entry, MediaItem):
                self.columns.update(dict.fromkeys(entry.metadata))

    def told(self) -> str:
        """The columns, for a message."""
        named = [column for column in self.columns if column != "type"]
        return ", ".join(named[:20]) + (", ..." if len(named) > 20 else "") if named else "none"

    def find(self, asked: str) -> str | None:
        """The name under which a manifest's column is kept, if it has something in it."""
        kept = column_names([asked], {})[0]
        by_lower = {column.lower(): column for column in self.columns}
        return by_lower.get(asked.strip().lower()) or by_lower.get(kept.lower())

    def column(self, asked: str, holds: str, option: str) -> str:
        """The name under which a manifest's column is kept; refused if it is not there."""
        found = self.find(asked)
        if found is None:
            raise ManifestError(
                f"{self._source.path} has no column '{asked}' with {holds}; its columns with "
                f"something in them are {self.told()}: name one of them with {option}",
                field=option.strip("-").replace("-", "_"),
            )
        return found

    def refuse_column(self, column: str | None) -> None:
        """Refuse a column that was asked for: a folder has none."""
        if column is not None:
            raise InvalidInputError(
                f"{self._source.path} is a folder and has no column '{column}'; its subfolders' "
                "names are used, or give a manifest",
                field="source",
            )

    def refuse_if_nothing_is_there(self) -> None:
        """Refuse a source whose every entry failed already."""
        failed = [_failed(w, e) for w, e in self._placed() if isinstance(e, AddResult)]
        if len(failed) == len(self._source.listed):
            self._refuse(0, failed)

    def examples(self, read: Reading, strict: bool) -> Examples:
        """Every entry read, or skipped with its reason."""
        items: list[Example] = []
        skipped: list[Skipped] = []
        first: dict[str, str] = {}
        for where, entry in self._placed():
            if isinstance(entry, AddResult):
                skipped.append(_failed(where, entry))
                continue
            try:
                example = read(entry)
                before = first.setdefault(str(example.path.resolve()), where)
                if before != where:
                    raise ManifestError(f"the same file stands in {before} already")
                items.append(example)
            except ManifestError as error:
                skipped.append(Skipped(where, f"'{entry.media[:200]}': {error.message}"))
        if not items or (strict and skipped):
            self._refuse(len(items), skipped)
        return Examples(self._source.path, tuple(items), tuple(skipped))

    def _placed(self) -> Iterator[tuple[str, MediaItem | AddResult]]:
        """Where each entry stands, and the entry."""
        for entry, place in self._source.listed:
            yield place or entry.occurrence_id, entry

    def _refuse(self, usable: int, skipped: Sequence[Skipped]) -> NoReturn:
        shown = "; ".join(f"{s.where}: {s.reason}" for s in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        raise ManifestError(
            f"{self._source.path}: {len(skipped)} of {usable + len(skipped)} entries cannot be "
            f"trained on: {shown}{more}",
            field="source",
            details={"skipped": str(len(skipped)), "usable": str(usable)},
        )


def _failed(where: str, entry: AddResult) -> Skipped:
    return Skipped(where, entry.message.removeprefix(f"{where}: "))
