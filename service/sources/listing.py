"""The common shape of the formats that join tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from bittern.errors import BitternError, ManifestError
from bittern.service.sources.base import Listed, SourceOptions, another_medium, failed, listed
from bittern.service.sources.json_items import Element
from bittern.service.sources.media_locator import MediaLocator
from bittern.service.sources.spill import Spill
from bittern.service.sources.tables import Row
from bittern.types import MediaItem

AnyRow = TypeVar("AnyRow", Row[str], Element)


class Listing(ABC):
    """One pass over one source. A format derives from it, and joins its tables in `entries`.

    Attributes:
        path: of the source.
        locator: finds its media.
        tables: rows that others are joined with.
    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.path = path
        self.locator = MediaLocator(path, options)
        self.tables = Spill()

    @abstractmethod
    def entries(self) -> Iterator[Listed]:
        """The media of the source, and the rows that cannot be used."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tables.close()

    def stored(
        self,
        rows: Iterable[AnyRow],
        store: Callable[[AnyRow], object],
        name: Callable[[AnyRow], str] = lambda row: "",
    ) -> Iterator[Listed]:
        """Store rows that later ones are joined with; list those that cannot be used.

        Args:
            rows: of a table, or elements of a JSON file.
            store: stores one; raises a `BitternError` if it cannot be used.
            name: names a row in the list of failures.
        """
        for row in rows:
            try:
                if row.error:
                    raise ManifestError(row.error)
                store(row)
            except BitternError as error:
                yield failed(name(row), row.position, error)

    def medium(
        self, position: str, occurrence: str, make: Callable[[], MediaItem], name: str = ""
    ) -> Listed:
        """A medium, or the reason why it cannot be used.

        The first medium of an occurrence has the occurrence's id, even if it cannot be used: ids
        must not change once it can.

        Args:
            position: of the row that names the medium.
            occurrence: id of the occurrence.
            make: makes the entry, under that id.
            name: of the medium in the list of failures; by default the occurrence.
        """
        bare = self.tables.add_first("ids", occurrence)
        found = listed(name or occurrence, position, make)
        if bare or not isinstance(found.entry, MediaItem):
            return found
        return found._replace(entry=another_medium(found.entry))
