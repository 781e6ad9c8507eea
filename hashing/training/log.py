"""The log of a run: ``log.jsonl``, a line per epoch and per some steps, and ``log.csv``.

A resumed run cuts ``log.jsonl`` back to its checkpoint, so no line comes twice.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittern.hashing.training.checkpoint import write_text_atomically
from bittern.hashing.training.records import EpochRecord

JSON_FILE = "log.jsonl"
CSV_FILE = "log.csv"


class RunLog:
    """Appends to the log in a run folder."""

    def __init__(self, folder: Path, keep_bytes: int = 0) -> None:
        """Open the log.

        Args:
            folder: of the run.
            keep_bytes: how much of an existing log belongs to this run's past.
        """
        self._folder = folder
        path = folder / JSON_FILE
        path.touch()
        os.truncate(path, min(keep_bytes, path.stat().st_size))
        self._file = path.open("a", encoding="utf-8")

    @property
    def bytes_written(self) -> int:
        """Length of ``log.jsonl``, after flushing it."""
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def step(
        self, epoch: int, step: int, losses: Mapping[str, float], learning_rate: float
    ) -> None:
        """Add a line for the mean losses since the last one; `step` counts within the epoch."""
        self._line(
            {"kind": "step", "epoch": epoch, "step": step, **losses, "learning_rate": learning_rate}
        )

    def epoch(self, history: Sequence[EpochRecord]) -> None:
        """Add a line for the latest epoch, and write ``log.csv`` anew."""
        self._line({"kind": "epoch", **history[-1].to_dict()})
        self._file.flush()
        write_text_atomically(self._folder / CSV_FILE, as_csv(history))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")


def as_csv(history: Sequence[EpochRecord]) -> str:
    """One line per epoch, under a header line."""
    rows = []
    for record in history:
        values = record.to_dict()
        parts, validation = values.pop("parts"), values.pop("validation")
        rows.append({**values, **parts, **{f"validation_{k}": v for k, v in validation.items()}})
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
