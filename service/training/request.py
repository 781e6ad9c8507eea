"""The request for a training, and the sources of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from bittern.hashing.training.embedding_sets import SET_FILE
from bittern.service.jobs.model_choice import DEFAULT_ENCODER
from bittern.service.models.saved import encoders_of_saved

What = Literal["pairs", "labels", "distill"]
LoadEncoder = Callable[[str, str | None], Encoder]
"""Catalogue name and device to a fresh encoder."""
HASHERS = ("hashcoder", "aligned", "hybrid")
"""Learned, aligned, or both kinds of bits. See docs/background/learned-codes.md."""
FEWEST_HELD_OUT = 30
"""Items; with fewer queries, differences between hashers may well be chance."""
LARGEST_SHARE = 0.5
LORA_RANK = 16
"""Of CroVCA (arXiv 2510.27584)."""
AUGMENTATIONS = ("published", "plants", "sound", "none")
"""Values of ``--augment``: the image views of CroVCA, or views for plants, both with views of
sounds; views of sounds only; none."""


def encoder_of(source: Path, named: str | None) -> str | None:
    """The encoder of a training: the one that is named; else `DEFAULT_ENCODER` for media, and None
    for a set of embeddings, which names its own.
    """
    return named or (None if (source / SET_FILE).is_file() else DEFAULT_ENCODER)


class TrainingRequest(BaseModel):
    """One training.

    Attributes:
        what: learn from captions (``pairs``), from classes (``labels``), or an audio tower for an
            image-text model's space (``distill``).
        source: manifest, folder of media, or folder with a set of embeddings.
        out: folder of the model, with the run in ``training/``.
        embeddings: file or folder with the media's embeddings, see
            `bittern.service.ingest.precomputed`; no media are read then. None to embed them.
        model: encoder; for ``distill``, the student. By default see `encoder_of`.
        config: the settings; a `lora_rank` above 0 trains adapters.
        teacher: saved model whose space is learned; ``distill`` only.
        hasher: one of `HASHERS`.
        modality: ``image`` or ``audio`` to train on these media only; None for all.
        caption_column: a manifest's column of captions.
        label_column: a manifest's column of labels.
        strict: refuse a source with unusable entries instead of skipping them.
        must_validate: `validation_share` is the user's: used as it is, and a source of which
            nothing can be held out is refused.

    Raises:
        InvalidInputError: contradicting settings, an unknown hasher or modality, or a trained
            model as the encoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: What
    source: Path
    out: Path
    embeddings: Path | None = None
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
        if self.embeddings is not None and config.lora_rank:
            raise InvalidInputError(
                "adapters (--lora) are trained on the media themselves: leave out --embeddings, or "
                "--lora",
                field="embeddings",
            )
        if config.device not in (None, "cpu") or config.precision == "fp16":
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
                "is embedded only once",
                field="augmentation",
            )
        whole = config.lora_alpha == int(config.lora_alpha)
        if config.lora_rank and not (whole and 1 <= config.lora_alpha <= MAX_RANK):
            raise InvalidInputError(
                f"lora_alpha must be a whole number from 1 to {MAX_RANK}, not {config.lora_alpha}",
                field="lora_alpha",
            )

    @property
    def encoder(self) -> str | None:
        """The encoder, by default as `encoder_of` says."""
        return encoder_of(self.source, self.model)

    def held_out_share(self, items: int) -> float:
        """The share of so many items to hold out.

        Unless the user has given it, a set has at least `FEWEST_HELD_OUT` held out, or half.
        """
        share = self.config.validation_share
        if self.must_validate or not share:
            return share
        return min(LARGEST_SHARE, max(share, FEWEST_HELD_OUT / max(1, items)))

    def identity(self) -> dict[str, Any]:
        """Values that must be equal to resume a run, besides the data."""
        fields = {"what", "teacher", "hasher", "modality", "caption_column"}
        settings = self.config.to_dict().items()
        return {
            **self.model_dump(include=fields | {"label_column"}),
            "model": self.encoder,
            "source": str(self.source.resolve()),
            "embeddings": str(self.embeddings.resolve()) if self.embeddings else None,
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
        what: the kind of training. Labels with an encoder that has a text tower default to a
            shared head, so that words can search for the classes.
        model: encoder, if named.
        file: YAML or JSON file with some of the settings.
        assignments: ``name=value``; the value is read as YAML.
        options: settings with their own command-line option; None if not given.
        lora: whether to train adapters.

    Returns:
        The settings, and whether a share for validation was given.

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
