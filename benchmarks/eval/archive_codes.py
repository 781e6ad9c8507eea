"""The codes that an archive has stored, ranked as they are: no media are embedded.

A model's logits are the space here: queries are its logits, rows are its stored bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.encoding import embed_queries
from bittern.benchmarks.eval.measuring import Vectors
from bittern.benchmarks.eval.spaces import Space
from bittern.benchmarks.eval.suites.custom_archive import ArchiveItems, StoredCodes
from bittern.benchmarks.eval.systems.base import Metric, Training
from bittern.benchmarks.eval.tasks import Task
from bittern.encoders.base import Modality
from bittern.errors import InvalidInputError
from bittern.hashing.codes import hamming_distance, pack, unpack
from bittern.index.engines.queries import Queries
from bittern.service.models.loaded import Embedders, Model, catalogue_encoder
from bittern.service.models.saved import load_saved
from bittern.text import agreeing, counted


class StoredBits:
    """Stored codes as rows: a bit is 1 or -1 (`bittern.benchmarks.eval.embeddings.rows`)."""

    def __init__(self, stored: StoredCodes) -> None:
        self.dim = stored.bits
        self.owners = stored.owners
        self.spans = stored.spans
        self.failed: Sequence[tuple[int, str]] = ()
        self.digest = stored.digest
        self.codes = stored.codes

    def __len__(self) -> int:
        return len(self.codes)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows.tiles`."""
        for first in range(0, len(self), rows):
            yield first, _signs(self.codes[first : first + rows])

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows.read`."""
        return _signs(self.codes[rows])


def _signs(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return unpack(codes).astype(np.float32) * 2 - 1


class BitsAsTheyAre:
    """Stored bits beside the logits of queries (`benchmarks.eval.systems.base.Fitted`)."""

    metrics: tuple[Metric, ...] = ("symmetric", "asymmetric")

    def __init__(self, bits: int, digest: str) -> None:
        self.bits: int | None = bits
        self.bytes_per_row = bits / 8
        self.digest = digest

    def encode_items(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """See `Fitted.encode_items`."""
        return pack(embeddings)

    def encode_queries(self, embeddings: NDArray[np.float32], metric: Metric) -> Queries:
        """See `Fitted.encode_queries`."""
        if metric == "symmetric":
            return Queries.of_codes(pack(embeddings))
        return Queries.of_logits(embeddings)

    def distances(self, queries: Any, stored: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        """See `Fitted.distances`."""
        some: Queries = queries[first:last]
        if some.metric == "hamming":
            return hamming_distance(some.codes, stored)
        return np.stack([some.distances(number, stored) for number in range(len(some))])


@dataclass
class StoredModel:
    """A model's codes as an archive has them (`benchmarks.eval.systems.base.System`)."""

    stored: StoredCodes
    draws: int = field(default=1, init=False)
    coded: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.stored.name.removesuffix(f'-{self.stored.bits}')}, stored"

    def fits(self, dim: int, bits: int | None) -> str:
        """At the length that is stored."""
        del dim
        return "" if bits == self.stored.bits else f"{self.stored.bits} bits are stored"

    def fit(self, training: Training, bits: int | None, seed: int) -> BitsAsTheyAre:
        """Nothing is fitted."""
        del training, bits, seed
        return BitsAsTheyAre(self.stored.bits, self.stored.digest)


@dataclass(frozen=True)
class StoredPart:
    """One model's share of a task over an archive."""

    task: Task
    space: Space
    vectors: Vectors
    system: StoredModel


def stored_parts(
    task: Task, models: Sequence[str], cache: Path, embedders: Embedders | None = None
) -> list[StoredPart]:
    """A task over an archive, once for each of its models that can be asked.

    Args:
        task: with `ArchiveItems`.
        models: names of models of the archive; empty for all.
        cache: of the queries' embeddings.
        embedders: of the models' encoders.

    Raises:
        InvalidInputError: no model of the archive can be asked, or none has such a name.
        WeightsMissingError, DigestMismatchError, ModelDamagedError: a model cannot be used here.
    """
    assert isinstance(task.items, ArchiveItems)
    embedders = embedders or Embedders(catalogue_encoder)
    known = [each.name for each in task.items.stored]
    unknown = [name for name in models if name not in known]
    if unknown:
        raise InvalidInputError(
            f"the archive has no codes by {', '.join(unknown)} for {task.name}; it has codes by "
            f"{', '.join(known)}",
            field="model",
        )
    able = [each for each in task.items.stored if task.queries.modality in each.modalities]
    chunks = [
        _part(task, each, cache, embedders) for each in able if not models or each.name in models
    ]
    if not chunks:
        raise InvalidInputError(
            f"no model of the archive takes {task.queries.modality} queries; it has codes by "
            f"{', '.join(known)}",
            field="model",
        )
    return chunks


def _part(task: Task, stored: StoredCodes, cache: Path, embedders: Embedders) -> StoredPart:
    saved = load_saved(stored.folder)
    model = Model(saved, embedders.of(saved))
    model.check_tower(Modality(task.queries.modality))
    queries = embed_queries(model.embedder, task.queries, cache)
    logits = model.logits(Modality(task.queries.modality), queries)
    nothing = np.empty((0, stored.bits), dtype=np.float32)
    rows = StoredBits(stored)
    vectors = Vectors(rows, logits, Training(nothing, task.items.side, nothing, task.queries.side))
    space = Space(stored.name, model.embedder, saved.card.licence, (saved,))
    if stored.uncoded:
        have = agreeing(stored.uncoded, "has", "have")
        what = counted(stored.uncoded, "item")
        sentence = f"{what} {have} no code by {stored.name}, and can never be found"
        task = replace(task, left_out=(*task.left_out, sentence))
    return StoredPart(task, space, vectors, StoredModel(stored))
