"""Where media come from: a folder, or a CSV manifest with Darwin Core columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from bittern.errors import ManifestError, SourceNotFoundError
from index.observation import AddResult, AddStatus
from service.headings import kept_names
from service.requests import MediaItem

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp"})
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
MAX_FIELD_CHARS = 1 << 20
_TYPES = {"stillimage": "image", "image": "image", "sound": "audio", "audio": "audio"}


@dataclass(frozen=True)
class Source:
    """Media to be indexed.

    Attributes:
        path: the folder or manifest.
        entries: what is to be indexed, in order; a manifest's unusable rows are results
            that already failed, with line number and reason.
        lines: the line of each entry in the manifest; empty for a folder.
    """

    path: Path
    entries: list[MediaItem | AddResult]
    lines: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[MediaItem | AddResult]:
        return iter(self.entries)


def read_source(path: Path) -> Source:
    """List the media of a folder or a manifest; nothing is decoded yet.

    A manifest is a CSV (or tab-separated) file with a `media` column: paths relative to the
    manifest, or absolute. `occurrenceID` names the item (default: the media path), `type` is
    ``StillImage`` or ``Sound`` (default: by the file's suffix). All other columns are kept
    as metadata, under the names that `service.headings` gives them. Rows may share an
    `occurrenceID` if their media differ. In a folder, an item's name is its path below the
    folder.

    Raises:
        SourceNotFoundError: nothing there, or no media in it.
        ManifestError: the manifest as a whole cannot be read.
    """
    if path.is_dir():
        entries: list[MediaItem | AddResult] = list(_folder_items(path))
        if not entries:
            raise SourceNotFoundError(
                f"{path} holds no media: none of its files ends in "
                f"{', '.join(sorted(IMAGE_SUFFIXES | AUDIO_SUFFIXES))}",
                field="source",
            )
        return Source(path, entries)
    if not path.is_file():
        raise SourceNotFoundError(f"there is no folder or manifest at {path}", field="source")
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise ManifestError(
            f"{path} is neither a folder nor a manifest (a .csv or .tsv file)", field="source"
        )
    listed = list(_manifest_entries(path))
    if not listed:
        raise SourceNotFoundError(f"{path} lists no media: it has a header only", field="source")
    return Source(path, [entry for _, entry in listed], [line for line, _ in listed])


def _folder_items(folder: Path) -> Iterator[MediaItem | AddResult]:
    closed: list[OSError] = []
    for directory, children, names in os.walk(folder, onerror=closed.append):
        children[:] = sorted(c for c in children if not c.startswith("."))
        for name in sorted(names):
            path = Path(directory) / name
            modality = _modality_of_suffix(path)
            if modality is None or name.startswith("."):
                continue
            media = path.relative_to(folder).as_posix()
            yield MediaItem(
                occurrence_id=media,
                media=media,
                modality=modality,
                path=path,
                media_root=str(folder.resolve()),
            )
    for error in closed:
        name = os.path.relpath(str(error.filename), folder)
        message = f"the folder '{name}' cannot be read: {error.strerror}"
        reason = SourceNotFoundError("").reason
        yield AddResult(name, AddStatus.FAILED, reason=reason, message=message)


def _manifest_entries(path: Path) -> Iterator[tuple[int, MediaItem | AddResult]]:
    """Line and entry of every row."""
    lines: dict[tuple[str, str], int] = {}
    named: set[str] = set()
    for line, row in _rows(path):
        try:
            if isinstance(row, str):
                raise ManifestError(row)
            item = _manifest_item(path.parent, row)
            before = lines.setdefault((item.occurrence_id, item.media), line)
            if before != line:
                raise ManifestError(
                    f"'{item.occurrence_id}' with '{item.media}' stands in line {before} already"
                )
        except (ManifestError, SourceNotFoundError) as error:
            cells = {} if isinstance(row, str) else row
            # The first row of an occurrence keeps the bare id, whether its file is there or not.
            named.add(cells.get("occurrenceID", ""))
            failed = AddResult(
                cells.get("occurrenceID") or cells.get("media") or f"line {line}",
                AddStatus.FAILED,
                reason=error.reason,
                message=f"{path.name}, line {line}: {error.message}",
            )
            yield line, failed
            continue
        yield line, another_medium(item) if item.occurrence_id in named else item
        named.add(item.occurrence_id)


def another_medium(item: MediaItem) -> MediaItem:
    """A further photograph or recording of an occurrence, under an id of its own.

    Darwin Core lets one occurrence have several media. The first keeps the `occurrenceID`
    as its id; the others add the file, ``cat-1#media=audio/cat-1.ogg``.
    """
    return replace(item, occurrence_id=f"{item.occurrence_id}#media={item.media}")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Line number and cells of every row, or what is wrong with the row."""
    csv.field_size_limit(MAX_FIELD_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            reader = csv.reader(file, delimiter=max(",\t;", key=header.count))
            columns = _columns(path, header, reader.dialect.delimiter)
            for cells in reader:
                line = reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(columns):
                    yield line, f"the row has {len(cells)} cells, the header {len(columns)}"
                else:
                    yield line, {c: v.strip() for c, v in zip(columns, cells, strict=True)}
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text: {error}", field="source") from error
    except csv.Error as error:
        raise ManifestError(
            f"{path} is not a readable CSV file: {error}", field="source"
        ) from error


def _columns(path: Path, header: str, delimiter: str) -> list[str]:
    headings = next(csv.reader([header], delimiter=delimiter), [])
    columns = kept_names(headings)
    if "media" not in columns:
        raise ManifestError(
            f"{path} has no column 'media' with the files' paths; its columns are "
            f"{', '.join(headings[:20]) or 'none'}",
            field="source",
        )
    return columns


def _manifest_item(folder: Path, row: dict[str, str]) -> MediaItem:
    media = row["media"]
    if not media or "\0" in media:
        raise ManifestError("the column 'media' holds no path")
    path = folder / media
    modality = _TYPES.get(row.get("type", "").lower()) or _modality_of_suffix(path)
    if modality is None:
        raise ManifestError(
            f"'{media}' is of no kind that its suffix tells; add a column 'type' that says "
            "StillImage or Sound"
        )
    try:
        found = path.is_file()
    except OSError:  # a name longer than the file system allows
        found = False
    if not found:
        raise SourceNotFoundError(f"there is no file '{media[:200]}' below {folder}")
    metadata = {c: v for c, v in row.items() if v and c not in ("media", "occurrenceID")}
    return MediaItem(
        occurrence_id=row.get("occurrenceID") or media,
        media=media,
        modality=modality,
        path=path,
        media_root=str(folder.resolve()),
        metadata=metadata,
    )


def _modality_of_suffix(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "audio" if suffix in AUDIO_SUFFIXES else None
