"""The request for a training, where its settings come from, and the report of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from bittern.encoders.adapters import MAX_RANK
from bittern.encoders.base import Encoder
from bittern.encoders.catalogue import CATALOGUE
from bittern.errors import InvalidInputError
from bittern.hashing.training.config import (
    FREE_ON_RESUME,
    TrainingConfig,
    load_mapping,
    read_settings,
)
from bittern.service.models.saved import encoders_of_saved
from bittern.service.training.examples import Skipped

What = Literal["pairs", "labels", "distill"]
LoadEncoder = Callable[[str, str | None], Encoder]
"""Catalogue name and device to a fresh encoder."""
OnProgress = Callable[[str, int, int, str], None]
"""Called with the stage (``encoding``, ``training``), how much is done, of how much, and a note."""
HASHERS = ("hashcoder", "aligned", "hybrid")
"""Learned bits; aligned ones; both. See docs/background/learned-codes.md."""
LORA_RANK = 16
"""Of CroVCA (arXiv 2510.27584)."""
AUGMENTATIONS = ("published", "plants", "sound", "none")
"""What ``--augment`` may be: views of photographs as CroVCA made them or as suits plants, with
views of sounds alike; views of sounds only; none."""


class TrainingRequest(BaseModel):
    """One training.

    Attributes:
        what: from captions (``pairs``), from classes (``labels``), or an audio tower taught an
            image-text model's space (``distill``).
        source: manifest, folder of media, or folder with a set of embeddings.
        out: folder of the model; ``training/`` in it holds the run.
        model: encoder; of ``distill`` the student. None where the set of embeddings says it.
        config: the settings; adapters are trained where `lora_rank` is not 0.
        teacher: saved model whose space is taught; ``distill`` only.
        hasher: what is fitted, one of `HASHERS`.
        modality: ``image`` or ``audio`` to train on these media only; None for all.
        caption_column: a manifest's column of captions.
        label_column: a manifest's column of labels.
        strict: refuse a source with unusable entries instead of leaving these out.
        must_validate: refuse a source of which nothing can be held out, rather than train
            without validation.

    Raises:
        InvalidInputError: settings that do not go together, no such hasher or modality, or a
            trained model as the encoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: What
    source: Path
    out: Path
    model: str | None = None
    config: TrainingConfig = TrainingConfig()
    teacher: str | None = None
    hasher: str = "hashcoder"
    modality: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    strict: bool = False
    must_validate: bool = False

    @model_validator(mode="after")
    def _check(self) -> TrainingRequest:
        self._check_names()
        self._check_settings()
        return self

    def _check_names(self) -> None:
        if self.hasher not in HASHERS:
            raise InvalidInputError(
                f"there is no hasher '{self.hasher}' to be trained; there are "
                f"{', '.join(HASHERS)} (pca, itq and lsh need no training: give them to `bittern "
                "index --hasher`)",
                field="hasher",
            )
        if self.modality not in (None, "image", "audio"):
            raise InvalidInputError(
                f"modality must be image or audio, not {self.modality!r}", field="modality"
            )
        known = self.model is None or self.model in CATALOGUE
        encoders = () if known else encoders_of_saved(str(self.model))
        if encoders:
            one = "its encoder" if len(encoders) == 1 else "one of its encoders"
            raise InvalidInputError(
                f"'{self.model}' is a trained model, and a training begins with an encoder; name "
                f"{one}, {' or '.join(encoders)}",
                field="model",
            )

    def _check_settings(self) -> None:
        config = self.config
        if config.device or config.precision == "fp16":
            from bittern.hashing.training.optimiser import placement

            placement(config)
        if config.augmentation not in ("", *AUGMENTATIONS):
            raise InvalidInputError(
                f"augmentation is one of {', '.join(AUGMENTATIONS)}, not {config.augmentation!r}",
                field="augmentation",
            )
        if config.augmentation not in ("", "none") and not config.lora_rank:
            raise InvalidInputError(
                f"augmentation {config.augmentation!r} needs --lora: without adapters every item "
                "is embedded once, as it is",
                field="augmentation",
            )
        whole = config.lora_alpha == int(config.lora_alpha)
        if config.lora_rank and not (whole and 1 <= config.lora_alpha <= MAX_RANK):
            raise InvalidInputError(
                f"lora_alpha must be a whole number from 1 to {MAX_RANK}, not {config.lora_alpha}",
                field="lora_alpha",
            )

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to be resumed, next to the data."""
        fields = {"what", "model", "teacher", "hasher", "modality", "caption_column"}
        settings = self.config.to_dict().items()
        return {
            **self.model_dump(include=fields | {"label_column"}),
            "source": str(self.source.resolve()),
            "settings": {name: value for name, value in settings if name not in FREE_ON_RESUME},
        }


def gather(
    what: What,
    model: str | None,
    file: Path | None,
    assignments: Sequence[str],
    options: Mapping[str, Any],
    *,
    lora: bool = False,
) -> tuple[TrainingConfig, bool]:
    """One configuration from defaults, then a file, then assignments, then options.

    Args:
        what: the kind of training; one on labels shares its head by default where the encoder
            has words, so that words can search for what was learned from classes.
        model: encoder, if it was named.
        file: YAML or JSON file with some of the settings.
        assignments: ``name=value``; the value is read as YAML.
        options: settings that have an option of their own; None where it was not given.
        lora: whether to train adapters.

    Returns:
        the settings, and whether a share for validation was given.

    Raises:
        InvalidInputError: an unknown setting, a value out of range, or an unreadable file.
    """
    values: dict[str, Any] = read_settings(file) if file is not None else {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name.strip():
            raise InvalidInputError(
                f"--set takes name=value, such as learning_rate=0.0005, not {assignment!r}",
                field="set",
            )
        values |= load_mapping(f"{name.strip()}: {value}", f"--set {assignment}")
    values |= {name: value for name, value in options.items() if value is not None}
    if lora:
        values.setdefault("lora_rank", LORA_RANK)
        values.setdefault("augmentation", "published")
    entry = CATALOGUE.get(model or "")
    if what == "labels" and entry is not None and "text" in entry.modalities:
        values.setdefault("heads", "shared")
    return TrainingConfig(**values), "validation_share" in values


@dataclass(frozen=True)
class Comparison:
    """One kind of search among the held-out items, by floats and by two kinds of codes.

    Attributes:
        task: ``words to images``.
        modality: of the items.
        queries: how many.
        items: how many held-out items are searched.
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
