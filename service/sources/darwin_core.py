"""Darwin Core Archives, GBIF downloads among them: a zip, or the folder that it was unpacked to.

https://dwc.tdwg.org/text/ and https://techdocs.gbif.org/en/data-use/download-formats.

Occurrences are the core, or extend a core of events. Their media stand in a table of one of the
extensions Simple Multimedia, Audiovisual (Audubon) Core or Image, or in the column
`associatedMedia` of occurrences without rows there. The archive holds addresses, seldom media:
`bittern.service.sources.media_locator` says where those are looked for.

python-dwca-reader, the format's own library, is what the tests compare with, and not what reads
here: it unpacks the whole zip before it reads a row, keeps all ids of all extensions in memory,
knows no line numbers, and stops at the first row that is too short.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bittern.errors import BitternError, ManifestError, SourceNotFoundError
from bittern.service.sources.base import Listed, SourceOptions, another_medium, failed
from bittern.service.sources.darwin_core_join import MediaIndex, MediaRow
from bittern.service.sources.darwin_core_meta import (
    EVENT,
    MEDIA,
    OCCURRENCE,
    Meta,
    Table,
    read_meta,
)
from bittern.service.sources.gbif_simple import is_simple_download, refuse_simple_download
from bittern.service.sources.licences import licence_code
from bittern.service.sources.media_locator import MediaPlaces, is_address, modality_of_media
from bittern.service.sources.number_cells import NumberCells
from bittern.service.sources.packed import ArchiveFiles, has_meta, table_rows
from bittern.types import MediaItem

_WINS = frozenset({"type", "license", "rightsHolder", "references"})
"""What a medium says of itself is truer than what its occurrence says."""
_LICENCES = ("license", "rights", "WebStatement", "UsageTerms", "rights_2")
_TYPES = ("type", "type_2")
_LONGEST_NAME = 64


def is_darwin_core(path: Path) -> bool:
    """Whether a path looks like an archive, or like the GBIF download that is none."""
    return has_meta(path) or is_simple_download(path)


def darwin_core_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media of an archive's occurrences, in the order of the occurrences.

    Raises:
        ManifestError: the archive as a whole cannot be read, or is of no occurrences.
        SourceNotFoundError: a file that meta.xml names is missing, or nothing has media.
    """
    refuse_simple_download(path)
    with closing(ArchiveFiles(path)) as files, closing(MediaIndex()) as index:
        listed = False
        for each in _Listing(path, options, files, index).entries():
            listed = True
            yield each
    if not listed:
        raise SourceNotFoundError(
            f"none of the occurrences in {path} has media; ask for those that have "
            "(at GBIF: the filter 'media type')",
            field="source",
        )


