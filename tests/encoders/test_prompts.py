"""Captions of names, and their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.encoders.base import AudioWindowing, Media, Modality
from bittern.encoders.openclip import OpenClipEncoder
from bittern.encoders.prompts import (
    AUDIO_TEMPLATES,
    IMAGE_TEMPLATES,
    Names,
    captions,
    class_embedding,
)
from bittern.errors import InvalidInputError, QueryError

OWL = Names(common="tawny owl", scientific="Strix aluco", taxonomy="Animalia Chordata Aves")


def test_captions_are_those_of_the_papers() -> None:
    assert captions(OWL, IMAGE_TEMPLATES) == [
        "a photo of tawny owl",
        "Strix aluco",
        "Animalia Chordata Aves",
        "Strix aluco with common name tawny owl",
    ]
    assert captions(OWL, AUDIO_TEMPLATES) == ["The sound of tawny owl"]


def test_templates_that_need_an_unknown_name_are_left_out() -> None:
    assert captions(Names(scientific="Strix aluco"), IMAGE_TEMPLATES) == ["Strix aluco"]


def test_repeated_captions_count_once() -> None:
    same = Names(scientific="Strix aluco", taxonomy="Strix aluco")
    assert captions(same, IMAGE_TEMPLATES) == ["Strix aluco"]


@pytest.mark.parametrize("names", [Names(), Names(common="   ")])
def test_no_name_at_all_is_refused(names: Names) -> None:
    with pytest.raises(QueryError, match="none of the templates"):
        captions(names, IMAGE_TEMPLATES)


@pytest.mark.parametrize("template", ["a {colour} owl", "an owl", "{", "{common.__class__}", "{}"])
def test_template_with_other_fields_is_refused(template: str) -> None:
    with pytest.raises(InvalidInputError, match="template"):
        captions(OWL, [template])


def test_class_embedding_is_the_mean_direction_of_its_captions(openclip: OpenClipEncoder) -> None:
    rows = openclip.encode(Modality.TEXT, captions(OWL, IMAGE_TEMPLATES))
    mean = rows.mean(axis=0)
    embedding = class_embedding(openclip, OWL)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=1e-6)


def test_captions_that_cancel_out_are_refused() -> None:
    class Contrary:
        name, dim = "contrary", 2
        modalities = frozenset({Modality.TEXT})
        windowing: AudioWindowing | None = None
        digests: Mapping[Modality, str] = {}

        def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
            return np.array([[1, 0], [-1, 0]], dtype=np.float32)

    with pytest.raises(QueryError, match="opposite"):
        class_embedding(Contrary(), OWL, ["{common}", "{scientific}"])
