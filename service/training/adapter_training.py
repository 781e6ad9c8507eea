"""Adapters on towers trained together with the heads, from the media themselves.

The published recipe (CroVCA, arXiv 2510.27584) trains the heads alone in the first epoch, then the
adapters too. Before, everything is embedded once (`service.training.embedding`), which finds
unusable files and gives the means and the baseline of the comparison.

The views of a pair are the medium (one window of a recording) and one of its captions. The views of
a labelled item are two augmented views of the medium, or one without augmentation, and its class
name if that is words.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.adapters import LoraSettings
from bittern.encoders.assembly import AssembledEncoder, TowerPlan, begin, plans_to_json
from bittern.encoders.audio import windows
from bittern.encoders.augmentation import picture_augmentation, sound_augmentation, view_generator
from bittern.encoders.base import SHORTER_SIDE, AudioWindowing, Encoder, Media, Modality
from bittern.encoders.images import decode_image
from bittern.errors import BitternError, InvalidInputError, TrainingError
from bittern.hashing.losses import cross_view_loss, supervised_loss
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.heads import (
    CentredHeads,
    digest_of,
    draw,
    joint_means,
    mixed,
    update_batch_norm,
)
from bittern.hashing.training.objective import Step
from bittern.hashing.training.sampling import Sampler
from bittern.hashing.training.validation import (
    HeldOut,
    SplitSet,
    Task,
    evenly,
    measure,
    tasks_of,
)
from bittern.service.training.embedded_examples import Embeddings, variant
from bittern.service.training.fit import Fitted, TrainingData, compare, run_training
from bittern.service.training.output_folder import Encoding, OutFolder, licence_of
from bittern.service.training.request import OnProgress, TrainingRequest

MOST_RAW_ITEMS = 1024
"""Most held-out rows that are decoded and embedded again after each epoch."""
PREFETCHED_BATCHES = 2
_STATISTICS_ROWS = 1024
"""Items of a set that the statistics of the batch norms are computed on, after each epoch."""
_ENCODE_AT_A_TIME = 32
_MOST_DECODERS = 16
_MANY = 1 << 20

Plan = TypeVar("Plan")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Reader:
    """Reads views of the media of one modality; depends on seed, epoch, item and view alone.

    Attributes:
        embedded: the examples, and their usable windows.
        windowing: of the audio tower; None for photographs.
        augmentation: ``published``, ``plants``, ``sound`` or ``none``.
        seed: of the training.
    """

    embedded: Embeddings
    windowing: AudioWindowing | None
    augmentation: str
    seed: int

    def view(self, item: int, epoch: int, number: int) -> Media:
        """A random view of an item; for a recording, of a random window.

        Raises:
            TrainingError: the file can no longer be read.
        """
        generator = view_generator(self.seed, epoch, item, number)
        rows = self.embedded.rows
        first, last = np.searchsorted(rows.item, [item, item + 1])
        usable = rows.window[first:last]
        media: Any = self.read(item, int(usable[int(generator.integers(len(usable)))]))
        if self.windowing is None:
            name = self.augmentation if self.augmentation in ("published", "plants") else "none"
            return picture_augmentation(name)(media, generator)
        name = "none" if self.augmentation in ("", "none") else "masking"
        return sound_augmentation(name, self.windowing.sample_rate)(media, generator)

    def read(self, item: int, window: int) -> Media:
        """A photograph, or one window of a recording.

        Raises:
            TrainingError: the file can no longer be read.
        """
        example = self.embedded.examples[item]
        name = str(example.path)
        try:
            if self.windowing is None:
                return decode_image(example.path, name=name, min_side=SHORTER_SIDE)
            found = windows(example.path, self.windowing, name=name)
            if (one := next(islice(found, window, None), None)) is None:
                raise TrainingError(f"{name} has no window {window} any more")
            return one.samples
        except BitternError as error:
            raise TrainingError(
                f"{name} could be read when this training began, and cannot be now: "
                f"{error.message}. Restore it and run the same command again, or train into "
                "another folder.",
                field="source",
                details={"path": name},
            ) from error

    def encoded(
        self, rows: NDArray[np.int64], encode: Callable[[Sequence[Media]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Rows of the embedded set, read again and encoded: float32 [n, dim]."""
        listed, out = self.embedded.rows, []
        for start in range(0, len(rows), _ENCODE_AT_A_TIME):
            some = rows[start : start + _ENCODE_AT_A_TIME]
            out.append(
                encode([self.read(int(listed.item[r]), int(listed.window[r])) for r in some])
            )
        return np.concatenate(out)


