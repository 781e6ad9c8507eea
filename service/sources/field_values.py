"""Values of exports, in the form in which an archive keeps them: dates, licences, checked rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from bittern.index.columns import DARWIN_CORE, MetadataColumns, Value
from bittern.service.sources.headings import OWN, kept_names
from bittern.service.sources.licences import licence_code

_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_DATE_AND_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?(Z|[+-]\d{2}:?\d{2}|)"
)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def event_date(date: str, time: str = "") -> str:
    """A date, and a time of day where there is one, as Darwin Core's `eventDate` wants them.

    What is unknown is left out: ``2010-05-00`` is ``2010-05``, and ``0000-00-00`` is nothing.

    Args:
        date: ``2020-06-01``, or with its time: ``2020-06-01 05:30:00+00:00``.
        time: ``5:30``; ignored unless it is a time and the date is whole.

    Returns:
        an ISO 8601 date or date and time; empty if `date` is no date.
    """
    date = date.strip()
    both = _DATE_AND_TIME.fullmatch(date)
    if both is not None:
        return f"{both[1]}T{both[2]}{both[3]}"
    parts = _DATE.fullmatch(date)
    if parts is None:
        return date if re.fullmatch(r"\d{4}(-\d{2})?", date) and date > "0000-99" else ""
    year, month, day = (int(part) for part in parts.groups())
    if not year or month > 12 or day > 31:
        return ""
    if not month:
        return f"{year:04}"
    if not day:
        return f"{year:04}-{month:02}"
    clock = _TIME.fullmatch(time.strip())
    at = f"T{int(clock[1]):02}:{clock[2]}" if clock else ""
    return f"{year:04}-{month:02}-{day:02}{at}"


def licence(told: str) -> str:
    """A licence's short name; its address may lack ``https:``, as those of xeno-canto do."""
    return licence_code(f"https:{told}" if told.startswith("//") else told)


@lru_cache(maxsize=1024)
def _kept(headings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(kept_names(headings))


def kept_columns(row: Mapping[str, object]) -> dict[str, Value]:
    """The texts and numbers of a row under the names that an archive can keep them by.

    Lists, objects and empty values are left out, and so is what would say what the row is.
    """
    plain = {
        heading: value
        for heading, value in row.items()
        if isinstance(value, str | int | float) and value != ""
    }
    names = _kept(tuple(plain))
    return {n: v for n, v in zip(names, plain.values(), strict=True) if n not in OWN}


def checked(metadata: Mapping[str, object]) -> dict[str, Value]:
    """Metadata without empty values, each as its Darwin Core term has it.

    Raises:
        MetadataError: a value that its column cannot hold: a latitude of 200.
    """
    filled = {column: value for column, value in metadata.items() if value not in ("", None)}
    return MetadataColumns(DARWIN_CORE).accept(filled)


def text(value: object) -> str:
    """A text or number as text; empty for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def number(told: str) -> float | None:
    """A finite number; None for a text that is none."""
    try:
        value = float(told)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
