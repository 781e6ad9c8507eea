"""One cell: a system fitted at one length with each of its seeds, ranked, measured and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks import machine
from bittern.benchmarks.eval.cells import Cell, Ranked, Variant
from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.jobs import Job
from bittern.benchmarks.eval.measures import TIES, measure
from bittern.benchmarks.eval.ranking import Ranking, Searched, Settings, rank
from bittern.benchmarks.eval.request import EvalRequest
from bittern.benchmarks.eval.search_time import search_times
from bittern.benchmarks.eval.suites.custom_archive import StoredCodes
from bittern.benchmarks.eval.systems.base import Fitted, System
from bittern.benchmarks.eval.tasks import Task
from bittern.errors import CodeError, InvalidInputError

SEEDS_APART = 1_000
"""Between the seeds of two random splits, so that no two draws share one."""
DEEPEST_RUN = 1_000
"""Ranks that are kept of each query, as in runs of TREC."""
MOST_KEPT = 2_000_000
"""Ranks that are kept in all; of very many queries each keeps fewer."""
SHOWN = 20
"""Ranks of which distance and window are kept as well."""


class NotFittedError(Exception):
    """A system that cannot be fitted on a training set; its reason is among the results."""


DEEP = 1_000
"""How deep is ranked where ranking everything would take too long."""
FEW_PAIRS = 100_000_000
"""Distances of queries to rows that are all computed, whatever the measures: some seconds."""
_MOST_PAIRS = 2_000_000_000
"""The same, where a measure needs all ranks: some minutes on two cores."""
_SHALLOW = ("MRR", "P_H2")
"""Measures that look at the nearest alone, though they have no cutoff."""


def seeds_of(system: System, repeat: int, seed: int) -> list[int]:
    """One seed per draw."""
    first = seed + SEEDS_APART * repeat
    return list(range(first, first + system.draws))


def measured_cell(
    job: Job,
    system: System,
    bits: int | None,
    request: EvalRequest,
    measures: Sequence[str],
    advance: Callable[[], None] = lambda: None,
) -> Cell:
    """Fit, rank and measure, draw after draw.

    Raises:
        NotFittedError: the system cannot be fitted on this training set.
        BitternError: an embedding cannot be used.
    """
    rows = job.vectors.rows
    drawn: dict[Variant, list[tuple[Ranking, NDArray[np.float64]]]] = {}
    digests = []
    bytes_per_row = 0.0
    times: dict[str, float | None] = {}
    seeds = seeds_of(system, job.task.repeat, request.protocol.seed)
    for seed in seeds:
        fitted = _fitted(job, system, bits, seed)
        digests.append(fitted.digest)
        bytes_per_row = fitted.bytes_per_row
        times = times or search_times(fitted, job.vectors)
        for variant, ranking in _rankings(job, fitted, request, measures):
            values = _values(ranking, measures)
            kept = ranking if variant not in drawn else _without_hits(ranking)
            drawn.setdefault(variant, []).append((kept, values))
        advance()
    variants = {}
    for variant, found in drawn.items():
        defined = _defined([values for _, values in found], measures)
        if defined:
            time = None if variant.rerank else times[variant.metric]
            stored = bytes_per_row + (4.0 * rows.dim if variant.rerank else 0.0)
            per_item = stored * _rows_per_item(rows)
            variants[variant] = _first_ranked(found[0][0], defined, time, per_item)
    if not variants:
        raise NotFittedError(f"none of {', '.join(measures)} is defined for its distances")
    about = {
        "task": job.task.name,
        "repeat": job.task.repeat,
        "model": job.space.name,
        "system": system.name,
        "bits": bits,
        "seeds": seeds,
        "digests": digests,
        "revision": machine.revision(),
        "cpu": machine.cpu_model(),
    }
    return Cell(about, variants)


def _rows_per_item(rows: EmbeddedRows) -> float:
    return len(rows) / max(len(np.unique(rows.owners)), 1)


def _first_ranked(
    first: Ranking,
    values: Mapping[str, NDArray[np.float64]],
    search_ms: float | None,
    bytes_per_item: float,
) -> Ranked:
    """Values of all draws with the hits of the first."""
    return Ranked(
        values=values,
        hits=first.hits.astype(np.int32),
        distances=first.distances[:, :SHOWN].astype(np.float64),
        rows=first.rows[:, :SHOWN].astype(np.int64),
        search_ms=search_ms,
        bytes_per_item=bytes_per_item,
    )


def _fitted(job: Job, system: System, bits: int | None, seed: int) -> Fitted:
    try:
        return system.fit(job.vectors.training, bits, seed)
    except CodeError:
        raise  # embeddings that nothing can use
    except InvalidInputError as error:
        raise NotFittedError(error.message) from error


def variants_of(fitted_metrics: Sequence[str], bits: int | None, rerank: int) -> list[Variant]:
    """How codes of a system are ranked: by each metric; the asymmetric one re-ranked as well."""
    found = [Variant(metric) for metric in fitted_metrics]
    if rerank and bits is not None and "asymmetric" in fitted_metrics:
        found.append(Variant("asymmetric", rerank))
    return found


def _rankings(
    job: Job, fitted: Fitted, request: EvalRequest, measures: Sequence[str]
) -> Iterator[tuple[Variant, Ranking]]:
    task, vectors = job.task, job.vectors
    depth = depth_of(task, vectors.rows, request, measures)
    keep = min(DEEPEST_RUN, len(task.items), max(SHOWN, MOST_KEPT // max(len(task.queries), 1)))
    searched = Searched(vectors.rows, task.relevance)
    for variant in variants_of(fitted.metrics, fitted.bits, rerank_of(job, request)):
        settings = Settings(
            mean=request.protocol.windows == "mean",
            depth=depth,
            candidates=task.candidates,
            rerank=variant.rerank,
            keep=min(keep, depth) if depth else keep,
        )
        metric: Any = variant.metric  # one of `fitted.metrics`
        yield variant, rank(fitted, vectors.queries, metric, searched, settings)


def rerank_of(job: Job, request: EvalRequest) -> int:
    """How many items are re-ranked; 0 where there are no vectors, or no items behind them."""
    if isinstance(job.vectors.rows, StoredCodes):
        return 0
    candidates = job.task.candidates
    fewest = len(job.task.items) if candidates is None else int(candidates.counts.min())
    return request.rerank if request.rerank < fewest else 0


def depth_of(
    task: Task, rows: EmbeddedRows, request: EvalRequest, measures: Sequence[str]
) -> int | None:
    """How deep all systems are ranked: as the protocol says (0: everything), else as size allows.

    Where all measures are cut, no deeper than they (or `DEEP`) look, as soon as that saves time;
    a first right item below that counts as none for ``MRR``. Candidates are ranked whole.
    """
    depth = request.protocol.depth
    if depth is not None or task.candidates is not None:
        return depth or None
    cuts = [one.cutoff for one in map(measure, measures) if one.kind.stem not in _SHALLOW]
    if len(task.queries) * len(rows) > FEW_PAIRS and all(cut is not None for cut in cuts):
        return max(DEEP, *(cut or 0 for cut in cuts))
    return DEEP if len(task.queries) * len(rows) > _MOST_PAIRS else None


def _values(ranking: Ranking, measures: Sequence[str]) -> NDArray[np.float64]:
    """float64 [measures, ties, q]."""
    positions = ranking.ranks
    return np.array([[measure(name).of(positions, tie) for tie in TIES] for name in measures])


def _without_hits(ranking: Ranking) -> Ranking:
    """Only what is read of further draws: hits of all draws would fill the memory."""
    return replace(
        ranking,
        hits=ranking.hits[:, :0].copy(),
        distances=ranking.distances[:, :0].copy(),
        rows=ranking.rows[:, :0].copy(),
    )


def _defined(
    drawn: Sequence[NDArray[np.float64]], measures: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Values of each measure that has any: float64 [ties, draws, q]."""
    values = np.stack(drawn, axis=2)  # [measures, ties, draws, q]
    return {
        name: values[number]
        for number, name in enumerate(measures)
        if not np.isnan(values[number]).all()
    }
