"""Views of photographs: `Image` in, `Image` of one size out.

``published`` is the set of CroVCA (arXiv 2510.27584): random resized crop, flip, colour jitter,
greyscale, blur, solarize, with that paper's probabilities. ``plants`` follows what the same group
reports for plants: blur, greyscale and solarize hurt there (leaf texture and flower colour
distinguish species), affine maps and posterizing help. The paper does not give the blur's width
(taken from BYOL, arXiv 2006.07733), the threshold of solarize, and the strength and probability of
the plants' affine maps and posterizing: these values are ours.

The crop is that of torchvision's `RandomResizedCrop` (aspect ratio 3:4 to 4:3, ten tries, then
the centre); the pixel operations are torchvision's functional ones, which use no random numbers.
The random numbers of a view form a `PicturePlan`, which is applied afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bittern.encoders.base import Image
from bittern.encoders.batching import check_images
from bittern.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10
_BLUR_SIGMA = (0.1, 2.0)
_SOLARIZE_FROM = 128
_POSTERIZE_BITS = 4
_DEGREES, _SHIFT, _ZOOM, _SHEAR = 15.0, 0.1, (0.9, 1.1), 5.0
MIN_SIZE, MAX_SIZE = 8, 2048
"""Least and most pixels that a side of a view may have."""


@dataclass(frozen=True, slots=True)
class AffineMap:
    """Turn and shear in degrees, shift in shares of a side, and zoom."""

    angle: float
    shift: tuple[float, float]
    zoom: float
    shear: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PicturePlan:
    """The operations of one view, in this order.

    Attributes:
        crop: top, left, height and width in pixels.
        flip: mirror left and right.
        jitter: ``brightness``, ``contrast`` and ``saturation`` with their factor, ``hue`` with
            its shift in turns, in the order in which they are applied; empty for none.
        affine: None for none.
        posterize: bits kept per channel; None for all.
        greyscale: whether colour is dropped.
        blur: sigma in pixels; None for no blur.
        solarize: values from this one on are inverted; None for none.
    """

    crop: tuple[int, int, int, int]
    flip: bool
    jitter: tuple[tuple[str, float], ...] = ()
    affine: AffineMap | None = None
    posterize: int | None = None
    greyscale: bool = False
    blur: float | None = None
    solarize: int | None = None


@dataclass(frozen=True, slots=True)
class PictureAugmentation:
    """A set of operations, each with its probability.

    Attributes:
        size: pixels of a side of the view.
        crop_area: least and most share of the picture's area.
        jitter: greatest change of brightness, contrast, saturation and hue.
        flip_p: probability of the mirror image; the other `_p` are those of their operations.
    """

    size: int = 224
    crop_area: tuple[float, float] = (0.4, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
    flip_p: float = 0.5
    jitter_p: float = 0.8
    affine_p: float = 0.0
    posterize_p: float = 0.0
    greyscale_p: float = 0.0
    blur_p: float = 0.0
    solarize_p: float = 0.0

    def __call__(self, image: Image, generator: np.random.Generator) -> Image:
        """One view.

        Args:
            image: uint8 [h, w, 3], never changed.
            generator: the only source of randomness.

        Returns:
            uint8 [size, size, 3].

        Raises:
            InvalidInputError: not a picture.
        """
        check_images([image])
        return self.apply(image, self.draw(image.shape[0], image.shape[1], generator))

    def draw(self, height: int, width: int, generator: np.random.Generator) -> PicturePlan:
        """Draw the operations of a view of a picture of this size.

        The probabilities do not change which numbers are drawn. Those of the crop come last,
        since their count depends on the picture.
        """
        chances = generator.random(7)
        jitter = self._jitter(generator)
        affine = _affine(generator)
        sigma = float(generator.uniform(*_BLUR_SIGMA))
        return PicturePlan(
            crop=self._crop(height, width, generator),
            flip=bool(chances[0] < self.flip_p),
            jitter=jitter if chances[1] < self.jitter_p else (),
            affine=affine if chances[2] < self.affine_p else None,
            posterize=_POSTERIZE_BITS if chances[3] < self.posterize_p else None,
            greyscale=bool(chances[4] < self.greyscale_p),
            blur=sigma if chances[5] < self.blur_p else None,
            solarize=_SOLARIZE_FROM if chances[6] < self.solarize_p else None,
        )

    def apply(self, image: Image, plan: PicturePlan) -> Image:
        """The view that a plan describes: uint8 [h, w, 3] to uint8 [size, size, 3]."""
        import torch

        top, left, height, width = plan.crop
        cropped = np.array(image[top : top + height, left : left + width])  # a copy
        with torch.inference_mode():
            pixels = self._edit(torch.from_numpy(cropped).permute(2, 0, 1), plan)
            view: Image = pixels.permute(1, 2, 0).contiguous().numpy()
        return view

    def _edit(self, pixels: torch.Tensor, plan: PicturePlan) -> torch.Tensor:
        """Everything after the crop; uint8 [3, h, w] to uint8 [3, size, size]."""
        from torchvision.transforms.v2 import functional

        pixels = functional.resize(pixels, [self.size, self.size], antialias=True)
        if plan.flip:
            pixels = functional.horizontal_flip(pixels)
        for name, amount in plan.jitter:
            adjust: Any = getattr(functional, f"adjust_{name}")
            pixels = adjust(pixels, amount)
        if plan.affine is not None:
            pixels = _mapped(pixels, plan.affine)
        if plan.posterize is not None:
            pixels = functional.posterize(pixels, plan.posterize)
        if plan.greyscale:
            pixels = functional.rgb_to_grayscale(pixels, num_output_channels=3)
        if plan.blur is not None:
            kernel = max(3, self.size // 10 // 2 * 2 + 1)
            pixels = functional.gaussian_blur(pixels, [kernel, kernel], [plan.blur, plan.blur])
        if plan.solarize is not None:
            pixels = functional.solarize(pixels, plan.solarize)
        return pixels

    def _jitter(self, generator: np.random.Generator) -> tuple[tuple[str, float], ...]:
        brightness, contrast, saturation, hue = self.jitter
        amounts = [
            ("brightness", float(generator.uniform(1 - brightness, 1 + brightness))),
            ("contrast", float(generator.uniform(1 - contrast, 1 + contrast))),
            ("saturation", float(generator.uniform(1 - saturation, 1 + saturation))),
            ("hue", float(generator.uniform(-hue, hue))),
        ]
        return tuple(amounts[i] for i in generator.permutation(4))

    def _crop(
        self, height: int, width: int, generator: np.random.Generator
    ) -> tuple[int, int, int, int]:
        for _ in range(_TRIES):
            area = height * width * generator.uniform(*self.crop_area)
            aspect = math.exp(generator.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top = int(generator.integers(height - h + 1))
                return top, int(generator.integers(width - w + 1)), h, w
        w = min(width, max(1, round(height * _ASPECT[1])))
        h = min(height, max(1, round(width / _ASPECT[0])))
        return (height - h) // 2, (width - w) // 2, h, w


def _affine(generator: np.random.Generator) -> AffineMap:
    x, y = generator.uniform(-_SHIFT, _SHIFT, 2)
    shear_x, shear_y = generator.uniform(-_SHEAR, _SHEAR, 2)
    return AffineMap(
        angle=float(generator.uniform(-_DEGREES, _DEGREES)),
        shift=(float(x), float(y)),
        zoom=float(generator.uniform(*_ZOOM)),
        shear=(float(shear_x), float(shear_y)),
    )


def _mapped(pixels: torch.Tensor, affine: AffineMap) -> torch.Tensor:
    """Map the picture; empty corners get its mean colour, since black ones would be a cue.

    The mean is subtracted and added again: torchvision's own `fill` leaves a dark seam.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    mean = pixels.float().mean(dim=(1, 2), keepdim=True)
    mapped: torch.Tensor = functional.affine(
        pixels.float() - mean,
        angle=affine.angle,
        translate=[share * pixels.shape[-1] for share in affine.shift],
        scale=affine.zoom,
        shear=list(affine.shear),
        interpolation=InterpolationMode.BILINEAR,
    )
    return (mapped + mean).round().clamp(0, 255).to(pixels.dtype)


