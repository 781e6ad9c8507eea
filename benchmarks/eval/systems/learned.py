"""Learned codes: models that were saved, and methods that are trained here on labelled items.

`AlignedVectors` are what is fair to compare codes behind an alignment with: the same alignment,
not thresholded.

The methods are trained by what `bittern train` trains with, on an embedding set in a temporary
folder. A method that chooses among plans holds out training classes to choose on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems.base import (
    Metric,
    System,
    Training,
    checked_training,
    digest_of,
)
from bittern.benchmarks.eval.systems.codes import FittedCodes
from bittern.benchmarks.eval.systems.exact import UNIT_BITS, whole
from bittern.benchmarks.eval.systems.vectors import FittedVectors
from bittern.errors import InvalidInputError
from bittern.hashing.aligned import AlignedHasher
from bittern.hashing.codes import MAX_BITS, MIN_BITS
from bittern.hashing.hashers import Hasher
from bittern.hashing.saved_model import SavedModel

if TYPE_CHECKING:
    from bittern.hashing.training.config import TrainingConfig
    from bittern.hashing.training.embedding_sets import EmbeddingSet
    from bittern.hashing.training.hybrid import HybridPlan

WORDS, GLOSS = "text", "gloss"
"""What trained hashers call queries and items."""
EPOCHS = 20
"""The papers train 5 epochs on larger sets."""
PLAIN_WEIGHT = 0.5
"""Of a training-free bit in the plain hybrid; a learned bit counts 1."""
LEAST_HYBRID_BITS = 16
FEWEST_CLASSES = 10
"""That some can be held out of, to choose on; `plan_choice` refuses fewer."""


@dataclass
class SavedHasher(System):
    """The hasher of a saved model: nothing is fitted, and no seed decides anything.

    Attributes:
        saved: the model; the sides of a task are its modalities.
    """

    saved: SavedModel

    def __post_init__(self) -> None:
        # The lengths of one family share a row of a table and a line of a plot, where they are of
        # one kind: `field` has trained codes at some lengths, and calibrated ones at others.
        family = self.saved.card.name.removesuffix(f"-{self.saved.card.bits}")
        self.name = f"{family} {self.saved.card.hasher.get('kind', '')}".strip()
        self.own_bits = self.saved.card.bits

    @property
    def identity(self) -> str:
        """The model's digest."""
        return self.saved.card.digest

    def fits(self, dim: int, bits: int | None) -> str:
        """At the model's own length, on embeddings of its own encoder's."""
        card = self.saved.card
        if dim != card.dim:
            return f"{card.name} takes embeddings of {card.dim} dimensions, not {dim}"
        if bits != card.bits:
            return f"{card.name} makes codes of {card.bits} bits, not {bits}"
        return ""

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedCodes:
        """The model as it is.

        Raises:
            InvalidInputError: it makes codes of another length.
            UnsupportedModalityError: it does not know one of the sides.
        """
        del seed
        dim = training.items.shape[1]
        self.length(dim, bits)
        for side in (training.item_side, training.query_side):
            self.saved.hasher.logits(np.zeros((1, dim), dtype=np.float32), side)
        return FittedCodes(
            self.saved.hasher, training.item_side, training.query_side, self.saved.card.digest
        )


