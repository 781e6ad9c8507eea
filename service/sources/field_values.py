"""Values of exports in the form that an archive stores: dates, licences, numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from bittern.errors import MetadataError
from bittern.index.columns import DARWIN_CORE, MetadataColumns, Value
from bittern.service.sources.headings import OWN, kept_names

ALL_RIGHTS_RESERVED = "all rights reserved"
BETWEEN = " | "
"""Separator of several values in one column."""
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_DATE_AND_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?(Z|[+-]\d{2}:?\d{2}|)"
)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_LICENCE_ADDRESS = re.compile(
    r"(?:https?:)?//(?:www\.)?creativecommons\.org/"
    r"(?:licenses/(?P<terms>by(?:-nc)?(?:-nd|-sa)?)|publicdomain/(?P<free>zero|mark))"
    r"(?:/(?P<version>\d\.\d))?(?:/[A-Za-z_./-]*)?",
    re.IGNORECASE,
)
_LICENCE_CODE = re.compile(
    r"CC[-_ ](?P<terms>BY(?:[-_ ]NC)?(?:[-_ ](?:ND|SA))?)(?:[-_ ](?P<version>\d[._]\d))?",
    re.IGNORECASE,
)
_CC_ZERO = re.compile(r"CC[-_ ]?0(?:[-_ ]1[._]0)?", re.IGNORECASE)
Cell = TypeVar("Cell")
_NUMBERS = {name: kind for name, kind in DARWIN_CORE.items() if kind == "double"}
_NUMBER_COLUMNS = MetadataColumns(_NUMBERS)
_DECIMAL_COMMA = re.compile(r"([+-]?[0-9]*),([0-9]+)")


def event_date(date: str, time: str = "") -> str:
    """A date, with its time of day if known, in the form of Darwin Core's `eventDate`.

    Unknown parts are left out: ``2010-05-00`` is ``2010-05``, and ``0000-00-00`` is empty.

    Args:
        date: ``2020-06-01``, or with its time: ``2020-06-01 05:30:00+00:00``.
        time: ``5:30``; ignored unless it is a time and the date is whole.

    Returns:
        an ISO 8601 date or date and time; empty if `date` is not a date.
    """
    date = date.strip()
    both = _DATE_AND_TIME.fullmatch(date)
    if both is not None:
        return f"{both[1]}T{both[2]}{both[3]}"
    found = _DATE.fullmatch(date)
    if found is None:
        return date if re.fullmatch(r"\d{4}(-\d{2})?", date) and date > "0000-99" else ""
    year, month, day = map(int, found.groups())
    if not year or month > 12 or day > 31:
        return ""
    if not month:
        return f"{year:04}"
    if not day:
        return f"{year:04}-{month:02}"
    clock = _TIME.fullmatch(time.strip())
    at = f"T{int(clock[1]):02}:{clock[2]}" if clock else ""
    return f"{year:04}-{month:02}-{day:02}{at}"


@lru_cache(maxsize=1024)
def licence(text: str, version: str = "") -> str:
    """The SPDX identifier of a Creative Commons licence; other texts unchanged.

    Exports write the same licence as an address, as ``CC_BY_NC_4_0`` or as ``cc-by-nc``.

    Args:
        text: an address, also without ``https:``; a code; or a name.
        version: the version that the site means if the text has none.
    """
    text = text.strip()
    if _CC_ZERO.fullmatch(text):
        return "CC0-1.0"
    found = _LICENCE_ADDRESS.fullmatch(text)
    if found and found["free"]:
        return "CC0-1.0" if found["free"].lower() == "zero" else "PDM-1.0"
    found = found or _LICENCE_CODE.fullmatch(text)
    if found is None:
        return f"https:{text}" if text.startswith("//") else text
    number = (found["version"] or version).replace("_", ".")
    terms = re.split(r"[-_ ]", found["terms"].upper())
    return "-".join(["CC", *terms, *([number] if number else [])])


@lru_cache(maxsize=1024)
def _names(headings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(kept_names(headings))


def kept_columns(row: Mapping[str, object]) -> dict[str, Value]:
    """The texts and numbers of a row under valid column names.

    Lists, objects, empty values and the columns that identify the row are left out.
    """
    plain = {
        heading: value
        for heading, value in row.items()
        if isinstance(value, str | int | float) and value != ""
    }
    names = _names(tuple(plain))
    return {n: v for n, v in zip(names, plain.values(), strict=True) if n not in OWN}


def renamed(row: Mapping[str, Cell], terms: Mapping[str, str | None]) -> dict[str, Cell]:
    """The non-empty cells of some columns under new names; None keeps the name."""
    filled = {column: row[column] for column in terms if row.get(column)}
    return {terms[column] or column: value for column, value in filled.items()}


def checked(metadata: Mapping[str, object]) -> dict[str, Value]:
    """Metadata without empty values, converted to the types of Darwin Core terms.

    Raises:
        MetadataError: an invalid value: a latitude of 200.
    """
    filled = {column: value for column, value in metadata.items() if value not in ("", None)}
    return MetadataColumns(DARWIN_CORE).accept(filled)


def with_numbers(row: Mapping[str, Value], separator: str) -> dict[str, Value]:
    """The row, with decimal points in the columns of numbers; digits are unchanged.

    Much of Europe writes 46,5. A comma is read as a decimal mark only if it does not separate the
    cells.

    Args:
        row: column to cell.
        separator: of the table's cells.

    Raises:
        MetadataError: a cell in a column of numbers is not a number, or out of range.
    """
    changed = dict(row)
    for name in _NUMBERS:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, str) and "," in value:
            changed[name] = value = _with_point(name, value, separator)
        try:
            _NUMBER_COLUMNS.accept({name: value})
        except MetadataError as error:
            raise MetadataError(
                f"{error.message}; correct the cell or clear it", field=error.field
            ) from error
    return changed


def _with_point(name: str, value: str, separator: str) -> str:
    found = _DECIMAL_COMMA.fullmatch(value.strip())
    if found is None or separator == ",":
        return value
    whole, decimals = found.groups()
    metres = name == "coordinateUncertaintyInMeters"
    if metres and separator != ";" and len(decimals) == 3:
        raise MetadataError(
            f"{name} is '{value}', which may mean {whole}{decimals} or {whole}.{decimals}; "
            "write it without a comma",
            field=name,
        )
    return f"{whole}.{decimals}"


def text(value: object) -> str:
    """A text or number as text; empty for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def number(value: str) -> float | None:
    """A finite number; None for any other text."""
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