def prefetched(plans: Iterable[Plan], make: Callable[[Plan, Executor], Made]) -> Iterator[Made]:
    """The batches that `make` makes of plans, in order, prefetched.

    Args:
        plans: one per batch.
        make: called in a background thread, with threads that decode media.
    """
    count = max(2, min(os.cpu_count() or 2, _MOST_DECODERS))
    with (
        ThreadPoolExecutor(count, thread_name_prefix="decode") as decoders,
        ThreadPoolExecutor(1, thread_name_prefix="prepare") as preparing,
    ):
        waiting: deque[Future[Made]] = deque()
        try:
            for plan in plans:
                waiting.append(preparing.submit(make, plan, decoders))
                if len(waiting) > PREFETCHED_BATCHES:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class MediaSet:
    """The examples of one modality: batches and held-out items."""

    def __init__(
        self,
        embedded: Embeddings,
        split: SplitSet,
        config: TrainingConfig,
        encoder: AssembledEncoder,
    ) -> None:
        self.embedded, self.split, self.encoder, self._seed = embedded, split, encoder, config.seed
        self.examples, self.modality = embedded.examples, split.modality
        windowing = encoder.windowing if self.modality == "audio" else None
        self.reader = Reader(embedded, windowing, config.augmentation, config.seed)
        self.classes = {name: number for number, name in enumerate(self.examples.classes)}
        items = np.unique(embedded.rows.item[split.training])
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
        views: list[tuple[str, Any]] = []
        if self._has_text:
            numbers = draw(self._seed, epoch, items, _MANY)
            captions = [self._caption(i, n) for i, n in zip(items, numbers, strict=True)]
            views.append(("text", self.encoder.prepare(Modality.TEXT, captions)))
        for number in range(self._media_views):

            def view(item: int, number: int = number) -> Media:
                return self.reader.view(item, epoch, number)

            media = list(decoders.map(view, [int(i) for i in items]))
            views.append((self.modality, self.encoder.prepare(Modality(self.modality), media)))
        return MediaBatch(views, self._membership(items) if self.classes else None)

    def validation(self) -> HeldOut | None:
        """The held-out items, embedded by the current towers."""
        held_out = self.split.validation(MOST_RAW_ITEMS)
        if held_out is None:
            return None
        rows = evenly(self.split.held_out, MOST_RAW_ITEMS)
        media = self.reader.encoded(rows, partial(self.encoder.encode, Modality(self.modality)))
        queries = held_out.queries
        if self._has_text:
            captions = [self._caption(i, 0) for i in self.embedded.rows.item[rows]]
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

    views: Sequence[tuple[str, Any]]
    membership: torch.Tensor | None


class _Trained(torch.nn.Module):
    """Heads and the towers' adapters."""

    def __init__(self, heads: CentredHeads, towers: AssembledEncoder) -> None:
        super().__init__()
        self.heads = heads
        self.towers = torch.nn.ModuleDict({str(m): t for m, t in towers.towers.items()})


class TowersObjective:
    """Heads and adapters on media, as an `Objective`.

    Attributes:
        module: heads and towers.
        steps_per_epoch: batches of all sets.
        data_digest: over media, captions, towers and held-out items.
    """

    def __init__(
        self,
        data: TrainingData,
        embedded: Sequence[Embeddings],
        config: TrainingConfig,
        encoder: AssembledEncoder,
    ) -> None:
        self.config, self.encoder = config, encoder
        self._epoch = 1
        self.sets = [
            MediaSet(e, s, config, encoder) for e, s in zip(embedded, data.sets, strict=True)
        ]
        self.module = _Trained(
            CentredHeads({**data.means, **joint_means(data.sets)}, config), encoder
        )
        self.steps_per_epoch = sum(one.sampler.steps for one in self.sets)
        self.data_digest = digest_of(
            *(one.source.digest for one in data.sets),
            *(one.training.tobytes().hex() for one in data.sets),
            *(str(e.examples.digest()) for e in embedded),
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Heads and adapters."""
        adapters = [p for tower in self._towers() for p in tower.named().values()]
        return [{"params": list(self.module.heads.parameters())}, {"params": adapters}]

    def begin_epoch(self, epoch: int) -> None:
        """Train the adapters from their first epoch on."""
        self._epoch = epoch
        for tower in self._towers():
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
            self.module.heads(self.encoder.embed(Modality(m), inputs).float(), m)
            for m, inputs in batch.views
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
        count = math.ceil(_STATISTICS_ROWS / self.config.batch_size)
        plans = (
            (one, items)
            for one in self.sets
            for items in islice(one.sampler.batches(self._epoch), count)
        )
        rows: dict[str, list[torch.Tensor]] = {}
        for batch in self._made(plans, self._epoch):
            for modality, inputs in batch.views:
                embedded = self.encoder.embed(Modality(modality), inputs)
                rows.setdefault(modality, []).append(embedded.float())
        return {modality: torch.cat(some) for modality, some in rows.items()}

    def _made(
        self, plans: Iterable[tuple[MediaSet, NDArray[np.int64]]], epoch: int
    ) -> Iterator[MediaBatch]:
        def make(plan: tuple[MediaSet, NDArray[np.int64]], decoders: Executor) -> MediaBatch:
            one, items = plan
            return one.batch(items, epoch, decoders)

        return prefetched(plans, make)

    def _towers(self) -> list[Any]:
        return list(self.encoder.towers.values())


def lora_of(config: TrainingConfig) -> LoraSettings | None:
    """The adapters of the settings, if any."""
    if not config.lora_rank:
        return None
    return LoraSettings(config.lora_rank, int(config.lora_alpha), config.lora_dropout)


def fit_towers(
    request: TrainingRequest,
    data: TrainingData,
    embedded: Sequence[Embeddings],
    encoder: Encoder,
    out: OutFolder,
    progress: OnProgress,
) -> tuple[Fitted, Encoding]:
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
    objective = TowersObjective(data, embedded, config, towers)
    result = run_training(objective, config, out.run, progress)
    hasher = objective.module.heads.hasher(data.settings(config))
    objective.module.eval()
    with torch.inference_mode():
        after = objective.tasks()
    comparison = compare(before, after, hasher, data.sample(), config)
    encoding = Encoding(
        name=encoder.name,
        towers={str(m): digest for m, digest in towers.digests.items()},
        licence=licence_of(encoder.name),
        assembly=plans_to_json(plans),
        adapters=towers.tensors(),
    )
    return Fitted.of(hasher, result, comparison), encoding
