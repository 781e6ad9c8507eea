"""The library of the store: how it is loaded, and what it says when it fails."""

from __future__ import annotations

import os
import re
from typing import Any

_QUIET = "warn,lance::dataset::write::insert=error"
"""What LanceDB prints to stderr: its warnings, but for the one that a table is being made."""
_RUST_PLACE = re.compile(r",?\s*\(?\S+\.rs:\d+(?::\d+)?\)?")
_PANICS = ("PanicException", "RustPanic")
"""What LanceDB raises where it fell over; the first is no `Exception`."""


def lancedb() -> Any:
    """The library, which reads once, as it is loaded, how much it is to print."""
    os.environ.setdefault("LANCEDB_LOG", _QUIET)
    import lancedb

    return lancedb


def is_failure(error: BaseException) -> bool:
    """Whether it is the store that has failed, and not somebody who wants to stop."""
    return isinstance(error, Exception) or type(error).__name__ in _PANICS


def first_line(error: BaseException) -> str:
    """What the store said, without the places in its source code."""
    text = str(error).strip().splitlines()
    line = _RUST_PLACE.sub("", text[0]) if text else ""
    return f"{type(error).__name__}: {line[:300]}"
