"""A whole run: every system on every task, and what they come to.

Everything that takes long is kept as it is made (embeddings in the cache, cells in the run's
folder), so the same request goes on where it was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bittern.benchmarks.eval.archive_codes import StoredModel
from bittern.benchmarks.eval.cells import CELLS, Cell, key_of, read_cell, write_cell
from bittern.benchmarks.eval.jobs import Job, Screen, jobs_of
from bittern.benchmarks.eval.measuring import CellWork, NotFittedError, depth_of, measured_cell
from bittern.benchmarks.eval.outcome import Begun, Done, Kept, LeftOut, results_of
from bittern.benchmarks.eval.request import EvalRequest, claim
from bittern.benchmarks.eval.results import Results
from bittern.benchmarks.eval.suites import suite_named
from bittern.benchmarks.eval.systems.base import System
from bittern.benchmarks.eval.systems.codes import TrainingFree
from bittern.benchmarks.eval.systems.learned import SavedHasher
from bittern.benchmarks.eval.trec import write_judgements, write_runs

MEASURING = 2
"""Version of how cells are measured; part of their keys."""
TREC = "trec"
"""Folder of runs and qrels."""


def evaluate(request: EvalRequest, screen: Screen, command: str = "") -> Results:
    """Run, or go on with, what is asked for; the report is not written.

    Args:
        request: what is asked for.
        screen: is told how far it is.
        command: as it was given, for the report.

    Raises:
        BitternError: it cannot be run; what was measured is kept.
    """
    begun = Begun.now(command)
    request = request.checked()
    suite = suite_named(request.suite)
    request.check_measures(request.measures or suite.measures)
    suite.check(request.data, request.protocol)
    claim(request)
    done = []
    for job in jobs_of(suite, request, screen):
        measures = tuple(request.measures or job.task.measures or suite.measures)
        cells, left_out = _measured(job, request, measures, screen)
        remarks = _remarks(job, request)
        # What was fitted on is large, and has served.
        fitted = replace(job, vectors=job.vectors.without_training())
        done.append(Done(fitted, measures, cells, left_out, remarks))
    screen.stage("putting together", None)
    return results_of(suite, request, done, begun)


def _measured(
    job: Job, request: EvalRequest, measures: Sequence[str], screen: Screen
) -> tuple[list[Kept], list[LeftOut]]:
    """What is measured of a task, from the run's folder where it is there already."""
    work, left_out = _work(job, request)
    screen.stage(f"{job.space.name}: {job.name}", sum(w.system.draws for w in work))
    if request.trec:
        write_judgements(request.out / TREC, job.task, job.space.name)
    done = 0
    found = []
    for one in work:
        key = key_of(_decides(job, one, request, measures))
        try:
            cell = _cell(one, key, request, measures, screen)
        except NotFittedError as error:
            left_out.append(LeftOut(job.task.name, one.system.name, one.bits, str(error)))
        else:
            if request.trec:
                write_runs(request.out / TREC, job.task, cell, job.space.name)
            found.append(Kept(key, cell.without_hits()))
        done += one.system.draws
        screen.advance(done)
    return found, left_out


def _cell(
    work: CellWork, key: str, request: EvalRequest, measures: Sequence[str], screen: Screen
) -> Cell:
    shape = (work.system.draws, len(work.task.queries))
    cell = read_cell(request.out / CELLS, key, shape)
    if cell is None:
        cell = measured_cell(work, request, measures, screen.advance)
        write_cell(request.out / CELLS, key, cell)
    return cell


def _work(job: Job, request: EvalRequest) -> tuple[list[CellWork], list[LeftOut]]:
    """Every system at every length that it can have; and why not, where it cannot."""
    work: list[CellWork] = []
    left_out: list[LeftOut] = []
    for system in job.systems:
        for bits in _lengths(system, job, request):
            reason = system.fits(job.vectors.rows.dim, bits)
            if reason:
                left_out.append(LeftOut(job.task.name, system.name, bits, reason))
                continue
            again = 0 if isinstance(system, StoredModel) else request.rerank  # codes are all it has
            work.append(CellWork(job.task, job.space.name, system, bits, job.vectors, again))
    return work, left_out


def _remarks(job: Job, request: EvalRequest) -> list[LeftOut]:
    """What is to be said of systems that are measured all the same."""
    rows, dim = len(job.vectors.training.items), job.vectors.rows.dim
    return [
        LeftOut(job.task.name, system.name, bits, text)
        for system in job.systems
        if isinstance(system, TrainingFree)
        for bits in _lengths(system, job, request)
        if (text := system.notes(rows, dim, bits or 0))
    ]


def _lengths(system: System, job: Job, request: EvalRequest) -> Sequence[int | None]:
    """Those asked for, and those of the saved models, so that something is held against them."""
    if isinstance(system, SavedHasher):
        return (system.saved.card.bits,)
    if isinstance(system, StoredModel):
        return (system.stored.bits,)
    lengths = {*request.bits, *(saved.card.bits for saved in job.space.saved)}
    return sorted(lengths) if system.coded else (None,)


def _decides(
    job: Job, work: CellWork, request: EvalRequest, measures: Sequence[str]
) -> dict[str, Any]:
    protocol = request.protocol
    return {
        "measuring": MEASURING,
        "data": job.digest,
        "model": job.space.name,
        "system": work.system.name,
        "identity": _identity(work.system),
        "bits": work.bits,
        "draws": work.system.draws,
        "seed": protocol.seed,
        "repeat": job.task.repeat,
        "windows": protocol.windows,
        "depth": depth_of(job.task, job.vectors.rows, request, measures),
        "fit_rows": protocol.fit_rows,
        "rerank": work.rerank,
        "measures": list(measures),
    }


def _identity(system: System) -> str:
    """What tells systems of one name apart."""
    if isinstance(system, SavedHasher):
        return system.saved.card.digest
    if isinstance(system, StoredModel):
        codes = np.ascontiguousarray(system.stored.codes).tobytes()
        return hashlib.sha256(system.stored.digest.encode() + codes).hexdigest()
    return system.name
