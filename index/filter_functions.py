"""Functions of the `where` language as SQL: named conditions, and year, month and day of dates.

`taxon` and `names_match` are false for a row without names. `within_box` and `during` are NULL for
a row without coordinates or without a date.

Darwin Core writes an `eventDate` as ISO 8601 text: a year, a month, a day, a day with its time, or
an interval of two of these, whose end may omit what it shares with its beginning
(``2007-11-13/15``). Times and time zones are ignored.
"""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

from bittern.errors import FilterError
from bittern.index.columns import ColumnType
from bittern.index.store import quoted

Argument = str | float
"""A literal argument of a condition."""

RANKS = (
    "kingdom",
    "phylum",
    "class",
    "order",
    "superfamily",
    "family",
    "subfamily",
    "tribe",
    "subtribe",
    "genus",
    "subgenus",
    "species",
)
"""Darwin Core's columns of ranks; an archive has only some of them."""
MAX_WORDS = 20
"""Most words of one `names_match`."""
MAX_NAME_CHARS = 500
_HYBRIDS = ("× ", "×", "x ")


def taxon(columns: Mapping[str, ColumnType], name: str) -> str:
    """A row belongs to a taxon: it has this name at some rank, in any case.

    Longer scientific names match too: ``Strix aluco`` finds the subspecies ``Strix aluco aluco``
    and names with an author, but no hybrids.
    """
    wanted = " ".join(name.split())
    _check_name("taxon", wanted)
    same = f"lower({quoted(wanted)})"
    found = [f"lower(`{column}`) = {same}" for column in _texts(columns, RANKS)]
    for column in _texts(columns, ("scientificName",)):
        lower = f"lower(`{column}`)"
        longer = f"starts_with({lower}, lower({quoted(wanted + ' ')}))"
        if " " in wanted:
            for mark in _HYBRIDS:
                longer += f" AND NOT starts_with({lower}, lower({quoted(f'{wanted} {mark}')}))"
        found.append(f"({lower} = {same} OR ({longer}))")
    return _any(found)


def names_match(columns: Mapping[str, ColumnType], text: str) -> str:
    """Each word is among the words of the row's names, in any case and order.

    Words are runs of letters and digits.
    """
    words = _words(text)
    if not words:
        raise FilterError(
            f"names_match({text[:40]!r}) has no word to look for; write names_match('tawny owl')",
            field="where",
        )
    if len(words) > MAX_WORDS or len(text) > MAX_NAME_CHARS:
        raise FilterError(
            f"names_match has {len(words)} words and {len(text)} characters, the limits are "
            f"{MAX_WORDS} and {MAX_NAME_CHARS}",
            field="where",
        )
    kept = _texts(columns, ("scientificName", "vernacularName", *RANKS))
    names = ", ".join(f"`{column}`" for column in kept)
    edge = r"[^\p{L}\p{M}\p{N}]"
    found = [
        f"regexp_like(concat_ws(' ', {names}), {quoted(f'(?i)(?:^|{edge}){word}(?:{edge}|$)')})"
        for word in words
    ]
    return f"coalesce({' AND '.join(found)}, false)"


def within_box(west: float, south: float, east: float, north: float) -> str:
    """A row's coordinates lie in a box, edges included, from west eastwards to east.

    Raises:
        FilterError: these are no degrees, or south is greater than north.
    """
    given = f"within_box({west:g}, {south:g}, {east:g}, {north:g})"
    order = "write within_box(west, south, east, north) in decimal degrees"
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise FilterError(f"{given}: west and east are from -180 to 180; {order}", field="where")
    if not -90 <= south <= north <= 90:
        raise FilterError(
            f"{given}: south and north are from -90 to 90, south first; {order}", field="where"
        )
    low, high = _double(west), _double(east)
    longitude = f"`decimalLongitude` BETWEEN {low} AND {high}"
    if west > east:  # across the antimeridian
        longitude = f"(`decimalLongitude` >= {low} OR `decimalLongitude` <= {high})"
    latitude = f"`decimalLatitude` BETWEEN {_double(south)} AND {_double(north)}"
    return f"({latitude} AND {longitude})"


def _texts(columns: Mapping[str, ColumnType], names: Sequence[str]) -> list[str]:
    """The text columns among these names, in the archive's spelling."""
    by_lower = {column.lower(): column for column, kind in columns.items() if kind == "string"}
    return [by_lower[name.lower()] for name in names if name.lower() in by_lower]


