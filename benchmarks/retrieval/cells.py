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

from benchmarks.retrieval.results import TIES
from index.durable import replace_file

_log = logging.getLogger("bittern.eval")
CELLS = "cells"
"""Their folder in that of a run."""
_ABOUT = "about"
_LARGEST_ABOUT = 1 << 20


@dataclass(frozen=True, order=True)
class Variant:
    """How codes are ranked.

    Attributes:
        metric: ``cosine``, ``symmetric`` or ``asymmetric``.
        rerank: so many of the nearest are ranked anew by float cosine; 0 for none.
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
        seconds: of ranking, per draw and query, on average.
        bytes_per_item: what is stored per item, all of its windows together, on average.
    """

    values: Mapping[str, NDArray[np.float64]]
    hits: NDArray[np.int32]
    distances: NDArray[np.float64]
    rows: NDArray[np.int64]
    seconds: float
    bytes_per_item: float

    def without_hits(self) -> Ranked:
        """Only the values."""
        return replace(
            self,
            hits=self.hits[:, :0].copy(),
            distances=self.distances[:, :0].copy(),
            rows=self.rows[:, :0].copy(),
        )


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
    told = json.dumps(decides, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def write_cell(folder: Path, key: str, cell: Cell) -> None:
    """Keep a cell; it appears whole, or not at all."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    told = []
    for variant, ranked in cell.variants.items():
        for measure, values in ranked.values.items():
            arrays[f"{variant.key}/{measure}"] = np.ascontiguousarray(values)
        arrays[f"{variant.key}//hits"] = np.ascontiguousarray(ranked.hits)
        arrays[f"{variant.key}//distances"] = np.ascontiguousarray(ranked.distances)
        arrays[f"{variant.key}//rows"] = np.ascontiguousarray(ranked.rows)
        told.append(
            {
                "metric": variant.metric,
                "rerank": variant.rerank,
                "measures": list(ranked.values),
                "seconds": ranked.seconds,
                "bytes_per_item": ranked.bytes_per_item,
            }
        )
    about = json.dumps({**cell.about, "variants": told})
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{key}.safetensors", save(arrays, metadata={_ABOUT: about}))


def read_cell(folder: Path, key: str) -> Cell | None:
    """A cell that was kept; None where there is none, or none that can be used (that is logged)."""
    path = folder / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s cannot be used, it is measured again: %s", path.name, error)
        return None


def _read(path: Path) -> Cell:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as kept:
            about = json.loads((kept.metadata() or {})[_ABOUT][:_LARGEST_ABOUT])
            variants = {
                Variant(str(told["metric"]), int(told["rerank"])): _ranked(kept, told)
                for told in about.pop("variants")
            }
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return Cell(about, variants)


def _ranked(kept: Any, told: Mapping[str, Any]) -> Ranked:
    key = Variant(str(told["metric"]), int(told["rerank"])).key
    values = {str(name): kept.get_tensor(f"{key}/{name}") for name in told["measures"]}
    for name, array in values.items():
        if array.dtype != np.float64 or array.ndim != 3 or array.shape[0] != len(TIES):
            raise ValueError(f"{key}/{name} is {array.dtype} {list(array.shape)}")
    return Ranked(
        values=values,
        hits=kept.get_tensor(f"{key}//hits"),
        distances=kept.get_tensor(f"{key}//distances"),
        rows=kept.get_tensor(f"{key}//rows"),
        seconds=float(told["seconds"]),
        bytes_per_item=float(told["bytes_per_item"]),
    )
