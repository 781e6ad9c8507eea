"""JSON Lines, and GeoJSON for maps (RFC 7946)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bittern.index.columns import Value
from bittern.service.export.base import Rows

_PLACE = ("decimalLongitude", "decimalLatitude")


class JsonLinesWriter:
    """One JSON object per observation and line, without what is not known."""

    name = "jsonl"
    suffix = ".jsonl"
    title = "JSON Lines"
    codes = False

    def chunks(self, rows: Rows) -> Iterator[bytes]:
        """See `Writer.chunks`."""
        for records in rows.records():
            yield "".join(_json(record) + "\n" for record in records).encode()


class GeoJsonWriter:
    """One feature per observation: a point with everything that is known of it.

    Coordinates are as fine as the source gave them. How uncertain they are, where it said so, is
    among the properties as ``coordinateUncertaintyInMeters``. Without both coordinates the
    geometry is null.
    """

    name = "geojson"
    suffix = ".geojson"
    title = "GeoJSON"
    codes = False

    def chunks(self, rows: Rows) -> Iterator[bytes]:
        """See `Writer.chunks`."""
        yield b'{"type": "FeatureCollection", "features": [\n'
        between = ""
        for records in rows.records():
            if records:
                yield (between + ",\n".join(_json(_feature(r)) for r in records)).encode()
                between = ",\n"
        yield b"\n]}\n"


def _feature(record: Mapping[str, Value]) -> dict[str, Any]:
    known = all(name in record for name in _PLACE)
    placed = {"type": "Point", "coordinates": [record[name] for name in _PLACE]} if known else None
    shown_by_geometry = _PLACE if known else ()
    return {
        "type": "Feature",
        "id": record["id"],
        "geometry": placed,
        "properties": {n: v for n, v in record.items() if n not in shown_by_geometry},
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
