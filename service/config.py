"""Limits of a server: what one caller may ask for, and how much happens at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from bittern.errors import InvalidInputError
from bittern.types import MAX_K, MAX_TEXT_CHARS

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Limits of a server.

    Memory for requests is bounded by about `workers` times `max_message_bytes`, plus
    `max_add_streams` times (`max_batch_bytes` + `max_item_bytes`).

    Attributes:
        max_message_bytes: largest request message; larger ones are refused unread.
        max_item_bytes: largest picture or sound file, in a query, in Encode or in Add.
        max_text_chars: longest text query, in characters.
        max_where_chars: longest filter, in characters.
        max_k: most hits of one search.
        max_page_size: most observations on one page of a listing.
        max_delete_ids: most ids in one Delete.
        max_batch_items: most items in one commit of Add; callers that ask for more get this.
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
    max_item_bytes: int = 60 * MIB
    max_text_chars: int = MAX_TEXT_CHARS
    max_where_chars: int = 10_000
    max_k: int = MAX_K
    max_page_size: int = 1_000
    max_delete_ids: int = 10_000
    max_batch_items: int = 256
    max_batch_bytes: int = 64 * MIB
    max_add_streams: int = 4
    max_job_watchers: int = 4
    max_exports: int = 4
    add_idle_s: float = 600.0
    workers: int = 16
    max_concurrent_rpcs: int = 64
    grace_s: float = 10.0

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
