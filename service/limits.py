"""Limits of a server, deadlines of its calls, and the check of media items.

Limits that are the same for every archive (text, conditions, pages, ids) are in `bittern.checks`
and `bittern.query.Query`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from bittern.checks import MAX_MEDIA_BYTES, MAX_MEDIA_NAME_BYTES, check_name, check_string
from bittern.errors import (
    DeadlineExceededError,
    InvalidInputError,
    LimitExceededError,
    MediaTooLargeError,
)
from bittern.query import Query
from bittern.types import MediaItem

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Limits of a server.

    Memory for requests is bounded by about `workers` times `max_message_bytes`, plus
    `max_add_streams` times (`max_batch_bytes` + `max_item_bytes`).

    Attributes:
        max_message_bytes: largest request message; larger ones are refused unread.
        max_item_bytes: largest picture or sound file, in a query, in Encode or in Add.
        max_batch_items: most items in one commit of Add; larger requests are reduced to it.
        max_batch_bytes: a batch of Add is committed once it holds this many bytes of media.
        max_add_streams: Add calls open at once; each holds a worker while it is open.
        max_job_watchers: WatchJob calls open at once; each holds a worker while it is open. Never
            more than a quarter of the workers, but one at least.
        max_exports: Export calls open at once; each holds a worker while it is open. Never more
            than a quarter of the workers, but always one.
        add_idle_s: seconds of silence after which an Add call is ended, in good order.
        workers: calls answered at once.
        max_concurrent_rpcs: calls answered or waiting; further ones are refused.
        grace_s: seconds that calls in flight get to finish when the server stops.
    """

    max_message_bytes: int = 64 * MIB
    max_item_bytes: int = MAX_MEDIA_BYTES
    max_batch_items: int = 256
    max_batch_bytes: int = 64 * MIB
    max_add_streams: int = 4
    max_job_watchers: int = 4
    max_exports: int = 4
    add_idle_s: float = 600.0
    workers: int = 16
    max_concurrent_rpcs: int = 64
    grace_s: float = 10.0

    def at_most_a_quarter(self, calls: int) -> int:
        """So many calls, but at most a quarter of the workers: searches need the others."""
        return min(calls, max(1, self.workers // 4))

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name in ("grace_s", "add_idle_s") else 1
            if value < least:
                raise InvalidInputError(
                    f"{each.name} must be at least {least}, not {value}", field=each.name
                )
        if self.max_add_streams >= self.workers:
            raise InvalidInputError(
                f"max_add_streams ({self.max_add_streams}) must be smaller than workers "
                f"({self.workers}): open Add calls would leave no worker for searches",
                field="max_add_streams",
            )


class Slots:
    """Calls of one kind that may be open at once.

    Args:
        most: their number.
        refusal: message for one call more.
    """

    def __init__(self, most: int, refusal: str) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._refusal = refusal

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a slot for this block.

        Raises:
            LimitExceededError: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise LimitExceededError(self._refusal)
        try:
            yield
        finally:
            self._free.release()


class Deadline:
    """How long a caller still waits; checked between the steps of a call.

    Args:
        seconds_left: seconds until the caller gives up; None for no limit.
        gone: whether the caller has cancelled.
    """

    def __init__(
        self,
        seconds_left: Callable[[], float | None] = lambda: None,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._seconds_left = seconds_left
        self._gone = gone

    def check(self, doing: str) -> None:
        """Stop if the caller no longer waits.

        Args:
            doing: the step that is about to begin, for the message, e.g. ``encoding the query``.

        Raises:
            DeadlineExceededError: no time is left, or the caller has cancelled.
        """
        left = self._seconds_left()
        if left is not None and left <= 0:
            raise DeadlineExceededError(
                f"the deadline passed before {doing}; allow more time, or request less"
            )
        if self._gone():
            raise DeadlineExceededError(f"the caller hung up before {doing}")


def check_media(data: bytes, field: str, config: ServiceConfig) -> None:
    """Refuse a file of more than `max_item_bytes` with a `MediaTooLargeError`."""
    if len(data) > config.max_item_bytes:
        raise MediaTooLargeError(
            f"{field} has {len(data):,} bytes, the limit is {config.max_item_bytes:,}; "
            "make it smaller, or cut a recording into shorter ones",
            field=field,
            details={"limit_bytes": str(config.max_item_bytes)},
        )


def check_query_media(query: Query, config: ServiceConfig) -> None:
    """Refuse a query's file of more than `max_item_bytes` with a `MediaTooLargeError`."""
    for each in query.inputs:
        if isinstance(each.value, bytes):
            check_media(each.value, each.kind, config)


def check_names(item: MediaItem) -> None:
    """Refuse an item whose id or media name no archive takes; raises as `check_name`."""
    check_name(item.occurrence_id, "occurrence_id")
    check_name(item.media, "media", MAX_MEDIA_NAME_BYTES)


def check_item(item: MediaItem, *, fetched: bool = False) -> None:
    """Refuse an item that cannot be coded or sent.

    Args:
        item: a photograph or recording.
        fetched: whether an address is enough (jobs that may fetch).

    Raises:
        InvalidInputError: a value of the wrong type, a modality that is neither image nor
            audio, or neither a path nor data.
        MetadataError: metadata that no archive can hold.
    """
    check_string(item.modality, "modality", InvalidInputError)
    check_string(item.media_root, "media_root", InvalidInputError)
    if item.modality not in ("image", "audio"):
        raise InvalidInputError(
            f"{item.media!r} has the modality {item.modality!r}; it must be image or audio",
            field="modality",
        )
    if item.url is not None:
        check_string(item.url, "url", InvalidInputError)
    if item.data is None and item.path is None and (item.url is None or not fetched):
        remedy = "give one of them"
        if item.url is not None:
            remedy += ". Its address is not fetched unless a job is allowed to, with --fetch"
        raise InvalidInputError(
            f"{item.media!r} has neither a path nor data; {remedy}", field="data"
        )
    if item.data is not None and not isinstance(item.data, bytes | bytearray | memoryview):
        raise InvalidInputError(
            f"data of {item.media!r} must be bytes, not {type(item.data).__name__}", field="data"
        )
    if item.path is not None and not isinstance(item.path, str | Path):
        raise InvalidInputError(
            f"path of {item.media!r} must be a path, not {type(item.path).__name__}", field="path"
        )
    if not isinstance(item.metadata, Mapping):
        raise InvalidInputError(
            f"metadata of {item.media!r} must be a mapping from column to value, "
            f"not {type(item.metadata).__name__}",
            field="metadata",
        )
    from bittern.index.columns import check_metadata  # loads pyarrow, which queries do not need

    check_metadata(item.metadata)
