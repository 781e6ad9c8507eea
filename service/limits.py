"""What callers give, held against types, ranges and sizes before any work is done for it.

The client, the engine and the server all check here, so that a mistake is refused in the same
words wherever it is noticed. The server checks against its own limits, the others against the
default ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf, nan
from pathlib import Path
from typing import SupportsFloat, TypeGuard, get_args

import numpy as np

from bittern.errors import (
    CodeError,
    FilterError,
    InvalidInputError,
    LimitExceededError,
    MediaTooLargeError,
    QueryError,
)
from bittern.index.columns import check_metadata
from bittern.index.relevance import HIGHEST_RATE, LOWEST_RATE, Cutoff, false_alarm_rate
from bittern.service.config import ServiceConfig
from bittern.types import MediaItem, Metric, Query, check_recall

DEFAULT_LIMITS = ServiceConfig()
DEFAULT_PAGE_SIZE = 100
QUERY_KINDS = ("text", "image", "audio", "id", "code")
INPUT_KINDS = ("text", "image", "audio")
TARGETS = ("image", "audio")
_MAX_TOKEN_CHARS = 1_000
_MAX_NAME_CHARS = 1_000


def check_query(query: Query, config: ServiceConfig = DEFAULT_LIMITS) -> str:
    """Refuse a search that cannot be answered as asked, whatever the archive.

    Returns:
        What is searched with: ``text``, ``image``, ``audio``, ``id`` or ``code``.

    Raises:
        QueryError: not exactly one query; a value of the wrong type, empty or out of range.
        CodeError: a code that is not bytes.
        MediaTooLargeError: a picture or sound of more than `max_item_bytes`.
        FilterError: `where` of more than `max_where_chars`.
    """
    kind = only_one({each: getattr(query, each) for each in QUERY_KINDS})
    _check_k(query.k, config)
    if query.target is not None:
        _check_choice(query.target, TARGETS, "target")
    if query.metric is not None:
        _check_choice(query.metric, get_args(Metric), "metric")
    if query.within is not None:
        check_within(query.within)
    if query.relevance is not None:
        check_relevance(query.relevance)
    if query.recall is not None:
        check_recall(query.recall)
    check_where(query.where, config)
    check_model(query.model)
    if kind in INPUT_KINDS:
        check_input(kind, getattr(query, kind), config)
        return kind
    if kind == "id":
        check_string(query.id, "id")
    elif not isinstance(query.code, bytes):
        raise CodeError(f"code must be bytes, not {type(query.code).__name__}", field="code")
    if query.metric == "asymmetric":
        raise QueryError(
            f"a query by {kind} has a code and no logits; ask for the hamming metric",
            field="metric",
        )
    return kind


def only_one(given: Mapping[str, object]) -> str:
    """Name of the one value that is not None.

    Raises:
        QueryError: none is given, or more than one.
    """
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise QueryError(
            f"give exactly one of {', '.join(given)}, not "
            + (" and ".join(names) if names else "none of them"),
            field="query",
        )
    return names[0]


def check_input(kind: str, data: object, config: ServiceConfig = DEFAULT_LIMITS) -> None:
    """Refuse words, a picture or a sound that no tower can take.

    Raises:
        QueryError: no such kind, a value of the wrong type, nothing, or too long a text.
        MediaTooLargeError: more than `max_item_bytes`.
    """
    _check_choice(kind, INPUT_KINDS, "modality")
    if kind == "text":
        text = check_string(data, "text")
        if not text.strip():
            raise QueryError("the text is empty; say what to look for", field="text")
        if len(text) > config.max_text_chars:
            raise QueryError(
                f"the text has {len(text)} characters, the limit is {config.max_text_chars}; "
                "shorten it",
                field="text",
                details={"length": str(len(text)), "limit": str(config.max_text_chars)},
            )
        return
    if not isinstance(data, bytes):
        raise QueryError(f"{kind} must be bytes, not {type(data).__name__}", field=kind)
    if not data:
        raise QueryError(f"the {kind} is empty; give the bytes of a file", field=kind)
    check_media(data, kind, config)


def check_media(data: bytes, field: str, config: ServiceConfig = DEFAULT_LIMITS) -> None:
    """Refuse a file of more than `max_item_bytes` with a `MediaTooLargeError`."""
    if len(data) > config.max_item_bytes:
        raise MediaTooLargeError(
            f"{field} has {len(data):,} bytes, the limit is {config.max_item_bytes:,}; "
            "make it smaller, or cut a recording into parts",
            field=field,
            details={"limit_bytes": str(config.max_item_bytes)},
        )


def check_item(item: MediaItem, *, fetched: bool = False) -> None:
    """Refuse an item that cannot be coded, or sent, as it is.

    Args:
        item: a photograph or recording.
        fetched: whether an address is enough, as it is in jobs that may fetch.

    Raises:
        InvalidInputError: a value of the wrong type, a modality that is neither image nor
            audio, or neither a path nor data.
        MetadataError: metadata that no archive can hold.
    """
    for field in ("occurrence_id", "media", "modality", "media_root"):
        check_string(getattr(item, field), field, InvalidInputError)
    if item.modality not in TARGETS:
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
    check_metadata(item.metadata)


def check_within(within: object) -> float:
    """The distance, if it is a finite number, 0 or more; else a `QueryError`."""
    distance = nan
    if isinstance(within, SupportsFloat) and not isinstance(within, bool | np.bool_):
        with suppress(ValueError, TypeError, OverflowError):
            distance = float(within)
    if not 0 <= distance < inf:
        raise QueryError(
            f"within must be a distance in bits, 0 or more, not {within!r}", field="within"
        )
    return distance + 0.0  # -0.0 becomes 0.0


def check_relevance(relevance: str | float) -> float:
    """The false-alarm rate that a wish for relevance means; a `QueryError` if it means none."""
    try:
        return false_alarm_rate(relevance)
    except QueryError as error:
        names = ", ".join(Cutoff)
        raise QueryError(
            f"relevance must be {names}, or a share from {LOWEST_RATE} to {HIGHEST_RATE} of "
            f"queries about something else that may get an answer, not {relevance!r}",
            field="relevance",
        ) from error


def check_where(where: object, config: ServiceConfig = DEFAULT_LIMITS) -> None:
    """Refuse a filter that is no text (`QueryError`) or too long (`FilterError`)."""
    if where is None:
        return
    if len(check_string(where, "where")) > config.max_where_chars:
        raise FilterError(
            f"the condition has {len(str(where))} characters, the limit is "
            f"{config.max_where_chars}; shorten it",
            field="where",
        )


def check_model(model: object) -> None:
    """Refuse a model name that is no text, or of more than 1,000 characters: `QueryError`."""
    if model is not None and len(check_string(model, "model")) > _MAX_NAME_CHARS:
        raise QueryError(
            f"model has {len(str(model))} characters, the limit is {_MAX_NAME_CHARS}",
            field="model",
        )


def check_ids(ids: Sequence[object], config: ServiceConfig = DEFAULT_LIMITS) -> None:
    """Refuse what is no text (`QueryError`), and too many ids (`LimitExceededError`)."""
    for each in ids:
        check_string(each, "ids")
    if len(ids) > config.max_delete_ids:
        raise LimitExceededError(
            f"{len(ids)} ids were given, the limit is {config.max_delete_ids}; "
            "delete them in several calls",
            field="ids",
        )


def check_page_size(page_size: object, config: ServiceConfig = DEFAULT_LIMITS) -> int:
    """The page size, if it is a whole number from 1 to `max_page_size`; else a `QueryError`."""
    if not _is_whole(page_size) or not 1 <= page_size <= config.max_page_size:
        raise QueryError(
            f"page_size must be a whole number from 1 to {config.max_page_size}, not {page_size!r}",
            field="page_size",
        )
    return page_size


def check_page(page_size: int, page_token: str, config: ServiceConfig = DEFAULT_LIMITS) -> int:
    """The page size to use: `DEFAULT_PAGE_SIZE` for 0.

    Raises:
        QueryError: negative, more than `max_page_size`, or a token that is no token.
    """
    if len(page_token) > _MAX_TOKEN_CHARS:
        raise QueryError("page_token is not one that this server gave out", field="page_token")
    return check_page_size(page_size or min(DEFAULT_PAGE_SIZE, config.max_page_size), config)


def check_string(value: object, field: str, error: type[InvalidInputError] = QueryError) -> str:
    """The value, if it is Unicode text; else `error`."""
    if not isinstance(value, str):
        raise error(f"{field} must be text, not {type(value).__name__}", field=field)
    try:
        value.encode()
    except UnicodeEncodeError as cause:
        raise error(
            f"{field} holds half of a surrogate pair at character {cause.start}: not Unicode text",
            field=field,
        ) from cause
    return value


def _check_k(k: object, config: ServiceConfig) -> None:
    if not _is_whole(k) or not 1 <= k <= config.max_k:
        raise QueryError(f"k must be a whole number from 1 to {config.max_k}, not {k!r}", field="k")


def _check_choice(value: object, choices: Sequence[str], field: str) -> None:
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(choices[:-1]) + f" or {choices[-1]}"
        raise QueryError(f"{field} must be {listed}, not {value!r}", field=field)


def _is_whole(value: object) -> TypeGuard[int]:
    """Whether it is an int, or a whole number of NumPy's; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
