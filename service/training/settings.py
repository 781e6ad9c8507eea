"""Settings of a training from where they are given: defaults, then a file, then options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittern.encoders.adapters import MAX_RANK
from bittern.encoders.catalogue import CATALOGUE
from bittern.errors import InvalidInputError
from bittern.hashing.training.config import LARGEST_FILE, TrainingConfig, config_from
from bittern.hashing.training.yaml_mapping import load_mapping
from bittern.service.models.saved import encoders_of_saved
from bittern.service.training.request import What

LORA_RANK = 16
"""Of CroVCA (arXiv 2510.27584)."""
AUGMENTATIONS = ("published", "plants", "sound", "none")
"""What ``--augment`` may be: views of photographs as CroVCA made them or as suits plants, with
views of sounds alike; views of sounds only; none."""


def gather(
    what: What,
    model: str | None,
    file: Path | None,
    assignments: Sequence[str],
    options: Mapping[str, Any],
    *,
    lora: bool = False,
) -> tuple[TrainingConfig, bool]:
    """One configuration from all that was said.

    Args:
        what: the kind of training; one on labels shares its head by default where the encoder
            has words, so that words can ask for what was learned from classes.
        model: encoder, if it was named.
        file: YAML or JSON file with some of the settings.
        assignments: ``name=value``; the value is read as YAML.
        options: settings that have an option of their own; None where it was not given.
        lora: whether adapters were asked for.

    Returns:
        the settings, and whether a share for validation was asked for.

    Raises:
        InvalidInputError: an unknown setting, a value out of range, an unreadable file, a device
            or precision that this machine does not have, or a trained model as the encoder.
    """
    _check_encoder(model)
    values: dict[str, Any] = {}
    if file is not None:
        values |= _read(file)
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
    config = config_from(values)
    _check(config)
    return config, "validation_share" in values


def _check_encoder(model: str | None) -> None:
    encoders = encoders_of_saved(model) if model and model not in CATALOGUE else ()
    if encoders:
        one = "its encoder" if len(encoders) == 1 else "one of its encoders"
        raise InvalidInputError(
            f"'{model}' is a trained model, and a training begins with an encoder; name {one}, "
            f"{' or '.join(encoders)}",
            field="model",
        )


def _check(config: TrainingConfig) -> None:
    if config.device or config.precision == "fp16":
        from bittern.hashing.training.device import placement

        placement(config)
    if config.augmentation and config.augmentation not in AUGMENTATIONS:
        raise InvalidInputError(
            f"augmentation is one of {', '.join(AUGMENTATIONS)}, not {config.augmentation!r}",
            field="augmentation",
        )
    if config.augmentation not in ("", "none") and not config.lora_rank:
        raise InvalidInputError(
            f"augmentation {config.augmentation!r} needs --lora: without adapters every item is "
            "embedded once, as it is",
            field="augmentation",
        )
    if config.lora_rank and (
        config.lora_alpha != int(config.lora_alpha) or not 1 <= config.lora_alpha <= MAX_RANK
    ):
        raise InvalidInputError(
            f"lora_alpha must be a whole number from 1 to {MAX_RANK}, not {config.lora_alpha}",
            field="lora_alpha",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise InvalidInputError(f"{path} is longer than the {LARGEST_FILE} bytes allowed")
        return load_mapping(content.decode("utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read as settings: {error}") from error
