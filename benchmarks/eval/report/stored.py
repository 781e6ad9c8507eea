"""`results.json`: a `Results` there and back, exactly.

The file is the fields of the dataclasses under their own names, and ``version``. Floats are
written so that they read back to the last bit; those that JSON has no number for are the strings
``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. A file that is read may be anybody's: its size is
limited, and every value is checked against the type of its field.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bittern.benchmarks.eval.results import Results
from bittern.errors import InvalidInputError, LimitExceededError, SourceNotFoundError

VERSION = 2
"""Of the file's layout."""
MOST_BYTES = 256 * 2**20
"""A larger `results.json` is not read."""
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INT64 = 2**63
_DEEPEST = 40


def results_json(results: Results) -> str:
    """The text of `results.json`."""
    written = {"version": VERSION, **_plain(results)}
    return json.dumps(written, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def read_results(path: Path) -> Results:
    """Read a `results.json`; sequences come back as tuples.

    Raises:
        SourceNotFoundError: there is no such file.
        LimitExceededError: it is larger than `MOST_BYTES`.
        InvalidInputError: it is no JSON, of another version, or a value is not what its field
            holds.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"there is no file {path}; a finished run has one")
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error
    if len(data) > MOST_BYTES:
        raise LimitExceededError(
            f"{path} has {path.stat().st_size} bytes; results of at most {MOST_BYTES} are read"
        )
    try:
        value = json.loads(data, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise _unusable(path.name, f"it is not JSON as runs write it: {error}") from error
    if not isinstance(value, dict):
        raise _unusable(path.name, "it holds no object")
    version = value.pop("version", None)
    if version != VERSION or isinstance(version, bool):
        raise _unusable(
            path.name, f"it is of version {_shown(version)}, this program reads {VERSION}"
        )
    read = _read(Results, value, path.name, 0)
    assert isinstance(read, Results)
    return read


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if hasattr(value, "item") and not isinstance(value, (str, int, float)):
        return _plain(value.item())  # NumPy's scalars
    return float(value) if isinstance(value, float) else value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _read(kind: Any, value: Any, where: str, depth: int) -> Any:
    """The value as its field's type has it."""
    if kind is Any:
        return _free(value, where, depth)
    if is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), value, where, depth)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _read(inner[0], value, where, depth)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _unfit(where, "an object", value)
        return {k: _read(inner[1], v, f"{where}.{k[:60]}", depth + 1) for k, v in value.items()}
    if origin is Sequence:
        if not isinstance(value, list):
            raise _unfit(where, "a list", value)
        return tuple(_read(inner[0], v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))
    return _read_scalar(kind, value, where)


@cache
def _kinds(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read_dataclass(kind: Any, value: Any, where: str, depth: int) -> Any:
    if not isinstance(value, dict):
        raise _unfit(where, "an object", value)
    kinds = _kinds(kind)
    if set(value) != set(kinds):
        missing, unknown = sorted(set(kinds) - set(value)), sorted(set(value) - set(kinds))
        raise _unusable(
            where, f"fields {missing} are missing, {[_shown(name) for name in unknown]} are unknown"
        )
    return kind(**{k: _read(kinds[k], v, f"{where}.{k}", depth + 1) for k, v in value.items()})


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError as error:
                raise _unfit(where, "a number", value) from error
            if math.isfinite(number):
                return number
        raise _unfit(where, "a number", value)
    if kind is int:
        if type(value) is int and -_INT64 <= value < _INT64:
            return value
        raise _unfit(where, "a 64-bit integer", value)
    if type(value) is not kind:
        raise _unfit(where, {str: "a text", bool: "true or false"}[kind], value)
    return value


def _free(value: Any, where: str, depth: int) -> Any:
    """Values of any kind, as deep as tables of a page can be."""
    if depth > _DEEPEST:
        raise _unusable(where, f"values are nested more than {_DEEPEST} deep")
    if isinstance(value, dict):
        return {k: _free(v, where, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_free(v, where, depth + 1) for v in value]
    return value


def _unfit(where: str, wanted: str, value: Any) -> InvalidInputError:
    return _unusable(where, f"{wanted} was expected, not {_shown(value)}")


def _unusable(where: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{where} cannot be used: {why}; run the benchmark again", field="results"
    )


def _shown(value: Any) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
