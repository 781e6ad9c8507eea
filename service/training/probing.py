"""Heads trained on embeddings that were made once: probing.

An item may have several captions, each a view of its own. As in compact hypercube embeddings
(arXiv 2601.22783) it is shown by two views at a time, its medium and one caption; which one is
drawn anew each epoch. Photographs and recordings of one source are trained on by turns, a batch
being of one kind, and share the head of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.hashing.aligned import Moments
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.training.alignment import AlignedHeads
from bittern.hashing.training.batch_norm import settle
from bittern.hashing.training.centred_heads import CentredHeads
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embeddings import EmbeddingSet
from bittern.hashing.training.heads import HeadObjective, LabelsObjective, PairsObjective
from bittern.hashing.training.objective import Step
from bittern.hashing.training.streaming import EmbeddingBatch
from bittern.service.training.request import digest_of
from bittern.service.training.validating import MOST_ITEMS, HeldOut, Task, measure

_SETTLING_ROWS = 4096
_ROWS_AT_A_TIME = 8192

Means = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Part:
    """A set of embeddings, and which of its rows are for what.

    Attributes:
        source: the set.
        modality: of the items.
        training: int64, rows to train on, ascending.
        held_out: int64, rows for validation, ascending.
    """

    source: EmbeddingSet
    modality: str
    training: NDArray[np.int64]
    held_out: NDArray[np.int64]

    @property
    def media_view(self) -> str:
        """The view of the items themselves: the last that is not text."""
        return [n for n, view in self.source.views.items() if view.modality == self.modality][-1]

    @property
    def asking_view(self) -> str | None:
        """The first text, or else the first view; None where there is one view only."""
        texts = [n for n, view in self.source.views.items() if view.modality == "text"]
        first = (texts or list(self.source.views))[0]
        return None if first == self.media_view else first

    def kept_out(self, most: int) -> HeldOut | None:
        """The held-out items, `most` of them at most; None if there are fewer than two."""
        rows = evenly(self.held_out, most)
        if len(rows) < 2:
            return None
        view = self.asking_view
        return HeldOut(
            modality=self.modality,
            media=self.read(self.media_view, rows),
            asking=self.source.views[view].modality if view else self.modality,
            queries=self.read(view, rows) if view else None,
            groups=None if self.source.groups is None else self.source.groups[rows],
            **self._classes(rows),
        )

    def sample(self, most: int) -> dict[str, NDArray[np.float32]]:
        """Per modality float32 [n, dim] of training rows, `most` of them at most."""
        rows = evenly(self.training, most)
        sample = {self.modality: self.read(self.media_view, rows)}
        if view := self.asking_view:
            sample.setdefault(self.source.views[view].modality, self.read(view, rows))
        return sample

    def read(self, view: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of a view, float32 [n, dim]."""
        return self.source.read(view, rows).astype(np.float32)

    def _classes(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        source = self.source
        if source.multi_labels is not None:
            offsets, values = source.multi_labels
            classes = [values[offsets[r] : offsets[r + 1]] for r in rows]
        elif source.labels is not None:
            classes = [one[one >= 0] for one in source.labels[rows][:, None]]
        else:
            return {}
        # Labels may be keys of a taxonomy, in the millions: only those that occur get a column.
        present, columns = np.unique(np.concatenate(classes), return_inverse=True)
        membership = np.zeros((len(rows), max(1, len(present))), dtype=bool)
        membership[np.repeat(np.arange(len(rows)), [len(c) for c in classes]), columns] = True
        return {"membership": membership, "asked": membership.argmax(axis=1)}


def evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of some rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


class _Drawing:
    """One text view of each item, drawn by seed, epoch and row, where there are several."""

    part: Part
    config: TrainingConfig
    _epoch: int = 1

    def _eligible(self) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = super()._eligible()  # type: ignore[misc]
        return np.intersect1d(rows, self.part.training)

    def begin_epoch(self, epoch: int) -> None:
        """Remember which epoch it is."""
        self._epoch = epoch

    def loss(self, batch: EmbeddingBatch) -> Step:
        """The loss with one text view."""
        modalities = [view.modality for view in self.part.source.views.values()]
        texts = [v for v, m in zip(batch.views, modalities, strict=True) if m == "text"]
        others = [v for v, m in zip(batch.views, modalities, strict=True) if m != "text"]
        if others and texts:
            chosen = draw(self.config.seed, self._epoch, batch.rows, len(texts))
            text = torch.stack(texts)[torch.from_numpy(chosen), torch.arange(len(chosen))]
            batch = EmbeddingBatch(batch.rows, [text, *others])
            modalities = ["text", *(m for m in modalities if m != "text")]
        self._modalities = modalities
        step: Step = super().loss(batch)  # type: ignore[misc]
        return step

    def validate(self) -> dict[str, float] | None:
        """Left to whoever holds all the parts."""
        return None


class PartOfPairs(_Drawing, PairsObjective):
    """Pairs: a medium and one of its captions."""

    def __init__(self, part: Part, config: TrainingConfig) -> None:
        self.part = part
        super().__init__(part.source, config.with_overrides({"validation_share": 0}))


class PartOfLabels(_Drawing, LabelsObjective):
    """Labels: a medium, and the name of its class where names are words."""

    def __init__(self, part: Part, config: TrainingConfig) -> None:
        self.part = part
        super().__init__(part.source, config.with_overrides({"validation_share": 0}))


def draw(seed: int, epoch: int, rows: NDArray[np.int64], choices: int) -> NDArray[np.int64]:
    """Per row a number below `choices` that follows from seed, epoch and row alone."""
    state = rows.astype(np.uint64) + np.uint64(1)
    for salt in (seed, epoch):
        state = _mixed(state ^ np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64))
    return (state % np.uint64(choices)).astype(np.int64)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@dataclass(frozen=True)