class _Listing:
    """One pass over one archive."""

    def __init__(
        self, path: Path, options: SourceOptions, files: ArchiveFiles, index: MediaIndex
    ) -> None:
        self.path, self.files, self.index = path, files, index
        self.places = MediaPlaces(path, options)
        self.meta = read_meta(files.meta())
        self.occurrences, self.events = _occurrences(path, self.meta)
        self.of_core = self.events is None
        self.taken = {*self.occurrences.columns, *(self.events.columns if self.events else ())}
        self.numbers = NumberCells(lambda: self.occurrences.dialect.separator)

    def entries(self) -> Iterator[Listed]:
        tables = [table for table in self.meta.extensions if table.kind in MEDIA]
        if not tables and "associatedMedia" not in self.occurrences.columns:
            kinds = ", ".join(table.kind for table in self.meta.extensions) or "none"
            raise ManifestError(
                f"{self.path} names no media: it has no table of media (its extensions: {kinds}) "
                "and no column associatedMedia",
                field="source",
            )
        for table in tables:
            yield from self._media(table)
        if self.events is not None:
            yield from self._take_events(self.events)
        for place, key, row, wrong in table_rows(self.files, self.occurrences):
            if wrong:
                yield failed("", place, ManifestError(wrong))
            else:
                yield from self._occurrence(place, key, row)
        yield from self._left()

    def _media(self, table: Table) -> Iterator[Listed]:
        """Index a table of media; list what is wrong with it."""
        for place, core, row, wrong in table_rows(self.files, table):
            name = row.pop("accessURI", "") or row.pop("identifier", "")
            own = row.pop("occurrenceID", "")
            key = f"c:{core}" if self.of_core or not own else f"o:{own}"
            if not wrong and not name:
                wrong = "the row names no media: it has no identifier"
            if not wrong and not self.index.add_medium(MediaRow(place, key, name, row)):
                wrong = f"'{name[:200]}' stands there twice for the same occurrence"
            if wrong:
                yield failed(name, place, ManifestError(wrong))

    def _take_events(self, table: Table) -> Iterator[Listed]:
        for place, key, row, wrong in table_rows(self.files, table):
            if not wrong and not self.index.add_event(key, row):
                wrong = f"the event '{key[:200]}' stands there already"
            if wrong:
                yield failed(key, place, ManifestError(wrong))

    def _occurrence(self, place: str, key: str, row: dict[str, str]) -> Iterator[Listed]:
        own = row.pop("occurrenceID", "")
        joined = f"c:{key}" if self.of_core else f"o:{own}"
        media = self.index.of(joined) if joined[2:] else iter(())
        first = next(media, None)
        if first is None:
            media = _associated(place, row)
            first = next(media, None)
            if first is None:
                return
        elif not self.index.first_time(joined):
            error = ManifestError(f"the id '{joined[2:]}' stands there already")
            yield failed(own or key, place, error)
            return
        known = row if self.of_core else {**self.index.event(key), **row}
        yield from self._items(own or key or place, known, first, media)

    def _left(self) -> Iterator[Listed]:
        """Media of events as a whole, and media that belong to nothing."""
        for medium in self.index.left():
            key = medium.key[2:]
            event = self.index.event(key) if medium.key.startswith("c:") else {}
            if event:
                yield from self._items(key, event, medium, iter(()))
                continue
            message = f"no {'occurrence' if self.of_core else 'event'} has the id '{key[:200]}'"
            yield failed(medium.name, medium.place, SourceNotFoundError(message))

    def _items(
        self, name: str, known: dict[str, str], first: MediaRow, others: Iterator[MediaRow]
    ) -> Iterator[Listed]:
        """An entry for each medium; the first of an occurrence has its bare id."""
        bare = self.index.first_time(f"i:{name}")
        for medium in _chained(first, others):
            try:
                item = self._item(name, known, medium)
            except BitternError as error:
                yield failed(name, medium.place, error)
            else:
                yield Listed(item if bare else another_medium(item), medium.place)
            bare = False

    def _item(self, name: str, known: dict[str, str], medium: MediaRow) -> MediaItem:
        values = medium.values
        kind = next((values[each] for each in _TYPES if each in values), "")
        modality = modality_of_media(medium.name, kind, values.get("format", ""))
        found = self.places.find(medium.name)
        metadata = {**known, **self._of_medium(medium)}
        metadata.pop("media", None)
        if "license" in metadata:
            metadata["license"] = licence_code(metadata["license"])
        return MediaItem(
            occurrence_id=name,
            media=found.media,
            modality=modality,
            path=found.path,
            media_root=found.media_root,
            metadata=self.numbers.checked(metadata),
            url=found.url,
        )

    def _of_medium(self, medium: MediaRow) -> dict[str, str]:
        """What a medium says of itself, under names that its occurrence has not taken."""
        values = medium.values
        said: dict[str, str] = {}
        for name, value in values.items():
            free = name in _WINS or name not in self.taken
            said[name if free else f"media_{name}"[:_LONGEST_NAME]] = value
        licences = [licence_code(values[each]) for each in _LICENCES if each in values]
        if licences:
            said["license"] = next(
                (each for each in licences if each.startswith("CC")), licences[0]
            )
        for term, name in (("Owner", "rightsHolder"), ("furtherInformationURL", "references")):
            if term in values:
                said.setdefault(name, values[term])
        if is_address(medium.name):
            said["accessURI"] = medium.name
        return said


def _occurrences(path: Path, meta: Meta) -> tuple[Table, Table | None]:
    """The table of occurrences, and that of the events if these are the core."""
    if meta.core.kind in OCCURRENCE:
        return meta.core, None
    if meta.core.kind in EVENT:
        for table in meta.extensions:
            if table.kind in OCCURRENCE:
                return table, meta.core
    raise ManifestError(
        f"{path} has no occurrences: its core is of {meta.core.kind or 'no kind'}; archives of "
        "occurrences, and of events with occurrences, can be read",
        field="source",
    )


def _associated(place: str, row: dict[str, str]) -> Iterator[MediaRow]:
    """Media that an occurrence names itself, separated by upright strokes."""
    names = (name.strip() for name in row.get("associatedMedia", "").split("|"))
    return (MediaRow(place, "", name, {}) for name in dict.fromkeys(names) if name)


def _chained(first: MediaRow, others: Iterator[MediaRow]) -> Iterator[MediaRow]:
    yield first
    yield from others
