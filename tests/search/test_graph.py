"""The graph: what it finds, what is stored of it, and what is refused."""

from __future__ import annotations

from functools import cache
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError, QueryError
from bittern.hashing.codes import unpack
from bittern.index.engines import hnsw as hnsw_module
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.calibration import Curve, recall
from bittern.index.engines.distinct import DistinctCodes
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.graph import Graph
from bittern.index.engines.ivf import Allowed, ApproximateEngine
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from tests.search.collections import pairs, questions

ROWS = 20_000
SPECIES = 100
CURVE = Curve(100, np.array([300, 1_200]), np.array([0.9, 0.999]))
Arrays = dict[str, NDArray[Any]]


def species_codes(n: int, bits: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Codes of `SPECIES` clusters; some bits are flipped in each."""
    rng = np.random.default_rng(seed)
    species = np.random.default_rng(99).integers(0, 256, (SPECIES, bits // 8), dtype=np.uint8)
    flips = np.packbits(rng.random((n, bits)) < 0.1, axis=1, bitorder="little")
    return species[rng.integers(0, SPECIES, n)] ^ flips


def asked(metric: str, count: int = 20, bits: int = 64) -> Queries:
    codes = species_codes(count, bits, seed=1)
    if metric == "hamming":
        return Queries.of_codes(codes)
    noise = np.random.default_rng(2).standard_normal((count, bits))
    return Queries.of_weights(np.tanh(2.0 * unpack(codes) - 1.0 + 0.8 * noise))


def linked(blocks: CodeBlocks, m: int = 8) -> Graph:
    """A graph with a curve that was not measured, which takes time."""
    graph = Graph.build(blocks, m=m, ef_construction=40, threads=1, curve=CURVE)
    graph.rows_per_step = 0
    return graph


@cache
def species_graph() -> Graph:
    return linked(CodeBlocks.of(np.arange(ROWS), species_codes(ROWS)), m=16)


def mean_recall(found: list[Nearest], true: list[Nearest]) -> float:
    return float(
        np.mean([recall(f.distances, t.distances) for f, t in zip(found, true, strict=True)])
    )


@pytest.mark.parametrize("metric", ["hamming", "asymmetric"])
@pytest.mark.parametrize("k", [1, 10, 100, 300])
def test_nearly_all_of_the_nearest_are_found(metric: str, k: int) -> None:
    graph = species_graph()
    queries = asked(metric)
    found = ApproximateEngine(graph, graph.base, recall=0.95).search(queries, k)
    assert mean_recall(found, FlatEngine(graph.base).search(queries, k)) >= 0.95


def test_a_curve_that_was_measured_says_what_recall_comes_out() -> None:
    blocks = CodeBlocks.of(np.arange(5_000), species_codes(5_000))
    graph = Graph.build(blocks, m=8, ef_construction=40, threads=1)
    graph.rows_per_step = 0
    assert graph.curve.recalls[-1] > 0.95
    engine = ApproximateEngine(graph, graph.base, recall=0.95, always=True)
    for metric in ("hamming", "asymmetric"):
        queries = asked(metric)
        found = engine.search(queries, 100)
        assert mean_recall(found, FlatEngine(graph.base).search(queries, 100)) >= 0.94


@pytest.mark.parametrize("bits", [16, 72, 1024])
def test_codes_of_all_lengths_are_searched(bits: int) -> None:
    graph = linked(CodeBlocks.of(np.arange(4_000), species_codes(4_000, bits)))
    engine = ApproximateEngine(graph, graph.base, always=True)
    for metric in ("hamming", "asymmetric"):
        queries = asked(metric, 8, bits)
        found = engine.search(queries, 50)
        assert mean_recall(found, FlatEngine(graph.base).search(queries, 50)) >= 0.9


def test_queries_follow_links_by_their_weights_not_by_signs_alone() -> None:
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 256, (8_000, 8), dtype=np.uint8)
    graph = linked(CodeBlocks.of(np.arange(8_000), codes))
    weights = rng.choice([-1.0, 1.0], (20, 64)) * np.where(np.arange(64) < 24, 1.0, 0.05)
    queries = Queries.of_weights(weights)
    found = graph.follow(queries, 100, Allowed(None, 8_000), 100, 400)
    true = FlatEngine(graph.base).search(queries, 10)
    by_signs = FlatEngine(graph.base).search(Queries.of_codes(queries.codes), 100)

    def share(of: list[NDArray[np.int64]]) -> float:
        pairs_of = zip(of, true, strict=True)
        return float(np.mean([np.isin(one.rows, rows).mean() for rows, one in pairs_of]))

    best_by_signs = share([one.rows for one in by_signs])
    assert share([one.places for one in found]) >= best_by_signs + 0.2


def test_many_equal_codes_do_not_split_the_graph() -> None:
    codes = species_codes(300)[np.random.default_rng(3).integers(0, 300, 12_000)]
    graph = linked(CodeBlocks.of(np.arange(12_000), codes))
    queries = asked("hamming")
    for one, all_of_it in zip(
        graph.candidates(queries, 300, Allowed(None, 12_000), 0.95),
        FlatEngine(graph.base).search(queries, 300),
        strict=True,
    ):
        assert np.sort(one.distances)[:300].tolist() == all_of_it.distances.tolist()


def test_distances_of_candidates_are_those_of_the_queries() -> None:
    graph = species_graph()
    for metric in ("hamming", "asymmetric"):
        queries = asked(metric, 3)
        for number, one in enumerate(graph.candidates(queries, 300, Allowed(None, ROWS), 0.95)):
            true = queries.distances(number, graph.base.codes_at(one.places))
            assert (np.abs(one.distances - true) <= one.error).all()
            assert one.error <= (0.0 if metric == "hamming" else 0.01)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("metric", ["hamming", "asymmetric"])
def test_filters_keep_recall(metric: str, share: float) -> None:
    graph = species_graph()
    rows = RowSet(np.flatnonzero(np.random.default_rng(4).random(ROWS) < share))
    engine = ApproximateEngine(graph, graph.base, always=True)
    queries = asked(metric)
    found = engine.search(queries, 50, rows)
    assert all(set(one.rows.tolist()) <= set(rows.rows.tolist()) for one in found)
    assert mean_recall(found, FlatEngine(graph.base).search(queries, 50, rows)) >= 0.95


def test_links_are_followed_through_what_may_not_be_found() -> None:
    graph = species_graph()
    mask = np.random.default_rng(4).random(ROWS) < 0.05
    allowed = Allowed(mask, int(mask.sum()))
    for one in graph.follow(asked("asymmetric"), 100, allowed, 100, 2_000):
        assert mask[one.places].all()
        assert one.floor == -np.inf, "all codes were looked at"


def test_rows_that_links_do_not_reach_are_found_by_looking_at_all() -> None:
    graph = species_graph()
    query = asked("asymmetric", 1)
    far = FlatEngine(graph.base).search(query, ROWS)[0].rows[-400:]
    rows = RowSet(np.sort(far))
    found = graph.candidates(query, 300, Allowed(np.isin(np.arange(ROWS), far), 400), 0.95)[0]
    assert len(found.places) >= 300
    engine = ApproximateEngine(graph, graph.base, always=True)
    true = FlatEngine(graph.base).search(query, 100, rows)[0]
    assert pairs(engine.search(query, 100, rows)[0]) == pairs(true)


@pytest.mark.parametrize("metric", ["hamming", "asymmetric"])
def test_recall_does_not_fall_when_a_third_is_replaced(metric: str) -> None:
    graph = species_graph()
    queries = asked(metric)

    def recall_in(blocks: CodeBlocks) -> float:
        found = ApproximateEngine(graph, blocks).search(queries, 100)
        return mean_recall(found, FlatEngine(blocks).search(queries, 100))

    deleted = np.flatnonzero(np.random.default_rng(5).random(ROWS) < 0.3)
    added = np.arange(ROWS, ROWS + len(deleted))
    later = graph.base.without(deleted).appended(added, species_codes(len(added), seed=6))
    assert recall_in(later) >= recall_in(graph.base)


def test_a_recall_that_was_never_reached_does_not_pay() -> None:
    graph = species_graph()
    everything = Allowed(None, ROWS)
    assert graph.pays(10, everything, 0.95)
    assert not graph.pays(10, everything, 1.0)


def test_where_exact_search_is_as_fast_the_graph_does_not_pay() -> None:
    graph = Graph.build(species_graph().base, m=4, ef_construction=8, threads=1, curve=CURVE)
    assert not graph.pays(100, Allowed(None, ROWS), 0.95)
    few = np.arange(ROWS) < 200
    graph.rows_per_step = 1
    assert graph.pays(100, Allowed(None, ROWS), 0.95)
    assert not graph.pays(100, Allowed(few, 200), 0.95)


def test_the_caller_keeps_its_number_of_threads() -> None:
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        linked(CodeBlocks.of(np.arange(500), species_codes(500)))
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_the_same_seed_makes_the_same_graph_and_another_seed_another() -> None:
    blocks = CodeBlocks.of(np.arange(500), species_codes(500))
    one, same, other = (
        Graph.build(blocks, m=4, ef_construction=20, seed=seed, threads=1).arrays()
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one["neighbours"], same["neighbours"])
    assert not np.array_equal(one["entries"], other["entries"])


class EnoughError(Exception):
    """Raised by a test to end a building."""


class Checks:
    """Counts how often it is asked, and ends what asks it at some time."""

    def __init__(self, end_at: int | None = None) -> None:
        self.count = 0
        self._end_at = end_at

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._end_at:
            raise EnoughError


@pytest.mark.parametrize("end_at", [1, 3, 5, 7])
def test_a_building_ends_when_it_is_told_to(end_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw_module, "_STEP", 400)
    blocks = CodeBlocks.of(np.arange(1_200), species_codes(1_200))
    checks, threads = Checks(end_at), faiss.omp_get_max_threads()
    with pytest.raises(EnoughError):
        Graph.build(blocks, m=4, ef_construction=20, threads=1, check=checks)
    assert checks.count == end_at
    assert faiss.omp_get_max_threads() == threads


def test_a_building_asks_after_a_few_thousand_codes_and_sooner_if_each_takes_longer() -> None:
    def asked_by(rows: int, bits: int, ef: int) -> int:
        checks = Checks()
        blocks = CodeBlocks.of(np.arange(rows), species_codes(rows, bits))
        Graph.build(blocks, m=2, ef_construction=ef, threads=1, curve=CURVE, check=checks)
        return checks.count

    assert asked_by(9_000, 64, 1) == 3
    assert asked_by(1_500, 1_024, 20) == 2
    assert asked_by(300, 64, 4_000) >= 3


def test_a_graph_is_as_good_however_small_the_steps_and_whatever_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = species_codes(6_000)
    codes = codes[np.lexsort(codes.T[::-1])]
    blocks = CodeBlocks.of(np.arange(6_000), codes)
    queries = asked("asymmetric", 40)
    true = FlatEngine(blocks).search(queries, 50)

    def recall_with(step: int) -> float:
        monkeypatch.setattr(hnsw_module, "_STEP", step)
        found = linked(blocks).candidates(queries, 50, Allowed(None, 6_000), 0.5)
        near = [np.sort(one.distances)[:50] for one in found]
        return float(np.mean([recall(a, b.distances) for a, b in zip(near, true, strict=True)]))

    assert recall_with(100) >= recall_with(6_000) - 0.02


@pytest.mark.parametrize(("m", "ef"), [(1, 40), (65, 40), (8, 0)])
def test_a_graph_that_cannot_be_built_is_refused_with_the_limits(m: int, ef: int) -> None:
    blocks = CodeBlocks.of(np.arange(5), species_codes(5))
    with pytest.raises(QueryError, match=r"must be \d+ to \d+"):
        Graph.build(blocks, m=m, ef_construction=ef)


@pytest.mark.parametrize("rows", [0, 1, 2, 30])
def test_small_graphs_answer_and_come_back_from_storage(rows: int) -> None:
    blocks = CodeBlocks(64, CodeBlocks.of(np.arange(rows), species_codes(rows)).blocks)
    graph = Graph.build(blocks)
    again = Graph.from_arrays(blocks, graph.arrays())
    found = again.candidates(questions("hamming", 2), 5, Allowed(None, rows), 0.9)
    assert [len(one.places) for one in found] == [rows, rows]


# Storage


@cache
def stored() -> tuple[CodeBlocks, Arrays]:
    codes = species_codes(1_200)
    codes[700:900] = codes[:200]
    blocks = CodeBlocks.of(np.arange(1_200), codes)
    return blocks, linked(blocks).arrays()


def test_a_stored_graph_gives_the_same_answers() -> None:
    graph = species_graph()
    again = Graph.from_arrays(graph.base, graph.arrays())
    assert again.nbytes == graph.nbytes
    for metric in ("hamming", "asymmetric"):
        for ours, theirs in zip(
            *(
                one.candidates(asked(metric), 200, Allowed(None, ROWS), 0.95)
                for one in (graph, again)
            ),
            strict=True,
        ):
            assert ours.places.tolist() == theirs.places.tolist()


@pytest.mark.parametrize("name", ["neighbours", "entries", "curve_recalls"])
def test_a_stored_graph_that_lacks_something_is_refused_with_its_name(name: str) -> None:
    blocks, arrays = stored()
    with pytest.raises(ArchiveDamagedError, match=name.removeprefix("curve_")):
        Graph.from_arrays(blocks, {key: value for key, value in arrays.items() if key != name})


def test_a_stored_graph_of_other_codes_is_refused() -> None:
    _, arrays = stored()
    with pytest.raises(ArchiveDamagedError, match="distinct codes"):
        Graph.from_arrays(CodeBlocks.of(np.arange(1_199), species_codes(1_199)), arrays)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("neighbours", np.zeros((1_000, 0), np.int32), "slots"),
        ("neighbours", np.zeros((1_000, 17), np.int32), "slots"),
        ("neighbours", np.zeros((1_000, 130), np.int32), "slots"),
        ("neighbours", np.zeros((999, 16), np.int32), "distinct codes"),
        ("neighbours", np.zeros((0, 16), np.int32), "begin"),
        ("neighbours", np.zeros((1_000, 16), np.int64), "not one"),
        ("neighbours", np.zeros(16_000, np.int32), "not one"),
        ("neighbours", np.full((1_000, 16), 1_000, np.int32), "beyond"),
        ("neighbours", np.full((1_000, 16), -2, np.int32), "beyond"),
        ("entries", np.empty(0, np.int32), "begin"),
        ("entries", np.array([1_000], np.int32), "begin"),
        ("entries", np.array([-1, 3], np.int32), "begin"),
        ("entries", np.array([3, 3], np.int32), "begin"),
        ("entries", np.array([3.0]), "not one"),
        ("curve_efforts", np.array([300, 1 << 30]), "beam"),
        ("curve_efforts", np.array([300, 1 << 40]), "curve"),
    ],
)
def test_stored_arrays_that_cannot_be_are_refused_saying_why(
    name: str, value: NDArray[Any], why: str
) -> None:
    blocks, arrays = stored()
    with pytest.raises(ArchiveDamagedError, match=why):
        Graph.from_arrays(blocks, {**arrays, name: value})


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_hostile_arrays_are_refused_or_searched_without_harm(data: st.DataObject) -> None:
    blocks, arrays = stored()
    name = data.draw(st.sampled_from(["entries", "neighbours"]))
    changed = arrays[name].copy()
    limits = np.iinfo(changed.dtype)
    for _ in range(data.draw(st.integers(1, 4))):
        value = data.draw(st.integers(-3, 1_200) | st.integers(limits.min, limits.max))
        place = data.draw(st.integers(0, changed.size - 1))
        changed.flat[place] = np.clip(value, limits.min, limits.max)
    try:
        graph = Graph.from_arrays(blocks, {**arrays, name: changed})
    except ArchiveDamagedError:
        return
    found = graph.candidates(asked("hamming", 3), 100, Allowed(None, 1_200), 0.95)
    assert all(0 <= place < 1_200 for one in found for place in one.places.tolist())


@given(
    nodes=st.integers(0, 8),
    links=st.lists(st.integers(-2, 8), min_size=1, max_size=40),
    entries=st.sets(st.integers(-1, 8), max_size=4),
    metric=st.sampled_from(["hamming", "asymmetric"]),
)
@settings(max_examples=100, deadline=None)
def test_any_small_graph_is_refused_or_searched_without_harm(
    nodes: int, links: list[int], entries: set[int], metric: str
) -> None:
    blocks = CodeBlocks(64, CodeBlocks.of(np.arange(nodes), _numbered(nodes)).blocks)
    arrays = {
        **CURVE.arrays(),
        "neighbours": np.resize(np.array(links, np.int32), (nodes, 4)),
        "entries": np.array(sorted(entries), np.int32),
    }
    try:
        graph = Graph.from_arrays(blocks, arrays)
    except ArchiveDamagedError:
        return
    for one in graph.candidates(asked(metric, 2), 5, Allowed(None, nodes), 0.95):
        assert len(one.places) >= min(5, nodes)


# Distinct codes


@given(st.lists(st.integers(0, 5), max_size=40), st.sampled_from([2, 8, 9]), st.integers(0, 99))
def test_every_place_belongs_to_the_node_of_its_code(
    values: list[int], width: int, seed: int
) -> None:
    palette = np.random.default_rng(seed).integers(0, 256, (6, width), dtype=np.uint8)
    codes = palette[np.array(values, dtype=np.int64)]
    nodes = DistinctCodes(codes)
    assert len(nodes) == len({code.tobytes() for code in codes})
    first = nodes.first_places()
    heads = codes if first is None else codes[first]
    places, owners = nodes.places_of(np.arange(len(nodes)), None, 100)
    assert sorted(places.tolist()) == list(range(len(values)))
    assert (heads[owners] == codes[places]).all()
    mask = np.random.default_rng(seed).random(len(values)) < 0.5
    masked, _ = nodes.places_of(np.flatnonzero(nodes.any_of(mask)), mask, 100)
    assert sorted(masked.tolist()) == np.flatnonzero(mask).tolist()
    few, of = nodes.places_of(np.arange(len(nodes)), None, 1)
    assert of.tolist() == list(range(len(nodes)))
    assert first is None or few.tolist() == first.tolist()


def _numbered(count: int) -> NDArray[np.uint8]:
    return np.arange(count, dtype=np.uint64).view(np.uint8).reshape(count, 8).copy()
