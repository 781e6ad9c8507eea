"""Relevance: what a query about something else would find as well is no hit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.api import ArchiveAPI
from bittern.encoders.base import Media, Modality
from bittern.errors import DeadlineExceededError, UnsupportedModalityError
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training_free import fit
from bittern.index.archive import Archive
from bittern.query import Query, SearchOptions
from bittern.service.limits import Deadline
from bittern.service.local.archive import LocalArchive
from bittern.service.local.relevance import REFERENCE_TEXTS
from bittern.types import MediaItem
from tests.engine.conftest import toy_model
from tests.engine.toy import COLOURS, DIM, ToyEncoder, picture
from tests.index.samples import build_index
from tests.serving import client_of

PICTURES = 40


class WordyEncoder(ToyEncoder):
    """Words that name no colour point anywhere, each its own way."""

    def _embed(self, modality: Modality, item: Media) -> NDArray[np.float64]:
        words = str(item).split() if modality == Modality.TEXT else []
        if modality != Modality.TEXT or set(words) & set(COLOURS):
            return super()._embed(modality, item)
        anywhere = np.random.default_rng(zlib.crc32(str(item).encode())).standard_normal(DIM)
        unit: NDArray[np.float64] = anywhere / np.linalg.norm(anywhere)
        return unit


def pictures(colour: str, number: int) -> list[MediaItem]:
    return [
        MediaItem(f"{colour}-{i}", f"{colour}-{i}.png", "image", data=picture(colour, jitter=i))
        for i in range(number)
    ]


@pytest.fixture
def wordy() -> WordyEncoder:
    return WordyEncoder()


@pytest.fixture
def local(tmp_path: Path, wordy: WordyEncoder) -> Iterator[LocalArchive]:
    """An archive of forty pictures, red ones and green ones."""
    with Archive.create(tmp_path / "pictures") as archive:
        local = LocalArchive(archive, load_encoder=lambda name: wordy)
        local.registry.register(toy_model(wordy))
        for colour in ("red", "green"):
            assert all(local.add(pictures(colour, PICTURES // 2)))
        yield local


def colours(hits: list[str]) -> set[str]:
    return {media.partition("-")[0] for media in hits}


@pytest.mark.parametrize("relevance", ["strict", "usual", "loose", 0.05])
def test_what_is_relevant_is_found_and_the_rest_is_left_out(
    archive: ArchiveAPI, relevance: str | float
) -> None:
    everything = archive.search("red", k=PICTURES)
    assert colours([h.observation.media for h in everything.hits]) == {"red", "green"}
    result = archive.search("red", k=PICTURES, relevance=relevance)
    assert colours([hit.observation.media for hit in result.hits]) == {"red"}
    assert result.hits == everything.hits[: len(result.hits)]
    assert result.cutoff is not None
    assert result.hits[-1].distance <= result.cutoff
    assert everything.hits[len(result.hits)].distance > result.cutoff


def test_nothing_relevant_is_an_answer_that_names_the_nearest(archive: ArchiveAPI) -> None:
    result = archive.search("blue", relevance="usual")
    assert result.hits == []
    assert result.cutoff is not None
    assert result.nearest is not None
    assert result.nearest == archive.search("blue", k=1).hits[0]
    assert result.nearest.distance > result.cutoff


def test_names_stand_for_their_shares(archive: ArchiveAPI) -> None:
    cutoffs = []
    for name, share in (("strict", 0.01), ("usual", 0.05), ("loose", 0.2)):
        named = archive.search("red", relevance=name).cutoff
        assert named == archive.search("red", relevance=share).cutoff
        assert named is not None
        cutoffs.append(named)
    assert cutoffs == sorted(set(cutoffs))


def test_a_condition_changes_nothing_about_what_is_relevant(archive: ArchiveAPI) -> None:
    bound = archive.search("red", relevance="usual").cutoff
    result = archive.search("red", relevance="usual", where="occurrenceID = 'green-3'")
    assert (result.hits, result.cutoff) == ([], bound)
    assert result.nearest is not None
    assert result.nearest.observation.id == "green-3"


def test_the_smaller_of_relevance_and_within_holds(archive: ArchiveAPI) -> None:
    bound = archive.search("red", relevance="usual").cutoff
    assert bound is not None
    assert archive.search("red", relevance="usual", within=bound / 2).cutoff == bound / 2
    assert archive.search("red", relevance="usual", within=bound + 1).cutoff == bound


@pytest.mark.parametrize("metric", ["asymmetric", "hamming"])
def test_relevance_is_judged_by_the_metric_of_the_search(local: LocalArchive, metric: str) -> None:
    query = Query(text="green", k=PICTURES, metric=metric, relevance="usual")  # type: ignore[arg-type]
    result = local.answer(query)
    assert colours([hit.observation.media for hit in result.hits]) == {"green"}


def test_a_stored_observation_is_relevant_to_itself(local: LocalArchive) -> None:
    result = local.search(id="red-3", relevance="strict", k=PICTURES)
    assert "red-3" in {hit.observation.id for hit in result.hits}
    assert result.cutoff is not None


def test_among_few_observations_everything_is_shown_and_there_is_no_cutoff(
    local: LocalArchive,
) -> None:
    local.delete([f"green-{i}" for i in range(PICTURES // 2)])
    result = local.search(text="blue", k=5, relevance="strict")
    assert (len(result.hits), result.cutoff, result.nearest) == (5, None, None)


def test_the_reference_texts_are_coded_once(local: LocalArchive, wordy: WordyEncoder) -> None:
    wordy.batches.clear()
    local.search(text="red", relevance="usual")
    list(local.add(pictures("blue", 3)))
    for metric in ("asymmetric", "hamming"):
        local.search(text="red", relevance="usual", metric=metric)
    coded = sum(size for modality, size in wordy.batches if modality == Modality.TEXT)
    assert coded == len(REFERENCE_TEXTS) + 1  # and "red", once


def test_what_has_been_added_becomes_relevant(local: LocalArchive) -> None:
    assert local.search(text="blue", relevance="usual").hits == []
    list(local.add(pictures("blue", 3)))
    found = local.search(text="blue", relevance="usual").hits
    assert colours([hit.observation.media for hit in found]) == {"blue"}


def test_a_model_that_takes_no_words_cannot_judge_relevance(tmp_path: Path) -> None:
    encoder = ToyEncoder((Modality.IMAGE,))
    known = ToyEncoder().encode(Modality.TEXT, list(COLOURS))
    silent = SavedModel.describe(
        "silent-64",
        fit("lsh", {"image": np.concatenate([known, -known])}, 64),
        encoder=encoder.name,
        towers={str(m): d for m, d in encoder.digests.items()},
        licence="CC0-1.0",
    )
    with Archive.create(tmp_path / "silent") as archive:
        local = LocalArchive(archive, load_encoder=lambda name: encoder)
        local.registry.register(silent)
        list(local.add(pictures("red", 3)))
        with pytest.raises(UnsupportedModalityError, match="takes no words") as caught:
            local.search(image=picture("red"), relevance="usual")
    assert caught.value.field == "relevance"


def test_a_deadline_stops_finding_out_what_is_relevant_and_asking_again_gets_further(
    local: LocalArchive, wordy: WordyEncoder
) -> None:
    query = Query(text="red", relevance="usual")
    wordy.batches.clear()
    left = iter([9.0] * 4)
    with pytest.raises(DeadlineExceededError, match="calibrating relevance"):
        local.answer(query, Deadline(lambda: next(left, 0.0)))
    assert colours([hit.observation.media for hit in local.answer(query).hits]) == {"red"}
    coded = sum(size for modality, size in wordy.batches if modality == Modality.TEXT)
    assert coded == len(REFERENCE_TEXTS) + 1  # and "red", once


@pytest.fixture(params=["in process", "over gRPC"])
def approximate(
    request: pytest.FixtureRequest, local: LocalArchive, wordy: WordyEncoder
) -> Iterator[ArchiveAPI]:
    """The same archive, opened by somebody who wants half of the nearest from an index."""
    options = SearchOptions(engine="ivf", recall=0.5)
    with Archive.open(local.archive.path, search=options) as opened:
        build_index(opened, opened.model_records()[0].digest)
        again = LocalArchive(opened, load_encoder=lambda name: wordy)
        if request.param == "in process":
            yield again
            return
        with client_of(again) as client:
            yield client


def test_what_is_relevant_is_looked_for_exactly_whatever_recall_is_wanted(
    approximate: ArchiveAPI, local: LocalArchive
) -> None:
    assert approximate.search("red", k=3).engine == "ivf", "nothing is tested without an index"
    for recall in (None, 0.5):
        for words in ("red", "blue"):
            found = approximate.search(words, k=PICTURES, relevance="usual", recall=recall)
            exactly = local.search(text=words, k=PICTURES, relevance="usual")
            assert (found.engine, found.exact) == ("flat", True)
            assert [h.observation.id for h in found.hits] == [
                h.observation.id for h in exactly.hits
            ]
            assert (found.nearest is None) == (words == "red")


def test_what_is_within_a_distance_is_looked_for_exactly_unless_the_query_wants_less(
    approximate: ArchiveAPI,
) -> None:
    assert approximate.search("red", within=60).engine == "flat"
    assert approximate.search("red", within=60, recall=0.5).engine == "ivf"
