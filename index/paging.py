"""Pages of a listing: stable while others add and delete, because a token names a row."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

import numpy as np
from numpy.typing import NDArray

from bittern.errors import QueryError
from bittern.index.generation import Generation
from bittern.types import Page

MAX_PAGE_SIZE = 10_000
_TOKEN = re.compile(rb"([0-9]{1,19})\.([0-9a-f]{8})")


def _fingerprint(where: str) -> str:
    return hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def encode_token(last_row: int, where: str) -> str:
    """The token of the page that follows `last_row` in a listing with this condition."""
    return base64.urlsafe_b64encode(f"{last_row}.{_fingerprint(where)}".encode()).decode()


def decode_token(token: str, where: str) -> int:
    """The last row of the page before; -1 for an empty token.

    Raises:
        QueryError: not a token, or one of a listing with another condition.
    """
    if not token:
        return -1
    try:
        match = _TOKEN.fullmatch(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        match = None
    if match is None:
        raise QueryError(
            f"{token[:60]!r} is no page token; start again without one", field="page_token"
        )
    if match[2].decode() != _fingerprint(where):
        raise QueryError(
            "this page token belongs to a listing with another condition; start again without one",
            field="page_token",
        )
    return int(match[1])


def page_of(
    generation: Generation, rows: NDArray[np.int64], page_size: int, token: str, where: str
) -> Page:
    """One page of a listing.

    Args:
        generation: the generation to read from.
        rows: int64, ascending: the whole listing.
        page_size: most observations of the page.
        token: where the page before ended.
        where: the listing's condition, which the token must share.
    """
    whole = isinstance(page_size, int) and not isinstance(page_size, bool)
    if not whole or not 1 <= page_size <= MAX_PAGE_SIZE:
        raise QueryError(
            f"page_size must be a whole number from 1 to {MAX_PAGE_SIZE}, not {page_size!r}",
            field="page_size",
        )
    last = min(decode_token(token, where), np.iinfo(np.int64).max)
    start = int(np.searchsorted(rows, last, side="right"))
    page = rows[start : start + page_size]
    more = start + page_size < len(rows)
    return Page(
        observations=generation.observations(page),
        next_token=encode_token(int(page[-1]), where) if more else "",
    )
