"""Adapters on towers trained together with the heads, from the media themselves.

The published recipe (CroVCA, arXiv 2510.27584) trains the heads alone in the first epoch, then the
adapters too. Before, everything is embedded once (`embedded_examples`), which finds unusable files
and gives the means and the baseline of the comparison.

The views of a pair are the medium (one window of a recording) and one of its captions. The views of
a labelled item are two augmented views of the medium, or one without augmentation, and its class
name if that is words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.adapters import LoraSettings
from bittern.encoders.assembly import AssembledEncoder, TowerPlan, begin, plans_to_json
from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.catalogue import licence_of
from bittern.errors import InvalidInputError
from bittern.hashing.losses import cross_view_loss, supervised_loss
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import digest_of
from bittern.hashing.training.heads import CentredHeads, joint_means, update_batch_norm
from bittern.hashing.training.loop import train
from bittern.hashing.training.objective import Step
from bittern.hashing.training.records import Progress
from bittern.hashing.training.sampling import Sampler, mixed, random_numbers
from bittern.hashing.training.validation import (
    HeldOut,
    SplitSet,
    Task,
    TrainingData,
    evenly,
    measure,
    tasks_of,
)
from bittern.service.training.embedded_examples import EmbeddedExamples, variant
from bittern.service.training.fit import Fitted, compare
from bittern.service.training.media_reading import MOST_RAW_ITEMS, MediaReader, prefetched
from bittern.service.training.output_folder import ModelEncoder, OutputFolder
from bittern.service.training.request import TrainingRequest

_STATISTICS_ROWS = 1024
"""Items of a set that the statistics of the batch norms are computed on, after each epoch."""
_MANY = 1 << 20


class MediaSet:
    """The examples of one modality: batches and held-out items."""

    def __init__(
        self,
        embedded: EmbeddedExamples,
        split: SplitSet,
        config: TrainingConfig,
        encoder: AssembledEncoder,
    ) -> None:
        self.embedded, self.split, self.encoder, self._seed = embedded, split, encoder, config.seed
        self.examples, self.modality = embedded.examples, Modality(split.modality)
        windowing = encoder.windowing if self.modality is Modality.AUDIO else None
        self.reader = MediaReader(embedded, windowing, config.augmentation, config.seed)
        self.classes = {name: number for number, name in enumerate(self.examples.classes)}
        items = np.unique(embedded.item[split.training])
        groups = None
        if not self.classes:
            names = [self.examples[int(i)].group for i in items]
            groups = np.unique(names, return_inverse=True)[1].astype(np.int32)
        self.sampler = Sampler(items, config.batch_size, config.seed, groups)
        augmented = config.augmentation not in ("", "none")
        self._media_views = 2 if self.classes and augmented else 1
        self._has_text = any(e.captions for e in self.examples)

    def batch(self, items: NDArray[np.int64], epoch: int, decoders: Executor) -> MediaBatch:
        """Views of some items, as inputs of the towers."""
        views: list[tuple[Modality, Any]] = []
        if self._has_text:
            numbers = random_numbers(self._seed, epoch, items, _MANY)
            captions = [self._caption(i, n) for i, n in zip(items, numbers, strict=True)]
            views.append((Modality.TEXT, self.encoder.prepare(Modality.TEXT, captions)))
        for number in range(self._media_views):

            def view(item: int, number: int = number) -> Media:
                return self.reader.view(item, epoch, number)

            media = list(decoders.map(view, [int(i) for i in items]))
            views.append((self.modality, self.encoder.prepare(self.modality, media)))
        return MediaBatch(views, self._membership(items) if self.classes else None)

    def validation(self) -> HeldOut | None:
        """The held-out items, embedded by the current towers."""
        held_out = self.split.validation(MOST_RAW_ITEMS)
        if held_out is None:
            return None
        rows = evenly(self.split.held_out, MOST_RAW_ITEMS)
        media = self.reader.encoded(rows, partial(self.encoder.encode, self.modality))
        queries = held_out.queries
        if self._has_text:
            captions = [self._caption(i, 0) for i in self.embedded.item[rows]]
            distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
            embedded = self.encoder.encode(Modality.TEXT, list(distinct))
            queries = embedded[[distinct[caption] for caption in captions]]
        return replace(held_out, media=media, queries=queries)

    def _caption(self, item: np.int64, number: np.int64 | int) -> str:
        return variant(self.examples[int(item)].captions, int(number))

    def _membership(self, items: NDArray[np.int64]) -> torch.Tensor:
        """float32 [items, classes among them], 1 where the item is of the class."""
        member = np.zeros((len(items), len(self.classes)), dtype=np.float32)
        for row, item in enumerate(items):
            for label in self.examples[int(item)].labels:
                member[row, self.classes[label]] = 1.0
        return torch.from_numpy(member[:, member.any(axis=0)])


@dataclass(frozen=True)
class MediaBatch:
    """Items on the device.

    Attributes:
        views: per view its modality and the inputs of its tower.
        membership: float32 [items, classes]; None for pairs.
    """

    views: Sequence[tuple[Modality, Any]]
    membership: torch.Tensor | None


class _Trained(torch.nn.Module):
    """Heads and the towers' adapters."""

    def __init__(self, heads: CentredHeads, towers: AssembledEncoder) -> None:
        super().__init__()
        self.heads = heads
        self.towers = torch.nn.ModuleDict({str(m): t for m, t in towers.towers.items()})


