"""Settings of a training: one frozen value, checked however it comes about.

Defaults are those of CroVCA (arXiv 2510.27584). Every field carries its allowed range, which
the error messages and `describe` read off the same annotation.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from bittern.errors import InvalidInputError

LARGEST_FILE = 64 * 1024
"""Bytes; a settings file has some thirty lines."""
FREE_ON_RESUME = frozenset({"checkpoint_every", "log_every"})
"""Fields that change no weight, so a run may be resumed with other values."""

_Steps = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Share = Annotated[float, Field(ge=0, le=0.5)]
_Rate = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class TrainingConfig:
    """What decides a training, next to its data.

    Attributes:
        bits: code length.
        size: which HashCoder, ``small`` or ``large``.
        heads: a head ``per-modality``, or one ``shared`` by all.
        epochs: passes over the data.
        batch_size: items per batch; the coding rate keeps the codes of a batch apart, so this
            is more than a matter of memory.
        accumulate: batches per optimiser step. Gradients add up; the coding rate still sees
            one batch at a time.
        learning_rate: AdamW's, at the first step.
        final_learning_rate: at the last step; a half cosine lies between.
        weight_decay: AdamW's.
        rate_weight: weight of the coding rate in the loss.
        clip_norm: largest norm of the gradient; 0 for no limit.
        seed: of weights, order of items and dropout.
        precision: of the forward pass; ``auto`` is fp16 on a GPU, fp32 on a CPU.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None for a GPU where there is one.
        reinitialise_every: epochs after which the end of every head is drawn anew (discrete
            communication, arXiv 2602.09764); 0 for never.
        patience: epochs without a better validation value before the run stops; 0 for never.
        validation_share: share of the items held out for validation.
        checkpoint_every: steps between checkpoints; 0 for one at the end of each epoch.
        log_every: steps between two lines of the log; 0 for lines at the end of epochs only.
        lora_rank: of the adapters on the towers; 0 for no adapters (the paper: 16).
        lora_alpha: their scale is alpha / rank.
        lora_dropout: in front of the adapters.
        lora_from_epoch: first epoch, counted from 1, that trains the adapters.
        augmentation: name of the set of image views; empty for none.

    Raises:
        InvalidInputError: a value is out of its range; names field, value and range.
    """

    bits: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 256
    size: Literal["small", "large"] = "small"
    heads: Literal["per-modality", "shared"] = "per-modality"
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 5
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 256
    accumulate: Annotated[int, Field(ge=1, le=65_536)] = 1
    learning_rate: _Rate = 1e-3
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    rate_weight: Annotated[float, Field(ge=0, le=100)] = 0.1
    clip_norm: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(cpu|cuda|cuda:\d{1,3})$")] | None = None
    reinitialise_every: Annotated[int, Field(ge=0, le=100_000)] = 0
    patience: Annotated[int, Field(ge=0, le=100_000)] = 0
    validation_share: _Share = 0.05
    checkpoint_every: _Steps = 0
    log_every: _Steps = 100
    lora_rank: Annotated[int, Field(ge=0, le=1024)] = 0
    lora_alpha: Annotated[float, Field(gt=0, le=65_536)] = 16.0
    lora_dropout: Annotated[float, Field(ge=0, le=0.95)] = 0.1
    lora_from_epoch: Annotated[int, Field(ge=1, le=100_000)] = 2
    augmentation: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,40}$")] = ""

    def __post_init__(self) -> None:
        for name, adapter in _adapters().items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, adapter.validate_python(value))
            except ValidationError:
                raise InvalidInputError(
                    f"{name} must be {describe(name)}, not {_shown(value)}",
                    field=name,
                    details={"value": _shown(value), "allowed": describe(name)},
                ) from None
        if self.final_learning_rate > self.learning_rate:
            raise InvalidInputError(
                f"final_learning_rate must be at most learning_rate ({self.learning_rate}), not "
                f"{self.final_learning_rate}",
                field="final_learning_rate",
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """All fields as a JSON object that `parse_config` reads back to an equal value."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def with_overrides(self, overrides: Mapping[str, Any]) -> TrainingConfig:
        """A copy with other values for some fields.

        Raises:
            InvalidInputError: an unknown field, or a value out of its range.
        """
        return config_from({**self.to_dict(), **overrides})


def config_from(values: Mapping[str, Any]) -> TrainingConfig:
    """Settings from a mapping; what is not named keeps its default.

    Raises:
        InvalidInputError: an unknown field, or a value out of its range.
    """
    known = _adapters()
    unknown = sorted(_shown(name) for name in values if name not in known)
    if unknown:
        raise InvalidInputError(
            f"there is no setting {', '.join(unknown[:5])}; there are {', '.join(known)}",
            field=str(unknown[0]).strip("'")[:60],
        )
    return TrainingConfig(**{name: _number(name, value) for name, value in values.items()})


def parse_config(text: str, *, source: str = "the settings") -> TrainingConfig:
    """Settings from YAML or JSON text (JSON is YAML).

    Raises:
        InvalidInputError: too long, not a mapping, an unknown or repeated field, a bad value.
    """
    from bittern.hashing.training.yaml_mapping import load_mapping

    if len(text) > LARGEST_FILE:
        raise InvalidInputError(f"{source} is longer than the {LARGEST_FILE} characters allowed")
    return config_from(load_mapping(text, source))


def read_config(path: Path) -> TrainingConfig:
    """Settings from a YAML or JSON file.

    Raises:
        InvalidInputError: not a readable text file of at most 64 KiB, or see `parse_config`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise InvalidInputError(
                f"{path} is longer than the {LARGEST_FILE} bytes that settings may have"
            )
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read as settings: {error}") from error
    return parse_config(text, source=str(path))


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names of the fields that two settings disagree on, less those that change no weight."""
    names = sorted(set(a) | set(b))
    return [n for n in names if n not in FREE_ON_RESUME and a.get(n) != b.get(n)]


def describe(name: str) -> str:
    """The allowed values of a field, in words: ``a whole number from 8 to 4096``."""
    return _in_words(_adapters()[name].json_schema())


def _in_words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_in_words(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema.get("type") == "null":
        return "nothing"
    if schema.get("type") == "string":
        return f"text like {schema['pattern']}"
    kind = "a whole number" if schema["type"] == "integer" else "a number"
    if "multipleOf" in schema:
        kind += f" divisible by {schema['multipleOf']}"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    above = "above" if "exclusiveMinimum" in schema else "from"
    return f"{kind} {above} {low:g} to {schema['maximum']:.10g}"


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    hints = get_type_hints(TrainingConfig, include_extras=True)
    return {
        field.name: TypeAdapter(hints[field.name], config=strict)
        for field in dataclasses.fields(TrainingConfig)
    }


def _number(name: str, value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text, for want of a point: take it for the number it is."""
    hint = get_type_hints(TrainingConfig)[name]
    if isinstance(value, str) and float in (hint, *get_args(hint)):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _shown(value: object) -> str:
    if value is None or isinstance(value, str | int | float | bool):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return f"a {type(value).__name__}"
