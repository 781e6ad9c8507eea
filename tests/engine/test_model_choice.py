"""Which model codes a source: the archive's own unless one is named, and none that was replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.errors import PreconditionError, UnsupportedModalityError
from bittern.service.jobs.description import IndexOptions, JobSpec
from bittern.service.jobs.indexing import index_source
from bittern.service.jobs.reencode import reencode
from bittern.service.local.archive import LocalArchive
from bittern.service.sources import read_source
from bittern.types import AddStatus, MediaItem
from tests.engine.conftest import toy_model
from tests.engine.test_indexing import eyes  # noqa: F401 - a fixture
from tests.engine.toy import ToyEncoder, picture


@pytest.mark.parametrize("drop_old", [False, True])
def test_without_a_model_new_media_are_coded_by_the_one_that_is_searched(
    local: LocalArchive, media: Path, tmp_path: Path, encoder: ToyEncoder, drop_old: bool
) -> None:
    toy_model(encoder, bits=32).save(tmp_path / "toy32")
    spec = JobSpec("reencode", "archive", model=str(tmp_path / "toy32"), drop_old=drop_old)
    reencode(spec, local=local)
    (media / "new.png").write_bytes(picture("blue"))
    report = index_source(local, read_source(media).entries, IndexOptions())
    assert (report.model, report.items[AddStatus.ADDED]) == ("toy-32", 1)
    assert report.warnings == []
    found = local.search(text="blue", target="image", k=2)
    assert {hit.observation.id for hit in found.hits} == {"blue.png", "new.png"}


def test_a_model_that_was_replaced_is_refused_with_the_one_that_is_searched(
    local: LocalArchive, media: Path, tmp_path: Path, encoder: ToyEncoder, options: IndexOptions
) -> None:
    toy_model(encoder, bits=32).save(tmp_path / "toy32")
    reencode(JobSpec("reencode", "archive", model=str(tmp_path / "toy32")), local=local)
    for named in (options, IndexOptions(model="toy-64")):
        with pytest.raises(PreconditionError, match=r"searches use toy-32.*bittern reencode"):
            index_source(local, read_source(media).entries, named)


def test_without_a_model_the_one_that_takes_the_media_is_chosen(
    empty: LocalArchive,
    eyes: Path,  # noqa: F811
    media: Path,
    options: IndexOptions,
) -> None:
    entries = read_source(media).entries
    pictures = [e for e in entries if isinstance(e, MediaItem) and e.modality == "image"]
    calls = [e for e in entries if isinstance(e, MediaItem) and e.modality == "audio"]
    index_source(empty, pictures, IndexOptions(model=str(eyes)))
    with pytest.raises(UnsupportedModalityError, match=r"takes audio.*eyes"):
        index_source(empty, calls, IndexOptions())
    both = index_source(empty, calls, options)
    assert index_source(empty, calls, IndexOptions()).model == both.model
    assert index_source(empty, pictures, IndexOptions()).model == "eyes"


def test_a_second_model_for_the_same_media_is_warned_of(
    local: LocalArchive, media: Path, tmp_path: Path, encoder: ToyEncoder
) -> None:
    toy_model(encoder, bits=32).save(tmp_path / "toy32")
    second = IndexOptions(model=str(tmp_path / "toy32"))
    [warning] = index_source(local, read_source(media).entries, second).warnings
    assert "--model toy-32" in warning
    assert index_source(local, read_source(media).entries, second).warnings == []
