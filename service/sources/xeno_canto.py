"""Responses of xeno-canto's API (versions 2 and 3), stored as JSON beside the recordings.

A response is a page: ``{"numRecordings": ..., "recordings": [...]}``. Readable are one file with a
page, a list of pages or a list of recordings, and a folder with several such files.

https://xeno-canto.org/explore/api
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from bittern.errors import ManifestError
from bittern.index.columns import Value
from bittern.service.sources.base import (
    AUDIO_SUFFIXES,
    Listed,
    SourceOptions,
    failed,
    listed,
    modality_of_suffix,
)
from bittern.service.sources.field_values import (
    BETWEEN,
    checked,
    event_date,
    kept_columns,
    licence,
    text,
)
from bittern.service.sources.json_items import Element, elements, first_keys
from bittern.service.sources.listing import Listing
from bittern.types import AddResult, AddStatus, MediaItem

_RECORDINGS = frozenset({"recordings"})
_OF_A_RECORDING = frozenset({"id", "gen", "sp"})
_LOOKED_AT = 20
_ID = re.compile(r"(?:XC)?([0-9]{1,12})", re.IGNORECASE)
_IN_A_NAME = re.compile(r"(?<![A-Za-z0-9])XC([0-9]{1,12})(?![0-9])", re.IGNORECASE)
"""The site's names of downloads: ``XC694038 - Tawny Owl - Strix aluco.mp3``."""
_SUFFIXES = (".mp3", ".wav", *sorted(AUDIO_SUFFIXES - {".mp3", ".wav"}))
_NO_SPECIES = frozenset({("mystery", "mystery"), ("sonus", "naturalis")})
"""xeno-canto's names for unidentified recordings and soundscapes."""
_RENAMED = {
    "cnt": "country",
    "loc": "locality",
    "lat": "decimalLatitude",
    "rec": "rightsHolder",
    "type": "soundType",
    "stage": "lifeStage",
}
_TAKEN_APART = frozenset(
    {"id", "lng", "lon", "lic", "url", "file", "file-name", "date", "time", "also", "sono", "osci"}
)


def is_xeno_canto(path: Path) -> bool:
    """Whether a file, or a file in a folder, looks like a response of xeno-canto."""
    if path.is_dir():
        try:
            files = _pages(path)[:_LOOKED_AT]
        except ManifestError:
            return False
        keys = [first_keys(file) for file in files]
        return any("numRecordings" in each or each >= _OF_A_RECORDING for each in keys)
    if path.suffix.lower() != ".json":
        return False
    found = first_keys(path)
    return bool(found & (_RECORDINGS | {"numRecordings"})) or found >= _OF_A_RECORDING


def xeno_canto_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The recordings of one or several pages.

    A recording on two pages, as after an upload between two requests, is listed once. In a folder,
    an unreadable file becomes one failed entry; files with other content are skipped.

    Raises:
        ManifestError: the only file is unreadable.
        SourceNotFoundError: the folder `options.media` does not exist.
    """
    with _Recordings(path, options) as recordings:
        yield from recordings.entries()


class _Recordings(Listing):
    """One pass over a page, or a folder of pages."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        super().__init__(path, options)
        self._downloads = _recordings_in(self.locator.folder)

    def entries(self) -> Iterator[Listed]:
        """The recordings in the order of the pages."""
        if not self.path.is_dir():
            yield from self._page(self.path)
            return
        for page in _pages(self.path):
            try:
                yield from self._page(page)
            except ManifestError as error:
                yield failed(page.name, page.name, error)

    def _page(self, path: Path) -> Iterator[Listed]:
        for element in elements(path, _RECORDINGS):
            if not element.member and _is_page(element):
                continue
            try:
                row = element.fields()
                number = _number(row)
            except ManifestError as error:
                yield failed("", element.position, error)
                continue
            name = f"XC{number}"
            if self.tables.add_first("recordings", name):
                yield listed(name, element.position, partial(self._item, row, number))
            else:
                message = f"{element.position}: {name} is on an earlier page too"
                result = AddResult(name, AddStatus.SKIPPED, 0, "", message)
                yield Listed(result, element.position)

    def _item(self, row: dict[str, Any], number: int) -> MediaItem:
        file_name = text(row.get("file-name"))
        own = PurePosixPath(file_name).suffix.lower()
        suffixes = (own, *_SUFFIXES) if own in AUDIO_SUFFIXES else _SUFFIXES
        stems = (f"XC{number}", str(number))
        also = [f"{stem}{suffix}" for suffix in suffixes for stem in stems]
        if number in self._downloads:
            also.append(self._downloads[number])
        address = _address(text(row.get("file")))
        found = self.locator.find(file_name, also=also, addresses=[address] if address else [])
        return found.item(f"XC{number}", "audio", checked(_metadata(row, number)))


