"""Objectives that train heads alone, on precomputed embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.losses import Loss, cross_view_loss, supervised_loss
from bittern.hashing.training.batch_norm import settle
from bittern.hashing.training.centred_heads import CentredHeads
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embeddings import EmbeddingSet
from bittern.hashing.training.objective import Step
from bittern.hashing.training.sampling import BUFFER_ROWS, Sampler
from bittern.hashing.training.streaming import EmbeddingBatch, stream
from bittern.hashing.training.validation import mean_average_precision

_VALIDATION_QUERIES = 512
_SETTLING_ROWS = 4096
_VALIDATION_ROWS = 1024
"""Held-out rows that go through a head at a time."""
MOST_HELD_OUT = 8192
"""Items that validation keeps at most, whatever its share: more would only take time."""


class HeadObjective(ABC):
    """What pairs and labels have in common; a subclass says what the loss is.

    Attributes:
        source: the embeddings.
        config: the settings.
        module: the heads, and the means before them.
        held_out: int64, the rows that are not trained on, in random order.
        steps_per_epoch: see `Objective`.
        data_digest: see `Objective`.
    """

    def __init__(
        self, source: EmbeddingSet, config: TrainingConfig, *, buffer_rows: int = BUFFER_ROWS
    ) -> None:
        """Scan the set once (means, finite values, digest) and hold items out for validation.

        Args:
            source: the embeddings.
            config: the settings.
            buffer_rows: rows in memory at a time; see `bittern.hashing.training.streaming.stream`.

        Raises:
            InvalidInputError: the set cannot be trained on so; says why.
        """
        self.source, self.config = source, config
        self._modalities = [view.modality for view in source.views.values()]
        eligible = self._eligible()
        summary = source.summary
        self.data_digest = summary.digest
        self.module = CentredHeads(dict(summary.means), config)
        rows, self.held_out = _split(eligible, config.validation_share, config.seed)
        groups = None if source.groups is None else source.groups[rows]
        self._sampler = Sampler(rows, config.batch_size, config.seed, groups, buffer_rows)
        self.steps_per_epoch = self._sampler.steps

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All heads, as one group."""
        return [{"params": list(self.module.parameters())}]

    def heads(self) -> dict[str, HashCoder]:
        """Per modality its head, for `LearnedHasher.from_modules`."""
        return {m: self.module.head(m) for m in self.module.modalities}

    def means(self) -> dict[str, NDArray[np.float32]]:
        """Per modality float32 [dim], for `LearnedHasher.from_modules`."""
        return {m: self.module.mean(m).cpu().numpy().copy() for m in self.module.modalities}

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027 - a hook that may stay empty
        """Nothing changes between epochs."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[EmbeddingBatch]:
        """The batches of an epoch, from number `start` on."""
        return stream(self.source, self._sampler, epoch, start)

    def loss(self, batch: EmbeddingBatch) -> Step:
        """Logits of every view, and the loss over them."""
        logits = [self._logits(x, m) for x, m in zip(batch.views, self._modalities, strict=True)]
        loss = self._loss(logits, batch)
        parts = {"alignment": loss.alignment.detach(), "rate": loss.rate.detach()}
        return Step(loss.total, parts, [z.detach() for z in logits])

    def validate(self) -> dict[str, float] | None:
        """MAP of asymmetric search among held-out items, from their first view to their last.

        Relevant is an item of the same class or group, where there are some, or else the item
        itself. With a single view, an item is not its own answer. The statistics of the batch
        norms are settled first, on rows that are trained on.
        """
        settle(self.module, self._sample())
        rows = self.held_out
        asked = min(len(rows), _VALIDATION_QUERIES)
        first, *others = self.source.views
        itself = None if others else np.arange(asked)
        relevant = self._relevant(rows)
        if itself is not None:
            relevant[itself, itself] = False
        if not relevant.any():
            return None
        queries = self._codes(first, rows[:asked])
        database = self._codes(others[-1] if others else first, rows)
        return {"mAP": mean_average_precision(queries, database, relevant, excluded=itself)}

    def _sample(self) -> dict[str, torch.Tensor]:
        """Per modality float32 [n, dim] of rows that are trained on, evenly spread."""
        trained = self._sampler.rows
        count = min(len(trained), _SETTLING_ROWS)
        rows = trained[np.linspace(0, len(trained) - 1, count).round().astype(np.int64)]
        views: dict[str, list[NDArray[np.floating]]] = {}
        for name, view in self.source.views.items():
            views.setdefault(view.modality, []).append(self.source.read(name, rows))
        return {m: torch.from_numpy(np.concatenate(v)).float() for m, v in views.items()}

    def _logits(self, embeddings: torch.Tensor, modality: str) -> torch.Tensor:
        device = self.module.mean(modality).device
        logits: torch.Tensor = self.module(embeddings.to(device, non_blocking=True), modality)
        return logits

    def _codes(self, view: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        modality = self.source.views[view].modality
        out = np.empty((len(rows), self.config.bits), dtype=np.float32)
        for start in range(0, len(rows), _VALIDATION_ROWS):
            part = slice(start, start + _VALIDATION_ROWS)
            embeddings = torch.from_numpy(self.source.read(view, rows[part])).float()
            out[part] = self._logits(embeddings, modality).float().cpu().numpy()
        return out

    def _eligible(self) -> NDArray[np.int64]:
        """The rows that can be trained on, ascending."""
        return np.arange(self.source.rows, dtype=np.int64)

    @abstractmethod
    def _loss(self, logits: list[torch.Tensor], batch: EmbeddingBatch) -> Loss:
        """The loss of a batch, of its views' logits."""

    def _relevant(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Bool [queries, rows], the queries being the first rows."""
        if self.source.groups is None:
            return np.eye(min(len(rows), _VALIDATION_QUERIES), len(rows), dtype=bool)
        group = self.source.groups[rows]
        same: NDArray[np.bool_] = group[:_VALIDATION_QUERIES, None] == group
        return same


class PairsObjective(HeadObjective):
    """CroVCA without labels: the views of an item are asked for each other's code.

    Views are modalities (compact hypercube embeddings, arXiv 2601.22783), or several captions
    or crops of the same item (CroVCA, arXiv 2510.27584).
    """

    def _eligible(self) -> NDArray[np.int64]:
        if len(self._modalities) < 2:
            raise InvalidInputError(
                f"{self.source.folder} has one view, pairs need two: add a view of the same "
                "items, or train on labels",
                field="views",
            )
        return super()._eligible()

    def _loss(self, logits: list[torch.Tensor], batch: EmbeddingBatch) -> Loss:
        return cross_view_loss(logits, self.config.rate_weight)


class LabelsObjective(HeadObjective):
    """CroVCA with labels: every view of an item is asked for its classes' prototype.

    Items without a label are left out.
    """

    def _eligible(self) -> NDArray[np.int64]:
        offsets, values = _classes_of(self.source)
        classes = np.unique(values)
        if len(classes) < 2:
            raise InvalidInputError(
                f"the labels of {self.source.folder} name {len(classes)} classes; codes can be "
                "learned from two or more",
                field="labels",
            )
        self._offsets = offsets
        self._classes = values
        return np.flatnonzero(np.diff(offsets) > 0).astype(np.int64)

    def _loss(self, logits: list[torch.Tensor], batch: EmbeddingBatch) -> Loss:
        membership = torch.from_numpy(self._membership(batch.rows)).to(logits[0].device)
        return supervised_loss(logits, membership, self.config.rate_weight)

    def _relevant(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        membership = self._membership(rows)
        shared: NDArray[np.bool_] = membership[:_VALIDATION_QUERIES] @ membership.T > 0
        return shared

    def _membership(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [rows, classes among them], 1 where the item is of the class."""
        counts = self._offsets[rows + 1] - self._offsets[rows]
        item = np.repeat(np.arange(len(rows)), counts)
        ends = np.cumsum(counts)
        within = np.arange(len(item)) - np.repeat(ends - counts, counts)
        classes = self._classes[np.repeat(self._offsets[rows], counts) + within]
        names, column = np.unique(classes, return_inverse=True)
        membership = np.zeros((len(rows), len(names)), dtype=np.float32)
        membership[item, column] = 1.0
        return membership


def _classes_of(source: EmbeddingSet) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offsets [rows + 1] and classes, whether items have one class or several."""
    if source.multi_labels is not None:
        return source.multi_labels
    labels = source.labels
    if labels is None:
        raise InvalidInputError(
            f"{source.folder} has no labels; train on pairs instead", field="labels"
        )
    labelled = labels >= 0
    offsets = np.concatenate(([0], np.cumsum(labelled))).astype(np.int64)
    return offsets, labels[labelled]


def _split(
    rows: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on, ascending, and rows held out, in random order."""
    count = min(int(len(rows) * share), MOST_HELD_OUT)
    held_out = np.random.default_rng([seed, len(rows)]).permutation(len(rows))[:count]
    return np.delete(rows, held_out), rows[held_out]