class AdaptersObjective:
    """Heads and adapters on media, as an `Objective`.

    Attributes:
        module: heads and towers.
        steps_per_epoch: batches of all sets.
        warnings: about batches smaller than the settings say.
        data_digest: over media, captions, towers and held-out items.
    """

    def __init__(
        self,
        data: TrainingData,
        embedded: Sequence[EmbeddedExamples],
        config: TrainingConfig,
        encoder: AssembledEncoder,
    ) -> None:
        self.config, self.encoder = config, encoder
        self._epoch = 1
        self.sets = [
            MediaSet(e, s, config, encoder) for e, s in zip(embedded, data.sets, strict=True)
        ]
        heads = CentredHeads({**data.means, **joint_means(data.sets)}, config)
        self.module = _Trained(heads, encoder)
        self.steps_per_epoch = sum(one.sampler.steps for one in self.sets)
        self.warnings = [f"{o.modality}: {text}" for o in self.sets for text in o.sampler.warnings]
        self.data_digest = digest_of(
            *(one.source.digest for one in data.sets),
            *(one.training.tobytes().hex() for one in data.sets),
            *(e.examples.digest() for e in embedded),
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Heads and adapters."""
        towers = self.encoder.towers.values()
        adapters = [p for tower in towers for p in tower.named().values()]
        return [{"params": list(self.module.heads.parameters())}, {"params": adapters}]

    def begin_epoch(self, epoch: int) -> None:
        """Train the adapters from their first epoch on."""
        self._epoch = epoch
        for tower in self.encoder.towers.values():
            if tower.adapters is not None:
                tower.adapters.set_gradients(epoch >= self.config.lora_from_epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[MediaBatch]:
        """The batches of an epoch, from number `start` on, prefetched."""
        steps = [one.sampler.steps for one in self.sets]
        turns, before = mixed(steps, self.config.seed, epoch, start)
        items = [
            one.sampler.batches(epoch, done) for one, done in zip(self.sets, before, strict=True)
        ]
        return self._made(((self.sets[turn], next(items[turn])) for turn in turns), epoch)

    def loss(self, batch: MediaBatch) -> Step:
        """Embed the views, and the loss over their logits."""
        logits = [
            self.module.heads(self.encoder.embed(modality, inputs).float(), modality)
            for modality, inputs in batch.views
        ]
        weight = self.config.rate_weight
        if batch.membership is None:
            return Step.of(cross_view_loss(logits, weight), logits)
        membership = batch.membership.to(logits[0].device)
        return Step.of(supervised_loss(logits, membership, weight), logits)

    def validate(self) -> dict[str, float] | None:
        """Update the batch norms, then mAP among held-out items with the current towers.

        Weights change too much during an epoch for its running statistics to fit at its end.
        """
        update_batch_norm(self.module.heads, self._sample())
        return measure(self.tasks(), self.module.heads.logits) or None

    def tasks(self) -> list[Task]:
        """All searches among held-out items with the current towers."""
        validations = [one.validation() for one in self.sets]
        return [task for held_out in validations if held_out for task in held_out.tasks()]

    def _sample(self) -> dict[str, torch.Tensor]:
        """Per modality float32 [n, dim] of some batches of every set with the current towers."""
        plans = (
            (one, items)
            for one in self.sets
            for items in islice(
                one.sampler.batches(self._epoch), math.ceil(_STATISTICS_ROWS / one.sampler.size)
            )
        )
        rows: dict[str, list[torch.Tensor]] = {}
        for batch in self._made(plans, self._epoch):
            for modality, inputs in batch.views:
                embedded = self.encoder.embed(modality, inputs)
                rows.setdefault(modality, []).append(embedded.float())
        return {modality: torch.cat(some) for modality, some in rows.items()}

    def _made(
        self, plans: Iterable[tuple[MediaSet, NDArray[np.int64]]], epoch: int
    ) -> Iterator[MediaBatch]:
        def make(plan: tuple[MediaSet, NDArray[np.int64]], decoders: Executor) -> MediaBatch:
            one, items = plan
            return one.batch(items, epoch, decoders)

        return prefetched(plans, make)


def lora_of(config: TrainingConfig) -> LoraSettings | None:
    """The adapters of the settings, if any."""
    if not config.lora_rank:
        return None
    return LoraSettings(config.lora_rank, int(config.lora_alpha), config.lora_dropout)


def fit_adapters(
    request: TrainingRequest,
    data: TrainingData,
    embedded: Sequence[EmbeddedExamples],
    encoder: Encoder,
    out: OutputFolder,
    progress: Progress,
) -> tuple[Fitted, ModelEncoder]:
    """Train adapters on the encoder's towers, in place, and heads after them.

    Raises:
        InvalidInputError: another hasher than ``hashcoder``, or towers that cannot take adapters.
        TrainingError: as `bittern.hashing.training.loop.train`, or a file can no longer be read.
    """
    config = request.config
    if request.hasher != "hashcoder":
        raise InvalidInputError(
            f"--lora trains heads of the kind hashcoder, not {request.hasher}", field="hasher"
        )
    before = tasks_of(data.sets, MOST_RAW_ITEMS)
    lora = lora_of(config)
    adapted = {view.modality for one in data.sets for view in one.source.views.values()}
    plans = {
        Modality(m): TowerPlan(encoder.name, lora if m in adapted else None)
        for m in sorted({*adapted, *data.means})
    }
    towers = begin(encoder.name, plans, lambda _: encoder, seed=config.seed)
    objective = AdaptersObjective(data, embedded, config, towers)
    result = train(objective, config, out.run, progress=progress)
    hasher = objective.module.heads.hasher(data.settings(config))
    objective.module.eval()
    with torch.inference_mode():
        after = objective.tasks()
    comparison = compare(before, after, hasher, data.sample(), config)
    model_encoder = ModelEncoder(
        name=encoder.name,
        towers={str(m): digest for m, digest in towers.digests.items()},
        licence=licence_of(encoder.name),
        assembly=plans_to_json(plans),
        adapters=towers.tensors(),
    )
    return Fitted.of(hasher, result, comparison), model_encoder
