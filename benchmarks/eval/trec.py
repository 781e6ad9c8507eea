"""Judgements and runs in TREC's files, as trec_eval and ir_measures read them.

    run     query Q0 item rank score tag            the hits of a query

    RUN/trec/MODEL/TASK[-split]/qrels.txt, SYSTEM-BITS-METRIC-seed0.run

trec_eval ignores ranks: it sorts by score, and equal scores by item, so the scores of a run fall
strictly here. A run has the first draw alone, in the product's order (distance, row): other
programs compute the value in that order of that seed, not the mean over seeds and orders of ties.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.cells import Cell
from bittern.benchmarks.eval.tasks import Task
from bittern.benchmarks.eval.tasks.qrels import escaped, write_qrels
from bittern.errors import LimitExceededError
from bittern.files import replace_file
from bittern.text import counted

MAX_HITS = 1 << 24
"""Most hits of one query: trec_eval keeps scores as 32-bit floats, which distinguish so many."""
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def write_run(
    path: Path,
    tag: str,
    queries: Sequence[str],
    items: Sequence[str],
    hits: NDArray[np.integer],
) -> None:
    """Write a run, with scores that fall from the number of hits to 1; the file appears whole.

    Args:
        path: the file.
        tag: name of the run; whitespace becomes ``-``.
        queries: ids.
        items: ids.
        hits: int [q, h], positions of items, best first, none twice in a row; -1 behind the last.

    Raises:
        LimitExceededError: more hits per query than trec_eval can tell apart.
        QrelsError: an id cannot be written.
    """
    if hits.shape[1] > MAX_HITS:
        raise LimitExceededError(
            f"{counted(hits.shape[1], 'hit')} per query are more than trec_eval can tell apart "
            f"({MAX_HITS:,}); write fewer"
        )
    name = re.sub(r"\s+", "-", tag.strip()) or "bittern"
    content = bytearray()
    for query, row in zip(queries, hits, strict=True):
        own, found = escaped(query), row[row >= 0].tolist()
        lines = [
            f"{own} Q0 {escaped(items[item])} {rank} {len(found) - rank + 1} {name}\n"
            for rank, item in enumerate(found, 1)
        ]
        content += "".join(lines).encode("utf-8", "replace")
    replace_file(path, bytes(content))


def write_judgements(folder: Path, task: Task, model: str) -> Path:
    """Write the qrels of a task."""
    path = _folder(folder, task, model) / "qrels.txt"
    write_qrels(path, task.queries.ids, task.items.ids, task.relevance)
    return path


def write_runs(folder: Path, task: Task, cell: Cell, model: str) -> list[Path]:
    """Write one run per variant of a cell."""
    here = _folder(folder, task, model)
    written = []
    for variant, ranked in cell.variants.items():
        bits = str(cell.about["bits"] or "")
        again = f"top{variant.rerank}" if variant.rerank else ""
        names = [str(cell.about["system"]), bits, variant.metric, again]
        tag = "-".join(_plain(name) for name in (*names, f"seed{cell.about['seeds'][0]}") if name)
        path = here / f"{tag}.run"
        write_run(path, tag, task.queries.ids, task.items.ids, ranked.hits)
        written.append(path)
    return written


def _folder(folder: Path, task: Task, model: str) -> Path:
    name = f"{_plain(task.name)}-{task.repeat}" if task.repeat else _plain(task.name)
    path = folder / _plain(model) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _plain(text: str) -> str:
    """A text in a file name; a long one is cut, and gets its digest."""
    plain = _UNFIT.sub("-", text.replace("→", "-to-")).strip("-.") or "unnamed"
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
