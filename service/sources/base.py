"""The common base of all sources of media: options, entries, and the listing itself.

A reader turns a folder, a manifest or an export into entries: photographs and recordings with their
metadata under Darwin Core names, or the reason why a row cannot be used. It lists lazily and reads
no media, so a source may be larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AliasChoices, Field

from bittern.checks import AUDIO_SUFFIXES as AUDIO_SUFFIXES
from bittern.checks import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from bittern.checks import modality_of_suffix as modality_of_suffix
from bittern.errors import BitternError, SourceNotFoundError, SourceUnreachableError
from bittern.types import AddResult, MediaItem

Entry = MediaItem | AddResult
"""A medium to encode, or the result for a row that was skipped or failed."""

_KEPT_ENTRIES = 4_096
_KEPT_BYTES = 32 << 20
"""A listing that was abandoned after more than this restarts from its beginning."""
_RESERVED = re.compile("#(?=t=)")


class Listed(NamedTuple):
    """One entry and its position in the source: ``occurrence.txt, line 12``."""

    entry: Entry
    position: str = ""


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        format: name of a format (see `service.sources.formats`); None detects it.
        media: folder or address of the media; None means the folder of the source.
        rename: for tables, new column names by heading: ``{"file": "media"}``. Stored jobs of
            version 0.1.0 call it `columns`.
        include: globs over paths below a folder; empty means all media.
        exclude: globs over paths that are left out.
        fetch: prefixes of addresses that the operator allows to be fetched. Media at any other
            address are not fetched.
    """

    format: str | None = None
    media: str | None = None
    rename: Annotated[
        Mapping[str, str], Field(validation_alias=AliasChoices("rename", "columns"))
    ] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()


def _bytes_of(listed: Listed) -> int:
    entry = listed.entry
    return len(entry.data) if isinstance(entry, MediaItem) and entry.data is not None else 0


@dataclass(frozen=True)
class Source:
    """Media to encode. Every iteration has the same order.

    Attributes:
        path: folder or file.
        format: name of its format.
        listing: begins to list it.
        address: its address if it is remote (``s3://…``); `path` is for messages then.
        fetch: beginnings of addresses from which its media may be fetched: those that the
            operator allowed, the source's own, and that of its media.
    """

    path: Path
    format: str
    listing: Callable[[], Iterator[Listed]]
    address: str = ""
    fetch: tuple[str, ...] = ()
    _begun: list[tuple[list[Listed], Iterator[Listed]]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __iter__(self) -> Iterator[Entry]:
        """Its entries.

        Raises:
            BitternError: the listing failed; the entries before are complete.
            SourceUnreachableError: any other failure of the disk or the remote system.
        """
        try:
            for listed in self._continued():
                yield listed.entry
        except BitternError:
            raise
        except Exception as error:  # of the disk, or of the library behind the address
            if not (self.address or isinstance(error, OSError)):
                raise
            raise SourceUnreachableError(
                f"{self.address or self.path} cannot be read any further: "
                f"{error or type(error).__name__}. What was read before is good: run the same "
                "command again when it can be read",
                field="source",
            ) from error

    def _continued(self) -> Iterator[Listed]:
        """The listing from its first entry; one that was abandoned early is continued.

        Some sources must be read and joined before their first entry is known; a look at the first
        entries must not repeat that. A listing that raised restarts from its beginning.
        """
        try:
            seen, stream = self._begun.pop()  # atomic: two iterations never share a stream
        except IndexError:
            seen, stream = [], self.listing()
        kept: list[Listed] | None = list(seen)
        size = sum(map(_bytes_of, seen))
        try:
            yield from seen
            for found in stream:
                if kept is not None:
                    kept.append(found)
                    size += _bytes_of(found)
                    if len(kept) > _KEPT_ENTRIES or size > _KEPT_BYTES:
                        kept = None
                yield found
        except GeneratorExit:
            if kept is not None and not self._begun:
                self._begun.append((kept, stream))
                stream = iter(())
            raise
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()

    @cached_property
    def listed(self) -> list[Listed]:
        """All entries with their positions, in memory."""
        return list(self.listing())

    @property
    def entries(self) -> list[Entry]:
        """All entries, in memory."""
        return [listed.entry for listed in self.listed]


class Reader(NamedTuple):
    """A format of sources.

    Attributes:
        name: what follows ``--format``.
        recognises: whether a path looks like one, at a glance.
        entries: lists it lazily; raises a `ManifestError` or `SourceNotFoundError` where it is
            unusable as a whole.
        form: what its path must be; a pattern may also name several files.
        remote_entries: lists one at an address, likewise; None if it must be on this machine.
    """

    name: str
    recognises: Callable[[Path], bool]
    entries: Callable[[Path, SourceOptions], Iterator[Listed]]
    form: Literal["file", "folder", "either", "pattern"] = "either"
    remote_entries: Callable[[str, SourceOptions], Iterator[Listed]] | None = None


def failed(name: str, position: str, error: BitternError) -> Listed:
    """A row that cannot be used, with the reason."""
    message = f"{position}: {error.message}" if position else error.message
    return Listed(AddResult.failure(name or position, error, message), position)


def not_empty(entries: Iterator[Listed], message: str) -> Iterator[Listed]:
    """The entries; a `SourceNotFoundError` with this message if there are none."""
    first = next(entries, None)
    if first is None:
        raise SourceNotFoundError(message, field="source")
    yield first
    yield from entries


def listed(name: str, position: str, make: Callable[[], MediaItem]) -> Listed:
    """The medium that `make` returns, or the reason why it cannot be used."""
    try:
        return Listed(make(), position)
    except BitternError as error:
        return failed(name, position, error)


def id_of_name(name: str) -> str:
    """A path as a valid id.

    ``#t=`` is reserved for the windows of recordings: ``call#t=3.wav`` becomes ``call%23t=3.wav``.
    """
    return _RESERVED.sub("%23", name)


def another_medium(item: MediaItem) -> MediaItem:
    """A further photograph or recording of an occurrence, under a distinct id.

    Darwin Core lets one occurrence have several media. The first keeps the `occurrenceID`
    as its id; the others add the file, ``cat-1#media=audio/cat-1.ogg``.
    """
    name = id_of_name(item.media)
    return replace(item, occurrence_id=f"{item.occurrence_id}#media={name}")


def other_id(item: MediaItem) -> str:
    """The id of a medium if it were (not) the first of its occurrence.

    The order of rows decides which medium is the first, and it may change.
    """
    name, suffix = item.occurrence_id, f"#media={id_of_name(item.media)}"
    return name.removesuffix(suffix) if name.endswith(suffix) else name + suffix
