"""HashCoder heads on precomputed embeddings, and the objective that trains them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bittern.errors import InvalidInputError
from bittern.hashing.aligned import Matrix, Moments, alignment_map
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.learned import LearnedHasher
from bittern.hashing.losses import cross_view_loss, supervised_loss
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet, digest_of
from bittern.hashing.training.objective import Step
from bittern.hashing.training.sampling import (
    BUFFER_ROWS,
    EmbeddingBatch,
    Sampler,
    mixed,
    random_numbers,
    stream,
)
from bittern.hashing.training.validation import (
    SplitSet,
    TrainingData,
    evenly,
    measure,
    split_rows,
    tasks_of,
)

WORDS = "text"
_SHARED = "shared"
_STATISTICS_ROWS = 4096
"""Training rows for the statistics of the batch norms."""
_READ_ROWS = 8192

Means = Mapping[str, NDArray[np.float64]]


class CentredHeads(nn.Module):
    """HashCoder heads for several modalities, each centred by its mean.

    Attributes:
        coders: by modality, or one called ``shared``.
        modalities: those with a head.
    """

    def __init__(self, means: Means, config: TrainingConfig) -> None:
        """Draw the heads from the seed; torch's global generators do not change.

        Raises:
            InvalidInputError: modalities have embeddings of different lengths.
        """
        super().__init__()
        dims = {modality: len(mean) for modality, mean in means.items()}
        if len(set(dims.values())) != 1:
            raise InvalidInputError(
                f"embeddings of all modalities must have one length, not {dims}", field="views"
            )
        dim = next(iter(dims.values()))
        self.modalities = tuple(sorted(means))
        names = [_SHARED] if config.heads == _SHARED else list(self.modalities)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.coders = nn.ModuleDict(
                {name: HashCoder(dim, config.bits, config.size) for name in names}
            )
        for modality, mean in means.items():
            self.register_buffer(f"mean_{modality}", torch.from_numpy(mean.astype(np.float32)))

    def forward(self, embeddings: torch.Tensor, modality: str) -> torch.Tensor:
        """Logits [n, bits] of float32 [n, dim]."""
        logits: torch.Tensor = self.head(modality)(self.centred(embeddings, modality))
        return logits

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Logits float32 [n, bits] of float [n, dim], with the current weights."""
        rows = torch.from_numpy(np.asarray(embeddings, dtype=np.float32))
        logits = self(rows.to(self.mean(modality).device), modality)
        out: NDArray[np.float32] = logits.float().cpu().numpy()
        return out

    def centred(self, embeddings: torch.Tensor, modality: str) -> torch.Tensor:
        """Input of the head: float32 [n, dim]."""
        return embeddings - self.mean(modality)

    def head(self, modality: str) -> HashCoder:
        """The head of a modality; a shared one is the same object for all."""
        coder = self.coders[_SHARED if _SHARED in self.coders else modality]
        assert isinstance(coder, HashCoder)
        return coder

    def mean(self, modality: str) -> torch.Tensor:
        """float32 [dim], subtracted before the head."""
        return self.get_buffer(f"mean_{modality}")

    def hasher(self, settings: Mapping[str, object] | None = None) -> LearnedHasher:
        """A hasher of copies of the heads; `settings` are for the record."""
        heads = {modality: self.head(modality) for modality in self.modalities}
        means = {m: self.mean(m).cpu().numpy().copy() for m in self.modalities}
        return LearnedHasher.from_modules(heads, means, settings)


class AlignedHeads(CentredHeads):
    """Heads after centring and a fixed alignment."""

    def __init__(self, inner: CentredHeads, moments: Mapping[str, Moments], ridge: float) -> None:
        """Use untrained heads.

        Args:
            inner: the heads, on the CPU.
            moments: of every medium that is aligned; other modalities are only centred.
            ridge: see `bittern.hashing.aligned.alignment_map`.
        """
        nn.Module.__init__(self)
        self.modalities, self.coders = inner.modalities, inner.coders
        total = sum(m.weight for m in moments.values())
        middle = sum(m.mean_words * (m.weight / total) for m in moments.values())
        for modality in self.modalities:
            of = moments.get(modality)
            mean = inner.mean(modality).numpy() if of is None else of.mean_media
            mean = np.array(middle if modality == WORDS else mean, dtype=np.float32)
            turn = np.eye(len(mean)) if of is None else alignment_map(of, ridge)
            self.register_buffer(f"mean_{modality}", torch.from_numpy(mean))
            self.register_buffer(f"map_{modality}", torch.from_numpy(turn.astype(np.float32)))

    def centred(self, embeddings: torch.Tensor, modality: str) -> torch.Tensor:
        """Input of the head: float32 [n, dim], centred and aligned."""
        return super().centred(embeddings, modality) @ self.get_buffer(f"map_{modality}")

    def hasher(self, settings: Mapping[str, object] | None = None) -> LearnedHasher:
        """The trained heads with the alignment folded into their first layers."""
        folded, means = {}, {}
        for modality in self.modalities:
            turn = self.get_buffer(f"map_{modality}").double().cpu()
            folded[modality] = _folded(self.head(modality), turn.numpy())
            means[modality] = self.mean(modality).cpu().numpy().copy()
        return LearnedHasher.from_modules(folded, means, settings)


