"""Checks of a tower's inputs, and large batches in portions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Audio, Image, Media
from bittern.errors import InvalidInputError, ModelDamagedError, QueryError

if TYPE_CHECKING:
    import torch


def check_texts(batch: Sequence[Media], *, empty: bool = False) -> list[str]:
    """Check that every item is a text, and not empty unless `empty` allows it.

    Raises:
        InvalidInputError: an item is no `str`.
        QueryError: an item is empty.
    """
    texts: list[str] = []
    for i, item in enumerate(batch):
        if not isinstance(item, str):
            raise InvalidInputError(f"item {i} must be a text, not {_describe(item)}", field="text")
        if not empty and not item.strip():
            raise QueryError(f"text {i} is empty; give it at least one word", field="text")
        texts.append(item)
    return texts


def check_images(batch: Sequence[Media]) -> list[Image]:
    """Check that every item is uint8 [h, w, 3].

    Raises:
        InvalidInputError: an item is not.
    """
    images: list[Image] = []
    for i, item in enumerate(batch):
        if not (
            isinstance(item, np.ndarray)
            and item.dtype == np.uint8
            and item.ndim == 3
            and item.shape[2] == 3
            and item.size
        ):
            raise InvalidInputError(
                f"item {i} must be a picture, uint8 [height, width, 3], not {_describe(item)}",
                field="image",
            )
        images.append(item)  # type: ignore[arg-type]
    return images


def check_windows(batch: Sequence[Media], samples: int, *, up_to: bool = False) -> list[Audio]:
    """Check that every item is one window: float32 [samples], finite.

    Args:
        batch: the items.
        samples: length of a window.
        up_to: whether windows may be shorter.

    Raises:
        InvalidInputError: an item is not.
    """
    windows: list[Audio] = []
    for i, item in enumerate(batch):
        if not (
            isinstance(item, np.ndarray)
            and item.dtype == np.float32
            and item.ndim == 1
            and (0 < len(item) <= samples if up_to else len(item) == samples)
        ):
            length = f"up to {samples}" if up_to else samples
            raise InvalidInputError(
                f"item {i} must be one window of sound, float32 [{length}], not "
                f"{_describe(item)}; cut recordings with encoders.audio.windows",
                field="audio",
            )
        if not np.isfinite(item).all():
            raise InvalidInputError(f"window {i} holds NaN or infinity", field="audio")
        windows.append(item)  # type: ignore[arg-type]
    return windows


def _describe(item: object) -> str:
    if isinstance(item, np.ndarray):
        return f"{item.dtype} {list(item.shape)}"
    return type(item).__name__


def in_portions(
    batch: Sequence[Media],
    size: int,
    dim: int,
    embed: Callable[[Sequence[Media]], torch.Tensor],
) -> NDArray[np.float32]:
    """Embed a batch of any length, at most `size` items at a time.

    Args:
        batch: checked media.
        size: items per portion.
        dim: length of an embedding.
        embed: one portion to float [n, dim] of unit norm.

    Returns:
        float32 [n, dim]; [0, dim] for an empty batch.

    Raises:
        ModelDamagedError: an embedding is not finite.
    """
    rows = np.empty((len(batch), dim), dtype=np.float32)
    for start in range(0, len(batch), size):
        portion = batch[start : start + size]
        rows[start : start + len(portion)] = embed(portion).float().cpu().numpy()
    if not np.isfinite(rows).all():
        raise ModelDamagedError(
            "an embedding holds NaN or infinity: the weights are damaged, or the precision is "
            "too low for them (try precision='fp32')"
        )
    return rows
