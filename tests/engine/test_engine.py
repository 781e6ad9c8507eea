from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bittern.encoders.base import Modality
from bittern.errors import (
    BitternError,
    CodeError,
    DeadlineExceededError,
    DigestMismatchError,
    ModelNotFoundError,
    ObservationNotFoundError,
    PreconditionError,
    QueryError,
    UnsupportedModalityError,
)
from bittern.hashing.codes import pack
from bittern.query import Query, SearchOptions
from bittern.service.limits import Deadline
from bittern.service.local.archive import LocalArchive
from bittern.types import AddStatus, MediaItem
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder, picture, sound


def first(local: LocalArchive, query: Query) -> str:
    return local.answer(query).hits[0].observation.media


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_words_sounds_and_pictures_find_pictures_and_sounds(
    local: LocalArchive, colour: str
) -> None:
    for query in (
        Query(text=colour, target="image"),
        Query(audio=sound(colour), target="image"),
        Query(image=picture(colour), target="image"),
    ):
        assert first(local, query) == f"{colour}.png"
    hits = local.search(text=colour, target="audio", k=2).hits
    assert f"sounds/{colour}.wav" in {hit.observation.media for hit in hits}


def test_images_are_the_target_where_none_is_named_and_sound_without_images(
    local: LocalArchive,
) -> None:
    result = local.search(text="red")
    assert result.target == "image"
    assert len(result.hits) == 3
    local.delete(["red.png", "green.png", "blue.png"])
    assert local.search(text="red").target == "audio"


def test_queries_with_logits_use_the_asymmetric_metric_unless_they_name_another(
    local: LocalArchive,
) -> None:
    assert local.search(text="red").metric == "asymmetric"
    hard = local.search(text="red", metric="hamming")
    assert hard.metric == "hamming"
    assert all(hit.distance == int(hit.distance) for hit in hard.hits)


def test_the_same_words_again_need_no_network(local: LocalArchive) -> None:
    encoder = local.registry.embedders.named("toy").encoder()
    assert isinstance(encoder, ToyEncoder)
    before = local.search(text="blue")
    encoder.batches.clear()
    assert local.search(text=" blue ").hits == before.hits
    assert encoder.batches == []
    local.search(text="Blue")
    assert encoder.batches == [(Modality.TEXT, 1)]


def test_a_stored_observation_is_within_no_distance_of_itself(local: LocalArchive) -> None:
    result = local.search(id="blue.png", within=0)
    assert [hit.observation.id for hit in result.hits] == ["blue.png"]
    assert (result.metric, result.cutoff, result.nearest) == ("hamming", 0, None)


def test_the_nearest_that_is_left_out_meets_the_condition(local: LocalArchive) -> None:
    others = "occurrenceID != 'blue.png'"
    result = local.search(id="blue.png", within=0, where=others, k=5)
    assert result.hits == []
    assert result.nearest is not None
    assert result.nearest.rank == 1
    assert result.nearest.distance > 0
    everything = local.search(id="blue.png", where=others, k=5).hits
    assert result.nearest == everything[0]


def test_what_an_archive_is_opened_with_decides_what_searches(
    local: LocalArchive,
) -> None:
    local.close()
    options = SearchOptions(engine="flat", threads=1)
    opened = LocalArchive.open(local.archive.path, search=options)
    try:
        opened.load_codes()
        [model] = opened.stats().models
        assert {name: each.kind for name, each in model.engines.items()} == {
            "image": "flat",
            "audio": "flat",
        }
    finally:
        opened.close()


def test_a_code_can_be_the_query(local: LocalArchive) -> None:
    code = local.encode(image=picture("green", jitter=1))[0].code
    assert local.search(code=code).hits[0].observation.id == "green.png"


def test_windows_of_a_longer_recording_are_observations_with_their_own_seconds(
    local: LocalArchive,
) -> None:
    windows = [o for o in local.list() if o.media == "sounds/two.wav"]
    assert [(o.id, o.start_s, o.end_s) for o in windows] == [
        ("sounds/two.wav#t=0,1", 0.0, 1.0),
        ("sounds/two.wav#t=1,2", 1.0, 2.0),
    ]
    assert {o.occurrence_id for o in windows} == {"sounds/two.wav"}
    hits = local.search(text="blue", target="audio", k=2).hits
    assert "sounds/two.wav#t=1,2" in {hit.observation.id for hit in hits}


def test_encode_gives_one_code_per_window_and_logits_that_explain_it(local: LocalArchive) -> None:
    encoded = local.encode(audio=sound("red", "blue", "red"))
    assert [(e.start_s, e.end_s) for e in encoded] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    for one in encoded:
        assert pack(np.array(one.logits)[None]).tobytes() == one.code
    assert encoded[0].code == encoded[2].code


def test_the_same_media_get_the_same_code_whatever_the_batch(local: LocalArchive) -> None:
    stored = local.archive.code("green.png", local.registry.find().digest)
    assert local.encode(image=picture("green", jitter=1))[0].code == stored.tobytes()


@pytest.mark.parametrize("text", ["орёл", "梟", "بومة", "🦉", "a\u0000b", "Ŝ́"])
def test_text_in_any_script_is_a_query(local: LocalArchive, text: str) -> None:
    assert len(local.search(text=text).hits) == 3


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (Query(image=b"not a picture"), BitternError),
        (Query(audio=b"not a sound"), BitternError),
        (Query(id="nobody"), ObservationNotFoundError),
        (Query(code=b"12345"), CodeError),
        (Query(code=b""), CodeError),
        (Query(text="red", model="nosuch"), ModelNotFoundError),
    ],
)
def test_what_is_not_there_or_not_readable_is_a_typed_error(
    local: LocalArchive, query: Query, error: type[BitternError]
) -> None:
    with pytest.raises(error):
        local.answer(query)