def _any(conditions: Sequence[str]) -> str:
    # A NULL in one column must not make the others unknown.
    return f"({' OR '.join(f'coalesce({each}, false)' for each in conditions)})"


def _check_name(function: str, name: str) -> None:
    if not name:
        raise FilterError(f"{function} needs a name: taxon('Strigidae')", field="where")
    if len(name) > MAX_NAME_CHARS:
        raise FilterError(
            f"{function} was given {len(name)} characters, the limit is {MAX_NAME_CHARS}",
            field="where",
        )


def _words(text: str) -> list[str]:
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return list(dict.fromkeys("".join(kept).split()))


def _double(number: float) -> str:
    return f"CAST({float(number)!r} AS DOUBLE)"


# Dates

_MONTH = "(?:0[1-9]|1[0-2])"
_LEAP_YEAR = (
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"  # 1900 is none
)
_DAY = (
    "(?:[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    "|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP_YEAR}-02-29)"
)
_TIME = "(?:[T ][^/]*)?"
_YEAR_ONLY = "[0-9]{4}"
_YEAR_MONTH = f"[0-9]{{4}}-{_MONTH}"
_DATE = f"(?:{_DAY}{_TIME}|{_YEAR_MONTH}|{_YEAR_ONLY})"
_READABLE = f"^{_DATE}(?:/{_DATE})?$"
# Ends that omit what they share with their beginning, and how they are completed.
_SHORT_ENDS = (
    # 2007-11-13/15 and 2007-11/12
    ("^([0-9]{4}-(?:[0-9]{2}-)?)([0-9]{2})/([0-9]{2})$", "${1}${2}/${1}${3}"),
    # 2007-11-13/12-15
    ("^([0-9]{4}-)([0-9]{2}-[0-9]{2})/([0-9]{2}-[0-9]{2})$", "${1}${2}/${1}${3}"),
    # 2007-11-13T08:00/10:00
    ("^([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][^/]*)/(?:T|[0-9]{2}:)[^/]*$", "${1}"),
)
_GIVEN = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")


def year(text: str) -> str:
    """SQL of the year of a date or of a whole interval; NULL if unknown or of several years.

    Args:
        text: SQL of the date.
    """
    date = _match(_in_common(text, "([0-9]{4})[^/]*"), f"^({_DATE})$")
    return f"CAST(split_part({date}, '-', 1) AS BIGINT)"


def month(text: str) -> str:
    """SQL of the month, 1 to 12; NULL if unknown, or for an interval of several months."""
    common = _in_common(text, "([0-9]{4}-[0-9]{2})[^/]*")
    date = _match(common, f"^({_DAY}|{_YEAR_MONTH}){_TIME}$")
    return f"CAST(split_part({date}, '-', 2) AS BIGINT)"


def day_of_year(text: str) -> str:
    """SQL of the day of the year, 1 to 366; NULL if unknown, or for several days."""
    # Only valid days: the cast fails for others.
    date = _match(_in_common(text, f"({_DAY})[^/]*"), f"^({_DAY}){_TIME}$")
    return f"CAST(date_part('doy', CAST({date} AS DATE)) AS BIGINT)"


def _in_common(text: str, pattern: str) -> str:
    """SQL of a single date; of an interval, what its dates have in common, else NULL.

    The store has no CASE, so NULLs select the branches. The second argument of `coalesce`, which
    takes ten times as long, is only evaluated for intervals.
    """
    full = _in_full(text)
    readable = f"nullif(regexp_like({full}, {quoted(_READABLE)}), false)"
    begin, end = _match(full, f"^{pattern}"), _match(full, f"(?:^|/){pattern}$")
    alike = f"nullif({readable} AND {begin} = {end}, false)"
    return f"coalesce({_single(text)}, split_part({begin}, '/', CAST({alike} AS BIGINT)))"


def _single(text: str) -> str:
    """SQL of a single date; NULL for an interval."""
    return f"nullif({text}, concat(split_part({text}, '/', 1), '/', split_part({text}, '/', 2)))"


def _match(text: str, pattern: str) -> str:
    """SQL of the first group of a match; NULL without one."""
    return f"regexp_match({text}, {quoted(pattern)})[1]"


def _in_full(text: str) -> str:
    """SQL of a date with both ends of an interval completed."""
    for pattern, full in _SHORT_ENDS:
        text = f"regexp_replace({text}, {quoted(pattern)}, {quoted(full)})"
    return text


