"""A manifest: a CSV or tab-separated file with a column `media` and whatever others."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from bittern.errors import ManifestError, SourceNotFoundError
from service.headings import kept_names
from service.requests import MediaItem
from service.sources.base import Listed, SourceOptions, another_medium, failed, modality_of_suffix

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
MAX_FIELD_CHARS = 1 << 20
_TYPES = {"stillimage": "image", "image": "image", "sound": "audio", "audio": "audio"}


def manifest_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The rows of a manifest.

    `media` holds paths relative to the manifest, or absolute. `occurrenceID` names the item
    (default: the media path), `type` is ``StillImage`` or ``Sound`` (default: by the file's
    suffix). All other columns are kept as metadata, under the names that `service.headings`
    gives them. Rows may share an `occurrenceID` if their media differ.

    Raises:
        ManifestError: the manifest as a whole cannot be read.
    """
    lines: dict[tuple[str, str], int] = {}
    named: set[str] = set()
    for line, row in _rows(path):
        place = f"{path.name}, line {line}"
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
            name = cells.get("occurrenceID") or cells.get("media") or f"line {line}"
            yield failed(name, place, error)
            continue
        yield Listed(another_medium(item) if item.occurrence_id in named else item, place)
        named.add(item.occurrence_id)


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
    modality = _TYPES.get(row.get("type", "").lower()) or modality_of_suffix(path)
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
