"""Captions of names."""

from __future__ import annotations

import pytest

from bittern.encoders.prompts import (
    AUDIO_TEMPLATES,
    IMAGE_TEMPLATES,
    Names,
    captions,
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