def during(first: str, last: str, column: str = "`eventDate`") -> str:
    """SQL condition: a date, or a whole interval, lies in a period, ends included.

    A month lies in the period if all of its days do. An unreadable date does not; a missing date
    makes the condition NULL.

    Args:
        first: a year, a month or a day.
        last: likewise; the period includes all of it.
        column: SQL of the dates.

    Raises:
        FilterError: invalid dates, or the first is later than the last.
    """
    begins, ends = _period(first)[0], _period(last)[1]
    if begins > ends:
        raise FilterError(
            f"during({first!r}, {last!r}) ends before it begins; give the earlier date first",
            field="where",
        )
    lowest = _shortest(begins)
    completed = f"coalesce({_single(column)}, {_in_full(column)})"
    begin = f"split_part({completed}, '/', 1)"
    end = f"regexp_replace({completed}, '^.*/', '')"
    # The first two conditions can use an index on the column.
    conditions = [
        f"{column} >= {quoted(lowest)}",
        f"{column} < {quoted(_year_after(ends))}",
        f"{begin} >= {quoted(lowest)}",
        f"regexp_like({completed}, {quoted(_READABLE)})",
    ]
    if ends < date.max:
        beyond = _shortest(ends + timedelta(days=1))
        conditions.append(f"{end} < {quoted(beyond)}")
        # Dates that extend beyond the end: '2024' ends after '2024-07-31'.
        wider = [beyond[:size] for size in (4, 7) if size < len(beyond)]
        if wider:
            conditions.append(f"{end} NOT IN ({', '.join(map(quoted, wider))})")
    return f"({' AND '.join(conditions)})"


def _year_after(day: date) -> str:
    return f"{day.year + 1:04d}" if day.year < date.max.year else ":"  # sorts after every digit


def _shortest(day: date) -> str:
    """The shortest ISO date that begins on this day: ``2024-05`` for the first of May.

    As text it sorts before all dates that begin on this day or later.
    """
    return day.isoformat().removesuffix("-01").removesuffix("-01")


def _period(given: str) -> tuple[date, date]:
    """First and last day of a year, a month or a day."""
    match = _GIVEN.fullmatch(given) if given.isascii() else None
    try:
        if match is None:
            raise ValueError(given)
        year_, month_, day_ = match.groups()
        first = date(int(year_), int(month_ or 1), int(day_ or 1))
    except ValueError:
        raise FilterError(
            f"{given[:40]!r} is not a date; write a year, a month or a day: '2024', '2024-05' or "
            "'2024-05-31'",
            field="where",
        ) from None
    if day_:
        return first, first
    last_month = int(month_ or 12)
    return first, date(first.year, last_month, calendar.monthrange(first.year, last_month)[1])


# Named conditions


def condition(columns: Mapping[str, ColumnType], name: str, given: Sequence[Argument]) -> str:
    """SQL of a named condition.

    Args:
        columns: the archive's columns, with their types.
        name: one of `CONDITIONS`.
        given: its arguments.

    Raises:
        FilterError: the arguments have the wrong number or types.
    """
    kinds, description, example, write = CONDITIONS[name]
    if len(given) != len(kinds) or not all(map(isinstance, given, kinds)):
        raise FilterError(
            f"{name} takes {description}, as in {example}", field="where", details={"part": name}
        )
    return write(columns, *given)


_ONE_DATE = "needs one column of dates: year(eventDate)"
VALUES: Mapping[str, tuple[ColumnType, str, Callable[[str], str]]] = {
    "lower": ("string", "needs one text", "lower({})".format),
    "upper": ("string", "needs one text", "upper({})".format),
    "year": ("int64", _ONE_DATE, year),
    "month": ("int64", _ONE_DATE, month),
    "day_of_year": ("int64", _ONE_DATE, day_of_year),
}
"""Functions of one text: type of the result, what they need for messages, and the function that
writes the SQL from the SQL of the text, by name."""
CONDITIONS: Mapping[str, tuple[Sequence[type], str, str, Callable[..., str]]] = {
    "taxon": ((str,), "one quoted text", "taxon('Strigidae')", taxon),
    "names_match": ((str,), "one quoted text", "names_match('tawny owl')", names_match),
    "within_box": (
        (float,) * 4,
        "4 numbers: west, south, east, north",
        "within_box(-5.5, 42, 8.2, 51)",
        lambda columns, *box: within_box(*box),
    ),
    "during": (
        (str, str),
        "2 quoted dates",
        "during('2024-05', '2024-07')",
        lambda columns, first, last: during(first, last),
    ),
}
"""Argument types, their description and an example for messages, and the function that writes the
SQL, by name."""