def _recordings_in(folder: Path | None) -> dict[int, str]:
    """File name by catalogue number; the first in order if several have the same."""
    names: dict[int, str] = {}
    if folder is None:
        return names
    with suppress(OSError), os.scandir(folder) as found:
        for name in (each.name for each in found):
            match = _IN_A_NAME.search(name)
            if match and not name.startswith(".") and modality_of_suffix(name) == "audio":
                number = int(match[1])
                names[number] = min(name, names.get(number, name))
    return names


def _pages(folder: Path) -> list[Path]:
    """The JSON files of a folder, page 2 before page 10."""
    try:
        with os.scandir(folder) as found:
            files = [Path(each.path) for each in found if each.name.lower().endswith(".json")]
    except OSError as error:
        raise ManifestError(f"{folder} cannot be read: {error.strerror}", field="source") from error
    return sorted((f for f in files if not f.name.startswith(".")), key=_in_order)


def _in_order(file: Path) -> list[tuple[int, str]]:
    return [
        (int(p), "") if p.isdecimal() else (0, p) for p in re.split(r"([0-9]{1,18})", file.name)
    ]


def _is_page(element: Element) -> bool:
    """Whether it is a page without its recordings, or some other object."""
    return isinstance(element.value, dict) and not element.value.keys() & _OF_A_RECORDING


def _number(row: dict[str, Any]) -> int:
    found = _ID.fullmatch(text(row.get("id")))
    if found is None:
        raise ManifestError(f"its id is {str(row.get('id'))[:40]!r}, not a catalogue number")
    return int(found[1])


def _address(text_: str) -> str:
    """An address as xeno-canto gives it: some begin with ``//``."""
    return f"https:{text_}" if text_.startswith("//") else text_


def _metadata(row: dict[str, Any], number: int) -> dict[str, Value]:
    # Other fields are stored as text: a column has one type, and responses have both 44100 and
    # "44100".
    rest = {_RENAMED.get(k, k): text(v) for k, v in row.items() if k not in _TAKEN_APART}
    columns: dict[str, Value] = {
        "decimalLongitude": text(row.get("lon")) or text(row.get("lng")),
        "license": licence(text(row.get("lic"))),
        "references": _address(text(row.get("url"))) or f"https://xeno-canto.org/{number}",
        "also": _joined(row.get("also")),
    }
    genus, epithet = rest.pop("gen", ""), rest.pop("sp", "")
    if (genus.lower(), epithet.lower()) not in _NO_SPECIES:
        identified = bool(genus and epithet) and not epithet.lower().startswith("sp.")
        columns["genus"] = genus
        columns["species"] = f"{genus} {epithet}" if identified else ""
        columns["scientificName"] = columns["species"] or genus
        columns["vernacularName"] = rest.pop("en", "")
    date, time = text(row.get("date")), text(row.get("time"))
    columns["eventDate"] = event = event_date(date, time)
    if date and not event:
        columns["date"] = date
    if time and "T" not in event:
        columns["time"] = time
    return {**kept_columns(rest), **columns}


def _joined(names: object) -> str:
    """The species in the background, in one text."""
    if not isinstance(names, list):
        return text(names)
    return BETWEEN.join(name for name in map(text, names) if name)
