"""Encoders assembled from towers of catalogue encoders, with their trained parameters.

A trained model may use the text tower of one encoder and the audio tower of another, adapters on
either, and a linear map from a tower into another encoder's space. The plan of the towers is
JSON, the trained parameters are float32 arrays by name. Both are read from files and validated.

{"text": {"encoder": "bioclip-2", "lora": null, "projection": false},
 "audio": {"encoder": "biolingual", "lora": {"rank": 16, "alpha": 16, "dropout": 0.1},
           "projection": true}}

Importing this module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from bittern.encoders.adapters import LoraSettings
from bittern.encoders.base import AudioWindowing, Encoder, Media, Modality
from bittern.encoders.checkpoints import load_parameters, parameter_arrays
from bittern.errors import InvalidInputError, ModelDamagedError, UnsupportedModalityError

if TYPE_CHECKING:
    import torch

    from bittern.encoders.towers import TrainableTower

_MAX_DIM = 2**16


@dataclass(frozen=True)
class TowerPlan:
    """The origin of one modality's tower, and its additions.

    Attributes:
        encoder: name of the encoder that has it.
        lora: adapters inside; None for none.
        projection: whether a linear map follows, into a space of other dimensions.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")
    encoder: Annotated[str, Field(min_length=1, max_length=100)]
    lora: LoraSettings | None = None
    projection: bool = False


Plans = Mapping[Modality, TowerPlan]
_PLANS: TypeAdapter[dict[Modality, TowerPlan]] = TypeAdapter(
    Annotated[dict[Modality, TowerPlan], Field(min_length=1)]
)


def plans_to_json(plans: Plans) -> dict[str, Any]:
    """An assembly as a JSON object, by modality."""
    return {str(modality): asdict(plan) for modality, plan in sorted(plans.items())}


def plans_from_json(value: object) -> dict[Modality, TowerPlan]:
    """Read what `plans_to_json` wrote.

    Raises:
        ModelDamagedError: no towers, an unknown modality or key, or a value of the wrong type or
            outside its range.
    """
    try:
        return _PLANS.validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(name) for name in first["loc"]) or "content"
        raise ModelDamagedError(
            f"the plan of the towers makes no sense: {where}: {first['msg']}"
        ) from error


