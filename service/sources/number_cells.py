"""Cells of the columns that hold numbers, as tables have them: 46.5, and in much of Europe 46,5."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping

from bittern.errors import MetadataError
from bittern.index.columns import DARWIN_CORE, MetadataColumns, Value

NUMBERS = tuple(name for name, kind in DARWIN_CORE.items() if kind == "double")
"""Columns whose cells have to be numbers."""
SEPARATORS = ",\t;"
_COMMA = re.compile(r"([+-]?[0-9]*),([0-9]+)")
_METRES = "coordinateUncertaintyInMeters"


def separator_of(head: bytes) -> str:
    """What separates the cells of a table, by its header: a comma, a tab or a semicolon."""
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    return max(SEPARATORS, key=head.decode(encoding, "ignore").partition("\n")[0].count)


class NumberCells:
    """Checks the numbers of a table's rows.

    Args:
        separator: tells what separates the table's cells. Asked for once a cell has a comma: the
            comma of decimals can only be told from that of thousands where it is no separator.
    """

    def __init__(self, separator: Callable[[], str]) -> None:
        self._ask = separator
        self._separator: str | None = None
        self._columns = MetadataColumns(DARWIN_CORE)

    def checked(self, row: Mapping[str, Value]) -> dict[str, Value]:
        """The row, with decimal points; digits stay as they are given.

        Raises:
            MetadataError: what stands in a column of numbers is none, or out of its range.
        """
        changed = dict(row)
        for name in NUMBERS:
            value = row.get(name)
            if value is None:
                continue
            if isinstance(value, str) and "," in value:
                changed[name] = value = self._with_point(name, value)
            try:
                self._columns.accept({name: value})
            except MetadataError as error:
                raise MetadataError(
                    f"{error.message}; correct the cell or leave it empty", field=error.field
                ) from error
        return changed

    def _with_point(self, name: str, value: str) -> str:
        found = _COMMA.fullmatch(value.strip())
        if found is None:
            return value
        if self._separator is None:
            self._separator = self._ask()
        if self._separator == ",":
            return value
        whole, decimals = found.groups()
        if name == _METRES and self._separator != ";" and len(decimals) == 3:
            raise MetadataError(
                f"{name} may be {whole}{decimals} or {whole}.{decimals} where it says '{value}'; "
                "write it without a comma",
                field=name,
            )
        return f"{whole}.{decimals}"
