"""Numbers in sentences: ``1 item``, ``2,000 items``, and the verbs that go with them."""

from __future__ import annotations

from collections.abc import Sequence


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
