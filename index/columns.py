"""The columns of observations: their names, their types, and the values that they hold.

Darwin Core terms (https://dwc.tdwg.org/terms/) keep their names and have fixed types; any other
column gets the type of its first value.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Literal

from bittern.errors import MetadataError

ColumnType = Literal["string", "double", "int64", "bool"]
Value = str | float | int | bool

MAX_COLUMNS = 500
"""Most metadata columns of one archive."""
MAX_ITEM_COLUMNS = 250
"""Most metadata columns of one observation: none can use up an archive's columns."""
MAX_VALUE_BYTES = 64 << 10
"""Longest text value, in bytes of UTF-8."""

DARWIN_CORE: Mapping[str, ColumnType] = {
    "scientificName": "string",
    "vernacularName": "string",
    "taxonRank": "string",
    "kingdom": "string",
    "phylum": "string",
    "class": "string",
    "order": "string",
    "family": "string",
    "genus": "string",
    "species": "string",
    "eventDate": "string",
    "decimalLatitude": "double",
    "decimalLongitude": "double",
    "coordinateUncertaintyInMeters": "double",
    "countryCode": "string",
    "license": "string",
    "rightsHolder": "string",
    "references": "string",
}
"""Metadata columns of every archive, with their types."""

IDENTITY: Mapping[str, ColumnType] = {
    "id": "string",
    "occurrenceID": "string",
    "modality": "string",
    "media": "string",
    "start_s": "double",
    "end_s": "double",
}
"""Columns that identify an observation; conditions can use them."""

INTERNAL: Mapping[str, ColumnType] = {
    "row": "int64",
    "committed": "int64",
    "mediaRoot": "string",
    "mediaHash": "string",
    "mediaBytes": "int64",
    "mediaModified": "int64",
}
"""Internal columns. `committed` is the store version that last wrote a row; the last three are the
media file's fingerprint, which older archives lack."""

FINGERPRINT = ("mediaHash", "mediaBytes", "mediaModified")
"""Columns of a media file's fingerprint."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "decimalLatitude": (-90.0, 90.0),
    "decimalLongitude": (-180.0, 180.0),
    "coordinateUncertaintyInMeters": (0.0, math.inf),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_RESERVED = {name.lower(): name for name in (*IDENTITY, *INTERNAL)}
_RESERVED_PREFIXES = ("code_", "embedding_")
_EXACT_BELOW = 2.0**53
_PLAIN_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


def is_code_or_embedding(column: str) -> bool:
    """Whether a column of the store holds a model's codes or embeddings."""
    return column.lower().startswith(_RESERVED_PREFIXES)


class MetadataColumns:
    """The metadata columns of one archive; new ones are added.

    Args:
        types: column name to type, as the store has them.
    """

    def __init__(self, types: Mapping[str, ColumnType]) -> None:
        self.types: dict[str, ColumnType] = dict(types)
        self._by_lower = {name.lower(): name for name in self.types}

    def accept(self, metadata: Mapping[str, object]) -> dict[str, Value]:
        """Check one observation's metadata and convert its values to the types of their columns.

        New columns are added only if the whole observation is accepted. None values are skipped.

        Args:
            metadata: column name to value.

        Returns:
            converted values by column name.

        Raises:
            MetadataError: a name or value cannot be stored.
        """
        _check_count(metadata)
        accepted: dict[str, Value] = {}
        new: dict[str, ColumnType] = {}
        seen: dict[str, str] = {}
        for name, value in metadata.items():
            self._check_name(name, seen)
            if value is None:
                continue
            column_type = self.types.get(name)
            if column_type is None:
                column_type = new[name] = _type_of(name, value)
            fitted = _fit(name, value, column_type)
            if fitted is not None:
                accepted[name] = fitted
        if len(self.types) + len(new) > MAX_COLUMNS:
            raise MetadataError(
                f"metadata would take the archive to {len(self.types) + len(new)} columns, the "
                f"limit is {MAX_COLUMNS}; leave out columns such as {sorted(new)[0]!r}, or delete "
                "the observations that use others: columns without values are removed",
                field=sorted(new)[0],
            )
        for name, column_type in new.items():
            self.types[name] = column_type
            self._by_lower[name.lower()] = name
        return accepted

    def _check_name(self, name: str, seen: dict[str, str]) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            shown = repr(name) if len(repr(name)) <= 80 else repr(name)[:77] + "..."
            raise MetadataError(
                f"{shown} cannot be a metadata column: a name is a letter and then up to 63 "
                "letters, digits or underscores",
                field="metadata",
            )
        lower = name.lower()
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise MetadataError(
                f"{name!r} cannot be a metadata column: Bittern uses a column of that name "
                "itself; rename it in the source",
                field=name,
            )
        other = seen.setdefault(lower, name)
        known = self._by_lower.get(lower, other)
        if name not in (other, known) or known != name:
            raise MetadataError(
                f"the columns {known if known != name else other!r} and {name!r} differ in case "
                "only; give them one spelling",
                field=name,
            )


