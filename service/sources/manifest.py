"""A manifest: a table (CSV, tab-separated, Parquet) with a column `media` and whatever others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bittern.errors import BitternError, ManifestError, SourceNotFoundError
from bittern.service.sources.addresses import below, is_address, may_fetch, parsed
from bittern.service.sources.base import (
    Listed,
    SourceOptions,
    another_medium,
    failed,
    modality_of_suffix,
)
from bittern.service.sources.headings import column_names, likely_media, shown
from bittern.service.sources.ids import id_of_name
from bittern.service.sources.number_cells import NumberCells, separator_of
from bittern.service.sources.spill import FirstLines
from bittern.service.sources.tables import PARQUET_SUFFIXES, TEXT_SUFFIXES, Cells, Table
from bittern.types import MediaItem

MANIFEST_SUFFIXES = TEXT_SUFFIXES | PARQUET_SUFFIXES
_HEAD_BYTES = 1 << 20
_EXPORTED = frozenset({"id", "modality", "start_s", "end_s"})
"""What our own exports say of an observation; beside `occurrenceID` and the media, nobody else's
tables have all of these. Only their columns can have these names, see `headings`."""
_NOT_KEPT = _EXPORTED | {"media", "occurrenceID"}
_TYPES = {"stillimage": "image", "image": "image", "sound": "audio", "audio": "audio"}


def manifest_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The rows of a manifest; see `table_entries`."""
    return table_entries(Table(path.name, path), options)


def manifest_count(path: Path, options: SourceOptions) -> int:
    """How many rows a manifest has."""
    return Table(path.name, path).count()


def table_entries(table: Table, options: SourceOptions) -> Iterator[Listed]:
    """The rows of a manifest, here or at an address.

    `media` holds paths relative to the manifest (or to `options.media`), absolute paths, or
    addresses below `options.fetch`. `occurrenceID` names the item (default: what `media` says),
    `type` is ``StillImage`` or ``Sound`` (default: by the suffix). All other columns are kept as
    metadata, under the names that `headings.column_names` gives them. Rows may share an
    `occurrenceID` if their media differ.

    A table that was exported from an archive has a row for each window of a recording; these are
    one item, of the kind that `modality` says, and their times are not kept.

    Raises:
        ManifestError: the manifest as a whole cannot be read.
    """
    places = _Places.of(table, options)
    seen, named, windows = FirstLines(), FirstLines(), FirstLines()
    numbers = NumberCells(lambda: _separator(table))
    for line, row in table.rows(lambda headings: _columns(table, headings, options)):
        place = table.where(line)
        if not isinstance(row, str) and _EXPORTED & row.keys():
            own, media = str(row.get("occurrenceID", "")), str(row.get("media", ""))
            if windows.first(line, own, media) != line:
                continue
        try:
            if isinstance(row, str):
                raise ManifestError(row)
            item = _item(places, numbers.checked(row))
            before = seen.first(line, item.occurrence_id, item.media)
            if before != line:
                stands = table.where(before).rpartition(", ")[2]
                raise ManifestError(
                    f"'{item.occurrence_id}' with '{item.media}' stands in {stands} already"
                )
        except BitternError as error:
            cells = {} if isinstance(row, str) else row
            # The first row of an occurrence keeps the bare id, whether its file is there or not.
            own = str(cells.get("occurrenceID", ""))
            named.first(line, own)
            yield failed(own or str(cells.get("media", "")), place, error)
            continue
        first = named.first(line, item.occurrence_id) == line
        yield Listed(item if first else another_medium(item), place)


def _separator(table: Table) -> str:
    """What separates its cells; a comma for Parquet, where texts may be written either way."""
    if table.is_parquet:
        return ","
    with table.open() as file:
        return separator_of(file.read(_HEAD_BYTES))


def _columns(table: Table, headings: list[str], options: SourceOptions) -> list[str]:
    if not headings and not table.is_parquet:
        raise ManifestError(f"{table.place} is empty: it has no header", field="source")
    columns = column_names(headings, options.columns)
    if "media" in columns:
        if {*_EXPORTED, "occurrenceID"} <= set(headings) - options.columns.keys():
            columns = [h if h in _EXPORTED else c for h, c in zip(headings, columns, strict=True)]
        return columns
    likely = [f"--column {_quoted(heading)}=media" for heading in likely_media(headings)]
    raise ManifestError(
        f"{table.place} has no column 'media' with the files' paths; its columns are "
        f"{shown(headings)}: "
        + (
            f"if one of them holds the files, say {' or '.join(likely)}"
            if likely
            else "name the one that holds the files with --column HEADING=media"
        ),
        field="source",
    )


def _quoted(heading: str) -> str:
    return f"'{heading}'" if not heading.isalnum() else heading


@dataclass(frozen=True)
class _Places:
    """Where the media of a manifest are looked for.

    Attributes:
        folder: what paths are relative to; None if that is an address.
        address: what paths are relative to; None if that is a folder.
        confined: whether paths may not leave the folder, as in a manifest from elsewhere.
        root: `folder` with links followed.
        fetch: beginnings of addresses that may be fetched.
    """

    folder: Path | None
    address: str | None
    confined: bool
    root: str
    fetch: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, options: SourceOptions) -> _Places:
        remote = isinstance(table.place, str)
        base = options.media
        if base is None:
            base = str(table.place).rpartition("/")[0] if remote else str(Path(table.place).parent)
        if is_address(base):
            parsed(base)
            return cls(None, base, True, base, options.fetch)
        folder = Path(base).expanduser()
        if not folder.is_dir():
            raise SourceNotFoundError(f"there is no folder with media at {folder}", field="media")
        return cls(folder, None, remote, str(folder.resolve()), options.fetch)

    def find(self, media: str) -> tuple[Path | None, str | None, str]:
        """Path or address of one medium, and what it is relative to."""
        if is_address(media):
            if may_fetch(media, self.fetch):
                return None, media, ""
            parts = parsed(media)
            raise SourceNotFoundError(
                f"'{media[:200]}' is not fetched unless you allow it: --fetch "
                f"{parts.scheme}://{urlsplit(media).netloc}/"
            )
        if self.address is not None:
            return None, below(self.address, media), self.root
        assert self.folder is not None
        if self.confined:
            below("", media)
        for name in dict.fromkeys((media, media.replace("\\", "/"))):
            path = self.folder / name
            try:
                if path.is_file():
                    return path, None, self.root
            except OSError:  # a name longer than the file system allows
                continue
        raise SourceNotFoundError(f"there is no file '{media[:200]}' below {self.folder}")


def _item(places: _Places, row: Cells) -> MediaItem:
    media = str(row.get("media", ""))
    if not media or "\0" in media:
        raise ManifestError("the column 'media' holds no path")
    name = urlsplit(media).path if is_address(media) else media
    told = str(row.get("modality", "")) or str(row.get("type", ""))
    modality = _TYPES.get(told.lower()) or modality_of_suffix(Path(name))
    if modality is None:
        raise ManifestError(
            f"'{media[:200]}' is of no kind that its suffix tells; add a column 'type' that says "
            "StillImage or Sound"
        )
    path, url, root = places.find(media)
    return MediaItem(
        occurrence_id=str(row.get("occurrenceID", "")) or id_of_name(media),
        media=media,
        modality=modality,
        path=path,
        media_root=root,
        metadata={c: v for c, v in row.items() if c not in _NOT_KEPT},
        url=url,
    )