def _folded(head: HashCoder, turn: Matrix) -> HashCoder:
    """A head whose logits equal those of `head` for ``embeddings @ turn``."""
    copy = HashCoder(head.dim, head.bits, head.size)
    copy.load_state_dict(head.state_dict())
    first = copy.layers[0]
    assert isinstance(first, nn.Linear)
    weight = first.weight.detach().double().cpu() @ torch.from_numpy(turn).T
    with torch.no_grad():
        first.weight.copy_(weight)
    return copy


@torch.no_grad()
def update_batch_norm(heads: CentredHeads, embeddings: Mapping[str, torch.Tensor]) -> None:
    """Set each batch norm to the statistics of these embeddings with the current weights.

    PyTorch's running averages cover the last few dozen batches. A short training has fewer, so its
    initial values remain, and bits that were balanced in every batch become constant (precise
    batch norm; Wu & Johnson, arXiv 2105.07576).

    Args:
        heads: changed in place.
        embeddings: per modality float32 [n, dim], two rows or more; a shared head gets them all,
            with equal weights of the modalities.
    """
    of_head: dict[int, list[torch.Tensor]] = {}
    coders: dict[int, HashCoder] = {}
    for modality, rows in embeddings.items():
        coder = heads.head(modality)
        device = heads.mean(modality).device
        before_norm = coder.layers[:-1](heads.centred(rows.to(device).float(), modality))
        of_head.setdefault(id(coder), []).append(before_norm.double())
        coders[id(coder)] = coder
    for key, outputs in of_head.items():
        norm = coders[key].layers[-1]
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = torch.stack([out.mean(dim=0) for out in outputs]).mean(dim=0)
        spread = [(out - mean).square().mean(dim=0) for out in outputs]
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(torch.stack(spread).mean(dim=0))


@dataclass(frozen=True)
class HeadBatch:
    """A batch of one of the sets, by its number."""

    number: int
    batch: EmbeddingBatch


