"""From the arguments of `ArchiveAPI` to the values that an archive is asked with.

Checks what can be known without an archive, so that both kinds of archive refuse the same
mistakes in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from bittern.errors import (
    InvalidInputError,
    MediaTooLargeError,
    QueryError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from index.observation import Metric, OnDuplicate
from service.requests import MAX_K, Query

MAX_MEDIA_BYTES = 60 * 1024 * 1024
"""Largest picture or sound file that a query, or an item sent to a server, may be: what fits
into the largest message that a server takes by default, with room for its metadata."""

MAX_PAGE_SIZE = 1_000
"""Most observations fetched at a time by a listing."""

MediaSource = str | Path | bytes
"""Where a picture or a sound is: the path of a file, or the file's bytes."""

_TARGETS = ("image", "audio")


def make_query(
    text: str | None,
    *,
    image: MediaSource | None,
    audio: MediaSource | None,
    id: str | None,  # noqa: A002 - the word that observations use
    code: bytes | None,
    target: str | None,
    k: int,
    where: str | None,
    metric: Metric | None,
    model: str | None,
) -> Query:
    """The query that the arguments of `ArchiveAPI.search` ask for, files read.

    Raises:
        QueryError: not exactly one query, or a value of the wrong type or out of range.
        SourceNotFoundError, MediaTooLargeError, UnreadableMediaError: see `read_media`.
    """
    kind = only_one({"text": text, "image": image, "audio": audio, "id": id, "code": code})
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise QueryError(f"k must be a whole number from 1 to {MAX_K:,}, not {k!r}", field="k")
    if target is not None and target not in _TARGETS:
        raise QueryError(
            f"target must be one of {', '.join(_TARGETS)}, not {target!r}", field="target"
        )
    if metric is not None and metric not in get_args(Metric):
        raise QueryError(
            f"metric must be one of {', '.join(get_args(Metric))}, not {metric!r}", field="metric"
        )
    return Query(
        text=_string(text, "text"),
        image=read_media(image, field="image") if kind == "image" and image is not None else None,
        audio=read_media(audio, field="audio") if kind == "audio" and audio is not None else None,
        id=_string(id, "id"),
        code=bytes(code) if code is not None else None,
        target=target,
        k=k,
        where=_string(where, "where") or None,
        metric=metric,
        model=_string(model, "model") or None,
    )


def make_encodable(
    text: str | None, *, image: MediaSource | None, audio: MediaSource | None
) -> tuple[str, str | bytes, str]:
    """Modality, text or bytes, and name of what `ArchiveAPI.encode` was given.

    Raises:
        QueryError: not exactly one input.
        SourceNotFoundError, MediaTooLargeError, UnreadableMediaError: see `read_media`.
    """
    modality = only_one({"text": text, "image": image, "audio": audio})
    source = image if image is not None else audio
    if source is None:
        return modality, _string(text, "text") or "", ""
    name = Path(source).name if isinstance(source, str | Path) else ""
    return modality, read_media(source, field=modality), name


def only_one(queries: Mapping[str, object]) -> str:
    """Name of the one query that is not None.

    Raises:
        QueryError: none is given, or more than one.
    """
    given = [name for name, value in queries.items() if value is not None]
    if len(given) != 1:
        raise QueryError(
            f"give exactly one of {', '.join(queries)}, not "
            + (" and ".join(given) if given else "none of them")
        )
    return given[0]


def read_media(source: MediaSource, *, field: str, max_bytes: int = MAX_MEDIA_BYTES) -> bytes:
    """Bytes of a picture or a sound that is given as a path or as bytes.

    Raises:
        SourceNotFoundError: there is no file at the path.
        MediaTooLargeError: more than `max_bytes`.
        UnreadableMediaError: the file cannot be opened.
        QueryError: neither a path nor bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = f"{field} bytes", bytes(source)
    elif isinstance(source, str | Path):
        name, data = str(source), _read_file(source, field, max_bytes)
    else:
        raise QueryError(
            f"{field} must be the path or the bytes of a file, not {type(source).__name__}",
            field=field,
        )
    if len(data) > max_bytes:
        raise MediaTooLargeError(
            f"{name}: larger than the limit of {max_bytes:,} bytes; "
            "make it smaller, or cut a recording into parts",
            field=field,
            details={"limit_bytes": str(max_bytes)},
        )
    return data


def _read_file(source: str | Path, field: str, max_bytes: int) -> bytes:
    path = Path(source).expanduser()
    if str(source).startswith(("http://", "https://")):
        raise SourceNotFoundError(
            f"{source}: addresses are not fetched; download the file first", field=field
        )
    try:
        if not path.is_file():
            raise SourceNotFoundError(f"{source}: there is no such file", field=field)
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise UnreadableMediaError(f"{source}: cannot be read ({error})", field=field) from error


def check_on_duplicate(on_duplicate: str) -> None:
    """Refuse anything but ``error``, ``skip`` and ``overwrite`` with an `InvalidInputError`."""
    if on_duplicate not in get_args(OnDuplicate):
        raise InvalidInputError(
            f"on_duplicate must be one of {', '.join(get_args(OnDuplicate))}, not {on_duplicate!r}",
            field="on_duplicate",
        )


def check_batch_size(batch_size: int) -> None:
    """Refuse anything but whole numbers from 1 with an `InvalidInputError`."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidInputError(
            f"batch_size must be a whole number of at least 1, not {batch_size!r}",
            field="batch_size",
        )


def check_page_size(page_size: int) -> None:
    """Refuse anything but whole numbers from 1 to 1,000 with a `QueryError`."""
    whole = isinstance(page_size, int) and not isinstance(page_size, bool)
    if not whole or not 1 <= page_size <= MAX_PAGE_SIZE:
        raise QueryError(
            f"page_size must be a whole number from 1 to {MAX_PAGE_SIZE:,}, not {page_size!r}",
            field="page_size",
        )


def _string(value: str | None, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise QueryError(f"{field} must be text, not {type(value).__name__}", field=field)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise QueryError(
            f"{field} holds half of a surrogate pair at character {error.start}: not Unicode text",
            field=field,
        ) from error
    return value