class AssembledEncoder:
    """Towers of several encoders in one space. See `bittern.encoders.base.Encoder`.

    Made by `assemble`, for use, or `begin`, for training.

    Attributes:
        name: chosen by the caller.
        dim: length of an embedding.
        modalities: the towers it has.
        windowing: of the encoder whose audio tower it has; None without one.
        plans: where its towers come from.
        towers: the towers by modality, as torch modules.
    """

    def __init__(
        self,
        name: str,
        plans: Plans,
        towers: Mapping[Modality, TrainableTower],
        *,
        changing: bool,
    ) -> None:
        """Join towers.

        Args:
            name: chosen by the caller.
            plans: where the towers come from.
            towers: one for each plan.
            changing: whether the towers are being trained, so that digests are not cached.

        Raises:
            ModelDamagedError: the towers' embeddings have different dimensions.
        """
        dims = {modality: tower.dim for modality, tower in towers.items()}
        if len(set(dims.values())) != 1:
            described = ", ".join(f"{modality} {dim}" for modality, dim in sorted(dims.items()))
            raise ModelDamagedError(
                f"{name}: its towers do not share a space, their dimensions are {described}; "
                "put a linear map behind all but one"
            )
        self.name = name
        self.dim = next(iter(dims.values()))
        self.plans = dict(plans)
        self.towers = dict(towers)
        self.modalities = frozenset(towers)
        audio = towers.get(Modality.AUDIO)
        self.windowing: AudioWindowing | None = audio.encoder.windowing if audio else None
        self._changing = changing
        self._digests: dict[Modality, str] | None = None

    @property
    def digests(self) -> Mapping[Modality, str]:
        """Per tower, hex SHA-256: that of `TrainableTower.digest`."""
        if self._digests is None or self._changing:
            self._digests = {modality: tower.digest() for modality, tower in self.towers.items()}
        return self._digests

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embed a batch, as `Encoder.encode` says.

        Returns:
            float32 [n, dim], each row of unit L2 norm.

        Raises:
            UnsupportedModalityError: there is no such tower.
            InvalidInputError: an item has the wrong dtype or shape.
        """
        return self._tower(modality).encode(batch)

    def prepare(self, modality: Modality, batch: Sequence[Media]) -> Any:
        """Inputs of `embed`, on the tower's device.

        Raises:
            as `encode`.
        """
        return self._tower(modality).prepare(batch)

    def embed(self, modality: Modality, inputs: Any) -> torch.Tensor:
        """Run a tower on the inputs that `prepare` returned; gradients flow to its parameters.

        Returns:
            float32 [n, dim] of unit L2 norm, on the tower's device.
        """
        embeddings: torch.Tensor = self._tower(modality)(inputs)
        return embeddings

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Trained parameters: `<modality>.lora.<...>`, `<modality>.projection.<...>`; copies."""
        return parameter_arrays(self._named())

    def load(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Set the trained parameters. Nothing changes if any of them does not fit.

        Raises:
            ModelDamagedError: tensors are missing, unknown, of another shape or dtype, or hold
                NaN or infinity.
        """
        load_parameters(self.name, self._named(), tensors)
        self._digests = None

    def _named(self) -> dict[str, torch.nn.Parameter]:
        return {
            f"{modality}.{name}": parameter
            for modality, tower in self.towers.items()
            for name, parameter in tower.named().items()
        }

    def _tower(self, modality: Modality) -> TrainableTower:
        if modality not in self.towers:
            raise UnsupportedModalityError(
                f"{self.name} has towers for {', '.join(sorted(self.modalities))}, not for "
                f"{modality}"
            )
        return self.towers[modality]


def assemble(
    name: str,
    plans: Plans,
    tensors: Mapping[str, NDArray[np.float32]],
    load: Callable[[str], Encoder],
) -> AssembledEncoder:
    """Assemble a trained encoder, for use.

    Args:
        name: of the new encoder.
        plans: origin of its towers.
        tensors: trained parameters, named as by `AssembledEncoder.tensors`.
        load: from a catalogue name to an encoder. Called once for each name; must return a
            fresh instance, since adapters are put into it.

    Raises:
        ModelDamagedError: plans, tensors and encoders do not fit each other.
        UnsupportedModalityError: an encoder lacks a tower of the plan.
        InvalidInputError: an encoder cannot take adapters.
        and whatever `load` raises.
    """
    widths = {m: _width(name, m, tensors) for m, plan in plans.items() if plan.projection}
    loaded = _loaded(name, plans, load)
    for modality, width in widths.items():  # checked before a map of that size is made
        found, own = tensors[_map_name(modality)].shape[1], loaded[plans[modality].encoder].dim
        if found != own:
            raise ModelDamagedError(
                f"{name}: {_map_name(modality)} has the shape [{width}, {found}] for "
                f"[{width}, {own}], the dimensions of {plans[modality].encoder}"
            )
    towers = _build(plans, widths, loaded, seed=0)
    assembled = AssembledEncoder(name, plans, towers, changing=False)
    assembled.load(tensors)
    for tower in towers.values():
        tower.requires_grad_(False)
    return assembled


def begin(
    name: str,
    plans: Plans,
    load: Callable[[str], Encoder],
    *,
    dim: int | None = None,
    seed: int,
) -> AssembledEncoder:
    """Assemble an encoder for training its adapters and maps.

    Args:
        name: of the new encoder.
        plans: origin of its towers.
        load: as for `assemble`.
        dim: of the shared space; None takes it from a tower without a map.
        seed: of all random numbers.

    Raises:
        InvalidInputError: the dimensions are unknown, or an encoder cannot take adapters.
        ModelDamagedError: the towers' embeddings have different dimensions.
        UnsupportedModalityError: an encoder lacks a tower of the plan.
        and whatever `load` raises.
    """
    loaded = _loaded(name, plans, load)
    if dim is None:
        dim = next((loaded[p.encoder].dim for p in plans.values() if not p.projection), None)
    if dim is None:
        raise InvalidInputError(
            f"{name}: every tower has a linear map behind it, so the dimensions of the space "
            "must be given",
            field="dim",
        )
    widths = {modality: dim for modality, plan in plans.items() if plan.projection}
    towers = _build(plans, widths, loaded, seed=seed)
    return AssembledEncoder(name, plans, towers, changing=True)


def _loaded(name: str, plans: Plans, load: Callable[[str], Encoder]) -> dict[str, Encoder]:
    if not plans:
        raise InvalidInputError(f"{name}: an encoder needs at least one tower")
    return {encoder: load(encoder) for encoder in {plan.encoder for plan in plans.values()}}


def _build(
    plans: Plans, widths: Mapping[Modality, int], loaded: Mapping[str, Encoder], *, seed: int
) -> dict[Modality, TrainableTower]:
    from bittern.encoders.towers import TrainableTower

    return {
        modality: TrainableTower(
            loaded[plan.encoder],
            modality,
            lora=plan.lora,
            projection=widths.get(modality),
            seed=seed + position,
        )
        for position, (modality, plan) in enumerate(sorted(plans.items()))
    }


def _map_name(modality: Modality) -> str:
    return f"{modality}.projection.weight"


def _width(name: str, modality: Modality, tensors: Mapping[str, NDArray[np.float32]]) -> int:
    """Rows of a linear map: the dimensions of the space."""
    key = _map_name(modality)
    if key not in tensors:
        raise ModelDamagedError(f"{name}: the tensor {key} is missing")
    shape = tensors[key].shape
    if len(shape) != 2 or not 0 < shape[0] <= _MAX_DIM or not shape[1]:
        raise ModelDamagedError(
            f"{name}: {key} must be [dimensions of the space, dimensions of the tower], not "
            f"{list(shape)}"
        )
    return int(shape[0])