@dataclass
class TrainedHere(System):
    """A method that is trained on labelled items and on texts for their classes.

    - ``crovca-pairs``, ``crovca``: CroVCA (arXiv 2510.27584), a HashCoder shared by both sides,
      each centred on its own mean; by pairs, or supervised.
    - ``aligned-crovca``: the same on aligned embeddings.
    - ``hb-crovca``: Hashing-Baseline bits beside supervised CroVCA bits. A quarter of 256 bits or
      more is learned, half of any other length.
    - ``aligned``, ``hybrid``: the plan that is best on classes held out; at least ten classes.

    Attributes:
        name: as it is printed.
        method: one of those above.
    """

    name: str
    method: str

    def fits(self, dim: int, bits: int | None) -> str:
        """Any length; a hybrid of two fixed halves takes a byte for each."""
        reason = super().fits(dim, bits)
        if not reason and self.method == "hb-crovca" and bits is not None:
            short = bits < LEAST_HYBRID_BITS
            reason = f"two parts take {LEAST_HYBRID_BITS} bits, not {bits}" if short else ""
        return reason

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedCodes:
        """Train it, on the CPU.

        Raises:
            CodeError: the training items are empty, or not finite.
            InvalidInputError: no labels, or labels without a text, or too few items or classes.
            TrainingError: the training diverged or collapsed.
        """
        length = self.length(training.items.shape[1], bits)
        checked_training(training)
        choosing = self.method in ("aligned", "hybrid")
        given = _labelled(training, self.name, FEWEST_CLASSES if choosing else 1)
        with _embedding_set(given) as (source, folder):
            hasher = self._trained(given, source, folder, _config(length, seed))
        return FittedCodes(hasher, GLOSS, WORDS)

    def _trained(
        self, training: Training, source: EmbeddingSet, folder: Path, config: TrainingConfig
    ) -> Hasher:
        from bittern.hashing.training.hybrid import HybridPlan
        from bittern.hashing.training.plan_choice import ALIGNED_PLANS, PLANS

        if self.method == "hb-crovca":
            return _plain_hybrid(training, source, folder, config)
        if self.method.startswith("crovca"):
            return _heads(self.method, source, folder, config)
        plans = {"aligned": ALIGNED_PLANS, "hybrid": PLANS}
        return _planned(
            plans.get(self.method, (HybridPlan(learned_share=1.0),)), source, folder, config
        )


def _labelled(training: Training, name: str, fewest: int) -> Training:
    """The training items with labels that count the queries of classes that have items."""
    labels = training.labels
    if labels is None:
        raise InvalidInputError(
            f"{name} is trained on labelled items, and these training items have no labels: leave "
            "it out, or use a suite with a training split",
            field="systems",
        )
    if len(labels) != len(training.items) or not _within(labels, len(training.queries)):
        raise InvalidInputError(
            f"labels must name one of {len(training.queries)} queries for each of "
            f"{len(training.items)} items",
            field="labels",
        )
    seen, renumbered = np.unique(labels, return_inverse=True)
    if len(seen) < fewest:
        raise InvalidInputError(
            f"{name} holds classes out to choose on: it takes {fewest} classes, not {len(seen)}",
            field="systems",
        )
    return replace(training, queries=training.queries[seen], labels=renumbered.astype(np.int64))


def _within(labels: NDArray[np.int64], count: int) -> bool:
    return bool(len(labels)) and int(labels.min()) >= 0 and int(labels.max()) < count


@contextmanager
def _embedding_set(training: Training) -> Iterator[tuple[EmbeddingSet, Path]]:
    """The training items as an embedding set on disk, and its folder."""
    from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View

    dim = training.items.shape[1]
    views = {WORDS: View(WORDS, dim, "float32"), GLOSS: View(GLOSS, dim, "float32")}
    assert training.labels is not None
    with tempfile.TemporaryDirectory() as name:
        with EmbeddingWriter(Path(name) / "set", views, labels="single") as writer:
            queries = training.queries[training.labels]
            writer.append({WORDS: queries, GLOSS: training.items}, training.labels)
        yield EmbeddingSet.open(Path(name) / "set"), Path(name)


def _config(bits: int, seed: int) -> TrainingConfig:
    from bittern.hashing.training.config import TrainingConfig

    return TrainingConfig(
        bits=bits, epochs=EPOCHS, heads="shared", seed=seed, validation_share=0.0, device="cpu"
    )


