"""Adapters on towers trained together with the heads, from the media themselves.

The published recipe (CroVCA, arXiv 2510.27584): the heads alone in the first epoch, then the
adapters with them. Everything was embedded once before (`service.training.embedding`), which
finds the files that cannot be used and gives the means and what to compare with.

Of a pair, the views are the medium (one window of a recording) and one of its captions; of a
labelled item, two augmented views of the medium, or one without augmentation, and the name of its
class where names are words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.adapters import LoraSettings
from bittern.encoders.assembly import AssembledEncoder, TowerPlan, begin, plans_to_json
from bittern.encoders.base import Encoder, Media, Modality
from bittern.errors import InvalidInputError
from bittern.hashing.hashcoder import LearnedHasher
from bittern.hashing.losses import cross_view_loss, supervised_loss
from bittern.hashing.training.batch_norm import settle
from bittern.hashing.training.centred_heads import CentredHeads
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.objective import Step
from bittern.service.training.embedding import Embeddings
from bittern.service.training.fitting import (
    Fitted,
    TrainingData,
    metrics_of,
    run_training,
    settings_of,
)
from bittern.service.training.media import membership_of, prefetched
from bittern.service.training.probing import joint_means, logits_of
from bittern.service.training.raw import MOST_RAW_ITEMS, RawBatch, RawPart, batches_of
from bittern.service.training.request import OnProgress, TrainingRequest, digest_of
from bittern.service.training.saving import Encoding, OutFolder, licence_of
from bittern.service.training.validating import Task, compare, measure

_SETTLING_ROWS = 1024
"""Items of a part that the heads' statistics are settled on after each epoch."""


class _Trained(torch.nn.Module):
    """All that is trained: heads, and the towers' adapters."""

    def __init__(self, heads: CentredHeads, towers: AssembledEncoder) -> None:
        super().__init__()
        self.heads = heads
        self.towers = torch.nn.ModuleDict({str(m): t for m, t in towers.towers.items()})


