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
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.service.sources.addresses import is_address
from bittern.service.sources.base import (
    Listed,
    SourceOptions,
    another_medium,
    failed,
    listed,
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
from bittern.service.sources.media_locator import MediaLocator, modality_of_media
from bittern.service.sources.packed import PackedFiles, describes, head_of
from bittern.service.sources.spill import Spill
from bittern.service.sources.tables import rows
from bittern.types import MediaItem

_WINS = frozenset({"type", "license", "rightsHolder", "references"})
"""Columns of a medium that replace those of its occurrence."""
_LICENCES = ("license", "rights", "WebStatement", "UsageTerms", "rights_2")
_TYPES = ("type", "type_2")
_LONGEST_NAME = 64


class _Row(NamedTuple):
    """A row of a table: its position, key, non-empty values, and error (empty if none)."""

    position: str
    key: str
    values: dict[str, str]
    wrong: str


class _Medium(NamedTuple):
    """A row of a table of media: its position, the key of its occurrence, its name and values."""

    position: str
    key: str
    name: str
    values: dict[str, str]


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
    with PackedFiles(path, META) as files, Spill() as spill:
        yield from not_empty(
            _Listing(path, options, files, spill).entries(),
            f"none of the occurrences in {path} has media; request those with media "
            "(at GBIF: filter by 'media type')",
        )


def _is_simple_download(path: Path) -> bool:
    if path.suffix.lower() not in (".csv", ".txt", ".tsv", ".zip") or not path.is_file():
        return False
    return head_of(path).removeprefix(b"\xef\xbb\xbf").startswith(b"gbifID\tdatasetKey\t")


class _Listing:
    """One pass over one archive."""

    def __init__(
        self, path: Path, options: SourceOptions, files: PackedFiles, spill: Spill
    ) -> None:
        self.path, self.files, self.spill = path, files, spill
        self.locator = MediaLocator(path, options)
        with files.open(META) as file:
            self.meta = read_meta(file.read(MAX_META_BYTES + 1))
        self.occurrences, self.events = _occurrences(path, self.meta)
        self.of_core = self.events is None
        self.taken = {*self.occurrences.columns, *(self.events.columns if self.events else ())}

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
            yield from self._spill_media(table)
        if self.events is not None:
            yield from self._spill_events(self.events)
        for row in _table_rows(self.files, self.occurrences):
            if row.wrong:
                yield failed("", row.position, ManifestError(row.wrong))
            else:
                yield from self._occurrence(row)
        yield from self._unused()

    def _spill_media(self, table: MetaTable) -> Iterator[Listed]:
        """Store the rows of a table of media; list its errors."""
        for position, core, row, wrong in _table_rows(self.files, table):
            name = row.pop("accessURI", "") or row.pop("identifier", "")
            own = row.pop("occurrenceID", "")
            key = f"c:{core}" if self.of_core or not own else f"o:{own}"
            if not wrong and not name:
                wrong = "the row names no media: it has no identifier"
            if not wrong and not self.spill.add_first("pairs", f"{key}\0{name}"):
                wrong = f"'{name[:200]}' is listed twice for the same occurrence"
            if wrong:
                yield failed(name, position, ManifestError(wrong))
            else:
                self.spill.add("media", key, [position, name, row])

    def _spill_events(self, table: MetaTable) -> Iterator[Listed]:
        for position, key, row, wrong in _table_rows(self.files, table):
            if not wrong and not self.spill.add_first("events", key, row):
                wrong = f"an earlier row has the event '{key[:200]}'"
            if wrong:
                yield failed(key, position, ManifestError(wrong))

    def _event(self, key: str) -> dict[str, str]:
        return self.spill.get("events", key) or {}

    def _media(self, key: str) -> Iterator[_Medium]:
        for position, name, values in self.spill.find("media", key):
            yield _Medium(position, key, name, values)

    def _occurrence(self, row: _Row) -> Iterator[Listed]:
        own = row.values.pop("occurrenceID", "")
        key = f"c:{row.key}" if self.of_core else f"o:{own}"
        media = self._media(key) if key[2:] else iter(())
        first = next(media, None)
        if first is None:
            media = _associated(row)
            first = next(media, None)
            if first is None:
                return
        elif not self.spill.add_first("used", key):
            error = ManifestError(f"an earlier row has the id '{key[2:]}'")
            yield failed(own or row.key, row.position, error)
            return
        known = row.values if self.of_core else {**self._event(row.key), **row.values}
        yield from self._items(own or row.key or row.position, known, chain([first], media))

    def _unused(self) -> Iterator[Listed]:
        """Media of events as a whole, and errors for media without an occurrence."""
        for key, (position, name, values) in self.spill.rows("media"):
            if self.spill.has("used", key):
                continue
            own = key[2:]
            event = self._event(own) if key.startswith("c:") else {}
            if event:
                medium = _Medium(position, key, name, values)
                yield from self._items(own, event, iter([medium]))
                continue
            message = f"no {'occurrence' if self.of_core else 'event'} has the id '{own[:200]}'"
            yield failed(name, position, SourceNotFoundError(message))

    def _items(
        self, name: str, known: dict[str, str], media: Iterator[_Medium]
    ) -> Iterator[Listed]:
        """An entry for each medium; the first of an occurrence has its bare id."""
        bare = self.spill.add_first("ids", name)
        for medium in media:
            item = partial(self._item, name, known, medium, first=bare)
            yield listed(name, medium.position, item)
            bare = False

    def _item(self, name: str, known: dict[str, str], medium: _Medium, *, first: bool) -> MediaItem:
        values = medium.values
        kind = next((values[each] for each in _TYPES if each in values), "")
        modality = modality_of_media(medium.name, kind, values.get("format", ""))
        found = self.locator.find(medium.name)
        metadata = {**known, **self._of_medium(medium)}
        metadata.pop("media", None)
        if "license" in metadata:
            metadata["license"] = licence(metadata["license"])
        separator = self.occurrences.dialect.separator
        item = found.item(name, modality, with_numbers(metadata, separator))
        return item if first else another_medium(item)

    def _of_medium(self, medium: _Medium) -> dict[str, str]:
        """Metadata of a medium, under names that its occurrence does not use."""
        values = medium.values
        said: dict[str, str] = {}
        for name, value in values.items():
            free = name in _WINS or name not in self.taken
            said[name if free else f"media_{name}"[:_LONGEST_NAME]] = value
        licences = [licence(values[each]) for each in _LICENCES if each in values]
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


def _associated(row: _Row) -> Iterator[_Medium]:
    """Media in the occurrence's own column, separated by vertical bars."""
    names = (name.strip() for name in row.values.get("associatedMedia", "").split("|"))
    return (_Medium(row.position, "", name, {}) for name in dict.fromkeys(names) if name)


def _table_rows(files: PackedFiles, table: MetaTable) -> Iterator[_Row]:
    """The rows of a table, lazily."""
    for name in table.files:
        with files.open(name) as stream:
            width = 0
            for count, (line, cells) in enumerate(rows(stream, table.dialect), 1):
                position = f"{name}, line {line}"
                if count <= table.header_lines:
                    # Rows have as many cells as the last header line.
                    width = 0 if isinstance(cells, str) else len(cells)
                    continue
                wrong = cells if isinstance(cells, str) else ""
                if isinstance(cells, list) and len(cells) < table.width:
                    wrong = f"the row has {len(cells)} cells, meta.xml names {table.width}"
                elif isinstance(cells, list) and width and len(cells) != width:
                    wrong = f"the row has {len(cells)} cells, the header {width}"
                if wrong or isinstance(cells, str):
                    yield _Row(position, "", {}, wrong)
                    continue
                key = "" if table.key is None else cells[table.key].strip()
                yield _Row(position, key, table.named(cells), "")
