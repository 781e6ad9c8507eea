"""The conditions with a name of their own: what they mean, in the store's SQL.

`taxon` and `names_match` are true or false of every row, since a row without names has none that
fits. `within_box` and `during` are NULL where a row has no coordinates or no date.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence

from bittern.errors import FilterError
from bittern.index.columns import ColumnType
from bittern.index.filter_dates import during
from bittern.index.store import quoted

Argument = str | float
"""A literal that a condition was given."""

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
"""Darwin Core's columns of ranks; an archive has some of them always, others when they were given.
"""
MAX_WORDS = 20
"""Most words of one `names_match`."""
MAX_NAME_CHARS = 500
_HYBRIDS = ("× ", "×", "x ")


def taxon(columns: Mapping[str, ColumnType], name: str) -> str:
    """A row belongs to a taxon: it has this name at some rank, in whatever case.

    A scientific name belongs as well if it goes on after this one: ``Strix aluco`` finds the
    subspecies ``Strix aluco aluco``, and names with their author. Hybrids of a species do not
    belong to it.
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
    """Each of these words is a word of the row's names, in whatever case and order.

    Words are runs of letters and digits: everything else in `text` only separates them.
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
    """A row's coordinates lie in a box, edges included; from west eastwards to east.

    Raises:
        FilterError: these are no degrees, or south is north of north.
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


def condition(columns: Mapping[str, ColumnType], name: str, given: Sequence[Argument]) -> str:
    """SQL of a named condition.

    Args:
        columns: the archive's columns, with their types.
        name: one of `CONDITIONS`.
        given: its arguments.

    Raises:
        FilterError: not the arguments that it takes.
    """
    kinds, said, example, write = CONDITIONS[name]
    if len(given) != len(kinds) or not all(map(isinstance, given, kinds)):
        raise FilterError(
            f"{name} takes {said}, as in {example}", field="where", details={"part": name}
        )
    return write(columns, *given)


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
"""What each takes, that in words and an example for messages, and what writes it."""


def _texts(columns: Mapping[str, ColumnType], names: Sequence[str]) -> list[str]:
    """Columns of text among these names, as the archive spells them."""
    by_lower = {column.lower(): column for column, kind in columns.items() if kind == "string"}
    return [by_lower[name.lower()] for name in names if name.lower() in by_lower]


def _any(conditions: Sequence[str]) -> str:
    # NULL, said of a column without a name, is no reason to doubt the others.
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
