"""Each rpc, through the client: the values that come back are those that the archive has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bittern.client import RemoteArchive
from bittern.errors import ObservationNotFoundError, PreconditionError, QueryError
from bittern.query import Query
from bittern.types import AddStatus, MediaItem
from tests.service.fake_archive import MODEL, FakeArchive, heron


def item(name: str, data: bytes = b"x") -> MediaItem:
    return MediaItem(name, f"{name}.jpg", "image", data=data, metadata={"license": "CC0"})


def test_search_by_words_gives_what_the_archive_found(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    result = remote.search("a heron", k=3, where="captive = false", metric="hamming", model=MODEL)
    query = Query(text="a heron", k=3, where="captive = false", metric="hamming", model=MODEL)
    assert served.seen == [query]
    expected = served.answer(query)
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    assert [hit.distance for hit in result.hits] == [hit.distance for hit in expected.hits]
    assert (result.model, result.target, result.metric) == (MODEL, "image", "hamming")
    assert (result.took_ms, result.exact, result.cutoff) == (expected.took_ms, True, None)


def test_a_server_that_knows_one_input_only_is_named_as_an_earlier_one(
    remote: RemoteArchive, served: FakeArchive
) -> None:
    served.failure = QueryError("nothing to search with; give one of text, image", field="query")
    with pytest.raises(PreconditionError, match="does not know a query of several inputs"):
        remote.search("a heron", id="obs-1")
    with pytest.raises(QueryError, match="nothing to search with"):
        remote.search("a heron")


@pytest.mark.parametrize(
    ("limits", "shown", "engine_name", "cutoff"),
    [
        ({"within": 2.5, "recall": 0.95}, 2, "ivf", 2.5),
        ({"relevance": "loose"}, 2, "flat", 2.0),
        ({"relevance": 0.37}, 3, "flat", 3.7),
    ],
)
def test_limits_and_recall_reach_the_archive_and_say_how_hits_were_found(
    remote: RemoteArchive,
    served: FakeArchive,
    limits: dict[str, Any],
    shown: int,
    engine_name: str,
    cutoff: float,
) -> None:
    result = remote.search("a heron", **limits)
    assert served.seen == [Query(text="a heron", **limits)]
    assert [hit.distance for hit in result.hits] == [1.0, 2.0, 3.0][:shown]
    assert (result.engine, result.exact) == (engine_name, engine_name == "flat")
    assert (result.cutoff, result.nearest) == (cutoff, None)


def test_where_nothing_is_near_enough_the_nearest_comes_along(remote: RemoteArchive) -> None:
    result = remote.search("a heron", within=0)
    assert result.hits == []
    assert (result.cutoff, result.exact) == (0.0, True)
    assert result.nearest is not None
    assert result.nearest.distance == 1.0
    assert result.nearest.observation == replace(heron(1), media_root="")


@pytest.mark.parametrize(
    "query",
    [
        {"image": b"\xff\xd8"},
        {"audio": b"RIFF"},
        {"id": "obs-1"},
        {"code": bytes(8)},
        {"text": "ein Reiher \N{BIRD}"},
    ],
)
def test_every_kind_of_query_reaches_the_archive_as_it_was(
    remote: RemoteArchive, served: FakeArchive, query: dict[str, str | bytes]
) -> None:
    remote.search(**query, target="audio")  # type: ignore[arg-type]
    assert served.seen == [Query(**query, target="audio")]  # type: ignore[arg-type]


def test_metadata_keep_their_types_and_their_exact_values(remote: RemoteArchive) -> None:
    found = remote.get("obs-1")
    assert found == replace(heron(1), media_root="")
    kinds = {column: type(value) for column, value in found.metadata.items()}
    assert kinds["individualCount"] is int
    assert kinds["captive"] is bool
    assert kinds["decimalLatitude"] is float


def test_the_window_of_a_recording_keeps_its_seconds(remote: RemoteArchive) -> None:
    found = remote.search("an owl", target="audio", k=1).hits[0].observation
    assert (found.start_s, found.end_s) == (0.0, 3.0)
    assert remote.get("obs-1").start_s is None


def test_media_root_stays_on_the_server(remote: RemoteArchive) -> None:
    assert all(o.media_root == "" for o in remote.list())
    assert "/secret/folder" not in repr(remote.search("a heron"))


def test_list_goes_through_all_pages(remote: RemoteArchive, served: FakeArchive) -> None:
    assert [o.id for o in remote.list(page_size=7)] == [o.id for o in served.observations]


def test_delete_says_what_was_removed(remote: RemoteArchive, served: FakeArchive) -> None:
    assert remote.delete(["obs-2", "obs-1"]) == ["obs-1", "obs-2"]
    assert remote.delete("owl")[:2] == ["owl#t=0,3", "owl#t=4,7"]
    assert remote.delete([]) == []
    with pytest.raises(ObservationNotFoundError, match="nobody"):
        remote.delete(["obs-3", "nobody"])
    assert "obs-3" in {o.id for o in served.observations}


def test_encode_gives_codes_and_exact_logits(remote: RemoteArchive, served: FakeArchive) -> None:
    assert remote.encode("a heron") == served.encode(text="a heron")
    assert remote.encode(audio=b"RIFF") == served.encode(audio=b"RIFF")


def test_stats_and_models_come_back_equal(remote: RemoteArchive, served: FakeArchive) -> None:
    assert remote.stats() == served.stats()
    assert remote.models() == served.models()


def test_add_stores_in_batches_and_counts(remote: RemoteArchive, served: FakeArchive) -> None:
    items = [item(f"n{i}") for i in range(5)] + [item("bad", b"")]
    adding = remote.add(items, batch_size=4)
    assert [len(batch) for batch in adding] == [4, 2]
    assert served.commits == [4, 2]
    totals = adding.totals
    assert (totals.added, totals.failed, totals.items, totals.observations) == (5, 1, 6, 5)
    assert totals.failures[0].reason == "UNREADABLE_MEDIA"
    assert served.added[0] == item("n0")


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        ("error", AddStatus.FAILED),
        ("skip", AddStatus.SKIPPED),
        ("overwrite", AddStatus.OVERWRITTEN),
    ],
)
def test_add_follows_the_policy_for_duplicates(
    remote: RemoteArchive, policy: str, status: AddStatus
) -> None:
    [[result]] = remote.add([item("obs-1")], on_duplicate=policy)  # type: ignore[arg-type]
    assert result.status is status


@pytest.mark.parametrize("limit", [{"within": 3.0}, {"relevance": "usual"}])
def test_a_server_of_an_earlier_version_that_ignores_a_limit_is_noticed(
    remote: RemoteArchive, served: FakeArchive, limit: dict[str, Any]
) -> None:
    served.names_itself = ""
    [name] = limit
    with pytest.raises(PreconditionError, match=f"earlier version, .* know `{name}`") as caught:
        remote.search("a heron", **limit)
    assert caught.value.field == name
    before = remote.search("a heron", recall=0.9)
    assert (before.engine, before.exact) == ("flat", True)
