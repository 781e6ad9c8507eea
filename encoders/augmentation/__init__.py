"""Augmentations: other views of the same picture or sound, for training.

A view goes through the tower's own `prepare` like any other picture or window. All randomness comes
from the generator argument: `view_generator` makes one per (seed, epoch, item, view), so a training
that is resumed, or that reads its media with other threads, sees the same views.

    augment = picture_augmentation("published")
    view = augment(image, view_generator(seed, epoch, item, view=0))
"""

from __future__ import annotations

import numpy as np

from bittern.encoders.augmentation.pictures import (
    PICTURE_SETS,
    PictureAugmentation,
    PicturePlan,
    picture_augmentation,
)
from bittern.encoders.augmentation.sounds import (
    SOUND_SETS,
    SoundAugmentation,
    SoundPlan,
    sound_augmentation,
)
from bittern.errors import InvalidInputError

__all__ = [
    "PICTURE_SETS",
    "SOUND_SETS",
    "PictureAugmentation",
    "PicturePlan",
    "SoundAugmentation",
    "SoundPlan",
    "picture_augmentation",
    "sound_augmentation",
    "view_generator",
    "view_seed",
]


_LIMIT = 1 << 32


def view_seed(seed: int, epoch: int, item: int, view: int) -> np.random.SeedSequence:
    """The seed of one view.

    Args:
        seed: of the training.
        epoch: counted from 0 or 1, as the training does.
        item: the item's position in the list of examples.
        view: the view's number among the views of the item.

    Returns:
        a seed that is unique to these four numbers.

    Raises:
        InvalidInputError: a number is negative or has more than 32 bits.
    """
    numbers = {"seed": seed, "epoch": epoch, "item": item, "view": view}
    for name, number in numbers.items():
        if not 0 <= number < _LIMIT:  # larger numbers would not be unique
            raise InvalidInputError(
                f"{name} must be a whole number from 0 to {_LIMIT - 1}, not {number}", field=name
            )
    return np.random.SeedSequence([int(number) for number in numbers.values()])


def view_generator(seed: int, epoch: int, item: int, view: int) -> np.random.Generator:
    """A fresh generator for one view; arguments and errors as `view_seed`."""
    return np.random.Generator(np.random.PCG64(view_seed(seed, epoch, item, view)))
