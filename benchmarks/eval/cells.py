"""What a run has measured so far, one file per task, system and code length.

    RUN/cells/<key>.safetensors    per-query values of every variant and draw, top hits of the first

The key is a digest of everything that decides the content, so a run that was interrupted goes
on with what is missing, and a run on other data or settings never takes a cell for its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.measures import TIES
from bittern.files import replace_file

_log = logging.getLogger("bittern.eval")
CELLS = "cells"
"""Their folder in that of a run."""
_ABOUT = "about"
_LARGEST_ABOUT = 1 << 20
_HITS: Mapping[str, Any] = {"hits": np.int32, "distances": np.float64, "rows": np.int64}
_UNUSABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError,
    RecursionError,
)  # fmt: skip
"""What a file raises that was written by somebody else, or cut short."""


@dataclass(frozen=True, order=True)
class Variant:
    """How codes are ranked.

    Attributes:
        metric: ``cosine``, ``symmetric`` or ``asymmetric``.
        rerank: so many of the nearest are re-ranked by float cosine; 0 for none.
    """

    metric: str
    rerank: int = 0

    @property
    def key(self) -> str:
        """In the names of arrays."""
        return f"{self.metric}+{self.rerank}"


@dataclass(frozen=True)
class Ranked:
    """One variant's values.

    Attributes:
        values: per measure float64 [ties, draws, q]; ties in the order of `TIES`.
        hits: int32 [q, h], the nearest items under the first draw, -1 where there are no more.
        distances: float64 [q, s], of the first few of `hits`.
        rows: int64 [q, s], the observation (window) by which each was found.
        search_ms: milliseconds of one search (`search_time`); None where it was not timed.
        bytes_per_item: what is stored per item, all of its windows together, on average.
    """

    values: Mapping[str, NDArray[np.float64]]
    hits: NDArray[np.int32]
    distances: NDArray[np.float64]
    rows: NDArray[np.int64]
    search_ms: float | None
    bytes_per_item: float

    def without_hits(self) -> Ranked:
        """Only the values."""
        return replace(self, **{name: getattr(self, name)[:, :0].copy() for name in _HITS})


@dataclass(frozen=True)
class Cell:
    """One system on one task at one code length, all draws.

    Attributes:
        about: what was measured, as JSON values: task, repeat, model, system, bits, draws.
        variants: by how codes are ranked.
    """

    about: Mapping[str, Any]
    variants: Mapping[Variant, Ranked] = field(default_factory=dict)

    def without_hits(self) -> Cell:
        """Only the values: hits of many cells would fill the memory."""
        return replace(self, variants={v: r.without_hits() for v, r in self.variants.items()})


def key_of(decides: Mapping[str, Any]) -> str:
    """The name of a cell: 32 hex digits of the SHA-256 over everything that decides it."""
    text = json.dumps(decides, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_cell(folder: Path, key: str, cell: Cell) -> None:
    """Keep a cell; it appears whole, or not at all."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    variants = []
    for variant, ranked in cell.variants.items():
        arrays |= {f"{variant.key}/{measure}": values for measure, values in ranked.values.items()}
        arrays |= {f"{variant.key}//{name}": getattr(ranked, name) for name in _HITS}
        variants.append(
            {
                "metric": variant.metric,
                "rerank": variant.rerank,
                "measures": list(ranked.values),
                "search_ms": ranked.search_ms,
                "bytes_per_item": ranked.bytes_per_item,
            }
        )
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = json.dumps({**cell.about, "key": key, "variants": variants})
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{key}.safetensors", save(arrays, metadata={_ABOUT: about}))


def read_cell(folder: Path, key: str, shape: tuple[int, int] | None = None) -> Cell | None:
    """A cell that was kept; None where there is none, or none that can be used (that is logged).

    Args:
        folder: of the cells.
        key: of the cell.
        shape: draws and queries that it must have; None for any.
    """
    from safetensors import SafetensorError

    path = folder / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        return _read(path, key, shape)
    except (*_UNUSABLE, SafetensorError) as error:
        _log.warning("%s cannot be used, it is measured again: %s", path.name, error)
        return None


def _read(path: Path, key: str, shape: tuple[int, int] | None) -> Cell:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as kept:
        about = json.loads((kept.metadata() or {})[_ABOUT][:_LARGEST_ABOUT])
        if about.pop("key") != key:
            raise ValueError("it is another cell's")
        variants = {
            Variant(str(record["metric"]), int(record["rerank"])): _ranked(kept, record, shape)
            for record in about.pop("variants")
        }
    if not variants:
        raise ValueError("it has no variant")
    return Cell(about, variants)


def _ranked(kept: Any, record: Mapping[str, Any], shape: tuple[int, int] | None) -> Ranked:
    key = Variant(str(record["metric"]), int(record["rerank"])).key
    values = {str(name): kept.get_tensor(f"{key}/{name}") for name in record["measures"]}
    first = next(iter(values.values()), np.empty((0, 0, 0)))
    draws, queries = shape or (first.shape[1], first.shape[2])
    for name, array in values.items():
        _check(name, array, np.float64, (len(TIES), draws, queries))
        if np.isinf(array).any():
            raise ValueError(f"{name} is not finite")
    if not values or not draws:
        raise ValueError("it has no values")
    hits = {name: kept.get_tensor(f"{key}//{name}") for name in _HITS}
    for name, array in hits.items():
        _check(name, array, _HITS[name], (queries, array.shape[-1]))
    time = record["search_ms"]
    return Ranked(
        values=values,
        **hits,
        search_ms=None if time is None else _number(time),
        bytes_per_item=_number(record["bytes_per_item"]),
    )


def _number(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return number


def _check(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} is {array.dtype} {list(array.shape)}, not {np.dtype(dtype)} {list(shape)}"
        )
