"""Darwin Core Archives and GBIF downloads: a zip, or its unpacked folder.

https://dwc.tdwg.org/text/ and https://techdocs.gbif.org/en/data-use/download-formats.

Occurrences are the core, or extend a core of events. Their media are in a table of one of the
extensions Simple Multimedia, Audiovisual (Audubon) Core or Image, or in the column
`associatedMedia` of occurrences without rows there. The archive holds addresses, seldom media;
`media_locator` finds them. The tables may be unsorted: the smaller ones, media and events, go to
disk, and occurrences are streamed.

python-dwca-reader, the format's library, serves as a reference in the tests. It is not used here
because it unpacks the whole zip first, keeps all ids in memory, has no line numbers, and stops at
the first short row.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.service.sources.addresses import is_address
from bittern.service.sources.base import (
    Listed,
    SourceOptions,
    failed,
    not_empty,
)
from bittern.service.sources.darwin_core_meta import (
    EVENT,
    MAX_META_BYTES,
    MEDIA,
    META,
    OCCURRENCE,
    Meta,
    MetaTable,
    read_meta,
)
from bittern.service.sources.field_values import licence, with_numbers
from bittern.service.sources.listing import Listing
from bittern.service.sources.media_locator import modality_of_media
from bittern.service.sources.packed import PackedFiles, describes, head_of
from bittern.service.sources.tables import Row, rows
from bittern.types import MediaItem

_WINS = frozenset({"type", "license", "rightsHolder", "references"})
"""Columns of a medium that replace those of its occurrence."""
_LICENCES = ("license", "rights", "WebStatement", "UsageTerms", "rights_2")
_TYPES = ("type", "type_2")
_LONGEST_NAME = 64


_KEY = "#key"
"""The cell that joins the tables; no column has this name."""


def is_darwin_core(path: Path) -> bool:
    """Whether a path is an archive, or a GBIF download in the simple format."""
    return describes(path, META) or _is_simple_download(path)


def darwin_core_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media of an archive's occurrences, in the order of the occurrences.

    Raises:
        ManifestError: the archive as a whole cannot be read, or has no occurrences.
        SourceNotFoundError: a file of meta.xml is missing, or no occurrence has media.
    """
    if _is_simple_download(path):
        raise ManifestError(
            f"{path} is a GBIF download in the simple format, which names no media; request "
            "the same occurrences from GBIF as a Darwin Core Archive",
            field="source",
        )
    with PackedFiles(path, META) as files, _Archive(path, options, files) as archive:
        yield from not_empty(
            archive.entries(),
            f"none of the occurrences in {path} has media; request those with media "
            "(at GBIF: filter by 'media type')",
        )


def _is_simple_download(path: Path) -> bool:
    if path.suffix.lower() not in (".csv", ".txt", ".tsv", ".zip") or not path.is_file():
        return False
    return head_of(path).removeprefix(b"\xef\xbb\xbf").startswith(b"gbifID\tdatasetKey\t")


