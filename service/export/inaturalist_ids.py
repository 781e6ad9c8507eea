"""Numbers of iNaturalist observations, for its search and its exports (``id=1,2,3``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bittern.index.columns import Value
from bittern.service.export.base import Rows

_ADDRESS = re.compile(
    r"(?:^|//|\.)inaturalist(?:\.[a-z]{2,10}){1,3}/observations/([0-9]{1,18})(?![0-9])",
    re.IGNORECASE,
)
_COLUMNS = ("references", "occurrenceID")


class InaturalistIdsWriter:
    """One number per line, each once, in the order of the observations.

    It is found in the address that `references` or `occurrenceID` holds. Observations without
    one are left out.
    """

    name = "ids"
    suffix = ".txt"
    title = "iNaturalist observation numbers, one per line"
    codes = False

    def chunks(self, rows: Rows) -> Iterator[bytes]:
        """See `Writer.chunks`."""
        seen: set[int] = set()
        for records in rows.records():
            lines = []
            for record in records:
                number = inaturalist_id(record)
                if number is None:
                    rows.left_out += 1
                elif number not in seen:
                    seen.add(number)
                    lines.append(f"{number}\n")
            yield "".join(lines).encode()


def inaturalist_id(record: Mapping[str, Value]) -> int | None:
    """The number of a record on iNaturalist; None where it has none."""
    for column in _COLUMNS:
        if found := _ADDRESS.search(str(record.get(column, ""))):
            return int(found[1])
    return None
