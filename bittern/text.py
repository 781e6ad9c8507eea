"""Numbers in sentences (``1 item``, ``2,000 items``), and text that a terminal does not act on."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ACTED_ON = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls (C0, C1), line separators, marks of direction, and halves of surrogate pairs."""


def escaped(text: str) -> str:
    r"""Text with ``\u001b`` for characters that a terminal acts on; within JSON it stays equal."""
    return _ACTED_ON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(number: int, one: str, many: str = "") -> str:
    """``1 item``, ``2,000 items``; `many` where an ``s`` will not do."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def agreeing(number: int, one: str, many: str) -> str:
    """The verb (or whatever else bends) for so many: ``has`` for one, ``have`` for others."""
    return one if number == 1 else many


def some_of(number: int, whole: int, one: str, many: str = "") -> str:
    """``1 of 5 queries``, ``1 of 1 query``."""
    return f"{number:,} of {counted(whole, one, many)}"


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """``a, b, c, ...``: the first names, each cut to 100 characters."""
    return ", ".join(name[:100] for name in names[:shown]) + (", ..." if len(names) > shown else "")