class _Archive(Listing):
    """One pass over one archive."""

    def __init__(self, path: Path, options: SourceOptions, files: PackedFiles) -> None:
        super().__init__(path, options)
        self.files = files
        self.meta = read_meta(files.description(MAX_META_BYTES))
        self.occurrences, self.events = _occurrences(path, self.meta)
        self.of_core = self.events is None
        self.taken = {*self.occurrences.columns, *(self.events.columns if self.events else ())}

    def entries(self) -> Iterator[Listed]:
        """The media of the occurrences, then those of events as a whole."""
        tables = [table for table in self.meta.extensions if table.kind in MEDIA]
        if not tables and "associatedMedia" not in self.occurrences.columns:
            kinds = ", ".join(table.kind for table in self.meta.extensions) or "none"
            raise ManifestError(
                f"{self.path} names no media: it has no table of media (its extensions: {kinds}) "
                "and no column associatedMedia",
                field="source",
            )
        for table in tables:
            yield from self.stored(_rows(self.files, table), self._store_medium, _medium_name)
        if self.events is not None:
            events = _rows(self.files, self.events)
            yield from self.stored(events, self._store_event, lambda row: row.cells.get(_KEY, ""))
        for row in _rows(self.files, self.occurrences):
            if row.error:
                yield failed("", row.position, ManifestError(row.error))
            else:
                yield from self._occurrence(row)
        yield from self._unused()

    def _store_medium(self, row: Row[str]) -> None:
        values, name = dict(row.cells), _medium_name(row)
        core, own = values.pop(_KEY, ""), values.pop("occurrenceID", "")
        values.pop("accessURI" if "accessURI" in values else "identifier", None)
        key = f"c:{core}" if self.of_core or not own else f"o:{own}"
        if not name:
            raise ManifestError("the row names no media: it has no identifier")
        if not self.tables.add_first("pairs", f"{key}\0{name}"):
            raise ManifestError(f"'{name[:200]}' is listed twice for the same occurrence")
        self.tables.add("media", key, [row.position, name, values])

    def _store_event(self, row: Row[str]) -> None:
        values = dict(row.cells)
        key = values.pop(_KEY, "")
        if not self.tables.add_first("events", key, values):
            raise ManifestError(f"an earlier row has the event '{key[:200]}'")

    def _occurrence(self, row: Row[str]) -> Iterator[Listed]:
        values = dict(row.cells)
        core, own = values.pop(_KEY, ""), values.pop("occurrenceID", "")
        key = f"c:{core}" if self.of_core else f"o:{own}"
        media = self.tables.find("media", key) if key[2:] else iter(())
        first = next(media, None)
        if first is None:
            names = (name.strip() for name in values.get("associatedMedia", "").split("|"))
            media = ([row.position, name, {}] for name in dict.fromkeys(names) if name)
        elif self.tables.add_first("used", key):
            media = chain([first], media)
        else:
            error = ManifestError(f"an earlier row has the id '{key[2:]}'")
            yield failed(own or core, row.position, error)
            return
        known = values if self.of_core else {**self._event(core), **values}
        for position, name, of_medium in media:
            yield self._listed(own or core or row.position, known, position, name, of_medium)

    def _unused(self) -> Iterator[Listed]:
        """Media of events as a whole, and errors for media without an occurrence."""
        for key, (position, name, values) in self.tables.rows("media"):
            if self.tables.has("used", key):
                continue
            own = key[2:]
            event = self._event(own) if key.startswith("c:") else {}
            if event:
                yield self._listed(own, event, position, name, values)
                continue
            message = f"no {'occurrence' if self.of_core else 'event'} has the id '{own[:200]}'"
            yield failed(name, position, SourceNotFoundError(message))

    def _event(self, key: str) -> dict[str, str]:
        return self.tables.get("events", key) or {}

    def _listed(
        self, occurrence: str, known: dict[str, str], position: str, name: str, row: dict[str, str]
    ) -> Listed:
        """A medium of an occurrence, with the metadata of both."""

        def item() -> MediaItem:
            kind = next((row[each] for each in _TYPES if each in row), "")
            modality = modality_of_media(name, kind, row.get("format", ""))
            found = self.locator.find(name)
            metadata = {**known, **self._of_medium(name, row)}
            metadata.pop("media", None)
            if "license" in metadata:
                metadata["license"] = licence(metadata["license"])
            separator = self.occurrences.dialect.separator
            return found.item(occurrence, modality, with_numbers(metadata, separator))

        return self.medium(position, occurrence, item)

    def _of_medium(self, name: str, values: dict[str, str]) -> dict[str, str]:
        """Metadata of a medium, under names that its occurrence does not use."""
        kept: dict[str, str] = {}
        for column, value in values.items():
            free = column in _WINS or column not in self.taken
            kept[column if free else f"media_{column}"[:_LONGEST_NAME]] = value
        licences = [licence(values[each]) for each in _LICENCES if each in values]
        if licences:
            kept["license"] = next(
                (each for each in licences if each.startswith("CC")), licences[0]
            )
        for term, column in (("Owner", "rightsHolder"), ("furtherInformationURL", "references")):
            if term in values:
                kept.setdefault(column, values[term])
        if is_address(name):
            kept["accessURI"] = name
        return kept


def _occurrences(path: Path, meta: Meta) -> tuple[MetaTable, MetaTable | None]:
    """The table of occurrences, and that of events if events are the core."""
    if meta.core.kind in OCCURRENCE:
        return meta.core, None
    if meta.core.kind in EVENT:
        for table in meta.extensions:
            if table.kind in OCCURRENCE:
                return table, meta.core
    raise ManifestError(
        f"{path} has no occurrences: its core has the type {meta.core.kind or 'none'}; archives of "
        "occurrences, and of events with occurrences, can be read",
        field="source",
    )


def _medium_name(row: Row[str]) -> str:
    return row.cells.get("accessURI") or row.cells.get("identifier", "")


def _rows(files: PackedFiles, table: MetaTable) -> Iterator[Row[str]]:
    """The rows of a table, lazily, with their key."""
    for name in table.files:
        with files.open(name) as stream:
            width = 0
            for count, (line, cells) in enumerate(rows(stream, table.dialect), 1):
                if count <= table.header_lines:
                    # Rows have as many cells as the last header line.
                    width = 0 if isinstance(cells, str) else len(cells)
                    continue
                values: dict[str, str] = {}
                error = ""
                if isinstance(cells, str):
                    error = cells
                elif len(cells) < table.width:
                    error = f"the row has {len(cells)} cells, meta.xml names {table.width}"
                elif width and len(cells) != width:
                    error = f"the row has {len(cells)} cells, the header {width}"
                else:
                    values = table.named(cells)
                    values[_KEY] = "" if table.key is None else cells[table.key].strip()
                yield Row(f"{name}, line {line}", line, values, error)