class TowersObjective:
    """Heads and adapters on media, as an `Objective`.

    Attributes:
        module: heads and towers.
        steps_per_epoch: batches of all parts.
        data_digest: over media, captions, towers and which items are held out.
    """

    def __init__(
        self,
        data: TrainingData,
        embedded: Sequence[Embeddings],
        config: TrainingConfig,
        encoder: AssembledEncoder,
    ) -> None:
        self.config, self.encoder = config, encoder
        self.labels = data.labels
        self._epoch = 1
        self.parts = [
            RawPart(e, p, config, encoder) for e, p in zip(embedded, data.parts, strict=True)
        ]
        means = {**data.means, **joint_means(data.parts)}
        self.module = _Trained(CentredHeads(means, config), encoder)
        self.steps_per_epoch = sum(part.sampler.steps for part in self.parts)
        self.data_digest = digest_of(
            *(part.source.summary.digest for part in data.parts),
            *(part.training.tobytes().hex() for part in data.parts),
            *(str(e.examples.digest()) for e in embedded),
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The heads, and the adapters."""
        adapters = [p for tower in self._towers() for p in tower.named().values()]
        return [{"params": list(self.module.heads.parameters())}, {"params": adapters}]

    def begin_epoch(self, epoch: int) -> None:
        """Let gradients reach the adapters, or not yet."""
        self._epoch = epoch
        for tower in self._towers():
            if tower.adapters is not None:
                tower.adapters.set_gradients(epoch >= self.config.lora_from_epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[RawBatch]:
        """The batches of an epoch, from number `start` on, prepared ahead."""
        return self._prefetched(self._plans(epoch, start), epoch)

    def loss(self, batch: RawBatch) -> Step:
        """Embed the views, and the loss over their logits."""
        logits = [
            self.module.heads(self.encoder.embed(Modality(m), inputs).float(), m)
            for m, inputs in batch.views
        ]
        weight = self.config.rate_weight
        if batch.membership is None:
            loss = cross_view_loss(logits, weight)
        else:
            loss = supervised_loss(logits, batch.membership.to(logits[0].device), weight)
        parts = {"alignment": loss.alignment.detach(), "rate": loss.rate.detach()}
        return Step(loss.total, parts, [z.detach() for z in logits])

    def validate(self) -> dict[str, float] | None:
        """MAP of asymmetric search among held-out items, embedded as the towers are now.

        The statistics of the batch norms are settled first, on items that are trained on: while an
        epoch trains, weights move too much for statistics of its batches to fit those at its end.
        """
        settle(self.module.heads, self._sample())
        return measure(self.tasks(), self._logits) or None

    def tasks(self) -> list[Task]:
        """All ways of asking for what is held out, under the towers as they are now."""
        kept = [part.held_out(self.encoder) for part in self.parts]
        return [task for held_out in kept if held_out is not None for task in held_out.tasks()]

    def hasher(self) -> LearnedHasher:
        """The heads, ready for use."""
        heads = self.module.heads
        return LearnedHasher.from_modules(
            {m: heads.head(m) for m in heads.modalities},
            {m: heads.mean(m).cpu().numpy().copy() for m in heads.modalities},
            settings_of(self.config, self.labels),
        )

    def _sample(self) -> dict[str, torch.Tensor]:
        """Per modality float32 [n, dim] of some batches of every part, as the towers are now."""
        count = math.ceil(_SETTLING_ROWS / self.config.batch_size)
        plans = (
            (part, items)
            for part in self.parts
            for items in islice(batches_of(part, self._epoch, 0), count)
        )
        rows: dict[str, list[torch.Tensor]] = {}
        for batch in self._prefetched(plans, self._epoch):
            for modality, inputs in batch.views:
                embedded = self.encoder.embed(Modality(modality), inputs)
                rows.setdefault(modality, []).append(embedded.float())
        return {modality: torch.cat(some) for modality, some in rows.items()}

    def _logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        return logits_of(self.module.heads, embeddings, modality)

    def _towers(self) -> list[Any]:
        return list(self.encoder.towers.values())

    def _plans(self, epoch: int, start: int) -> Iterator[tuple[RawPart, NDArray[np.int64]]]:
        """Which items each batch has, the parts mixed by chance."""
        turns = np.repeat(np.arange(len(self.parts)), [p.sampler.steps for p in self.parts])
        turns = np.random.default_rng([self.config.seed, epoch, 1]).permutation(turns)
        before = np.bincount(turns[:start], minlength=len(self.parts))
        plans = [batches_of(p, epoch, int(n)) for p, n in zip(self.parts, before, strict=True)]
        for turn in turns[start:]:
            yield self.parts[turn], next(plans[turn])

    def _prefetched(
        self, plans: Iterable[tuple[RawPart, NDArray[np.int64]]], epoch: int
    ) -> Iterator[RawBatch]:
        def make(plan: tuple[RawPart, NDArray[np.int64]], decoders: Executor) -> RawBatch:
            return self._made(*plan, epoch, decoders)

        return prefetched(plans, make)

    def _made(
        self, part: RawPart, items: NDArray[np.int64], epoch: int, decoders: Executor
    ) -> RawBatch:
        modality = Modality(part.modality)
        views: list[tuple[str, Any]] = []
        if part.has_text:
            captions = part.captions(items, self.config.seed, epoch)
            views.append(("text", self.encoder.prepare(Modality.TEXT, captions)))
        for number in range(part.media_views):

            def view(item: int, number: int = number) -> Media:
                return part.reader.view(item, epoch, number)

            media = list(decoders.map(view, [int(i) for i in items]))
            views.append((part.modality, self.encoder.prepare(modality, media)))
        membership = None
        if part.classes:
            chosen = [part.examples[int(i)] for i in items]
            membership = torch.from_numpy(membership_of(chosen, part.classes))
        return RawBatch(views, membership)


def lora_of(config: TrainingConfig) -> LoraSettings | None:
    """The adapters that the settings ask for."""
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
    """Train adapters on the encoder's towers, in place, and heads behind them.

    Raises:
        InvalidInputError: a hasher that is not trained by gradients, or towers that cannot take
            adapters.
        TrainingError: as `bittern.hashing.training.loop.train`, or a file can no longer be read.
    """
    config = request.config
    if request.hasher != "hashcoder":
        raise InvalidInputError(
            f"--lora trains heads of the kind hashcoder, not {request.hasher}", field="hasher"
        )
    before = data.tasks(MOST_RAW_ITEMS)
    lora = lora_of(config)
    adapted = {view.modality for p in data.parts for view in p.source.views.values()}
    plans = {
        Modality(m): TowerPlan(encoder.name, lora if m in adapted else None)
        for m in sorted({*adapted, *data.means})
    }
    towers = begin(encoder.name, plans, lambda _: encoder, seed=config.seed)
    objective = TowersObjective(data, embedded, config, towers)
    result, was_finished = run_training(objective, config, out.run, progress)
    hasher = objective.hasher()
    objective.module.eval()
    with torch.inference_mode():
        comparison = compare(
            before, objective.tasks(), hasher.logits, data.sample(), config.bits, config.seed
        )
    fitted = Fitted(
        hasher=hasher,
        metrics=metrics_of(result, comparison),
        comparison=comparison,
        warnings=result.warnings,
        seconds=result.seconds,
        resumed=result.resumed,
        was_finished=was_finished,
    )
    encoding = Encoding(
        name=encoder.name,
        towers={str(m): digest for m, digest in towers.digests.items()},
        licence=licence_of(encoder.name),
        assembly=plans_to_json(plans),
        adapters=towers.tensors(),
    )
    return fitted, encoding
