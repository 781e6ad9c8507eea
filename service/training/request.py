"""What a training is asked for, and what it reports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bittern.encoders.base import Encoder
from bittern.hashing.training.config import FREE_ON_RESUME, TrainingConfig
from bittern.service.training.examples import Skipped

What = Literal["pairs", "labels", "distill"]
LoadEncoder = Callable[[str, str | None], Encoder]
"""Catalogue name and device to a fresh encoder."""
OnProgress = Callable[[str, int, int, str], None]
"""Called with the stage (``encoding``, ``training``), what is done, what there is, and a note."""


@dataclass(frozen=True)
class TrainingRequest:
    """One training.

    Attributes:
        what: from captions (``pairs``), from classes (``labels``), or an audio tower taught an
            image-text model's space (``distill``).
        source: manifest, folder of media, or folder with a set of embeddings.
        out: folder of the model; ``training/`` in it holds the run.
        model: encoder; of ``distill`` the student. None where the set of embeddings says it.
        config: the settings; adapters are trained where `lora_rank` is not 0.
        teacher: saved model whose space is taught; ``distill`` only.
        hasher: what is fitted, see `bittern.service.training.fitting`.
        modality: ``image`` or ``audio`` to train on these media only; None for all.
        caption_column: a manifest's column of captions.
        label_column: a manifest's column of labels.
        strict: refuse a source with unusable entries instead of leaving these out.
        must_validate: refuse a source of which nothing can be held out, rather than train
            without validation.
    """

    what: What
    source: Path
    out: Path
    model: str | None = None
    config: TrainingConfig = field(default_factory=TrainingConfig)
    teacher: str | None = None
    hasher: str = "hashcoder"
    modality: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    strict: bool = False
    must_validate: bool = False

    def told(self) -> dict[str, Any]:
        """What must be equal for a run to be gone on with, next to the data."""
        settings = self.config.to_dict().items()
        return {
            "what": self.what,
            "source": str(self.source.resolve()),
            "model": self.model,
            "teacher": self.teacher,
            "hasher": self.hasher,
            "modality": self.modality,
            "caption_column": self.caption_column,
            "label_column": self.label_column,
            "settings": {name: value for name, value in settings if name not in FREE_ON_RESUME},
        }


@dataclass(frozen=True)
class Comparison:
    """One way of asking the held-out items, answered by floats and by two kinds of codes.

    Attributes:
        task: ``words to images``.
        modality: of the items.
        queries: how many questions.
        items: how many held-out items they are asked of.
        floats: mean average precision of the cosine of the encoder's embeddings; of ``distill``,
            of those of the student as it was taught, for its own have nothing to do with the
            teacher's.
        training_free: of PCA codes with as many bits, fitted on the same training items; None
            where there is no such thing.
        learned: of what was trained.
    """

    task: str
    modality: str
    queries: int
    items: int
    floats: float
    training_free: float | None
    learned: float


@dataclass(frozen=True)
class TrainingReport:
    """What a training came to.

    Attributes:
        name: of the model.
        folder: where it is.
        digest: of the model.
        encoder: its encoder.
        bits: code length.
        modalities: what it can code.
        items: training rows by modality; a recording has a row per window.
        held_out: held-out rows by modality, and of what kind they are.
        skipped: what was left out, with reasons.
        comparison: held-out items, before and after.
        metrics: losses and statistics of the bits, as on the model's card.
        warnings: what whoever trusts the model should know.
        seconds: time in epochs.
        resumed: whether it went on from a checkpoint.
        was_finished: whether there was nothing left to do.
    """

    name: str
    folder: Path
    digest: str
    encoder: str
    bits: int
    modalities: Sequence[str]
    items: Mapping[str, int]
    held_out: Mapping[str, Any]
    skipped: Sequence[Skipped]
    comparison: Sequence[Comparison]
    metrics: Mapping[str, Any]
    warnings: Sequence[str]
    seconds: float
    resumed: bool
    was_finished: bool


def digest_of(*parts: str) -> str:
    """Hex SHA-256 of some texts."""
    told = hashlib.sha256()
    for part in parts:
        told.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return told.hexdigest()