def check_metadata(metadata: Mapping[str, object]) -> None:
    """Check that some archive could hold the metadata, whatever the types of its columns.

    Raises:
        MetadataError: too many columns, an invalid column name, a value that is no text, number
            or bool, or a text that is too long or not Unicode.
    """
    _check_count(metadata)
    columns = MetadataColumns(DARWIN_CORE)
    seen: dict[str, str] = {}
    for name, value in metadata.items():
        columns._check_name(name, seen)
        if value is not None:
            _type_of(name, value)
        if isinstance(value, str):
            _text(name, value)


def _check_count(metadata: Mapping[str, object]) -> None:
    held = [name for name, value in metadata.items() if value is not None]
    if len(held) > MAX_ITEM_COLUMNS:
        raise MetadataError(
            f"an observation has {len(held)} metadata columns, the limit is {MAX_ITEM_COLUMNS}; "
            f"leave out columns such as {str(held[-1])[:64]!r}",
            field="metadata",
        )


def _type_of(name: str, value: object) -> ColumnType:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        return "string"
    raise MetadataError(
        f"column {name!r} cannot hold a {type(value).__name__}: use text, a number or true/false",
        field=name,
    )


def _fit(name: str, value: object, column_type: ColumnType) -> Value | None:
    """The value in its column's type; None for an empty text unless the column holds texts."""
    _type_of(name, value)
    if column_type == "string":
        return _text(name, value)
    if isinstance(value, str) and not value.strip():
        return None
    fitted: Value | None
    if column_type == "double":
        fitted = _number(value)
    elif column_type == "int64":
        fitted = _whole_number(value)
    else:
        fitted = _truth(value)
    if fitted is None:
        kinds = {"double": "numbers", "int64": "whole numbers of 64 bits", "bool": "true or false"}
        raise MetadataError(
            f"column {name!r} takes {kinds[column_type]}, not {_shown(value)}", field=name
        )
    low, high = _RANGES.get(name, (-math.inf, math.inf))
    if not low <= fitted <= high:
        raise MetadataError(
            f"{name} must be between {low:g} and {high:g}, not {_shown(value)}", field=name
        )
    return fitted


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise MetadataError(f"column {name!r} has a number of more than 64 bits", field=name)
    text = value if isinstance(value, str) else str(value)
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise MetadataError(f"column {name!r} has a text that is not Unicode", field=name) from None
    if size > MAX_VALUE_BYTES:
        raise MetadataError(
            f"column {name!r} has a text of {size} bytes, the limit is {MAX_VALUE_BYTES}",
            field=name,
        )
    return text


def _number(value: object) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole_number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        value = int(text) if _PLAIN_INTEGER.fullmatch(text) else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def as_given(value: Value) -> Value:
    """A stored value for display: whole numbers without decimals.

    A column of numbers stores 7 as 7.0, and a coordinate given as 7 must not look more precise.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_BELOW:
        return int(value)
    return value


def _truth(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def suggestion(name: str, known: Mapping[str, object]) -> str:
    """`` (did you mean 'x'?)`` where a known name is close, else nothing."""
    by_lower = {column.lower(): column for column in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""
