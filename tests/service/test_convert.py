"""Values survive the wire exactly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import MetadataError, QueryError
from index.observation import AddResult, AddStatus, Observation
from service import convert, convert_add

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
)


@given(
    st.builds(
        Observation,
        id=TEXT,
        occurrence_id=TEXT,
        modality=st.sampled_from(["image", "audio"]),
        media=TEXT,
        start_s=st.none() | st.floats(0, 1e6),
        end_s=st.none() | st.floats(0, 1e6),
        metadata=st.dictionaries(TEXT, VALUES),
        row=st.integers(-1, 2**62),
    )
)
def test_an_observation_comes_back_equal(observation: Observation) -> None:
    back = convert.observation_from_wire(convert.observation_to_wire(observation))
    assert back == observation
    kinds = {column: type(value) for column, value in observation.metadata.items()}
    assert {column: type(value) for column, value in back.metadata.items()} == kinds


def test_a_number_that_is_none_stays_one() -> None:
    observation = Observation("a", "a", "image", "a.jpg", metadata={"x": math.nan, "y": -0.0})
    back = convert.observation_from_wire(convert.observation_to_wire(observation)).metadata
    assert math.isnan(back["x"])  # type: ignore[arg-type]
    assert math.copysign(1, back["y"]) == -1  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, b"bytes", [1], {"a": 1}, object()])
def test_metadata_that_no_column_holds_are_refused_with_the_column(value: object) -> None:
    metadata = {"individualCount": value}
    observation = Observation("a", "a", "image", "a.jpg", metadata=metadata)  # type: ignore[arg-type]
    with pytest.raises(MetadataError, match="individualCount") as caught:
        convert.observation_to_wire(observation)
    assert caught.value.field == "individualCount"


@pytest.mark.parametrize("status", AddStatus)
def test_every_add_status_comes_back_equal(status: AddStatus) -> None:
    result = AddResult("a", status, 3, "WHY", "because")
    assert convert_add.add_result_from_wire(convert_add.add_result_to_wire(result)) == result


@pytest.mark.parametrize("modality", ["text", "image", "audio", None])
def test_every_modality_comes_back_equal(modality: str | None) -> None:
    assert convert.modality_from_wire(convert.modality_to_wire(modality)) == modality


def test_an_unknown_modality_is_refused_with_the_known_ones() -> None:
    with pytest.raises(QueryError, match="text, image, audio, not 'smell'"):
        convert.modality_to_wire("smell")