PICTURE_SETS: Mapping[str, PictureAugmentation | None] = {
    "published": PictureAugmentation(greyscale_p=0.2, blur_p=0.1, solarize_p=0.1),
    "plants": PictureAugmentation(affine_p=0.5, posterize_p=0.2),
    "none": None,
}
"""The named sets; None changes nothing."""


def picture_augmentation(
    name: str, size: int = 224
) -> Callable[[Image, np.random.Generator], Image]:
    """A named set.

    Args:
        name: ``published``, ``plants``, or ``none``, which returns pictures unchanged.
        size: pixels of a side of the views; the tower's input size.

    Returns:
        picture and generator to picture, uint8 [h, w, 3].

    Raises:
        InvalidInputError: no such set, or a size out of range.
    """
    if name not in PICTURE_SETS:
        raise InvalidInputError(
            f"there are no picture augmentations {name!r}; choose one of {', '.join(PICTURE_SETS)}",
            field="augmentation",
        )
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InvalidInputError(
            f"views of {size} x {size} pixels are out of range; a side has {MIN_SIZE} to "
            f"{MAX_SIZE} pixels",
            field="size",
        )
    chosen = PICTURE_SETS[name]
    return _unchanged if chosen is None else replace(chosen, size=size)


def _unchanged(image: Image, generator: np.random.Generator) -> Image:
    check_images([image])
    return image
