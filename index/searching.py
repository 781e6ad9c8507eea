"""One search, checked and answered against one generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bittern.checks import check_recall
from bittern.errors import CodeError, QueryError
from bittern.hashing.codes import pack
from bittern.index.engines.choosing import Engines
from bittern.index.engines.engine import SearchEngine
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from bittern.index.generation import MODALITIES, Generation
from bittern.index.models import ModelRecord
from bittern.index.observation import Answer
from bittern.types import Hit, Metric

MAX_K = 10_000
"""Most hits of one search."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for.

    Attributes:
        query: logits, float [bits] or [q, bits]; for ``hamming`` codes, uint8 [..., bits/8].
        record: the model that made it.
        k: how many hits, 1 to 10,000.
        metric: ``asymmetric`` or ``hamming``.
        modalities: where to look.
        within: largest distance of a hit; None for any.
        recall: share of the true nearest that is wanted; None for what the archive was
            opened with.
    """

    query: NDArray[Any]
    record: ModelRecord
    k: int
    metric: Metric
    modalities: tuple[str, ...]
    within: float | None = None
    recall: float | None = None

    @classmethod
    def checked(
        cls,
        query: NDArray[Any],
        record: ModelRecord,
        k: int,
        metric: Metric,
        modality: str | None,
        within: float | None = None,
        recall: float | None = None,
        *,
        batch: bool = False,
    ) -> Self:
        """A question that can be answered.

        Raises:
            QueryError: k, metric, modality, within or recall is unusable.
            CodeError: the query has the wrong length or dtype, or is not finite.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
            raise QueryError(f"k must be a whole number from 1 to {MAX_K}, not {k!r}", field="k")
        if metric not in ("asymmetric", "hamming"):
            raise QueryError(
                f"metric must be 'asymmetric' or 'hamming', not {metric!r}", field="metric"
            )
        modalities = (check_modality(modality),) if modality is not None else MODALITIES
        return cls(
            _fitting(query, record, metric, 2 if batch else 1),
            record,
            int(k),
            metric,
            modalities,
            None if within is None else check_within(within),
            None if recall is None else check_recall(recall),
        )

    @property
    def queries(self) -> Queries:
        """The queries as engines take them."""
        batch = np.atleast_2d(self.query)
        if self.metric == "hamming":
            return Queries.of_codes(batch)
        return Queries.of_logits(batch)


def check_within(within: float) -> float:
    """Return `within` if it is a distance; a QueryError otherwise."""
    if (
        isinstance(within, bool)
        or not isinstance(within, int | float | np.number)
        or not (0 <= float(within) < np.inf)
    ):
        raise QueryError(
            f"within must be a distance of 0 or more bits, not {within!r}", field="within"
        )
    return float(within)


def check_modality(modality: str) -> str:
    """Return `modality` if observations can have it; a QueryError otherwise."""
    if modality not in MODALITIES:
        raise QueryError(f"modality must be 'image' or 'audio', not {modality!r}", field="modality")
    return modality


def _fitting(
    query: NDArray[Any], record: ModelRecord, metric: Metric, dimensions: int
) -> NDArray[Any]:
    """The query as the metric wants it: logits, or a code."""
    query = np.asarray(query)
    is_code = query.dtype == np.uint8
    if is_code and metric == "asymmetric":
        raise CodeError(
            "the asymmetric metric needs logits; a stored code can be searched with 'hamming'",
            field="metric",
        )
    length = record.bits // 8 if is_code else record.bits
    fits = query.ndim == dimensions and query.shape[-1] == length
    if not fits or not (is_code or np.issubdtype(query.dtype, np.floating)):
        raise CodeError(
            f"a query of {query.dtype} {list(query.shape)} was given; model {record.name} needs "
            f"float [{record.bits}] logits or a uint8 [{record.bits // 8}] code",
            field="query",
        )
    if is_code:
        return query
    # Packing refuses what is not finite, whether the code is needed or not.
    codes = pack(np.atleast_2d(query)).reshape(*query.shape[:-1], -1)
    return query if metric == "asymmetric" else codes


def engines_of(question: Question, generation: Generation, engines: Engines) -> list[SearchEngine]:
    """What searches the codes that a question is about, modality by modality."""
    blocks = generation.codes(question.record)
    return [
        engines.engine(engine_name(question.record, modality), blocks[modality], question.recall)
        for modality in question.modalities
        if len(blocks[modality])
    ]


def engine_name(record: ModelRecord, modality: str) -> str:
    """What engines know the codes of one model and modality by."""
    return f"{record.code_column}-{modality}"


def answer(
    question: Question, generation: Generation, matching: RowSet | None, engines: Engines
) -> Answer:
    """The nearest observations, in the total order (distance, row).

    Args:
        question: what is searched for.
        generation: the generation to search.
        matching: the rows that may be found; None for all.
        engines: what searches this archive.
    """
    used = engines_of(question, generation, engines)
    best = nearest_rows(question, matching, used)[0]
    if question.within is not None:
        near = best.distances <= question.within
        best = Nearest(best.distances[near], best.rows[near])
    observations = generation.observations(best.rows)
    return Answer(
        hits=[
            Hit(rank, float(distance), observation)
            for rank, (distance, observation) in enumerate(
                zip(best.distances, observations, strict=True), start=1
            )
        ],
        engine="+".join(sorted({engine.kind for engine in used})) or "flat",
        exact=all(engine.exact for engine in used),
        cutoff=question.within,
    )


def nearest_rows(
    question: Question, matching: RowSet | None, used: Sequence[SearchEngine]
) -> list[Nearest]:
    """The k nearest rows of each query, over what several engines search."""
    queries = question.queries
    found = [engine.search(queries, question.k, matching) for engine in used]
    return [
        Nearest.best_of([one[query] for one in found], question.k) for query in range(len(queries))
    ]


def everything_within(
    question: Question, generation: Generation, matching: RowSet | None, engines: Engines
) -> Nearest:
    """All rows no farther than the question's `within`, in the total order."""
    assert question.within is not None
    used = engines_of(question, generation, engines)
    return Nearest.best_of(
        [engine.within(question.queries, question.within, matching)[0] for engine in used]
    )
