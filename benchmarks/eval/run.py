"""A whole run: every system on every task, and what they come to.

Everything that takes long is kept as it is made (embeddings in the cache, cells in the run's
folder), so the same request goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bittern.benchmarks.eval.cells import CELLS, key_of, read_cell, write_cell
from bittern.benchmarks.eval.jobs import Job, Screen, StoredModel, jobs_of
from bittern.benchmarks.eval.measuring import NotFittedError, depth_of, measured_cell
from bittern.benchmarks.eval.outcome import Begun, Done, LeftOut, results_of
from bittern.benchmarks.eval.request import EvalRequest, claim
from bittern.benchmarks.eval.results import Results
from bittern.benchmarks.eval.suites import suite_named
from bittern.benchmarks.eval.systems.base import System
from bittern.benchmarks.eval.systems.codes import TrainingFree
from bittern.benchmarks.eval.trec import write_judgements, write_runs

MEASURING = 2
"""Version of how cells are measured; part of their keys."""
TREC = "trec"
"""Folder of runs and qrels."""


def evaluate(request: EvalRequest, screen: Screen, command: str = "") -> Results:
    """Run a request, or go on with it; the report is not written.

    Args:
        request: what is run.
        screen: shows how far it is.
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
        done.append(_measured(job, request, measures, screen))
    screen.stage("putting together", None)
    return results_of(suite, request, done, begun)


def _measured(job: Job, request: EvalRequest, measures: Sequence[str], screen: Screen) -> Done:
    """What is measured of a task, from the run's folder where it has been measured before."""
    task, training = job.task, job.vectors.training
    pairs = [(system, bits) for system in job.systems for bits in _lengths(system, job, request)]
    reasons = [system.fits(job.vectors.rows.dim, bits) for system, bits in pairs]
    able = [pair for pair, reason in zip(pairs, reasons, strict=True) if not reason]
    left_out = [
        LeftOut(task.name, system.name, bits, reason)
        for (system, bits), reason in zip(pairs, reasons, strict=True)
        if reason
    ]
    screen.stage(f"{job.space.name}: {job.name}", sum(system.draws for system, _ in able))
    if request.trec:
        write_judgements(request.out / TREC, task, job.space.name)
    cells = {}
    finished = 0
    for system, bits in able:
        key = key_of(_decides(job, system, bits, request, measures))
        shape = (system.draws, len(task.queries))
        cell = read_cell(request.out / CELLS, key, shape)
        try:
            if cell is None:
                cell = measured_cell(job, system, bits, request, measures, screen.advance)
                write_cell(request.out / CELLS, key, cell)
        except NotFittedError as error:
            left_out.append(LeftOut(task.name, system.name, bits, str(error)))
        else:
            if request.trec:
                write_runs(request.out / TREC, task, cell, job.space.name)
            cells[key] = cell.without_hits()
        finished += system.draws
        screen.advance(finished)
    remarks = [
        LeftOut(task.name, system.name, bits, text)
        for system, bits in pairs
        if isinstance(system, TrainingFree)
        and (text := system.notes(len(training.items), job.vectors.rows.dim, bits or 0))
    ]
    # What was fitted on is large, and not needed any more.
    job = replace(job, vectors=job.vectors.without_training())
    return Done(job, measures, cells, left_out, remarks)


def _lengths(system: System, job: Job, request: EvalRequest) -> Sequence[int | None]:
    """Those of the request and of the saved models, so that these have something beside them."""
    if system.own_bits is not None:
        return (system.own_bits,)
    lengths = {*request.bits, *(saved.card.bits for saved in job.space.saved)}
    return sorted(lengths) if system.coded else (None,)


def _decides(
    job: Job, system: System, bits: int | None, request: EvalRequest, measures: Sequence[str]
) -> dict[str, Any]:
    protocol = request.protocol
    return {
        "measuring": MEASURING,
        "data": job.digest,
        "model": job.space.name,
        "system": system.name,
        "identity": system.identity,
        "bits": bits,
        "draws": system.draws,
        "seed": protocol.seed,
        "repeat": job.task.repeat,
        "windows": protocol.windows,
        "depth": depth_of(job.task, job.vectors.rows, request, measures),
        "fit_rows": protocol.fit_rows,
        "rerank": 0 if isinstance(system, StoredModel) else request.rerank,
        "measures": list(measures),
    }
