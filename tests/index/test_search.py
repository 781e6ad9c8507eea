"""What a search promises: exact order, exactly min(k, matching) hits, typed refusals."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.errors import CodeError, DigestMismatchError, FilterError
from bittern.hashing.codes import asymmetric_distance, hamming_distance
from bittern.index.archive import Archive
from bittern.index.observation import CodedObservation
from bittern.types import Metadata, Metric, Observation
from tests.index.samples import BAT, OWL, code, photo, recording

N = 120


@pytest.fixture(scope="module")
def marsh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """120 rows of both modalities with only 9 distinct codes, committed in four batches."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 256, (9, 8), dtype=np.uint8)
    items = []
    for i in range(N):
        name = f"o{i}"
        kind = "audio" if i % 3 == 0 else "image"
        metadata: Metadata = {"family": "ABC"[i % 3], "count": i, "decimalLatitude": i / 2}
        observation = Observation(name, name, kind, name, metadata=metadata)
        items.append([CodedObservation(observation, codes[rng.integers(9)])])
    with Archive.create(tmp_path_factory.mktemp("search") / "marsh") as archive:
        archive.register_model(OWL, {})
        for start in range(0, N, 30):
            archive.add(items[start : start + 30], model=OWL.digest)
        yield archive


@given(
    seed=st.integers(0, 2**16),
    k=st.integers(1, 150),
    metric=st.sampled_from(["asymmetric", "hamming"]),
    modality=st.sampled_from([None, "image", "audio"]),
    floor=st.sampled_from([None, 0, 40, 118, 1000]),
)
@settings(max_examples=60, deadline=None)
def test_hits_equal_brute_force_under_every_filter(
    marsh: Archive,
    seed: int,
    k: int,
    metric: Metric,
    modality: str | None,
    floor: int | None,
) -> None:
    logits = np.random.default_rng(seed).normal(size=64)
    everything = marsh.list(page_size=1000).observations
    codes = np.stack([marsh.code(o.id, OWL.digest) for o in everything[:1]] * N)
    for block in marsh._current().codes(OWL).values():
        codes[block.rows] = block.codes
    if metric == "asymmetric":
        distances = asymmetric_distance(logits, codes)
    else:
        packed = np.packbits(logits > 0, bitorder="little")
        distances = hamming_distance(packed[None], codes)[0].astype(float)
    wanted = sorted(
        (float(distances[o.row]), o.row)
        for o in everything
        if modality in (None, o.modality)
        and (floor is None or int(o.metadata["count"] or 0) >= floor)
    )[:k]
    hits = marsh.search(
        logits,
        model=OWL.digest,
        k=k,
        metric=metric,
        modality=modality,
        where=None if floor is None else f"count >= {floor}",
    ).hits
    assert [(hit.distance, hit.observation.row) for hit in hits] == wanted
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


@pytest.mark.parametrize(
    ("where", "matches"),
    [("count < 0", 0), ("count = 64", 1), ("count >= 113", 7), ("family = 'A'", 40), ("", N)],
)
@pytest.mark.parametrize("metric", ["asymmetric", "hamming"])
def test_more_hits_than_match_returns_exactly_the_matches(
    marsh: Archive, where: str, matches: int, metric: Metric
) -> None:
    logits = np.random.default_rng(2).normal(size=64)
    for k in (matches + 1, 10_000):
        hits = marsh.search(logits, model=OWL.digest, k=k, metric=metric, where=where).hits
        assert sorted(h.observation.row for h in hits) == marsh.rows(where).tolist()
        assert len(hits) == matches


@pytest.mark.parametrize("metric", ["asymmetric", "hamming"])
def test_order_does_not_depend_on_threads_or_on_how_many_search_at_once(
    marsh: Archive, metric: Metric
) -> None:
    queries = np.random.default_rng(3).normal(size=(12, 64))

    def found(query: np.ndarray) -> list[tuple[float, int]]:
        hits = marsh.search(query, model=OWL.digest, k=70, metric=metric).hits
        return [(hit.distance, hit.observation.row) for hit in hits]

    alone = [found(query) for query in queries]
    assert alone == [sorted(each) for each in alone]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(found, [*queries, *queries])) == alone + alone
    threads = faiss.omp_get_max_threads()
    try:
        for count in (1, 2, 5):
            faiss.omp_set_num_threads(count)
            assert [found(query) for query in queries] == alone
    finally:
        faiss.omp_set_num_threads(threads)


def test_a_stored_code_finds_itself_first(marsh: Archive) -> None:
    stored = marsh.code("o7", OWL.digest)
    first = marsh.search(stored, model=OWL.digest, k=1, metric="hamming").hits[0]
    assert first.distance == 0.0
    assert first.observation.row <= 7


