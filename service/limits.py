"""Requests held against the limits of a server, before any work is done for them."""

from __future__ import annotations

from collections.abc import Sequence

from bittern.errors import FilterError, LimitExceededError, MediaTooLargeError, QueryError
from service.config import ServiceConfig
from service.requests import Query

DEFAULT_PAGE_SIZE = 100
_MAX_TOKEN_CHARS = 1_000
_MAX_NAME_CHARS = 1_000


def check_query(query: Query, config: ServiceConfig) -> None:
    """Refuse a search that asks for more than the limits.

    Raises:
        QueryError: `k` out of range; empty or too long a text; too long a model name.
        MediaTooLargeError: a picture or sound of more than `max_item_bytes`.
        FilterError: `where` of more than `max_where_chars`.
    """
    if not 1 <= query.k <= config.max_k:
        raise QueryError(
            f"k must be a whole number from 1 to {config.max_k:,}, not {query.k}", field="k"
        )
    if query.text is not None:
        check_text(query.text, config)
    if query.image is not None:
        check_media(query.image, "image", config)
    if query.audio is not None:
        check_media(query.audio, "audio", config)
    check_where(query.where, config)
    check_model(query.model)


def check_text(text: str, config: ServiceConfig) -> None:
    """Refuse text that is blank or longer than `max_text_chars` with a `QueryError`."""
    if not text.strip():
        raise QueryError("the text is empty; say what to look for", field="text")
    if len(text) > config.max_text_chars:
        raise QueryError(
            f"the text has {len(text):,} characters, the limit is {config.max_text_chars:,}; "
            "shorten it",
            field="text",
            details={"limit_chars": str(config.max_text_chars)},
        )


def check_media(data: bytes, field: str, config: ServiceConfig) -> None:
    """Refuse a file of more than `max_item_bytes` with a `MediaTooLargeError`."""
    if len(data) > config.max_item_bytes:
        raise MediaTooLargeError(
            f"{field} has {len(data):,} bytes, the limit is {config.max_item_bytes:,}; "
            "make it smaller, or cut a recording into parts",
            field=field,
            details={"limit_bytes": str(config.max_item_bytes)},
        )


def check_where(where: str | None, config: ServiceConfig) -> None:
    """Refuse a filter of more than `max_where_chars` with a `FilterError`."""
    if where is not None and len(where) > config.max_where_chars:
        raise FilterError(
            f"where has {len(where):,} characters, the limit is {config.max_where_chars:,}; "
            "shorten it",
            field="where",
        )


def check_model(model: str | None) -> None:
    """Refuse a model name of more than 1,000 characters with a `QueryError`."""
    if model is not None and len(model) > _MAX_NAME_CHARS:
        raise QueryError(
            f"model has {len(model):,} characters, the limit is {_MAX_NAME_CHARS:,}", field="model"
        )


def check_ids(ids: Sequence[str], config: ServiceConfig) -> None:
    """Refuse more than `max_delete_ids` ids with a `LimitExceededError`."""
    if len(ids) > config.max_delete_ids:
        raise LimitExceededError(
            f"{len(ids):,} ids were given, the limit is {config.max_delete_ids:,}; "
            "delete them in several calls",
            field="ids",
        )


def check_page(page_size: int, page_token: str, config: ServiceConfig) -> int:
    """The page size to use: `DEFAULT_PAGE_SIZE` for 0.

    Raises:
        QueryError: negative, more than `max_page_size`, or a token that is no token.
    """
    if not 0 <= page_size <= config.max_page_size:
        raise QueryError(
            f"page_size must be a whole number from 1 to {config.max_page_size:,}, not {page_size}",
            field="page_size",
        )
    if len(page_token) > _MAX_TOKEN_CHARS:
        raise QueryError("page_token is not one that this server gave out", field="page_token")
    return page_size or min(DEFAULT_PAGE_SIZE, config.max_page_size)
