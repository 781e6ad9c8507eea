"""One set of expectations for an archive opened in process and one reached over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.api import ArchiveAPI
from bittern.client import connect
from bittern.errors import (
    CodeError,
    DuplicateObservationError,
    FilterError,
    ModelNotFoundError,
    ObservationNotFoundError,
    UnsupportedMediaError,
)
from bittern.local import LocalArchive
from index.observation import AddStatus
from service.config import ServiceConfig
from service.engine import Engine
from service.requests import MediaItem
from service.server import serve
from tests.engine.toy import picture, sound


@pytest.fixture(params=["in process", "over gRPC"])
def archive(request: pytest.FixtureRequest, engine: Engine) -> Iterator[ArchiveAPI]:
    if request.param == "in process":
        yield LocalArchive(engine)
        return
    server = serve({engine.name: engine}, listen="127.0.0.1:0", config=ServiceConfig())
    try:
        with connect(server.address) as client:
            yield client
    finally:
        server.stop(grace=1.0)


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


def test_answers_are_the_same_both_ways(engine: Engine, archive: ArchiveAPI) -> None:
    here = LocalArchive(engine).search("blue", target="audio", k=4)
    there = archive.search("blue", target="audio", k=4)
    hidden = [replace(h, observation=replace(h.observation, media_root="")) for h in here.hits]
    seen = [replace(h, observation=replace(h.observation, media_root="")) for h in there.hits]
    assert [replace(h, observation=replace(h.observation, row=-1)) for h in hidden] == [
        replace(h, observation=replace(h.observation, row=-1)) for h in seen
    ]


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


def test_stats_and_models_agree_with_what_was_indexed(archive: ArchiveAPI) -> None:
    stats = archive.stats()
    assert dict(stats.observations) == {"image": 3, "audio": 5}
    assert stats.recordings == 4
    [model] = archive.models()
    assert (model.name, model.bits, set(model.modalities)) == (
        "toy-64",
        64,
        {"text", "image", "audio"},
    )


def test_errors_are_the_same_classes(archive: ArchiveAPI, tmp_path: Path) -> None:
    with pytest.raises(FilterError):
        archive.search("red", where="1 = 1; DROP TABLE x")
    with pytest.raises(ModelNotFoundError):
        archive.search("red", model="nosuch")
    with pytest.raises(CodeError):
        archive.search(code=b"123")
    with pytest.raises(UnsupportedMediaError):
        archive.search(image=b"not a picture")
    with pytest.raises(ObservationNotFoundError):
        archive.delete(["red.png", "nobody"])
    assert archive.get("red.png").id == "red.png"
