"""BioCLIP for pictures and BioLingual for sounds in one archive: real code, tiny weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.encoders.base import Encoder
from bittern.encoders.catalogue import load_encoder
from bittern.errors import UnsupportedModalityError
from bittern.index.archive import Archive
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import index_source
from bittern.service.local.archive import LocalArchive
from bittern.service.sources import read_source
from bittern.types import AddStatus
from tests.encoders.tiny import clap_entry, openclip_entry, write_clap, write_openclip
from tests.engine.toy import fill_folder, picture, sound


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalArchive]:
    folder = tmp_path_factory.mktemp("hub")
    tiny: dict[str, Encoder] = {
        "bioclip-2": load_encoder(
            openclip_entry(name="bioclip-2"), weights=write_openclip(folder / "clip")
        ),
        "biolingual": load_encoder(
            clap_entry(name="biolingual"), weights=write_clap(folder / "clap")
        ),
    }
    media = fill_folder(folder / "media")
    with Archive.create(folder / "archive") as archive:
        local = LocalArchive(archive, load_encoder=tiny.__getitem__)
        for name, below in (("bioclip-2", media), ("biolingual", media / "sounds")):
            entries = [e for e in read_source(below) if (name == "biolingual") == ("wav" in str(e))]
            report = index_source(local, entries, IndexOptions(model=name, bits=64))
            assert report.items[AddStatus.FAILED] == 0
        yield local


def test_each_query_is_answered_by_the_model_that_has_both_towers(local: LocalArchive) -> None:
    images = local.search(text="an owl", target="image")
    sounds = local.search(text="an owl", target="audio")
    assert (images.model, len(images.hits)) == ("bioclip-2-64", 3)
    assert (sounds.model, len(sounds.hits)) == ("biolingual-64", 4)


def test_a_picture_and_a_sound_find_themselves(local: LocalArchive) -> None:
    seen = local.search(image=picture("green", jitter=1), target="image", metric="hamming")
    heard = local.search(audio=sound("blue"), target="audio", metric="hamming")
    assert seen.hits[0].observation.id == "green.png"
    assert heard.hits[0].observation.id == "blue.wav"
    assert seen.hits[0].distance == heard.hits[0].distance == 0


def test_a_query_between_models_says_that_no_model_has_both_towers(local: LocalArchive) -> None:
    with pytest.raises(UnsupportedModalityError, match="audio and image"):
        local.search(audio=sound("red"), target="image")


def test_a_recording_shorter_than_the_window_of_the_model_is_one_observation(
    local: LocalArchive,
) -> None:
    windows = [o for o in local.list() if o.media == "two.wav"]
    assert [(o.id, o.start_s, o.end_s) for o in windows] == [("two.wav", 0.0, 2.0)]


def test_the_archive_keeps_its_models_when_it_is_opened_again(
    local: LocalArchive, tmp_path: Path
) -> None:
    with Archive.open(local.archive.path) as again:
        assert [r.name for r in again.model_records()] == ["bioclip-2-64", "biolingual-64"]
        assert again.verify() == []
