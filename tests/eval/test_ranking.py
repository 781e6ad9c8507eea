"""Rankings are those of a plain full sort, whatever the tiles, blocks, depth and threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.benchmarks.eval.ranking import (
    Limits,
    Ranking,
    Searched,
    Settings,
    rank,
)
from bittern.benchmarks.eval.systems.base import Metric, Training
from bittern.benchmarks.eval.systems.vectors import FloatVectors
from bittern.benchmarks.eval.tasks import Relevance
from bittern.errors import InvalidInputError
from tests.eval.ranking_cases import Case, Codes, Rows, case, pairs, sorted_plainly

METRICS: tuple[Metric, ...] = ("symmetric", "asymmetric", "cosine")
ALL = Limits()
STREAMED = Limits(kept_bytes=0, block_bytes=256, tile_rows=7, batch=2, threads=2)
KEPT = Limits(block_bytes=256, tile_rows=7, batch=3, threads=1)


def ranked(of: Case, settings: Settings) -> Ranking:
    return rank(of.fitted, of.queries, of.metric, of.searched, settings)


def check(of: Case, settings: Settings) -> None:
    """Compare with a full sort."""
    found = ranked(of, settings)
    ranks, deep = found.ranks, found.ranks.depth
    for query in range(len(of.queries)):
        plain = sorted_plainly(of, query, settings)
        grades = dict(
            zip(
                of.relevance.of(query).tolist(),
                of.relevance.grades[slice(*of.relevance.offsets[query : query + 2])].tolist(),
                strict=True,
            )
        )
        expected = [
            (*plain.entry(position), grades[item])
            for position, item in enumerate(plain.items)
            if item in grades and (deep is None or plain.entry(position)[1] < deep)
        ]
        own = slice(ranks.offsets[query], ranks.offsets[query + 1])
        assert expected == list(
            zip(
                ranks.rank[own].tolist(),
                ranks.nearer[own].tolist(),
                ranks.tied[own].tolist(),
                ranks.grades[own].tolist(),
                strict=True,
            )
        )
        assert ranks.ranked[query] == len(plain.items)
        shown = found.hits[query] >= 0
        assert found.hits[query][shown].tolist() == plain.items[: found.hits.shape[1]]
        assert found.rows[query][shown].tolist() == plain.rows[: found.hits.shape[1]]
        if not settings.rerank:
            nearest = [distance for _, distance in plain.distances][: found.hits.shape[1]]
            assert found.distances[query][shown].tolist() == nearest


@running(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(METRICS),
    mean=st.booleans(),
    rows=st.integers(1, 4),
    depth=st.sampled_from([None, 1, 3, 10, 100]),
    rerank=st.sampled_from([0, 0, 1, 4, 50]),
    chosen=st.booleans(),
    limits=st.sampled_from([ALL, STREAMED, KEPT]),
)
def test_a_ranking_is_that_of_a_full_sort(
    seed: int,
    metric: Metric,
    mean: bool,
    rows: int,
    depth: int | None,
    rerank: int,
    chosen: bool,
    limits: Limits,
) -> None:
    of = case(seed, metric, windows=rows)
    candidates = pairs(np.random.default_rng(seed), 5, of.items, 0.5) if chosen else None
    check(of, Settings(mean, depth, candidates, rerank, keep=6, limits=limits))


@running(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(METRICS),
    mean=st.booleans(),
    tile_rows=st.integers(1, 60),
    block_bytes=st.integers(1, 5_000),
    threads=st.integers(1, 3),
    kept=st.booleans(),
)
def test_tiles_blocks_and_threads_change_nothing(
    seed: int,
    metric: Metric,
    mean: bool,
    tile_rows: int,
    block_bytes: int,
    threads: int,
    kept: bool,
) -> None:
    of = case(seed, metric, windows=3)
    limits = Limits((1 << 30) if kept else 0, block_bytes, tile_rows, 2, threads)
    one = ranked(of, Settings(mean, rerank=5, keep=9))
    other = ranked(of, Settings(mean, rerank=5, keep=9, limits=limits))
    for name, value in vars(one.ranks).items():
        assert np.array_equal(value, getattr(other.ranks, name)), name
    for name in ("hits", "distances", "rows"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("depth", [None, 20])
@pytest.mark.parametrize("metric", ["symmetric", "asymmetric"])
def test_many_codes_are_ranked_as_by_a_full_sort(metric: Metric, depth: int | None) -> None:
    """So many that the engine scans them in its fast layout, and ties go on beyond the depth."""
    of = case(1, metric, items=5_000, bits=16, queries=3)
    check(of, Settings(depth=depth, keep=30))


@pytest.mark.parametrize("depth", [None, 3])
def test_a_query_to_which_all_codes_are_equally_far_ranks_all(depth: int | None) -> None:
    of = case(2, "asymmetric", items=50)
    of.queries[:] = 0
    check(of, Settings(depth=depth, keep=3))
    assert set(ranked(of, Settings(depth=depth)).ranks.tied.tolist()) == {50}


def test_ties_beyond_the_depth_are_counted_whole() -> None:
    """Twenty thousand equal codes: no search to a depth ends with their group."""
    items, bits = 20_000, 8
    rows = Rows(np.ones((items, bits), np.float32), np.arange(items))
    relevance = Relevance(np.array([0, 2]), np.array([7, items - 1]), np.ones(2, np.int32))
    found = rank(
        Codes(bits),
        np.ones((1, bits), np.float32),
        "symmetric",
        Searched(rows, relevance),
        Settings(depth=10, keep=4),
    )
    assert found.ranks.rank.tolist() == [8, items]
    assert found.ranks.tied.tolist() == [items, items]
    assert found.ranks.within is not None
    assert found.ranks.within.tolist() == [[items, 2]]
    assert found.hits.tolist() == [[0, 1, 2, 3]]


def test_items_without_rows_are_not_ranked_but_count_as_relevant() -> None:
    rows = Rows(np.ones((2, 8), np.float32), [0, 2])
    relevance = Relevance(np.array([0, 2]), np.array([1, 2]), np.array([3, 1], np.int32))
    found = rank(
        Codes(8), np.ones((1, 8), np.float32), "symmetric", Searched(rows, relevance)
    ).ranks
    assert found.ranked.tolist() == [2]
    assert found.relevant.tolist() == [2]
    assert found.ideal.tolist() == [3, 1]
    assert found.rank.tolist() == [2]
    assert found.tied.tolist() == [2]


def test_nothing_to_rank_leaves_everything_unfound() -> None:
    rows = Rows(np.ones((0, 8), np.float32), [])
    relevance = Relevance(np.array([0, 1]), np.array([1]), np.ones(1, np.int32))
    found = rank(
        Codes(8),
        np.ones((1, 8), np.float32),
        "symmetric",
        Searched(rows, relevance),
        Settings(depth=2, rerank=2, keep=4),
    )
    assert len(found.ranks.rank) == 0
    assert found.ranks.relevant.tolist() == [1]
    assert found.hits.size == 0


@pytest.mark.parametrize("depth", [None, 4])
def test_what_is_within_radius_two_is_counted_whole(depth: int | None) -> None:
    of = case(3, "symmetric", items=300)
    found = ranked(of, Settings(depth=depth)).ranks.within
    assert found is not None
    stored = of.fitted.encode_items(of.rows.read(np.arange(300)))
    near = of.fitted.distances(of.fitted.encode_queries(of.queries, "symmetric"), stored, 0, 5) <= 2
    assert near.sum() > 4 * len(of.queries)
    assert found[:, 0].tolist() == near.sum(axis=1).tolist()
    relevant = [int(near[q][of.relevance.of(q)].sum()) for q in range(5)]
    assert found[:, 1].tolist() == relevant


def test_only_hamming_distances_have_a_radius() -> None:
    assert ranked(case(0, "asymmetric"), Settings()).ranks.within is None
    assert ranked(case(0, "asymmetric"), Settings(depth=3)).ranks.within is None
    assert ranked(case(0, "symmetric"), Settings(rerank=3)).ranks.within is None
    assert ranked(case(0, "cosine"), Settings()).ranks.within is None
    means = ranked(case(0, "symmetric", windows=3), Settings(mean=True))
    assert means.ranks.within is None


def test_one_tile_of_embeddings_is_held_at_a_time() -> None:
    of = case(4, "cosine", items=500, windows=3)
    check(of, Settings(keep=5, limits=STREAMED))
    assert of.rows.most_at_once == 1


def test_what_is_relevant_but_no_candidate_still_counts() -> None:
    of = case(5, "symmetric")
    first = Relevance(np.arange(6), np.zeros(5, np.int64), np.ones(5, np.int32))
    ranks = ranked(of, Settings(candidates=first)).ranks
    assert ranks.relevant.tolist() == of.relevance.counts.tolist()
    assert ranks.ranked.tolist() == [1] * 5


@pytest.mark.parametrize("limits", [ALL, STREAMED])
def test_a_distance_that_is_no_number_is_refused_with_its_query(limits: Limits) -> None:
    of = case(6, "cosine")
    of.rows._embeddings[20, 0] = np.nan
    with pytest.raises(InvalidInputError, match=r"query 0 .* NaN"):
        ranked(of, Settings(limits=limits))


def test_an_embedding_that_is_no_number_is_refused_where_it_is_ranked_anew() -> None:
    of = case(8, "symmetric")
    broken = replace(of, rows=Broken(of.rows.read(np.arange(40)), of.rows.owners))
    with pytest.raises(InvalidInputError, match=r"query 0 .* not finite"):
        ranked(broken, Settings(rerank=3))


class Broken(Rows):
    """Reads what is not what was stored."""

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        return np.full((len(rows), self.dim), np.nan, np.float32)


@pytest.mark.parametrize("mean", [False, True])
def test_all_ranked_anew_is_the_ranking_of_the_float_vectors(mean: bool) -> None:
    of = case(9, "asymmetric", windows=3)
    anew = ranked(of, Settings(mean, rerank=of.items, keep=of.items))
    training = Training(of.rows.read(np.arange(4)), "item", of.queries, "query")
    vectors = FloatVectors("float32").fit(training, None, 0)
    floats = rank(vectors, of.queries, "cosine", of.searched, Settings(mean, keep=of.items))
    for name, value in vars(floats.ranks).items():
        assert np.array_equal(value, getattr(anew.ranks, name)), name
    for name in ("hits", "distances", "rows"):
        assert np.array_equal(getattr(floats, name), getattr(anew, name)), name
