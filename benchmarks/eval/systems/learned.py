"""Learned codes: models that were saved, and methods that are trained on a labelled part here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems.base import Training, checked_training, reason_against
from bittern.benchmarks.eval.systems.codes import FittedCodes, needed
from bittern.errors import InvalidInputError
from bittern.hashing.hashers import Hasher
from bittern.hashing.saved import SavedModel

LEAST_HYBRID_BITS = 16
FEWEST_CLASSES = 10
"""That some can be held out of, to choose on; `bittern.hashing.training.choosing` refuses fewer."""


@dataclass
class SavedHasher:
    """The hasher of a saved model: nothing is fitted, and no seed decides anything.

    Attributes:
        saved: the model; the sides of a task are its modalities.
    """

    saved: SavedModel
    draws: int = field(default=1, init=False)
    coded: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        # The lengths of one family share a row of a table and a line of a plot, where they are of
        # one kind: `field` has trained codes at some lengths, and calibrated ones at others.
        family = self.saved.card.name.removesuffix(f"-{self.saved.card.bits}")
        self.name = f"{family} {self.saved.card.hasher.get('kind', '')}".strip()

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
        needed(self.fits(dim, bits), bits)
        for side in (training.item_side, training.asked_side):
            self.saved.hasher.logits(np.zeros((1, dim), dtype=np.float32), side)
        return FittedCodes(
            self.saved.hasher, training.item_side, training.asked_side, self.saved.card.digest
        )


@dataclass
class TrainedHere:
    """A method of `benchmarks.words.learned`, trained on labelled items and texts for classes.

    It needs the label of every training item and a text for each class. Those that choose a plan
    hold classes out to choose on, and so need ten classes or more.

    Attributes:
        name: as it is printed.
        method: which: a key of `METHODS`.
    """

    name: str
    method: str
    draws: int = field(default=1, init=False)
    coded: bool = field(default=True, init=False)

    def fits(self, dim: int, bits: int | None) -> str:
        """Any length; a hybrid of two fixed halves takes a byte for each."""
        del dim
        reason = reason_against(bits)
        if not reason and self.method == "hb-crovca" and bits is not None:
            short = bits < LEAST_HYBRID_BITS
            reason = f"two parts take {LEAST_HYBRID_BITS} bits, not {bits}" if short else ""
        return reason

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedCodes:
        """Train it, on the CPU.

        Raises:
            CodeError: the training part is empty, or not finite.
            InvalidInputError: no labels, or labels without a text, or too few items or classes.
            TrainingError: the training diverged or collapsed.
        """
        from bittern.benchmarks.words import learned
        from bittern.benchmarks.words.protocol import Training as LabelledTraining
        from bittern.hashing.training.alignment import WORDS

        length = needed(self.fits(training.items.shape[1], bits), bits)
        checked_training(training)
        labels = training.labels
        if labels is None:
            raise InvalidInputError(
                f"{self.name} is trained on labelled items, and this training part has no labels: "
                "leave it out, or bring a suite with a training part",
                field="systems",
            )
        if len(labels) != len(training.items) or not _within(labels, len(training.queries)):
            raise InvalidInputError(
                f"labels must name one of {len(training.queries)} queries for each of "
                f"{len(training.items)} items",
                field="labels",
            )
        # Texts of classes that no item is of cannot be trained on.
        seen, renumbered = np.unique(labels, return_inverse=True)
        if self.method in CHOOSING and len(seen) < FEWEST_CLASSES:
            raise InvalidInputError(
                f"{self.name} holds classes out to choose on: it takes {FEWEST_CLASSES} classes, "
                f"not {len(seen)}",
                field="systems",
            )
        given = LabelledTraining(
            items=training.items,
            labels=renumbered.astype(np.int64),
            queries=training.queries[seen],
        )
        hasher = METHODS[self.method]()(given, length, seed)
        return FittedCodes(hasher, learned.GLOSS, WORDS)


def _within(labels: NDArray[np.int64], count: int) -> bool:
    return bool(len(labels)) and int(labels.min()) >= 0 and int(labels.max()) < count


Fit = Callable[..., Hasher]


def _pairs() -> Fit:
    from bittern.benchmarks.words.learned import heads
    from bittern.hashing.training.heads import PairsObjective

    return heads(PairsObjective)


def _supervised() -> Fit:
    from bittern.benchmarks.words.learned import heads
    from bittern.hashing.training.heads import LabelsObjective

    return heads(LabelsObjective)


def _aligned_heads() -> Fit:
    from bittern.benchmarks.words.learned import chosen
    from bittern.hashing.training.plans import HybridPlan

    return chosen((HybridPlan(learned_share=1.0),))


def _plain_hybrid() -> Fit:
    from bittern.benchmarks.words.learned import plain_hybrid

    return plain_hybrid


def _aligned() -> Fit:
    from bittern.benchmarks.words.learned import chosen
    from bittern.hashing.training.plans import ALIGNED_PLANS

    return chosen(ALIGNED_PLANS)


def _hybrid() -> Fit:
    from bittern.benchmarks.words.learned import chosen
    from bittern.hashing.training.plans import PLANS

    return chosen(PLANS)


METHODS: dict[str, Callable[[], Fit]] = {
    "crovca-pairs": cache(_pairs),
    "crovca": cache(_supervised),
    "aligned-crovca": cache(_aligned_heads),
    "hb-crovca": cache(_plain_hybrid),
    "aligned": cache(_aligned),
    "hybrid": cache(_hybrid),
}
"""By name on the command line; made when they are asked for, since they load torch."""
CHOOSING = frozenset({"aligned", "hybrid"})
