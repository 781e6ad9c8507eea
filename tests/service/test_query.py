"""A query is checked when it is made, and by the server when its message arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest

import bittern.query
from bittern.errors import BitternError, CodeError, FilterError, MediaTooLargeError, QueryError
from bittern.query import MAX_K, MAX_TEXT_CHARS, Query, QueryInput
from bittern.service.grpc.status import from_rpc_error
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_archive import FakeArchive

ON_THE_WIRE: list[tuple[dict[str, Any], str]] = [
    ({"text": ""}, "the text is empty"),
    ({"text": " \n\t"}, "the text is empty"),
    ({"text": "x" * 100_000}, "100000 characters, the limit is 2000"),
    ({"text": "red", "k": 0}, "from 1 to 10000, not 0"),
    ({"text": "red", "k": -1}, "not -1"),
    ({"text": "red", "k": 2**62}, f"not {2**62}"),
    ({"text": "red", "where": "x" * 10_001}, "the limit is 10000"),
    ({"text": "red", "model": "x" * 5_000}, "5000 characters"),
    ({"text": "red", "within": -1e-9}, "0 or more, not -1e-09"),
    ({"text": "red", "within": float("nan")}, "not nan"),
    ({"text": "red", "within": float("inf")}, "not inf"),
    ({"text": "red", "recall": 0.0}, "above 0 and at most 1"),
    ({"text": "red", "recall": 1.0001}, "not 1.0001"),
    ({"text": "red", "recall": float("nan")}, "not nan"),
    ({"inputs": [pb.QueryInput(text="red", minus=True)]}, "everything given is to be subtracted"),
    (
        {"inputs": [pb.QueryInput(text="red"), pb.QueryInput(text="red", minus=True)]},
        "'red' is both looked for and subtracted",
    ),
    ({"inputs": [pb.QueryInput(text=str(n)) for n in range(21)]}, "21 inputs, the limit is 20"),
    ({"inputs": [pb.QueryInput(text="red"), pb.QueryInput(text=" ")]}, "the text is empty"),
    ({"image": b""}, "the image is empty"),
    ({"audio": b""}, "the audio is empty"),
]
IN_PROCESS: list[tuple[dict[str, Any], str]] = [
    ({}, "give at least one of text, image, audio, id, code"),
    ({"text": 5}, "text must be text, not int"),
    ({"text": "a \ud800 heron"}, "not Unicode text"),
    ({"id": 5}, "id must be text, not int"),
    ({"id": "red.png", "metric": "asymmetric"}, "use the hamming metric"),
    ({"code": "x" * 32}, "code must be bytes, not str"),
    ({"image": "x.png"}, "image must be bytes, not str"),
    ({"text": "red", "where": 5}, "where must be text, not int"),
    ({"text": "red", "model": 5}, "model must be text, not int"),
    ({"text": "red", "target": "text"}, "image or audio, not 'text'"),
    ({"text": "red", "target": ["image"]}, "not ['image']"),
    ({"text": "red", "metric": "cosine"}, "asymmetric or hamming, not 'cosine'"),
    *[({"text": "red", "k": k}, "k must be a whole") for k in (True, 2.0, "3", None, 10**30)],
    *[
        ({"text": "red", name: value}, f"{name} must be")
        for name in ("within", "recall", "relevance")
        for value in (True, "1", [1], 10**400, 1j)
    ],
    *[
        ({"text": "red", "relevance": value}, "strict, usual, loose, or a number from 0.001 to 0.5")
        for value in ("very", 0.0, 0.0009, 0.51, 1, float("nan"), float("inf"))
    ],
]


def refusal(inputs: Sequence[pb.QueryInput] = (), **given: Any) -> BitternError:
    with pytest.raises(BitternError) as caught:
        Query(inputs=tuple(QueryInput("text", each.text, each.minus) for each in inputs), **given)
    return caught.value


@pytest.mark.parametrize(("given", "message"), [*ON_THE_WIRE, *IN_PROCESS])
def test_a_query_that_cannot_be_answered_says_why(given: dict[str, Any], message: str) -> None:
    error = refusal(**given)
    kinds = {"where": FilterError, "code": CodeError}
    assert type(error) in (QueryError, kinds.get(error.field))
    assert message in error.message


@pytest.mark.parametrize(("given", "message"), ON_THE_WIRE)
def test_the_server_refuses_what_a_client_has_not_checked_in_the_same_words(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Search(pb.SearchRequest(**given), timeout=20)
    there, here = from_rpc_error(caught.value, "server"), refusal(**given)
    assert type(there) is type(here)
    assert (there.message, there.field) == (here.message, here.field)
    assert served.seen == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to search with"),
        ({"text": "red", "inputs": [pb.QueryInput(id="x")]}, "either text or inputs, not both"),
        ({"inputs": [pb.QueryInput(text="red"), pb.QueryInput()]}, "an input is empty"),
    ],
)
def test_the_server_refuses_inputs_that_only_a_message_can_hold(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(grpc.RpcError, match=message):
        stub.Search(pb.SearchRequest(**given), timeout=20)
    assert served.seen == []


def test_files_of_one_query_fit_into_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bittern.query, "MAX_MEDIA_BYTES", 10)
    files = [QueryInput("image", b"12345"), QueryInput("audio", b"123456", minus=True)]
    assert Query(inputs=(files[0],) * 2).inputs == (files[0],) * 2
    with pytest.raises(MediaTooLargeError, match="11 bytes together, the limit is 10"):
        Query(inputs=tuple(files))


@pytest.mark.parametrize("relevance", [0.0, -0.5, 0.0009, 0.51, float("nan"), float("inf")])
def test_levels_of_relevance_have_no_names_on_the_wire(
    stub: pb_grpc.ArchiveServiceStub, served: FakeArchive, relevance: float
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Search(pb.SearchRequest(text="a heron", relevance=relevance), timeout=20)
    error = from_rpc_error(caught.value, "server")
    assert type(error) is QueryError
    assert error.message.startswith("relevance must be a number from 0.001 to 0.5 (the share of")
    assert error.message.endswith(f"not {relevance!r}")
    assert (error.field, served.seen) == ("relevance", [])


def test_numbers_of_numpy_become_plain_numbers() -> None:
    given: dict[str, Any] = {"k": np.int64(3), "within": np.float32(2.5), "recall": np.float32(0.5)}
    query = Query(text="a heron", relevance=np.float64(0.25), **given)
    values = (query.k, query.within, query.relevance, query.recall)
    assert values == (3, 2.5, 0.25, 0.5)
    assert [type(value) for value in values] == [int, float, float, float]


def test_levels_of_relevance_are_shares_that_rise() -> None:
    shares = [Query(text="x", relevance=level).relevance for level in ("strict", "usual", "loose")]
    assert shares == [0.01, 0.05, 0.2]


def test_other_bytes_and_an_empty_model_get_their_plain_form() -> None:
    query = Query(code=bytearray(8), model="")  # type: ignore[arg-type]
    [given] = query.inputs
    assert (given.value, type(given.value), query.model) == (bytes(8), bytes, None)
    assert str(Query(text="x", within=-0.0).within) == "0.0"


def test_the_ends_of_the_ranges_are_allowed() -> None:
    Query(text="x" * MAX_TEXT_CHARS, k=MAX_K, where="x" * 10_000, relevance=0.001, recall=1)
    Query(text="x", k=1, within=1e300, relevance=0.5, recall=1e-9)
