"""One set of expectations for an archive opened in process and one reached over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.api import ArchiveAPI
from bittern.errors import (
    BitternError,
    CodeError,
    DuplicateObservationError,
    FilterError,
    InvalidInputError,
    ModelNotFoundError,
    ObservationNotFoundError,
    QueryError,
    UnsupportedMediaError,
)
from bittern.hashing.codes import unpack
from bittern.service.local.archive import LocalArchive
from bittern.service.local.sample_check import check_sample
from bittern.types import AddStatus, MediaItem
from tests.engine.toy import picture, sound


def test_words_pictures_sounds_ids_and_codes_find(archive: ArchiveAPI) -> None:
    code = archive.encode(image=picture("green", jitter=1))[0].code
    found = [
        archive.search("green", target="image"),
        archive.search(image=picture("green"), target="image"),
        archive.search(audio=sound("green"), target="image"),
        archive.search(id="green.png"),
        archive.search(code=code),
    ]
    assert {result.hits[0].observation.id for result in found} == {"green.png"}
    assert [result.metric for result in found] == ["asymmetric"] * 3 + ["hamming"] * 2


def test_the_logits_of_several_inputs_are_averaged_and_half_of_the_subtracted_taken_off(
    local: LocalArchive, archive: ArchiveAPI
) -> None:
    def logits(**given: Any) -> NDArray[np.float64]:
        return np.array(archive.encode(**given)[0].logits)

    digest = local.registry.find().digest
    stored = {o.id: unpack(local.archive.code(o.id, digest)[None])[0] for o in archive.list()}
    wanted = [logits(text="green"), logits(audio=sound("red")), 2.0 * stored["red.png"] - 1]
    away = [logits(image=picture("blue")), 2.0 * stored["sounds/blue.wav"] - 1]
    z = np.mean(wanted, axis=0) - np.mean(away, axis=0) / 2
    result = archive.search(
        "green",
        audio=[sound("red")],
        id="red.png",
        minus={"image": picture("blue"), "id": ["sounds/blue.wav"]},
        target="image",
    )
    distances = {o: np.abs(1 / (1 + np.exp(-z)) - stored[o]).sum() for o in stored if "png" in o}
    assert result.metric == "asymmetric"
    assert [hit.id for hit in result] == sorted(distances, key=lambda o: distances[o])
    assert [hit.distance for hit in result] == pytest.approx(sorted(distances.values()), abs=1e-4)


def test_several_ids_are_one_query(archive: ArchiveAPI) -> None:
    found = archive.search(id=["red.png", "green.png"])
    assert {hit.id for hit in found[:2]} == {"red.png", "green.png"}
    assert archive.search(id=["red.png", "green.png"], metric="hamming").metric == "hamming"
    with pytest.raises(ObservationNotFoundError, match="nobody"):
        archive.search(id=["red.png", "nobody"])


def test_what_is_subtracted_comes_last(archive: ArchiveAPI) -> None:
    for given in ({"text": "blue"}, {"image": picture("blue")}, {"id": "blue.png"}):
        found = archive.search(["red", "green"], minus=given, target="image")
        assert found[-1].id == "blue.png"


def test_a_file_that_cannot_be_used_is_named(archive: ArchiveAPI, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not one")
    broken = str(tmp_path / "broken.jpg")
    calls: list[Callable[[], object]] = [
        lambda: archive.search(image=broken),
        lambda: archive.search(image=[picture("red"), broken]),
        lambda: archive.search("red", minus={"image": broken}),
        lambda: archive.encode(image=broken),
    ]
    for call in calls:
        with pytest.raises(UnsupportedMediaError, match=r"^broken\.jpg: "):
            call()


def test_answers_are_the_same_both_ways(local: LocalArchive, archive: ArchiveAPI) -> None:
    here = local.search("blue", target="audio", k=4)
    there = archive.search("blue", target="audio", k=4)
    hidden = [replace(h, observation=replace(h.observation, media_root="")) for h in here.hits]
    seen = [replace(h, observation=replace(h.observation, media_root="")) for h in there.hits]
    assert [replace(h, observation=replace(h.observation, row=-1)) for h in hidden] == [
        replace(h, observation=replace(h.observation, row=-1)) for h in seen
    ]


def test_hits_within_a_distance_are_those_and_no_others(archive: ArchiveAPI) -> None:
    everything = archive.search("red", target="image").hits
    radius = everything[1].distance
    result = archive.search("red", target="image", within=radius)
    assert [hit.distance for hit in result.hits] == [h.distance for h in everything[:2]]
    assert (result.cutoff, result.nearest) == (radius, None)
    assert len(archive.search("red", target="image", within=radius, k=1).hits) == 1


def test_nothing_near_enough_is_an_answer_that_names_the_nearest(archive: ArchiveAPI) -> None:
    first = archive.search("red", target="image").hits[0]
    result = archive.search("red", target="image", within=first.distance / 2)
    assert result.hits == []
    assert result.cutoff == first.distance / 2
    assert result.nearest == first
    assert "the nearest is" in str(result)


def test_nothing_that_matches_has_no_nearest(archive: ArchiveAPI) -> None:
    nobody = "occurrenceID = 'nobody'"
    result = archive.search("red", target="image", within=0, where=nobody)
    assert (result.hits, result.nearest) == ([], None)


def test_a_small_archive_is_searched_exactly_whatever_recall_is_wanted(
    archive: ArchiveAPI,
) -> None:
    exactly = archive.search("red", target="image")
    assert (exactly.engine, exactly.exact, exactly.cutoff) == ("flat", True, None)
    loosely = archive.search("red", target="image", recall=0.5)
    assert (loosely.engine, loosely.exact) == ("flat", True)
    assert loosely.hits == exactly.hits


def test_adding_getting_listing_and_deleting(archive: ArchiveAPI) -> None:
    item = MediaItem(
        "new", "../../etc/passwd", "image", data=picture("red"), metadata={"count": 3, "x": 0.1}
    )
    assert [[r.status for r in batch] for batch in archive.add([item])] == [[AddStatus.ADDED]]
    stored = archive.get("new")
    assert stored.media == "../../etc/passwd"
    assert dict(stored.metadata) == {"count": 3, "x": 0.1}
    assert "new" in {o.id for o in archive.list(page_size=2)}
    [[again]] = archive.add([item])
    assert again.reason == DuplicateObservationError("").reason
    assert archive.delete("new") == ["new"]
    with pytest.raises(ObservationNotFoundError):
        archive.get("new")


@pytest.mark.parametrize(
    "name", ["", "\u3000 ", "a\nb", "a\x9bb", "a\x7f", "a\u2028b", "\ud800", "é" * 2_049]
)
def test_ids_and_media_names_fit_on_one_line(archive: ArchiveAPI, name: str) -> None:
    good = MediaItem("new", "a.png", "image", data=picture("red"))
    items = [replace(good, occurrence_id=name), replace(good, media=name), good]
    *results, added = [result for batch in archive.add(items) for result in batch]
    assert all(result.reason in ("METADATA", "INVALID_INPUT") for result in results)
    assert all(len(result.message) < 300 for result in results)
    assert added.status is AddStatus.ADDED


def test_what_is_no_id_is_not_looked_up(archive: ArchiveAPI) -> None:
    for call in (archive.get, archive.delete, lambda name: archive.search(id=name)):
        with pytest.raises(QueryError, match="no id has more than 2,048"):
            call("x" * 2_049)


def test_a_media_name_of_an_earlier_release_is_shortened(
    local: LocalArchive, archive: ArchiveAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "x" * (50 << 20)
    with monkeypatch.context() as earlier:
        for module in ("client", "service.ingest.commit"):
            earlier.setattr(f"bittern.{module}.check_names", lambda item: None)
        earlier.setattr("bittern.index.adding.check_name", lambda *given: None)
        item = MediaItem("old", name, "image", data=picture("red"), media_root="/")
        [[added]] = archive.add([item])
    assert added.status is AddStatus.ADDED
    hits = archive.search("red", target="image").hits
    assert {hit.id: hit.media for hit in hits}["old"] == "x" * 4_095 + "…"
    assert archive.get("old").media.endswith("…")
    assert check_sample(local.archive, 0).missing == (archive is local)


def test_stats_and_models_agree_with_what_was_indexed(
    local: LocalArchive, archive: ArchiveAPI
) -> None:
    local.load_codes()
    stats = archive.stats()
    engines = stats.models[0].engines
    assert set(engines) == {"image", "audio"}
    pictures = engines["image"]
    assert (pictures.kind, pictures.exact, pictures.rows) == ("flat", True, 3)
    assert pictures.code_bytes >= 3 * 8
    assert pictures.reason
    assert dict(stats.observations) == {"image": 3, "audio": 5}
    assert stats.recordings == 4
    [model] = archive.models()
    assert (model.name, model.bits, set(model.modalities)) == (
        "toy-64",
        64,
        {"text", "image", "audio"},
    )


Call = Callable[[Any], object]
"""A call on an archive, with arguments that no type checker accepts."""

MISTAKES: dict[str, tuple[Call, type[BitternError], str]] = {
    "a short code": (lambda a: a.search(code=b"123"), CodeError, ""),
    "no picture": (lambda a: a.search(image=b"not one"), UnsupportedMediaError, ""),
    "half of a deletion": (lambda a: a.delete(["red.png", "x"]), ObservationNotFoundError, "x"),
    "a where that is no condition": (lambda a: list(a.list("1 +")), FilterError, ""),
    "a strange model": (lambda a: a.search("red", model="nosuch"), ModelNotFoundError, "nosuch"),
    "getting an unknown id": (lambda a: a.get("nobody"), ObservationNotFoundError, "nobody"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_the_same_error_in_the_same_words_both_ways(
    local: LocalArchive, remote: ArchiveAPI, mistake: str
) -> None:
    call, error, words = MISTAKES[mistake]
    raised = []
    for archive in (local, remote):
        with pytest.raises(BitternError) as caught:
            call(archive)
        raised.append((type(caught.value), caught.value.message, caught.value.field))
    assert raised[0] == raised[1]
    assert local.get("red.png").id == "red.png"  # nothing was deleted
    assert raised[0][0] is error
    assert words in raised[0][1]


UNUSABLE: dict[str, MediaItem] = {
    "neither path nor data": MediaItem("x", "x.png", "image"),
    "a strange modality": MediaItem("x", "x.png", "smell", data=picture("red")),
    "text as the modality": MediaItem("x", "x.png", "text", data=picture("red")),
    "data that is text": MediaItem("x", "x.png", "image", data="red"),  # type: ignore[arg-type]
    "a path that is a number": MediaItem("x", "x.png", "image", path=5),  # type: ignore[arg-type]
    "media that is a number": MediaItem("x", 5, "image", data=b"x"),  # type: ignore[arg-type]
    "an id that is a number": MediaItem(5, "x.png", "image", data=b"x"),  # type: ignore[arg-type]
    "metadata that is a list": MediaItem("x", "x", "image", data=b"x", metadata=[]),  # type: ignore[arg-type]
    "half a surrogate pair": MediaItem("\ud800", "x.png", "image", data=picture("red")),
}

UNSTORABLE: dict[str, dict[Any, Any]] = {
    "a list": {"a": [1]},
    "bytes": {"a": b"1"},
    "half a surrogate pair": {"a": "\ud800"},
    "half a surrogate pair as a name": {"\ud800": "a"},
    "a number as a name": {5: "a"},
    "a name that is taken": {"row": 1},
    "a name in another case": {"Genus": "Ardea"},
    "a long text": {"note": "x" * 70_000},
}


@pytest.mark.parametrize("kind", UNSTORABLE)
def test_metadata_that_no_archive_holds_fail_in_the_same_words_both_ways(
    local: LocalArchive, remote: ArchiveAPI, kind: str
) -> None:
    item = MediaItem("x", "x.png", "image", data=picture("red"), metadata=UNSTORABLE[kind])
    [[here]], [[there]] = local.add([item]), remote.add([item])
    assert (here.status, here.reason) == (AddStatus.FAILED, "METADATA")
    assert here == there


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_item_fails_alone_in_the_same_words_both_ways(
    local: LocalArchive, remote: ArchiveAPI, kind: str
) -> None:
    messages = []
    for number, archive in enumerate((local, remote)):
        good = MediaItem(f"good-{number}", "good.png", "image", data=picture("red"))
        [results] = archive.add([UNUSABLE[kind], good])
        by_id = {result.occurrence_id: result for result in results}
        assert by_id[good.occurrence_id].status is AddStatus.ADDED
        failed = by_id[UNUSABLE[kind].occurrence_id]
        assert (failed.status, failed.reason) == (AddStatus.FAILED, "INVALID_INPUT")
        messages.append(failed.message)
    assert messages[0] == messages[1]


def test_what_came_before_something_that_is_no_item_is_answered_and_stored(
    archive: ArchiveAPI,
) -> None:
    items: list[Any] = [
        MediaItem(f"new-{i}", "new.png", "image", data=picture("red")) for i in range(3)
    ]
    items.append("new.png")
    adding = archive.add(items, batch_size=2)
    assert [r.occurrence_id for r in next(adding)] == ["new-0", "new-1"]
    with pytest.raises(InvalidInputError, match="item 3 is str, not a MediaItem"):
        adding.wait()
    assert archive.get("new-1").id == "new-1"
    with pytest.raises(ObservationNotFoundError):
        archive.get("new-2")


@pytest.mark.parametrize("where", [None, "", "  ", "\n"])
def test_a_blank_condition_is_no_condition(archive: ArchiveAPI, where: str | None) -> None:
    assert len(archive.search("red", target="image", where=where).hits) == 3
    assert len(list(archive.list(where, page_size=3))) == 8


def test_coordinates_are_shown_no_finer_than_they_were_given(archive: ArchiveAPI) -> None:
    given: dict[str, Any] = {
        "decimalLatitude": "7",
        "decimalLongitude": "4.0",
        "coordinateUncertaintyInMeters": "52.10",
    }
    item = MediaItem("here", "here.png", "image", data=picture("red"), metadata=given)
    assert archive.add([item]).wait().added == 1
    wanted = dict(zip(given, ("7", "4", "52.1"), strict=True))
    [listed] = archive.list("occurrenceID = 'here'")
    [hit] = archive.search("red", target="image", where="occurrenceID = 'here'").hits
    for observation in (archive.get("here"), listed, hit.observation):
        assert {name: str(value) for name, value in observation.metadata.items()} == wanted
