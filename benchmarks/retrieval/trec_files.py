"""Runs and qrels of a run, in the formats of TREC, for whoever wants to measure again."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.retrieval.cells import Cell
from benchmarks.retrieval.tasks import Task
from benchmarks.retrieval.trec import write_qrels, write_run

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def write_trec(folder: Path, task: Task, cell: Cell, model: str) -> list[Path]:
    """Write the qrels of a task and one run per variant of a cell: its first draw.

    Returns:
        what was written: ``TASK[-split]/qrels.txt`` and ``TASK[-split]/MODEL-SYSTEM-….run``.
    """
    name = f"{_plain(task.name)}-{task.repeat}" if task.repeat else _plain(task.name)
    here = folder / name
    here.mkdir(parents=True, exist_ok=True)
    qrels = here / "qrels.txt"
    if not qrels.exists():
        write_qrels(qrels, task.asked.ids, task.items.ids, task.relevance)
    written = [qrels]
    for variant, ranked in cell.variants.items():
        parts = [model, str(cell.about["system"]), str(cell.about["bits"] or ""), variant.metric]
        again = f"top{variant.rerank}" if variant.rerank else ""
        tag = "-".join(_plain(part) for part in (*parts, again) if part)
        path = here / f"{tag}.run"
        write_run(path, tag, task.asked.ids, task.items.ids, ranked.hits)
        written.append(path)
    return written


def _plain(text: str) -> str:
    return _UNFIT.sub("-", text.replace("→", "-to-")).strip("-")
