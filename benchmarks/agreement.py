"""Whether an archive answers as the numbers say: the same questions, asked of the product."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bittern.benchmarks.ranking import items_in_order
from bittern.benchmarks.scoring import asymmetric_distances
from bittern.benchmarks.speed.collection import Collection
from bittern.benchmarks.speed.report import Table
from bittern.benchmarks.tasks import Task
from bittern.hashing.saved import SavedModel
from bittern.index.archive import Archive
from bittern.service.engine import Engine
from bittern.service.ingest.commit import Commits
from bittern.types import MAX_K, AddStatus, MediaItem, Query


@dataclass(frozen=True)
class Agreement:
    """Rankings of an archive that equal those that were measured, by direction.

    Attributes:
        model: name of the model behind both.
        same: per direction, how many of how many.
        refused: why the archive did not take an item that was measured.
    """

    model: str
    same: Mapping[str, tuple[int, int]]
    refused: Sequence[str]

    def table(self) -> Table:
        """For people."""
        return Table(
            f"The same questions to an archive ({self.model}, asymmetric)",
            ["direction", "same rankings", "queries"],
            [[name, str(same), str(asked)] for name, (same, asked) in self.same.items()],
            [
                "Same means every item at the same rank, as far as the archive's largest k goes.",
                *(f"The archive refused an item: {reason}" for reason in self.refused),
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        same = {name: {"same": s, "queries": n} for name, (s, n) in self.same.items()}
        return {"model": self.model, "rankings": same, "refused": list(self.refused)}


def agreement_with_archive(
    collection: Collection, saved: SavedModel, asked: Iterable[Task]
) -> Agreement:
    """Commit the collection to an archive in a temporary folder, and search it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Archive.create(Path(folder) / "archive") as archive,
    ):
        engine = Engine(archive, load_encoder=lambda name: collection.embedder.encoder())
        stored = Commits(archive, engine.register(saved), "error").commit(collection.embedded)
        refused = [
            result.message
            for embedded, result in zip(collection.embedded, stored, strict=True)
            if embedded.result is None and result.status == AddStatus.FAILED
        ]
        same = {task.name: _same_rankings(engine, saved, task) for task in asked}
        return Agreement(saved.card.name, same, refused)


def _same_rankings(engine: Engine, saved: SavedModel, task: Task) -> tuple[int, int]:
    measured = asymmetric_distances(task, saved)
    names = [item.occurrence_id for item in task.items.media]
    same = 0
    for source, distances in zip(task.sources, measured, strict=True):
        expected = [names[i] for i in items_in_order(distances, task.items.owners)]
        same += _answer(engine, source, task) == expected[:MAX_K]
    return same, len(measured)


def _answer(engine: Engine, source: str | MediaItem, task: Task) -> Sequence[str]:
    """Labelled items as the archive ranks them, each once."""
    target = str(task.target)
    if isinstance(source, str):
        query = Query(text=source, target=target, k=MAX_K)
    else:
        assert source.path is not None
        query = Query(audio=source.path.read_bytes(), target=target, k=MAX_K)
    known = {item.occurrence_id for item in task.items.media}
    hits = engine.search(query).hits
    return [
        name
        for name in dict.fromkeys(hit.observation.occurrence_id for hit in hits)
        if name in known
    ]
