"""Checks of single values that callers give: each returns the value in its plain type, or raises.

The command line, the Python API, the server and the index check with these, so that a mistake is
refused in the same words wherever it is noticed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from bittern.errors import (
    FilterError,
    InvalidInputError,
    LimitExceededError,
    MetadataError,
    QueryError,
)

MAX_NAME_CHARS = 1_000
"""Longest name of a model, in characters."""
MAX_WHERE_CHARS = 10_000
"""Longest condition, in characters."""
MAX_PAGE_SIZE = 1_000
"""Most observations on one page of a listing."""
MAX_IDS = 10_000
"""Most ids of one deletion."""
MAX_ID_BYTES = 1_024
"""Longest new `occurrenceID`, in bytes of UTF-8."""
MAX_MEDIA_NAME_BYTES = 4_096
"""Longest new media name, in bytes of UTF-8: that of the longest path on Linux."""
MAX_STORED_ID_CHARS = 2_048
"""Longest id of an observation in any archive, in characters."""
MAX_MEDIA_BYTES = 60 * 1024 * 1024
"""Largest picture or sound file that a query, or an item sent to a server, may be: what fits
into the largest message that a server takes, with room for its metadata."""
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp"})
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that new ids and media names cannot have: controls (C0, C1) and line separators."""
_Choice = TypeVar("_Choice", bound=str)


def modality_of_suffix(name: str | Path) -> str | None:
    """``image`` or ``audio``, by the suffix of a file's name; None for anything else."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path takes ten times as long
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "audio" if suffix in AUDIO_SUFFIXES else None


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


def check_name(value: object, field: str, most: int = MAX_ID_BYTES) -> str:
    """A new id or media name: one line, not blank, of at most `most` bytes of UTF-8.

    Raises:
        InvalidInputError: it is not Unicode text.
        MetadataError: it is blank, too long, or has a control character.
    """
    text = check_string(value, field, InvalidInputError)
    if not text.strip():
        raise MetadataError(f"{field} is blank; give every media item one", field=field)
    if len(text) > most or len(text.encode()) > most:
        raise MetadataError(
            f"{field} {text[:60]!r}... has {len(text.encode()):,} bytes of UTF-8, the limit is "
            f"{most:,}; shorten it",
            field=field,
        )
    if found := _NOT_IN_NAMES.search(text):
        raise MetadataError(
            f"{field} {text[:60]!r} has the control character U+{ord(found[0]):04X} at position "
            f"{found.start()}; remove it, or rename the file",
            field=field,
        )
    return text


def check_id(value: object, field: str = "id") -> str:
    """An id to look up: text that may be the id of an observation; else a `QueryError`."""
    text = check_string(value, field)
    if len(text) > MAX_STORED_ID_CHARS:
        raise QueryError(
            f"{field} has {len(text):,} characters; no id has more than {MAX_STORED_ID_CHARS:,}",
            field=field,
        )
    return text


def check_whole(value: object, field: str, least: int, most: int | None = None) -> int:
    """A whole number of any integer type, within the bounds; else a `QueryError`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    number = int(value) if whole else least - 1  # type: ignore[call-overload]
    if number < least or (most is not None and number > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise QueryError(f"{field} must be a whole number {span}, not {value!r}", field=field)
    return number


def check_choice(value: object, choices: Sequence[_Choice], field: str) -> _Choice:
    """The value, if it is one of the choices; else a `QueryError`."""
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    listed = ", ".join(choices[:-1]) + f" or {choices[-1]}"
    raise QueryError(f"{field} must be {listed}, not {value!r}", field=field)


def check_where(where: object) -> str | None:
    """A condition or None; `QueryError` for what is no text, `FilterError` for one too long."""
    if where is None:
        return None
    text = check_string(where, "where")
    if len(text) > MAX_WHERE_CHARS:
        raise FilterError(
            f"the condition has {len(text)} characters, the limit is {MAX_WHERE_CHARS}; shorten it",
            field="where",
        )
    return text


def check_model(model: object) -> str | None:
    """The name of a model, or None for none or an empty one; else a `QueryError`."""
    if model is None:
        return None
    name = check_string(model, "model")
    if len(name) > MAX_NAME_CHARS:
        raise QueryError(
            f"model has {len(name)} characters, the limit is {MAX_NAME_CHARS}", field="model"
        )
    return name or None


def check_page_size(page_size: object) -> int:
    """A whole number of observations from 1 to `MAX_PAGE_SIZE`; else a `QueryError`."""
    return check_whole(page_size, "page_size", 1, MAX_PAGE_SIZE)


def check_ids(ids: str | Iterable[object]) -> list[str]:
    """The ids of one deletion: one, or several.

    Raises:
        QueryError: not text, or something among them that is no id.
        LimitExceededError: more than `MAX_IDS`.
    """
    try:
        checked = [check_id(each, "ids") for each in ([ids] if isinstance(ids, str) else ids)]
    except TypeError:
        raise QueryError(
            f"ids must be text or a list of texts, not {type(ids).__name__}", field="ids"
        ) from None
    if len(checked) > MAX_IDS:
        raise LimitExceededError(
            f"{len(checked)} ids were given, the limit is {MAX_IDS}; delete them in several calls",
            field="ids",
        )
    return checked
