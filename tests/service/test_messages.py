"""Values survive the wire exactly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import MetadataError, QueryError
from bittern.query import Query, QueryInput
from bittern.service.grpc import messages
from bittern.types import (
    AddResult,
    AddStatus,
    ArchiveStats,
    EngineStats,
    Hit,
    ModelStats,
    Observation,
    SearchResult,
)
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import observation_pb2 as opb

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
    back = messages.observation_from_wire(messages.observation_to_wire(observation))
    assert back == observation
    kinds = {column: type(value) for column, value in observation.metadata.items()}
    assert {column: type(value) for column, value in back.metadata.items()} == kinds


def test_a_number_that_is_none_stays_one() -> None:
    observation = Observation("a", "a", "image", "a.jpg", metadata={"x": math.nan, "y": -0.0})
    back = messages.observation_from_wire(messages.observation_to_wire(observation)).metadata
    assert math.isnan(back["x"])  # type: ignore[arg-type]
    assert math.copysign(1, back["y"]) == -1  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, b"bytes", [1], {"a": 1}, object()])
def test_metadata_that_no_column_holds_are_refused_with_the_column(value: object) -> None:
    metadata = {"individualCount": value}
    observation = Observation("a", "a", "image", "a.jpg", metadata=metadata)  # type: ignore[arg-type]
    with pytest.raises(MetadataError, match="individualCount") as caught:
        messages.observation_to_wire(observation)
    assert caught.value.field == "individualCount"


HITS = st.builds(
    Hit,
    rank=st.integers(1, 10_000),
    distance=st.floats(0, 1024),
    observation=st.just(Observation("a", "a", "image", "a.jpg", row=3)),
)


@given(
    st.builds(
        SearchResult,
        model=TEXT,
        target=st.sampled_from(["image", "audio"]),
        metric=st.sampled_from(["asymmetric", "hamming"]),
        took_ms=st.floats(0, 1e6),
        hits=st.lists(HITS, max_size=3),
        engine=st.sampled_from(["flat", "ivf", "graph", "gpu", "sharded"]),
        exact=st.booleans(),
        cutoff=st.none() | st.floats(0, 1024),
        nearest=st.none() | HITS,
    )
)
def test_a_search_result_comes_back_equal(result: SearchResult) -> None:
    message = pb.SearchResponse.FromString(messages.result_to_wire(result).SerializeToString())
    assert messages.result_from_wire(message) == result


@given(
    st.builds(
        Query,
        inputs=st.lists(
            st.builds(QueryInput, st.just("text"), TEXT.filter(str.strip), name=TEXT)
            | st.builds(
                QueryInput, st.sampled_from(["image", "audio", "code"]), st.binary(min_size=1)
            )
            | st.builds(QueryInput, st.just("id"), TEXT, minus=st.booleans()),
            min_size=1,
            max_size=5,
            unique_by=lambda each: (each.kind, each.value),
        )
        .filter(lambda several: not all(each.minus for each in several))
        .map(tuple),
        within=st.none() | st.floats(0, 1e300),
        relevance=st.none() | st.floats(0.001, 0.5),
        recall=st.none() | st.floats(0, 1, exclude_min=True),
    )
)
def test_a_query_comes_back_equal(query: Query) -> None:
    message = pb.SearchRequest.FromString(messages.query_to_wire(query, "a").SerializeToString())
    back = messages.query_from_wire(message)
    assert back == query
    assert [each.name for each in back.inputs] == [each.name for each in query.inputs]
    assert bool(message.inputs) == (len(query.inputs) > 1)  # servers of 0.1.0 know one input


def test_an_answer_of_a_server_that_names_no_engine_was_exact() -> None:
    before = pb.SearchResponse(model="m", target=opb.MODALITY_IMAGE, metric=pb.METRIC_HAMMING)
    result = messages.result_from_wire(before)
    assert (result.engine, result.exact, result.cutoff, result.nearest) == (
        "flat",
        True,
        None,
        None,
    )


def test_a_request_without_new_options_has_no_new_fields() -> None:
    message = messages.query_to_wire(Query(text="a heron"), "")
    assert {field.name for field, _ in message.ListFields()} == {"text", "k"}


def test_statistics_come_back_equal_with_and_without_engines() -> None:
    engine = EngineStats("graph", False, "requested", 2**40, 2**45, 7, "graph over 5 rows")
    stats = ArchiveStats(
        name="a",
        observations={"image": 2},
        recordings=0,
        models=[
            ModelStats("new", "ab", 256, {"image": 2, "audio": 0}, {"image": engine}),
            ModelStats("old", "cd", 64, {"image": 1}),
        ],
        generation=3,
        code_bytes=64,
        columns={"license": "string"},
    )
    assert messages.stats_from_wire(messages.stats_to_wire(stats, "a")) == stats


@pytest.mark.parametrize("status", AddStatus)
def test_every_add_status_comes_back_equal(status: AddStatus) -> None:
    result = AddResult("a", status, 3, "WHY", "because")
    assert messages.add_result_from_wire(messages.add_result_to_wire(result)) == result


@pytest.mark.parametrize("modality", ["text", "image", "audio", None])
def test_every_modality_comes_back_equal(modality: str | None) -> None:
    assert messages.modality_from_wire(messages.modality_to_wire(modality)) == modality


def test_an_unknown_modality_is_refused_with_the_known_ones() -> None:
    with pytest.raises(QueryError, match="text, image, audio, not 'smell'"):
        messages.modality_to_wire("smell")
