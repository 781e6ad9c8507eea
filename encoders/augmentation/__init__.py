"""Augmentations: other views of the same picture or sound, for training.

A view goes through the tower's own `prepare` like any other picture or window, so every tower
keeps its own resizing and normalisation. All randomness comes from the generator that is handed
in, none from global state: `view_generator` gives one per (seed, epoch, item, view), and so a
training that is resumed, or that reads its media with other threads, sees the same views.

    augment = picture_augmentation("published")
    view = augment(image, view_generator(seed, epoch, item, view=0))
"""

from __future__ import annotations

from bittern.encoders.augmentation.pictures import (
    PICTURE_SETS,
    PictureAugmentation,
    PicturePlan,
    picture_augmentation,
)
from bittern.encoders.augmentation.seeds import view_generator, view_seed
from bittern.encoders.augmentation.sounds import (
    SOUND_SETS,
    SoundAugmentation,
    SoundPlan,
    sound_augmentation,
)

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
