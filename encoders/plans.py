"""Which towers an encoder is put together from, and what is added to them: a few lines of JSON.

{"text": {"encoder": "bioclip-2", "lora": null, "projection": false},
 "audio": {"encoder": "biolingual", "lora": {"rank": 16, "alpha": 16, "dropout": 0.1},
           "projection": true}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bittern.encoders.adapters import LoraSettings
from bittern.encoders.base import Modality
from bittern.errors import InvalidInputError, ModelDamagedError

_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class TowerPlan:
    """Where the tower of one modality comes from, and what is added to it.

    Attributes:
        encoder: name of the encoder that has it.
        lora: adapters inside; None for a tower left as it is.
        projection: whether a linear map follows, into a space of other dimensions.
    """

    encoder: str
    lora: LoraSettings | None = None
    projection: bool = False

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "encoder": self.encoder,
            "lora": self.lora.to_json() if self.lora else None,
            "projection": self.projection,
        }

    @classmethod
    def from_json(cls, value: object) -> TowerPlan:
        """Read what `to_json` wrote.

        Raises:
            ModelDamagedError: a key is missing or unknown, or a value of the wrong type or
                outside its range.
        """
        plan = _object(value, "the plan of a tower", ("encoder", "lora", "projection"))
        encoder, lora, projection = plan["encoder"], plan["lora"], plan["projection"]
        if not isinstance(encoder, str) or not 0 < len(encoder) <= _MAX_NAME:
            raise ModelDamagedError(
                f"a tower's 'encoder' must be a name of 1 to {_MAX_NAME} letters, not "
                f"{_short(encoder)}"
            )
        if not isinstance(projection, bool):
            raise ModelDamagedError(
                f"a tower's 'projection' must be true or false, not {_short(projection)}"
            )
        return cls(encoder, None if lora is None else _lora(lora), projection)


Plans = Mapping[Modality, TowerPlan]


def plans_to_json(plans: Plans) -> dict[str, Any]:
    """An assembly as a JSON object, by modality."""
    return {str(modality): plan.to_json() for modality, plan in sorted(plans.items())}


def plans_from_json(value: object) -> dict[Modality, TowerPlan]:
    """Read what `plans_to_json` wrote.

    Raises:
        ModelDamagedError: no towers, an unknown modality, or as `TowerPlan.from_json`.
    """
    if not isinstance(value, dict) or not value:
        raise ModelDamagedError(f"an assembly must name its towers, but is {_short(value)}")
    unknown = [key for key in value if key not in set(Modality)]
    if unknown:
        raise ModelDamagedError(
            f"an assembly has towers for {', '.join(Modality)}, not for {_short(unknown[0])}"
        )
    return {Modality(key): TowerPlan.from_json(plan) for key, plan in value.items()}


def _lora(value: object) -> LoraSettings:
    settings = _object(value, "'lora'", ("rank", "alpha", "dropout"))
    try:
        return LoraSettings(**settings)
    except InvalidInputError as error:
        raise ModelDamagedError(error.message) from error


def _object(value: object, what: str, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(keys):
        raise ModelDamagedError(
            f"{what} must be an object with {', '.join(keys)}, not {_short(value)}"
        )
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