def test_a_sound_query_that_is_too_long_is_refused_with_the_limit(local: LocalArchive) -> None:
    with pytest.raises(QueryError, match="at most 120 s long"):
        local.search(audio=sound(*["red"] * 121))


def test_a_model_is_found_by_name_digest_or_its_first_digits(local: LocalArchive) -> None:
    digest = local.registry.find().digest
    assert {local.registry.find(n).digest for n in ("toy-64", digest, digest[:8])} == {digest}
    with pytest.raises(ModelNotFoundError):
        local.registry.find(digest[:7])


def test_a_query_whose_tower_no_model_has_names_the_towers_that_there_are(
    empty: LocalArchive,
) -> None:
    deaf = ToyEncoder([Modality.TEXT, Modality.IMAGE])
    empty.registry.register(toy_model(deaf))
    with pytest.raises(UnsupportedModalityError, match=r"audio.*image\+text"):
        empty.search(audio=sound("red"), target="image")


def test_a_model_made_with_other_weights_neither_searches_nor_adds(
    local: LocalArchive, tmp_path: Path
) -> None:
    other = LocalArchive(local.archive, load_encoder=lambda name: ToyEncoder(salt="-retrained"))
    with pytest.raises(DigestMismatchError, match="are not those"):
        other.search(text="red")
    item = MediaItem("new", "new.png", "image", data=picture("red"))
    with pytest.raises(DigestMismatchError, match="are not those"):
        list(other.add([item]))
    with pytest.raises(ObservationNotFoundError):
        local.get("new")


def test_of_several_models_the_one_that_coded_most_of_the_target_answers(
    empty: LocalArchive,
) -> None:
    sounds = empty.registry.register(toy_model(ToyEncoder(), bits=64))
    pictures = empty.registry.register(
        toy_model(ToyEncoder([Modality.TEXT, Modality.IMAGE]), bits=128)
    )
    heard = MediaItem("heard", "heard.wav", "audio", data=sound("red"))
    seen = MediaItem("seen", "seen.png", "image", data=picture("red"))
    list(empty.add([heard], model=sounds.digest))
    list(empty.add([seen], model=pictures.digest))
    for query, model in (
        (Query(text="red", target="image"), "toy-128"),
        (Query(text="red", target="audio"), "toy-64"),
        (Query(text="red"), "toy-128"),
        (Query(id="seen"), "toy-128"),
    ):
        result = empty.answer(query)
        assert (result.model, len(result.hits)) == (model, 1)


def test_a_deadline_that_has_passed_stops_the_search(local: LocalArchive) -> None:
    with pytest.raises(DeadlineExceededError):
        local.answer(Query(text="red"), Deadline(lambda: -1.0))


def test_add_answers_per_batch_and_bad_items_fail_alone(
    local: LocalArchive, tmp_path: Path
) -> None:
    items = [
        MediaItem("gone", "gone.png", "image", path=tmp_path / "gone.png"),
        MediaItem("text", "odd.png", "text", data=picture("red")),
        MediaItem("none", "odd.png", "", data=picture("red")),
        MediaItem("new-1", "new-1.png", "image", data=picture("red")),
        MediaItem("bad-1", "bad-1.png", "image", data=picture("red")[:60]),
        MediaItem("odd-1", "odd-1.png", "image", data=picture("red", size=(5, 13))),
        MediaItem("red.png", "again.png", "image", data=picture("red")),
        MediaItem("new-2", "new-2.wav", "audio", data=sound("blue")),
    ]
    batches = list(local.add(items, batch_size=3))
    assert [[r.status for r in batch] for batch in batches] == [
        [AddStatus.FAILED, AddStatus.FAILED, AddStatus.FAILED],
        [AddStatus.ADDED, AddStatus.FAILED, AddStatus.FAILED],
        [AddStatus.FAILED, AddStatus.ADDED],
    ]
    reasons = [r.reason for batch in batches for r in batch if r.status == AddStatus.FAILED]
    assert reasons == [
        *("SOURCE_NOT_FOUND", "INVALID_INPUT", "INVALID_INPUT"),
        *("UNREADABLE_MEDIA", "INVALID_INPUT", "DUPLICATE_OBSERVATION"),
    ]
    assert local.get("new-2").media == "new-2.wav"
    with pytest.raises(ObservationNotFoundError):
        local.get("bad-1")
    assert local.archive.verify() == []


def test_add_takes_no_more_items_than_it_has_answered(local: LocalArchive) -> None:
    taken: list[str] = []

    def items() -> object:
        for number in range(6):
            taken.append(str(number))
            yield MediaItem(f"n{number}", f"n{number}.png", "image", data=picture("red"))

    answers = local.add(items(), batch_size=2)  # type: ignore[arg-type]
    next(answers)
    assert len(taken) == 2


def test_overwriting_a_recording_with_a_shorter_one_leaves_no_old_window(
    local: LocalArchive,
) -> None:
    item = MediaItem("sounds/two.wav", "sounds/two.wav", "audio", data=sound("red"))
    [[result]] = local.add([item], on_duplicate="overwrite")
    assert result.status == AddStatus.OVERWRITTEN
    windows = [o.id for o in local.list() if o.media == "sounds/two.wav"]
    assert windows == ["sounds/two.wav"]


def test_an_archive_without_a_model_says_how_to_get_one(empty: LocalArchive) -> None:
    item = MediaItem("a", "a.png", "image", data=picture("red"))
    with pytest.raises(PreconditionError, match="bittern index"):
        next(empty.add([item]))


def test_models_report_how_many_rows_they_coded(local: LocalArchive) -> None:
    [info] = local.models()
    assert (info.name, info.bits, dict(info.rows)) == ("toy-64", 64, {"image": 3, "audio": 5})
