"""Settings of a training.

Defaults are those of CroVCA (arXiv 2510.27584). Error messages name the allowed range of a field,
from its annotation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from bittern.errors import InvalidInputError

LARGEST_FILE = 64 * 1024
"""Bytes; a settings file has some thirty lines."""
FREE_ON_RESUME = frozenset({"checkpoint_every", "log_every"})
"""Fields without influence on weights; a run may be resumed with other values."""
_OF_TAGS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""Errors of the safe loader if a tag (!!int, !!map) and its value do not match."""

_Steps = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Share = Annotated[float, Field(ge=0, le=0.5)]
_Rate = Annotated[float, Field(gt=0, le=1)]


class TrainingConfig(BaseModel):
    """Settings of a training.

    Attributes:
        bits: code length.
        size: which HashCoder, ``small`` or ``large``.
        heads: a head ``per-modality``, or one ``shared`` by all.
        epochs: passes over the data.
        batch_size: items per batch. It affects quality too: the coding rate separates the codes of
            a batch.
        accumulate: batches per optimiser step. Gradients add up; the coding rate still sees
            one batch at a time.
        learning_rate: AdamW's, at the first step.
        final_learning_rate: at the last step, after a half cosine.
        weight_decay: AdamW's.
        rate_weight: weight of the coding rate in the loss.
        clip_norm: largest norm of the gradient; 0 for no limit.
        seed: of weights, order of items and dropout.
        precision: of the forward pass; ``auto`` is fp16 on a GPU, fp32 on a CPU.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None for a GPU where there is one.
        patience: epochs without a better validation value before the run stops; 0 for never.
        validation_share: share of the items held out for validation.
        checkpoint_every: steps between checkpoints; 0 for one at the end of each epoch.
        log_every: steps between two lines of the log; 0 for lines at the end of epochs only.
        lora_rank: of the adapters on the towers; 0 for no adapters (the paper: 16).
        lora_alpha: their scale is alpha / rank.
        lora_dropout: before the adapters.
        lora_from_epoch: first epoch, counted from 1, that trains the adapters.
        augmentation: name of the set of image views; empty for none.

    Raises:
        InvalidInputError: an unknown field, or a value out of its range; names field, value and
            range.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

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
    patience: Annotated[int, Field(ge=0, le=100_000)] = 0
    validation_share: _Share = 0.05
    checkpoint_every: _Steps = 0
    log_every: _Steps = 100
    lora_rank: Annotated[int, Field(ge=0, le=1024)] = 0
    lora_alpha: Annotated[float, Field(gt=0, le=65_536)] = 16.0
    lora_dropout: Annotated[float, Field(ge=0, le=0.95)] = 0.1
    lora_from_epoch: Annotated[int, Field(ge=1, le=100_000)] = 2
    augmentation: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,40}$")] = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refused(error, values) from None
        if self.final_learning_rate > self.learning_rate:
            raise InvalidInputError(
                f"final_learning_rate must be at most learning_rate ({self.learning_rate}), not "
                f"{self.final_learning_rate}",
                field="final_learning_rate",
            )

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML 1.1 reads ``1e-3`` as text; turn it into a number."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and wanted is float:
            try:
                return float(value)
            except ValueError:
                return value
        return value

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return self.model_dump()

    def to_json(self) -> str:
        """All fields as a JSON object, as in a settings file."""
        return self.model_dump_json(indent=1) + "\n"

    def with_overrides(self, overrides: Mapping[str, Any]) -> TrainingConfig:
        """A copy with other values for some fields.

        Raises:
            InvalidInputError: an unknown field, or a value out of its range.
        """
        return TrainingConfig(**{**self.to_dict(), **overrides})


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file; values are not checked.

    Raises:
        InvalidInputError: not a readable text file of at most 64 KiB, or see `load_mapping`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise InvalidInputError(f"{path} is longer than the {LARGEST_FILE} bytes allowed")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read as settings: {error}") from error
    return load_mapping(text, str(path))


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names of fields that differ, without `FREE_ON_RESUME`.

    A field of an earlier release that `a` has in addition differs only if it was used.
    """
    names = sorted({n for n in a if a[n]} | set(b))
    return [n for n in names if n not in FREE_ON_RESUME and a.get(n) != b.get(n)]


def _refused(error: ValidationError, values: Mapping[str, Any]) -> InvalidInputError:
    known = TrainingConfig.model_fields
    if unknown := sorted(_shown(name) for name in values if name not in known):
        return InvalidInputError(
            f"there is no setting {', '.join(unknown[:5])}; there are {', '.join(known)}",
            field=unknown[0].strip("'")[:60],
        )
    name = str(error.errors()[0]["loc"][0])
    value, allowed = _shown(values[name]), _in_words(_schema()[name])
    return InvalidInputError(
        f"{name} must be {allowed}, not {value}",
        field=name,
        details={"value": value, "allowed": allowed},
    )


@cache
def _schema() -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = TrainingConfig.model_json_schema()["properties"]
    return properties


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


def _shown(value: object) -> str:
    if value is None or isinstance(value, str | int | float | bool):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return f"a {type(value).__name__}"


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without references, which may expand without limit, and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = sorted(key for key, times in keys.items() if times > 1)
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} is given more than once")
        return super().construct_mapping(node, deep)


def load_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON text; empty for an empty text.

    Args:
        text: to parse; the caller limits its length.
        source: its name in errors.

    Raises:
        InvalidInputError: not YAML, or not a mapping with text for keys.
    """
    try:
        # A subclass of the safe loader: plain values only.
        loaded = yaml.load(text, Loader=_PlainLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError, *_OF_TAGS) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidInputError(f"{source} cannot be read as YAML or JSON: {reason}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise InvalidInputError(f"{source} must be a mapping of setting: value")
    return loaded