class HeadsObjective:
    """Heads on one or several sets of embeddings, as an `Objective`.

    CroVCA without labels: the views of an item predict each other's code. Views are modalities
    (compact hypercube embeddings, arXiv 2601.22783), captions or crops (CroVCA, arXiv 2510.27584).
    With labels, every view predicts its classes' prototype; items without a label are not used.

    If an item has several captions (views of text), each epoch draws one of them. A batch is from
    one set; several sets, such as photographs and recordings, alternate.

    Attributes:
        module: the heads.
        steps_per_epoch: batches of all sets.
        warnings: about batches smaller than the settings say.
        data_digest: over all sets and their held-out rows.
    """

    def __init__(
        self, data: TrainingData, config: TrainingConfig, *, buffer_rows: int = BUFFER_ROWS
    ) -> None:
        """Scan the sets, and draw the heads.

        Args:
            data: the sets, one per modality of media.
            config: the settings; `data` decides the held-out rows.
            buffer_rows: rows in memory at a time; see `bittern.hashing.training.sampling.stream`.

        Raises:
            InvalidInputError: an unusable set.
        """
        self.data, self.sets, self.config = data, data.sets, config
        check = _labelled_rows if data.labels else _paired_rows
        rows = [check(one) for one in data.sets]
        digests = [one.source.digest for one in data.sets]
        self._samplers = [
            Sampler(
                some,
                config.batch_size,
                config.seed,
                None if one.source.groups is None else one.source.groups[some],
                buffer_rows,
            )
            for some, one in zip(rows, data.sets, strict=True)
        ]
        self.steps_per_epoch = sum(sampler.steps for sampler in self._samplers)
        self.warnings = [
            f"{one.modality}: {text}"
            for one, sampler in zip(data.sets, self._samplers, strict=True)
            for text in sampler.warnings
        ]
        self.module = CentredHeads({**data.means, **joint_means(data.sets)}, config)
        self.data_digest = digest_of(*digests, *(o.training.tobytes().hex() for o in data.sets))
        self._tasks = tasks_of(data.sets)
        self._epoch = 1

    def align(self, moments: Mapping[str, Moments], ridge: float) -> AlignedHeads:
        """Align media with their words before the heads.

        Args:
            moments: per medium.
            ridge: see `bittern.hashing.aligned.alignment_map`.

        Returns:
            The new `module`.
        """
        self.module = aligned = AlignedHeads(self.module, moments, ridge)
        self.data_digest = digest_of(self.data_digest, f"aligned, ridge {ridge}")
        return aligned

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All heads, as one group."""
        return [{"params": list(self.module.parameters())}]

    def begin_epoch(self, epoch: int) -> None:
        """Draw other captions."""
        self._epoch = epoch

    def batches(self, epoch: int, start: int = 0) -> Iterator[HeadBatch]:
        """The batches of an epoch, from number `start` on, the sets mixed at random."""
        turns, before = mixed(
            [sampler.steps for sampler in self._samplers], self.config.seed, epoch, start
        )
        streams = [
            stream(one.source, sampler, epoch, done)
            for one, sampler, done in zip(self.sets, self._samplers, before, strict=True)
        ]
        for turn in turns:
            yield HeadBatch(turn, next(streams[turn]))

    def loss(self, batch: HeadBatch) -> Step:
        """Logits of every view, and the loss over them."""
        source, rows = self.sets[batch.number].source, batch.batch.rows
        modalities = [view.modality for view in source.views.values()]
        views = list(batch.batch.views)
        texts = [v for v, m in zip(views, modalities, strict=True) if m == WORDS]
        if len(texts) > 1 and len(texts) < len(views):
            chosen = torch.from_numpy(
                random_numbers(self.config.seed, self._epoch, rows, len(texts))
            )
            others = [(v, m) for v, m in zip(views, modalities, strict=True) if m != WORDS]
            views = [torch.stack(texts)[chosen, torch.arange(len(rows))], *(v for v, _ in others)]
            modalities = [WORDS, *(m for _, m in others)]
        device = self.module.mean(modalities[0]).device
        logits = [
            self.module(view.to(device, non_blocking=True), modality)
            for view, modality in zip(views, modalities, strict=True)
        ]
        weight = self.config.rate_weight
        if self.data.labels:
            membership = torch.from_numpy(_membership(source, rows)).to(device)
            loss = supervised_loss(logits, membership, weight)
        else:
            loss = cross_view_loss(logits, weight)
        return Step.of(loss, logits)

    def validate(self) -> dict[str, float] | None:
        """Update the batch norms, then mAP of asymmetric search among held-out items."""
        rows: dict[str, list[NDArray[np.float32]]] = {}
        for one, sampler in zip(self.sets, self._samplers, strict=True):
            for name, view in one.source.views.items():
                some = one.read(name, evenly(sampler.rows, _STATISTICS_ROWS))
                rows.setdefault(view.modality, []).append(some)
        update_batch_norm(
            self.module, {m: torch.from_numpy(np.concatenate(some)) for m, some in rows.items()}
        )
        return measure(self._tasks, self.module.logits) or None


def objective_for(
    source: EmbeddingSet, config: TrainingConfig, *, labels: bool | None = None
) -> HeadsObjective:
    """The objective of a single set, with rows held out at random.

    Args:
        source: the set.
        config: the settings.
        labels: whether the loss is the one with classes; None for a set that has labels.
    """
    held_out = split_rows(source, config.validation_share, config.seed)
    labels = source.description.labels is not None if labels is None else labels
    return HeadsObjective(TrainingData([held_out], labels), config)


def _paired_rows(one: SplitSet) -> NDArray[np.int64]:
    if len(one.source.views) < 2:
        raise InvalidInputError(
            f"{one.source.folder} has one view, pairs need two: add a view of the same items, or "
            "train on labels",
            field="views",
        )
    return one.training


def _labelled_rows(one: SplitSet) -> NDArray[np.int64]:
    if one.source.classes is None:
        raise InvalidInputError(
            f"{one.source.folder} has no labels; train on pairs instead", field="labels"
        )
    offsets, values = one.source.classes
    classes = len(np.unique(values))
    if classes < 2:
        raise InvalidInputError(
            f"the labels of {one.source.folder} name {classes} classes; codes can be learned from "
            "two or more",
            field="labels",
        )
    return one.training[np.diff(offsets)[one.training] > 0]


def _membership(source: EmbeddingSet, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 [rows, classes among them], 1 where the item is of the class."""
    assert source.classes is not None
    offsets, values = source.classes
    counts = offsets[rows + 1] - offsets[rows]
    item = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(item)) - np.repeat(np.cumsum(counts) - counts, counts)
    names, column = np.unique(
        values[np.repeat(offsets[rows], counts) + within], return_inverse=True
    )
    membership = np.zeros((len(rows), len(names)), dtype=np.float32)
    membership[item, column] = 1.0
    return membership


def joint_means(sets: Sequence[SplitSet]) -> dict[str, NDArray[np.float64]]:
    """Per modality float64 [dim], the mean over the training rows of all sets."""
    sums: dict[str, NDArray[np.float64]] = {}
    rows: dict[str, int] = {}
    for one in sets:
        for name, view in one.source.views.items():
            total = np.zeros(view.dim)
            for start in range(0, len(one.training), _READ_ROWS):
                some = one.source.read(name, one.training[start : start + _READ_ROWS])
                total += some.sum(axis=0, dtype=np.float64)
            sums[view.modality] = sums.get(view.modality, 0.0) + total
            rows[view.modality] = rows.get(view.modality, 0) + len(one.training)
    return {modality: total / max(1, rows[modality]) for modality, total in sums.items()}