def test_logits_and_their_code_give_the_same_hamming_hits(marsh: Archive) -> None:
    logits = np.random.default_rng(1).normal(size=64).astype(np.float32)
    packed = np.packbits(logits > 0, bitorder="little")
    by_logits = marsh.search(logits, model=OWL.digest, k=30, metric="hamming").hits
    assert by_logits == marsh.search(packed, model=OWL.digest, k=30, metric="hamming").hits


def test_order_does_not_depend_on_how_rows_were_batched_or_compacted(tmp_path: Path) -> None:
    items = [photo(f"p{i}", seed=i % 4) for i in range(40)]
    query = np.random.default_rng(0).normal(size=64)
    found = []
    for size in (40, 7, 1):
        with Archive.create(tmp_path / str(size)) as archive:
            archive.register_model(OWL, {})
            for start in range(0, 40, size):
                archive.add(items[start : start + size], model=OWL.digest)
                if size == 7:
                    archive.search(query, model=OWL.digest, k=3, metric="asymmetric")
            archive._store.compact()
            found.append(archive.search(query, model=OWL.digest, k=25, metric="asymmetric").hits)
    assert found[0] == found[1] == found[2]


def test_hits_carry_metadata_and_windows(archive: Archive) -> None:
    archive.add([recording("call", 2, {"genus": "Botaurus", "wind": 3})], model=OWL.digest)
    hit = archive.search(np.ones(64), model=OWL.digest, k=5, metric="asymmetric").hits[1]
    assert hit.observation.occurrence_id == "call"
    assert hit.observation.metadata == {"genus": "Botaurus", "wind": 3}
    assert {hit.observation.start_s, hit.observation.end_s} <= {0.0, 3.0, 6.0}


def test_an_empty_archive_has_no_hits(archive: Archive) -> None:
    for metric in ("asymmetric", "hamming"):
        assert archive.search(np.ones(64), model=OWL.digest, k=5, metric=metric).hits == []
        where = "family = 'A'"
        found = archive.search(np.ones(64), model=OWL.digest, k=5, metric=metric, where=where).hits
        assert found == []


@pytest.mark.parametrize(
    "query",
    [
        np.ones(63),
        np.ones((1, 64)),
        np.ones(64, dtype=np.int64),
        np.zeros(7, dtype=np.uint8),
        np.full(64, np.nan),
        np.full(64, np.inf),
        np.array("owl"),
    ],
    ids=["short", "2-d", "integers", "short code", "nan", "infinite", "text"],
)
def test_a_query_of_the_wrong_kind_is_refused(archive: Archive, query: np.ndarray) -> None:
    for metric in ("asymmetric", "hamming"):
        with pytest.raises(CodeError):
            archive.search(query, model=OWL.digest, k=1, metric=metric)


def test_a_code_cannot_be_searched_asymmetrically(archive: Archive) -> None:
    with pytest.raises(CodeError, match="needs logits"):
        archive.search(np.zeros(8, np.uint8), model=OWL.digest, k=1, metric="asymmetric")


def test_a_strange_model_is_refused_naming_both_digests(archive: Archive) -> None:
    with pytest.raises(DigestMismatchError) as caught:
        archive.search(np.ones(32), model=BAT.digest, k=1, metric="hamming")
    assert BAT.digest[:16] in caught.value.message
    assert OWL.digest[:16] in caught.value.message


def test_a_bad_condition_is_refused(archive: Archive) -> None:
    with pytest.raises(FilterError):
        archive.search(np.ones(64), model=OWL.digest, k=1, metric="hamming", where="nonsense > 1")


def test_a_largest_distance_leaves_out_farther_hits(marsh: Archive) -> None:
    stored = marsh.code("o7", OWL.digest)
    answer = marsh.search(stored, model=OWL.digest, k=N, metric="hamming", within=30)
    everything = marsh.search(stored, model=OWL.digest, k=N, metric="hamming").hits
    assert answer.cutoff == 30
    assert answer.hits == [hit for hit in everything if hit.distance <= 30]
    assert 0 < len(answer.hits) < N
    assert (answer.engine, answer.exact) == ("flat", True)


def test_a_sample_of_codes_is_of_live_observations(archive: Archive) -> None:
    archive.add([photo(f"p{n}", seed=n) for n in range(20)], model=OWL.digest)
    archive.delete(["p0", "p5"])
    sample = archive.sample_codes(OWL.digest, "image", np.arange)
    assert len(sample) == 18
    assert hamming_distance(code(0)[None], sample).min() > 0
