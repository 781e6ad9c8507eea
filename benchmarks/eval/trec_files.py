"""Runs and qrels of a run, in the formats of TREC, for whoever wants to measure again.

    RUN/trec/MODEL/TASK[-split]/qrels.txt, SYSTEM-BITS-METRIC-seed0.run

A run has the first draw alone, in the product's order (distance, row): what other programs make
of it is the value in that order of that seed, not the mean over seeds and orders of ties.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from bittern.benchmarks.eval.cells import Cell
from bittern.benchmarks.eval.tasks import Task
from bittern.benchmarks.eval.trec import write_qrels, write_run

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def write_judgements(folder: Path, task: Task, model: str) -> Path:
    """Write the qrels of a task."""
    here = _place(folder, task, model)
    here.mkdir(parents=True, exist_ok=True)
    write_qrels(here / "qrels.txt", task.asked.ids, task.items.ids, task.relevance)
    return here / "qrels.txt"


def write_runs(folder: Path, task: Task, cell: Cell, model: str) -> list[Path]:
    """Write one run per variant of a cell."""
    here = _place(folder, task, model)
    here.mkdir(parents=True, exist_ok=True)
    written = []
    for variant, ranked in cell.variants.items():
        bits = str(cell.about["bits"] or "")
        again = f"top{variant.rerank}" if variant.rerank else ""
        parts = [str(cell.about["system"]), bits, variant.metric, again]
        tag = "-".join(_plain(part) for part in (*parts, f"seed{cell.about['seeds'][0]}") if part)
        path = here / f"{tag}.run"
        write_run(path, tag, task.asked.ids, task.items.ids, ranked.hits)
        written.append(path)
    return written


def _place(folder: Path, task: Task, model: str) -> Path:
    name = f"{_plain(task.name)}-{task.repeat}" if task.repeat else _plain(task.name)
    return folder / _plain(model) / name


def _plain(text: str) -> str:
    """A text as a part of a file's name; a long one is cut, and told apart by its digest."""
    plain = _UNFIT.sub("-", text.replace("→", "-to-")).strip("-.") or "unnamed"
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