def _heads(method: str, source: EmbeddingSet, folder: Path, config: TrainingConfig) -> Hasher:
    from bittern.hashing.training.heads import objective_for
    from bittern.hashing.training.loop import train

    objective = objective_for(source, config, labels=method != "crovca-pairs")
    if objective.warnings:  # a comparison needs the settings that the name stands for
        raise InvalidInputError(
            f"{method} cannot be trained as published ({objective.warnings[0]}): leave it out",
            field="systems",
        )
    train(objective, config, folder / "run", plots=False)
    return objective.module.hasher()


def _plain_hybrid(
    training: Training, source: EmbeddingSet, folder: Path, config: TrainingConfig
) -> Hasher:
    from bittern.hashing.hashers import HybridHasher
    from bittern.hashing.training_free import fit

    count = config.bits // (4 if config.bits >= 256 else 2) // 8 * 8
    clouds = {WORDS: training.queries, GLOSS: training.items}
    free = fit("pca", clouds, config.bits - count, seed=config.seed, basis=[GLOSS])
    learned = _heads("crovca", source, folder, _config(count, config.seed))
    return HybridHasher([free, learned], [PLAIN_WEIGHT, 1.0])


def _planned(
    plans: Sequence[HybridPlan], source: EmbeddingSet, folder: Path, config: TrainingConfig
) -> Hasher:
    """Aligned and learned bits; of several plans, the one that is best on held-out classes."""
    from bittern.hashing.training.hybrid import fit_hybrid
    from bittern.hashing.training.plan_choice import choose_plan, distinct
    from bittern.hashing.training.validation import TrainingData, split_rows

    possible = distinct(plans, config.bits)
    plan = possible[0]
    if len(possible) > 1:
        plan = choose_plan(source, config, folder / "choice", plans=possible)[0].plan
    split = split_rows(source, config.validation_share, config.seed)
    data = TrainingData([split], labels=True)
    return fit_hybrid(data, config, plan, folder / "run", plots=False)[0]


class AlignedVectors(System):
    """Float vectors behind the alignment of `aligned` codes, by cosine.

    The ridge is chosen on held-out classes as for those codes, at one component per dimension.
    """

    name = "aligned float32"
    coded = False

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedAligned:
        """Choose the ridge and fit the alignment.

        Raises:
            CodeError: the training items are empty, or not finite.
            InvalidInputError: no labels, labels without a text, or fewer than ten classes.
        """
        from bittern.hashing.training.plan_choice import ALIGNED_PLANS

        del bits
        checked_training(training)
        given = _labelled(training, self.name, FEWEST_CLASSES)
        components = min(max(training.items.shape[1] // 8 * 8, MIN_BITS), MAX_BITS)
        with _embedding_set(given) as (source, folder):
            hasher = _planned(ALIGNED_PLANS, source, folder, _config(components, seed))
        assert isinstance(hasher, AlignedHasher)
        return FittedAligned(hasher)


class FittedAligned(FittedVectors):
    """Aligned, centred and rotated embeddings: the logits of an aligned hasher."""

    def __init__(self, hasher: AlignedHasher) -> None:
        super().__init__("float32", hasher.dim)
        self.bytes_per_row = 4.0 * hasher.bits
        self.digest = digest_of({"vectors": "aligned", **hasher.config()}, hasher.tensors())
        longest = max(float(np.linalg.norm(m, axis=0).max()) for m in hasher.maps.values())
        scale = 2.0 ** np.ceil(np.log2(longest))
        # Whole numbers, so that equal rows come to equal vectors, whatever stands beside them.
        self._maps = {side: whole(matrix / scale) for side, matrix in hasher.maps.items()}
        self._offsets, self._unit = hasher.offsets, scale * 2.0 ** (-2 * UNIT_BITS)

    def _items(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._aligned(rows, GLOSS)

    def _queries(self, rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
        return self._aligned(rows, WORDS)

    def _aligned(self, rows: NDArray[np.float32], side: str) -> NDArray[np.float32]:
        moved: NDArray[np.float32] = (
            whole(rows) @ self._maps[side] * self._unit + self._offsets[side]
        ).astype(np.float32)
        return moved
