"""Queries become one embedding each, as a search takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings import encoding as search
from bittern.benchmarks.eval.embeddings.encoding import embed_queries
from bittern.benchmarks.eval.tasks import QuerySet
from bittern.encoders.base import Media, Modality
from bittern.errors import QueryError
from bittern.types import MediaItem
from tests.engine.toy import ToyEncoder, sound
from tests.eval.embedding_toys import Counting, embedder, images, recordings


def in_words(*prompts: tuple[str, ...]) -> QuerySet:
    names = [f"q{n}" for n in range(len(prompts))]
    return QuerySet(names, "text", prompts, np.zeros(len(names), np.int32), "text")


def with_media(media: list[MediaItem], modality: str) -> QuerySet:
    names = [f"q{n}" for n in range(len(media))]
    return QuerySet(names, modality, media, np.zeros(len(names), np.int32), modality)


def test_a_query_of_one_prompt_is_that_prompt(tmp_path: Path) -> None:
    found = embed_queries(embedder(ToyEncoder()), in_words(("red",), (" blue ",)), tmp_path)
    np.testing.assert_allclose(found, ToyEncoder().encode(Modality.TEXT, ["red", "blue"]), 1e-6)


def test_several_prompts_are_averaged_and_of_unit_norm(tmp_path: Path) -> None:
    found = embed_queries(embedder(ToyEncoder()), in_words(("red", "blue", "green")), tmp_path)
    mean = ToyEncoder().encode(Modality.TEXT, ["red", "blue", "green"]).mean(axis=0)
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), 1e-6)


def test_a_recording_is_the_mean_of_its_windows(tmp_path: Path) -> None:
    item = MediaItem("r", "r.wav", "audio", data=sound("red", "green"))
    queries = with_media([item, recordings(("blue",)).contents[0]], "audio")  # type: ignore[list-item]
    found = embed_queries(embedder(ToyEncoder()), queries, tmp_path)
    halves = recordings(("red",), ("green",)).contents
    alone = embed_queries(embedder(ToyEncoder()), with_media(list(halves), "audio"), tmp_path)  # type: ignore[call-overload]
    mean = alone.mean(axis=0)
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), 1e-5)


def test_a_prompt_that_several_queries_share_is_embedded_once_and_by_itself(
    tmp_path: Path,
) -> None:
    encoder = Counting()
    queries = in_words(("red", "blue"), ("blue",), ("red",))
    embed_queries(embedder(encoder), queries, tmp_path)
    assert encoder.batches == [(Modality.TEXT, 1), (Modality.TEXT, 1)]


def test_many_texts_go_in_fixed_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ALONE", 3)
    encoder = Counting()
    embed_queries(embedder(encoder), in_words(*[(f"red {n}",) for n in range(70)]), tmp_path)
    assert encoder.batches == [(Modality.TEXT, 64), (Modality.TEXT, 6)]


def test_queries_are_embedded_once(tmp_path: Path) -> None:
    queries = in_words(("red", "blue"), ("green",))
    first = embed_queries(embedder(ToyEncoder()), queries, tmp_path)
    encoder = Counting()
    again = embed_queries(embedder(encoder), queries, tmp_path)
    assert encoder.layout == 0
    assert np.array_equal(first, again)


def test_a_photograph_that_cannot_be_read_names_its_query(tmp_path: Path) -> None:
    media = list(images(3, broken=(1,)).contents)  # type: ignore[call-overload]
    with pytest.raises(QueryError, match="'q1' cannot be embedded"):
        embed_queries(embedder(ToyEncoder()), with_media(media, "image"), tmp_path)


@pytest.mark.parametrize("prompts", [(), ("red", " ")])
def test_a_query_without_words_is_named(tmp_path: Path, prompts: tuple[str, ...]) -> None:
    with pytest.raises(QueryError, match="'q1'"):
        embed_queries(embedder(ToyEncoder()), in_words(("red",), prompts), tmp_path)


def test_a_query_in_words_is_no_photograph(tmp_path: Path) -> None:
    queries = QuerySet(["q0"], "image", [("red",)], np.zeros(1, np.int32), "image")
    with pytest.raises(QueryError, match="'q0'"):
        embed_queries(embedder(ToyEncoder()), queries, tmp_path)


class Opposite(ToyEncoder):
    """Two words that mean the contrary of one another."""

    def encode(self, modality: Modality, batch: list[Media]) -> NDArray[np.float32]:  # type: ignore[override]
        signs = np.array([-1.0 if item == "no" else 1.0 for item in batch], np.float32)
        return signs[:, None] * super().encode(modality, ["red"] * len(batch))


def test_prompts_that_cancel_out_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="'q0' cancel"):
        embed_queries(embedder(Opposite()), in_words(("yes", "no")), tmp_path)


def test_no_queries_are_no_embeddings(tmp_path: Path) -> None:
    assert embed_queries(embedder(ToyEncoder()), in_words(), tmp_path).shape == (0, 12)
