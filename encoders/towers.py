"""A tower with its trained parameters: adapters inside, a linear map behind.

Training and use run this same code, so a saved model embeds as the trained one did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.adapters import Adapters, LoraSettings, attach
from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.checkpoints import parameter_arrays, tower_digest
from bittern.errors import ModelDamagedError, UnsupportedModalityError


class TrainableTower(torch.nn.Module):
    """One tower of an encoder, with optional adapters and an optional linear map.

    The encoder is not a submodule: `parameters()`, `state_dict()`, `train()` and `to()` cover
    the adapters and the map only. Starts in evaluation mode.

    Attributes:
        encoder: the encoder that the tower belongs to.
        modality: input of the tower.
        adapters: those inside the tower, or None.
        projection: the map behind it, encoder.dim to `dim`, or None.
        dim: length of an embedding.
    """

    def __init__(
        self,
        encoder: Encoder,
        modality: Modality,
        *,
        lora: LoraSettings | None = None,
        projection: int | None = None,
        seed: int = 0,
    ) -> None:
        """Add to a tower, in place.

        Args:
            encoder: not shared with other users if `lora` is given: its tower is changed.
            modality: which of its towers.
            lora: settings of the adapters; None for none.
            projection: dimensions of the map's output; None for no map.
            seed: of all random numbers. The map starts with orthogonal rows or columns, which
                keep angles between embeddings as far as the dimensions allow.

        Raises:
            UnsupportedModalityError: the encoder has no such tower.
            InvalidInputError: adapters cannot be put on this tower.
            PreconditionError: this tower has adapters already.
        """
        super().__init__()
        if modality not in encoder.modalities:
            raise UnsupportedModalityError(
                f"{encoder.name} has no {modality} tower; it has "
                f"{', '.join(sorted(encoder.modalities))}"
            )
        self.encoder = encoder
        self.modality = modality
        self.lora = lora
        self.dim = projection or encoder.dim
        self.adapters: Adapters | None = None
        if lora is not None:
            self.adapters = attach(encoder, modality, lora, seed=seed)
            self.adapter_parameters = torch.nn.ParameterList(self.adapters.named.values())
        self.projection: torch.nn.Linear | None = None
        if projection is not None:
            self.projection = _orthogonal(encoder.dim, projection, seed)
            self.projection.to(getattr(encoder, "device", "cpu"))
        # The inputs of `forward` are embeddings if the encoder has no torch interface.
        self._frozen = not hasattr(encoder, "embed")
        self.eval()

    def prepare(self, batch: Sequence[Media]) -> Any:
        """Inputs of `forward`, on the encoder's device.

        Raises:
            as `Encoder.encode`.
        """
        if self._frozen:
            return torch.from_numpy(self.encoder.encode(self.modality, batch))
        encoder: Any = self.encoder
        return encoder.prepare(self.modality, batch)

    def forward(self, inputs: Any) -> torch.Tensor:
        """Embed the inputs that `prepare` returned; gradients flow to adapters and map.

        Returns:
            float32 [n, dim] of unit L2 norm, on the encoder's device.
        """
        if not self._frozen:
            encoder: Any = self.encoder
            inputs = encoder.embed(self.modality, inputs)
        return self.project(inputs)

    def encode(self, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embed media without gradients or dropout, in portions that fit.

        Returns:
            float32 [n, dim], each row of unit L2 norm; [0, dim] for an empty batch.

        Raises:
            as `Encoder.encode`.
        """
        training = self.training
        if training:
            self.eval()
        try:
            rows = self.encoder.encode(self.modality, batch)
        finally:
            if training:
                self.train()
        if self.projection is None:
            return rows
        with torch.inference_mode():
            on_device = torch.from_numpy(rows).to(self.projection.weight.device)
            projected: NDArray[np.float32] = self.project(on_device).cpu().numpy()
        if not np.allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-3):
            raise ModelDamagedError(
                f"{self.encoder.name}: the linear map behind its {self.modality} tower gives "
                "embeddings that are zero or not finite; train it again"
            )
        return projected

    def train(self, mode: bool = True) -> TrainableTower:
        """Switch the adapters' dropout; the tower stays in evaluation mode."""
        super().train(mode)
        if self.adapters is not None:
            self.adapters.set_training(mode)
        return self

    def named(self) -> dict[str, torch.nn.Parameter]:
        """The trained parameters, by the name they are saved under.

        `lora.<projection>.A`, `lora.<projection>.B`, `projection.weight` [dim, encoder.dim],
        `projection.bias` [dim]; empty for a tower with nothing added.
        """
        own: dict[str, torch.nn.Parameter] = {}
        if self.adapters is not None:
            for name, parameter in self.adapters.named.items():
                own[f"lora.{name}"] = parameter
        if self.projection is not None:
            for name, parameter in self.projection.named_parameters():
                own[f"projection.{name}"] = parameter
        return own

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the trained parameters, float32, by name."""
        return parameter_arrays(self.named())

    def digest(self) -> str:
        """Hex SHA-256 of everything that decides the embeddings now.

        Without adapters and map, the encoder's own; else a hash over that, the adapters' rank and
        scale, and the trained tensors.
        """
        base = self.encoder.digests[self.modality]
        tensors = self.tensors()
        if not tensors:
            return base
        lora = self.lora and {"rank": self.lora.rank, "alpha": self.lora.alpha}
        return tower_digest({"base": base, "lora": lora, "tensors": _sha256(tensors)})

    def project(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings of the encoder, on its device, after the map: float32 [n, dim]."""
        if self.projection is None:
            return embeddings
        with torch.autocast(embeddings.device.type, enabled=False):
            mapped = self.projection(embeddings.float())
        return torch.nn.functional.normalize(mapped, dim=-1)


def _orthogonal(inputs: int, outputs: int, seed: int) -> torch.nn.Linear:
    linear = torch.nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.orthogonal_(linear.weight, generator=generator)
    torch.nn.init.zeros_(linear.bias)
    return linear


def _sha256(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}\0{list(value.shape)}\n".encode())
        digest.update(np.ascontiguousarray(value, dtype="<f4").tobytes())
    return digest.hexdigest()
