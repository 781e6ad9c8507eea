"""One search, checked and answered against one snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError, QueryError
from hashing.codes import pack
from index.flat import FlatCodes, Nearest
from index.models import ModelRecord
from index.observation import Hit, Metric
from index.snapshot import MODALITIES, Snapshot

MAX_K = 10_000
"""Most hits of one search."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for.

    Attributes:
        query: logits, float [bits]; for ``hamming`` a code, uint8 [bits/8].
        record: the model that made it.
        k: how many hits, 1 to 10,000.
        metric: ``asymmetric`` or ``hamming``.
        modalities: where to look.
    """

    query: NDArray[Any]
    record: ModelRecord
    k: int
    metric: Metric
    modalities: tuple[str, ...]

    @classmethod
    def checked(
        cls,
        query: NDArray[Any],
        record: ModelRecord,
        k: int,
        metric: Metric,
        modality: str | None,
    ) -> Self:
        """A question that can be answered.

        Raises:
            QueryError: k, metric or modality is unusable.
            CodeError: the query has the wrong length or dtype, or is not finite.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
            raise QueryError(f"k must be a whole number from 1 to {MAX_K}, not {k!r}", field="k")
        if metric not in ("asymmetric", "hamming"):
            raise QueryError(
                f"metric must be 'asymmetric' or 'hamming', not {metric!r}", field="metric"
            )
        modalities = (check_modality(modality),) if modality is not None else MODALITIES
        return cls(_fitting(query, record, metric), record, int(k), metric, modalities)


def check_modality(modality: str) -> str:
    """Return `modality` if observations can have it; a QueryError otherwise."""
    if modality not in MODALITIES:
        raise QueryError(f"modality must be 'image' or 'audio', not {modality!r}", field="modality")
    return modality


def _fitting(query: NDArray[Any], record: ModelRecord, metric: Metric) -> NDArray[Any]:
    """The query as the metric wants it: logits, or a code."""
    query = np.asarray(query)
    is_code = query.dtype == np.uint8
    if is_code and metric == "asymmetric":
        raise CodeError(
            "the asymmetric metric needs logits; a stored code can be searched with 'hamming'",
            field="metric",
        )
    length = record.bits // 8 if is_code else record.bits
    if query.shape != (length,) or not (is_code or np.issubdtype(query.dtype, np.floating)):
        raise CodeError(
            f"a query of {query.dtype} {list(query.shape)} was given; model {record.name} needs "
            f"float [{record.bits}] logits or a uint8 [{record.bits // 8}] code",
            field="query",
        )
    if is_code:
        return query
    # Packing refuses what is not finite, whether the code is needed or not.
    code = pack(query[None, :])[0]
    return query if metric == "asymmetric" else code


def answer(question: Question, snapshot: Snapshot, matching: NDArray[np.int64] | None) -> list[Hit]:
    """The nearest observations, in the total order (distance, row).

    Args:
        question: what is searched for.
        snapshot: the generation to search.
        matching: int64, ascending: the rows that may be found; None for all.
    """
    blocks = snapshot.codes(question.record)
    parts = [blocks[modality] for modality in question.modalities]
    if matching is not None:
        parts = [part.only(matching) for part in parts]
    best = Nearest.best_of([_nearest(question, part) for part in parts], question.k)
    observations = snapshot.observations(best.rows)
    return [
        Hit(rank, float(distance), observation)
        for rank, (distance, observation) in enumerate(
            zip(best.distances, observations, strict=True), start=1
        )
    ]


def _nearest(question: Question, part: FlatCodes) -> Nearest:
    if question.metric == "hamming":
        return part.nearest_symmetric(question.query, question.k)
    return part.nearest_asymmetric(question.query, question.k)