class PartBatch:
    """A batch of one of the parts."""

    part: int
    batch: EmbeddingBatch


class ProbingObjective:
    """Heads on one set of embeddings or several, as an `Objective`.

    Attributes:
        module: the heads; the parts' own are replaced by it.
        steps_per_epoch: batches of all parts.
        data_digest: over all sets, and over which rows are held out.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        config: TrainingConfig,
        *,
        labels: bool,
        means: Means | None = None,
    ) -> None:
        """Scan the sets, and draw the heads.

        Args:
            parts: one per modality of media.
            config: the settings.
            labels: whether the loss is the one with classes.
            means: float64 [dim] of modalities that no set has and that get a head all the same;
                only a head that is shared learns anything for them.
        """
        kind = PartOfLabels if labels else PartOfPairs
        self.config = config
        self.parts: list[HeadObjective] = [kind(part, config) for part in parts]
        self.module = CentredHeads({**(means or {}), **joint_means(parts)}, config)
        for part in self.parts:
            part.module = self.module
        self.steps_per_epoch = sum(part.steps_per_epoch for part in self.parts)
        self.data_digest = digest_of(
            *(part.data_digest for part in self.parts),
            *(part.training.tobytes().hex() for part in parts),
        )
        self._parts = parts
        self._tasks = tasks_of(parts)

    def align(self, moments: Mapping[str, Moments], ridge: float) -> AlignedHeads:
        """Move media towards the words for them before they reach the heads.

        Args:
            moments: per medium.
            ridge: see `bittern.hashing.aligned.alignment_map`.

        Returns:
            The module that is trained from now on.
        """
        self.module = aligned = AlignedHeads(self.module, moments, ridge)
        for part in self.parts:
            part.module = aligned
        self.data_digest = digest_of(self.data_digest, f"aligned, ridge {ridge}")
        return aligned

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All heads, as one group."""
        return [{"params": list(self.module.parameters())}]

    def begin_epoch(self, epoch: int) -> None:
        """Draw other captions."""
        for part in self.parts:
            part.begin_epoch(epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[PartBatch]:
        """The batches of an epoch, from number `start` on, the parts mixed by chance."""
        turns = np.repeat(np.arange(len(self.parts)), [p.steps_per_epoch for p in self.parts])
        turns = np.random.default_rng([self.config.seed, epoch, 1]).permutation(turns)
        before = np.bincount(turns[:start], minlength=len(self.parts))
        streams = [p.batches(epoch, int(n)) for p, n in zip(self.parts, before, strict=True)]
        for turn in turns[start:]:
            yield PartBatch(int(turn), next(streams[turn]))

    def loss(self, batch: PartBatch) -> Step:
        """Logits of every view, and the loss over them."""
        return self.parts[batch.part].loss(batch.batch)

    def validate(self) -> dict[str, float] | None:
        """Settle the heads' statistics, then MAP of asymmetric search among held-out items."""
        settle(self.module, self._sample())
        return measure(self._tasks, self.logits) or None

    def _sample(self) -> dict[str, torch.Tensor]:
        """Per modality float32 [n, dim] of training rows; of text, of all variants."""
        rows: dict[str, list[NDArray[np.float32]]] = {}
        for part in self._parts:
            for name, view in part.source.views.items():
                rows.setdefault(view.modality, []).append(
                    part.read(name, evenly(part.training, _SETTLING_ROWS))
                )
        return {m: torch.from_numpy(np.concatenate(some)) for m, some in rows.items()}

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Of float [n, dim], under the heads as they are now."""
        return logits_of(self.module, embeddings, modality)

    def heads(self) -> dict[str, HashCoder]:
        """Per modality its head."""
        return {m: self.module.head(m) for m in self.module.modalities}

    def means(self) -> dict[str, NDArray[np.float32]]:
        """Per modality float32 [dim]."""
        return {m: self.module.mean(m).cpu().numpy().copy() for m in self.module.modalities}


def logits_of(
    heads: CentredHeads, embeddings: NDArray[np.floating], modality: str
) -> NDArray[np.float32]:
    """Logits float32 [n, bits] of float [n, dim]."""
    device = heads.mean(modality).device
    logits = heads(torch.from_numpy(np.asarray(embeddings, dtype=np.float32)).to(device), modality)
    out: NDArray[np.float32] = logits.float().cpu().numpy()
    return out


def tasks_of(parts: Sequence[Part], most: int = MOST_ITEMS) -> list[Task]:
    """All ways of asking for what the parts hold out."""
    kept = [part.kept_out(most) for part in parts]
    return [task for held_out in kept if held_out is not None for task in held_out.tasks()]


def joint_means(parts: Sequence[Part]) -> dict[str, NDArray[np.float64]]:
    """Per modality float64 [dim], the mean over all parts' views of it, each by its rows.

    Of rows to train on alone: what is held out has no say, not even in a centre.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    rows: dict[str, int] = {}
    for part in parts:
        for name, view in part.source.views.items():
            total = np.zeros(view.dim)
            for start in range(0, len(part.training), _ROWS_AT_A_TIME):
                some = part.training[start : start + _ROWS_AT_A_TIME]
                total += part.source.read(name, some).sum(axis=0, dtype=np.float64)
            sums[view.modality] = sums.get(view.modality, 0.0) + total
            rows[view.modality] = rows.get(view.modality, 0) + len(part.training)
    return {modality: total / max(1, rows[modality]) for modality, total in sums.items()}
