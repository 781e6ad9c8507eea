"""Alignment of an embedding set's media with its words, and heads that are trained behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.aligned import Matrix, Moments, alignment_map
from bittern.hashing.hashcoder import HashCoder, LearnedHasher
from bittern.hashing.training.centred_heads import CentredHeads
from bittern.hashing.training.embeddings import EmbeddingSet
from bittern.hashing.training.heads import HeadObjective

WORDS = "text"
_READ_ROWS = 8192

Objective = TypeVar("Objective", bound=HeadObjective)


def classes_of(source: EmbeddingSet) -> NDArray[np.int32] | None:
    """int32 [rows]: the class of each item, or its group where there are no labels; None if
    there are neither, or several labels per item.
    """
    if source.multi_labels is not None:
        return None
    return source.groups if source.labels is None else source.labels


def moments_of(
    source: EmbeddingSet, *, words: str = WORDS, rows: NDArray[np.integer] | None = None
) -> dict[str, Moments]:
    """Moments of every medium of a set with the words for it, in one pass over the files.

    Classes weigh the same, however many items they have: a large one would decide alone where
    its media are moved to. Without classes, items weigh the same.

    Args:
        source: with one or more views of `words`, and one or more of other modalities.
        words: the modality that media are moved towards.
        rows: those that may be looked at; all by default.

    Raises:
        InvalidInputError: no view of words, or nothing else than words.
    """
    worded = [name for name, view in source.views.items() if view.modality == words]
    media = {name: view for name, view in source.views.items() if view.modality != words}
    if not worded or not media:
        raise InvalidInputError(
            f"an alignment needs views of {words} and of media; {source.folder} has "
            f"{', '.join(f'{n} ({v.modality})' for n, v in source.views.items())}",
            field="views",
        )
    chosen = np.arange(source.rows) if rows is None else np.sort(np.asarray(rows))
    weights = _weights(classes_of(source), chosen)
    moments = {view.modality: Moments(view.dim) for view in media.values()}
    for start in range(0, len(chosen), _READ_ROWS):
        part = slice(start, start + _READ_ROWS)
        texts = [source.read(name, chosen[part]) for name in worded]
        for name, view in media.items():
            shown = source.read(name, chosen[part])
            for text in texts:
                moments[view.modality].add(shown, text, weights[part])
    return moments


def _weights(classes: NDArray[np.int32] | None, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [len(rows)], with a mean of 1; items without a class count as one of their own."""
    if classes is None:
        return np.ones(len(rows))
    mine = classes[rows]
    _, number, sizes = np.unique(mine, return_inverse=True, return_counts=True)
    weights = np.where(mine < 0, 1.0, 1.0 / sizes[number])
    scaled: NDArray[np.float64] = weights * (len(rows) / weights.sum())
    return scaled


class AlignedHeads(CentredHeads):
    """Heads behind the mean of their modality and an alignment, which is not trained."""

    def __init__(
        self,
        inner: CentredHeads,
        moments: Mapping[str, Moments],
        ridge: float,
        words: str = WORDS,
    ) -> None:
        """Take over heads that were not trained yet.

        Args:
            inner: the heads, on the CPU.
            moments: of every medium that is moved, with the centres of media and of words.
            ridge: see `bittern.hashing.aligned.alignment_map`.
            words: the modality that media are moved towards, and that stays where it is, as
                does any modality without moments.
        """
        torch.nn.Module.__init__(self)
        self.modalities, self.coders = inner.modalities, inner.coders
        total = sum(m.weight for m in moments.values())
        middle = sum(m.mean_words * (m.weight / total) for m in moments.values())
        for modality in self.modalities:
            of = moments.get(modality)
            mean = inner.mean(modality).numpy() if of is None else of.mean_media
            mean = np.array(middle if modality == words else mean, dtype=np.float32)
            turn = np.eye(len(mean)) if of is None else alignment_map(of, ridge)
            self.register_buffer(f"mean_{modality}", torch.from_numpy(mean))
            self.register_buffer(f"map_{modality}", torch.from_numpy(turn.astype(np.float32)))

    def placed(self, embeddings: torch.Tensor, modality: str) -> torch.Tensor:
        """Embeddings as the head takes them: float32 [n, dim], centred and aligned."""
        return super().placed(embeddings, modality) @ self.get_buffer(f"map_{modality}")

    def hasher(self, settings: Mapping[str, object]) -> LearnedHasher:
        """The trained heads with the alignment folded into their first layers."""
        folded, means = {}, {}
        for modality in self.modalities:
            turn = self.get_buffer(f"map_{modality}").double().cpu()
            folded[modality] = _folded(self.head(modality), turn.numpy())
            means[modality] = self.mean(modality).cpu().numpy().copy()
        return LearnedHasher.from_modules(folded, means, settings)


def _folded(head: HashCoder, turn: Matrix) -> HashCoder:
    """A head that does with embeddings what `head` does with ``embeddings @ turn``."""
    copy = HashCoder(head.dim, head.bits, head.size)
    copy.load_state_dict(head.state_dict())
    first = copy.layers[0]
    assert isinstance(first, torch.nn.Linear)
    weight = first.weight.detach().double().cpu() @ torch.from_numpy(turn).T
    with torch.no_grad():
        first.weight.copy_(weight)
    return copy


def align(objective: Objective, moments: Mapping[str, Moments], ridge: float) -> AlignedHeads:
    """Put an alignment in front of an objective's heads; to be called before training.

    Returns:
        The module that the objective trains from now on.
    """
    aligned = AlignedHeads(objective.module, moments, ridge)
    objective.module = aligned
    return aligned
