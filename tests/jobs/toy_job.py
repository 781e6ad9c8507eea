"""A job with the toy encoder; as a program, one that is killed in the middle of its work.

python -m tests.jobs.toy_job JOB.json AFTER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bittern.encoders.base import Media, Modality
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training_free import fit
from bittern.index.archive import Archive
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress, never
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.run import run_job
from bittern.service.models.model import Embedders
from tests.engine.toy import COLOURS, ToyEncoder, picture, sound


class Counted(ToyEncoder):
    """Does something before its nth batch."""

    def __init__(self, after: int = -1, then: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._after, self._then = after, then

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        if modality is not Modality.TEXT and len(self.batches) == self._after:
            self._after = -1
            self._then()
        return super().encode(modality, batch)

    @property
    def coded(self) -> int:
        """Number of embedded pictures and windows."""
        return sum(size for modality, size in self.batches if modality is not Modality.TEXT)


def save_model(folder: Path, bits: int = 64) -> Path:
    """A model over the toy encoder."""
    encoder = ToyEncoder()
    texts = encoder.encode(Modality.TEXT, list(COLOURS))
    sample = {str(m): np.concatenate([texts, -texts]) for m in encoder.modalities}
    towers = {str(m): digest for m, digest in encoder.digests.items()}
    hasher = fit("lsh", sample, bits)
    SavedModel.describe(
        f"toy-{bits}", hasher, encoder=encoder.name, towers=towers, licence="CC0-1.0"
    ).save(folder)
    return folder


def fill(folder: Path, count: int = 150) -> Path:
    """Pictures, some recordings, and an unusable file."""
    folder.mkdir()
    colours = list(COLOURS)
    for number in range(count):
        colour = colours[number % 3]
        data = picture(colour, jitter=number % 10)
        (folder / f"{number:04d}.png").write_bytes(data)
        if number % 25 == 0:
            (folder / f"{number:04d}.wav").write_bytes(sound(colour, colours[(number + 1) % 3]))
    (folder / "0060-broken.png").write_bytes(b"no picture")
    return folder


def run(
    spec: JobSpec,
    encoder: ToyEncoder | None = None,
    cancelled: Cancelled = never,
    on_progress: OnProgress = lambda report: None,
) -> JobReport:
    """Run a job with the toy encoder."""
    embedders = Embedders(lambda name: encoder or ToyEncoder(name=name))
    return run_job(spec, on_progress, cancelled, embedders=embedders)


def stored(spec: JobSpec) -> list[dict[str, Any]]:
    """Everything that a job has stored, in order."""
    if spec.kind == "encode":
        rows: list[dict[str, Any]] = pq.read_table(spec.target).to_pylist()
        return rows
    with Archive.open(spec.target) as archive:
        [record] = archive.model_records()
        seen = archive.list(page_size=10_000).observations
        names = [one.occurrence_id for one in seen]
        before = archive.coded(names, record.digest)
        return [
            {
                "observation": one,
                "code": archive.code(one.id, record.digest).tobytes(),
                "file": before[one.occurrence_id],
            }
            for one in seen
        ]


if __name__ == "__main__":
    spec, after = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    run(JobSpec.from_json(spec), Counted(after, lambda: os.kill(os.getpid(), signal.SIGKILL)))
