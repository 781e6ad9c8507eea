"""Which engine answers, and that an index never delays or changes an answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.index.engines import background_index, choosing
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.choosing import EngineChooser
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import IvfEngine
from bittern.index.engines.queries import Queries
from bittern.query import SearchOptions
from tests.search.test_ivf import clustered


class Shelf:
    """Keeps arrays in memory."""

    def __init__(self) -> None:
        self.arrays: dict[str, Mapping[str, NDArray[Any]]] = {}
        self.writes = 0

    def read(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        return self.arrays.get(name)

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays[name] = dict(arrays)
        self.writes += 1


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "APPROXIMATE_FROM", 5_000)


@pytest.fixture(scope="module")
def blocks() -> CodeBlocks:
    return CodeBlocks.of(np.arange(20_000), clustered(20_000))


def settled() -> None:
    """Wait for running builds."""
    for thread in threading.enumerate():
        if thread.name == "bittern-build":
            thread.join(60)


def build(engines: EngineChooser, blocks: CodeBlocks) -> None:
    """Build the index of these codes, or take up the stored one."""
    engines.engine("owl", blocks, 0.9)
    settled()


def test_searches_are_exact_unless_less_is_wanted(blocks: CodeBlocks) -> None:
    engines = EngineChooser()
    assert engines.engine("owl", blocks).kind == "flat"
    assert engines.engine("owl", blocks).exact
    assert engines.stats("owl", blocks).reason == "exact: every code is compared"


def test_an_index_is_built_in_the_background_and_used_once_it_is_there(blocks: CodeBlocks) -> None:
    engines = EngineChooser(SearchOptions(recall=0.95))
    assert engines.engine("owl", blocks).exact
    settled()
    assert engines.engine("owl", blocks).kind == "ivf"
    stats = engines.stats("owl", blocks)
    assert (stats.kind, stats.exact, stats.building) == ("ivf", False, "")
    assert "0.95" in stats.reason
    assert stats.other_bytes > 20_000 * 8


def test_few_rows_are_searched_exactly_whatever_is_wanted(blocks: CodeBlocks) -> None:
    few = CodeBlocks.of(np.arange(100), clustered(100))
    engines = EngineChooser(SearchOptions(recall=0.5))
    assert engines.engine("owl", few).kind == "flat"
    assert "100 rows" in engines.stats("owl", few).reason


def test_the_approximate_engine_can_be_chosen_by_name(blocks: CodeBlocks) -> None:
    engines = EngineChooser(SearchOptions(engine="ivf", recall=0.9))
    build(engines, blocks)
    assert engines.engine("owl", blocks).kind == "ivf"
    assert engines.engine("owl", blocks, 1.0).exact


def test_an_index_follows_what_is_added_deleted_and_overwritten(blocks: CodeBlocks) -> None:
    engines = EngineChooser(SearchOptions(recall=0.95))
    build(engines, blocks)
    codes = np.array(blocks.codes)
    codes[:4_000] = clustered(4_000, seed=4)
    later = CodeBlocks.of(blocks.rows, codes).without(np.arange(5_000, 6_000))
    later = later.appended(np.arange(20_000, 24_000), clustered(4_000, seed=3))
    queries = Queries.of_codes(clustered(20, seed=6))
    for _ in range(2):
        found = engines.engine("owl", later).search(queries, 50)
        exact = FlatEngine(later).search(queries, 50)
        shares = [
            np.mean(f.distances <= e.distances[-1]) for f, e in zip(found, exact, strict=True)
        ]
        assert np.mean(shares) >= 0.95
        settled()
    engine = engines.engine("owl", later)
    assert isinstance(engine, IvfEngine)
    assert len(engine.lists.base) == 24_000


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_an_index_over_many_deleted_rows_is_built_once(blocks: CodeBlocks, share: float) -> None:
    shelf = Shelf()
    engines = EngineChooser(SearchOptions(recall=0.95), shelf)
    later = blocks.without(np.flatnonzero(np.random.default_rng(0).random(20_000) < share))
    for _ in range(4):
        engines.engine("owl", later)
        settled()
    assert shelf.writes == 1
    assert engines.engine("owl", later).kind == "ivf"


def test_closing_ends_what_is_being_built(
    blocks: CodeBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def build(_: CodeBlocks, *, check: Any, **__: Any) -> InvertedLists:
        begun.set()
        while True:
            check()

    monkeypatch.setattr(InvertedLists, "build", build)
    engines = EngineChooser(SearchOptions(recall=0.95))
    engines.engine("owl", blocks)
    assert begun.wait(10)
    engines.close()
    assert not [t for t in threading.enumerate() if t.name == "bittern-build"]


def test_nothing_is_built_where_nothing_is_to_be(
    blocks: CodeBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf()
    build(EngineChooser(SearchOptions(recall=0.95), shelf), blocks)
    monkeypatch.setattr(InvertedLists, "build", lambda *_, **__: pytest.fail("built"))
    lazy = SearchOptions(recall=0.95, build=False)
    assert EngineChooser(lazy, Shelf()).engine("owl", blocks).kind == "flat"
    assert EngineChooser(lazy, shelf).engine("owl", blocks).kind == "ivf"


def test_a_kept_index_is_taken_up_instead_of_built(
    blocks: CodeBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf()
    build(EngineChooser(SearchOptions(recall=0.95), shelf), blocks)
    assert list(shelf.arrays) == ["owl-ivf"]
    monkeypatch.setattr(InvertedLists, "build", lambda *_, **__: pytest.fail("built anew"))
    again = EngineChooser(SearchOptions(recall=0.95), shelf)
    build(again, blocks)
    assert again.engine("owl", blocks).kind == "ivf"


def test_a_damaged_kept_index_is_built_anew(blocks: CodeBlocks) -> None:
    shelf = Shelf()
    build(EngineChooser(SearchOptions(recall=0.95), shelf), blocks)
    shelf.arrays["owl-ivf"] = {"members": np.zeros(3)}
    again = EngineChooser(SearchOptions(recall=0.95), shelf)
    build(again, blocks)
    assert again.engine("owl", blocks).kind == "ivf"
    assert len(shelf.arrays["owl-ivf"]) > 3


@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_an_index_that_cannot_be_built_leaves_searches_exact(
    error: type[Exception],
    blocks: CodeBlocks,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = InvertedLists.build

    def fail(*_: Any, **__: Any) -> InvertedLists:
        raise error("too little of it")

    monkeypatch.setattr(InvertedLists, "build", fail)
    engines = EngineChooser(SearchOptions(recall=0.95))
    for _ in range(3):
        assert engines.engine("owl", blocks).exact
        settled()
    assert "too little of it" in engines.stats("owl", blocks).reason
    assert caplog.text.count("searches stay exact") == 1
    monkeypatch.setattr(InvertedLists, "build", whole)
    monkeypatch.setattr(background_index, "_RETRY_AFTER_S", 0.0)
    build(engines, blocks)
    assert engines.engine("owl", blocks).kind == "ivf"


def test_without_a_graphics_card_the_cpu_answers_and_says_so(
    blocks: CodeBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bittern.index.engines.device_memory.available_device", lambda: None)
    engines = EngineChooser(SearchOptions(engine="gpu"))
    assert engines.engine("owl", blocks).kind == "flat"
    assert "no graphics card" in engines.stats("owl", blocks).reason


def test_codes_that_do_not_fit_the_card_are_searched_on_the_cpu(
    blocks: CodeBlocks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bittern.index.engines.device_memory.available_device", lambda: "cpu")
    engines = EngineChooser(SearchOptions(engine="gpu", gpu_memory=1_000))
    for _ in range(3):
        assert engines.engine("owl", blocks).kind == "flat"
    assert caplog.text.count("is searched on the CPU") == 1
    assert "on the CPU" in engines.stats("owl", blocks).reason
