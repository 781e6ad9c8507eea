"""From the arguments of `ArchiveAPI` to the values that an archive is asked with.

Reads files, and leaves it to `bittern.service.limits` to say what is wrong, so that both kinds of
archive refuse the same mistakes in the same words.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

from bittern.errors import (
    InvalidInputError,
    MediaTooLargeError,
    QueryError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from bittern.service.limits import (
    DEFAULT_LIMITS,
    check_ids,
    check_input,
    check_query,
    check_within,
    only_one,
)
from bittern.types import MediaItem, Metric, OnDuplicate, Query

MAX_MEDIA_BYTES = DEFAULT_LIMITS.max_item_bytes
"""Largest picture or sound file that a query, or an item sent to a server, may be: what fits
into the largest message that a server takes by default, with room for its metadata."""

MAX_BATCH_SIZE = 1_000_000
"""Most items of one commit; all their codes are held in memory until then."""

MediaSource = str | Path | bytes
"""Where a picture or a sound is: the path of a file, or the file's bytes."""


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
    within: float | None,
    relevance: str | float | None,
    recall: float | None,
) -> Query:
    """The query that the arguments of `ArchiveAPI.search` ask for, files read.

    Raises:
        QueryError, CodeError, FilterError: see `bittern.service.limits.check_query`.
        SourceNotFoundError, MediaTooLargeError, UnreadableMediaError: see `read_media`.
    """
    kind = only_one({"text": text, "image": image, "audio": audio, "id": id, "code": code})
    query = Query(
        text=text,
        image=read_media(image, field="image") if kind == "image" and image is not None else None,
        audio=read_media(audio, field="audio") if kind == "audio" and audio is not None else None,
        id=id,
        code=bytes(code) if isinstance(code, bytearray | memoryview) else code,
        target=target,
        k=k,
        where=where,
        metric=metric,
        model=model or None,
        within=within,
        relevance=relevance,
        recall=recall,
    )
    check_query(query)
    return _in_plain_numbers(query)


def _in_plain_numbers(query: Query) -> Query:
    """A checked query whose numbers are Python's own, whatever NumPy made of them."""
    relevance = query.relevance
    if not isinstance(relevance, str | None):
        relevance = float(relevance)
    return replace(
        query,
        k=int(query.k),
        within=None if query.within is None else check_within(query.within),
        relevance=relevance
        if relevance is None or isinstance(relevance, str)
        else float(relevance),
        recall=None if query.recall is None else float(query.recall),
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
        check_input(modality, text)
        return modality, text or "", ""
    name = Path(source).name if isinstance(source, str | Path) else ""
    data = read_media(source, field=modality)
    check_input(modality, data)
    return modality, data, name


def read_media(source: MediaSource, *, field: str, max_bytes: int = MAX_MEDIA_BYTES) -> bytes:
    """Bytes of a picture or a sound that is given as a path or as bytes.

    Raises:
        SourceNotFoundError: there is no file at the path.
        MediaTooLargeError: more than `max_bytes`.
        UnreadableMediaError: a folder or a device, or the file cannot be opened.
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
        if not path.exists():
            raise SourceNotFoundError(f"{source}: there is no such file", field=field)
        if not path.is_file():
            raise UnreadableMediaError(f"{source} is not a regular file", field=field)
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
    """Refuse anything but whole numbers from 1 to 1,000,000 with an `InvalidInputError`."""
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not whole or not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise InvalidInputError(
            f"batch_size must be a whole number from 1 to {MAX_BATCH_SIZE}, not {batch_size!r}",
            field="batch_size",
        )


def each_item(items: Iterable[MediaItem]) -> Iterator[MediaItem]:
    """The items, one by one as they are asked for.

    Raises:
        InvalidInputError: `items` is nothing to iterate; or, when it is reached, something
            that is no `MediaItem`.
    """
    try:
        rest = iter(items)
    except TypeError:
        raise InvalidInputError(
            f"items must be a list or another iterable of MediaItem, not {type(items).__name__}",
            field="items",
        ) from None
    return _checked_items(rest)


def _checked_items(items: Iterator[MediaItem]) -> Iterator[MediaItem]:
    for number, item in enumerate(items):
        if not isinstance(item, MediaItem):
            raise InvalidInputError(
                f"item {number} is {type(item).__name__}, not a MediaItem", field="items"
            )
        for field in ("occurrence_id", "modality"):
            # They are looked up before the item is looked at; other wrong types fail alone.
            if not isinstance(value := getattr(item, field), Hashable):
                raise InvalidInputError(
                    f"{field} of item {number} must be text, not {type(value).__name__}",
                    field=field,
                )
        yield item


def id_list(ids: str | Iterable[str]) -> list[str]:
    """One id or several, as a list.

    Raises:
        QueryError: not text, or something that is no text among them.
        LimitExceededError: more than 10,000.
    """
    try:
        listed = [ids] if isinstance(ids, str) else list(ids)
    except TypeError:
        raise QueryError(
            f"ids must be text or a list of texts, not {type(ids).__name__}", field="ids"
        ) from None
    check_ids(listed)
    return listed
