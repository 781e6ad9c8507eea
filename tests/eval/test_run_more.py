"""Whole runs and their steps: draws, windows, candidates, what distinguishes cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.benchmarks.eval import measuring
from bittern.benchmarks.eval.cells import Cell, Variant
from bittern.benchmarks.eval.jobs import (
    Job,
    StoredModel,
    Vectors,
    _systems,
    _with_windows,
    digest_of,
)
from bittern.benchmarks.eval.measuring import measured_cell
from bittern.benchmarks.eval.outcome import Begun, Done, LeftOut, results_of
from bittern.benchmarks.eval.spaces import Space
from bittern.benchmarks.eval.suites import suite_named
from bittern.benchmarks.eval.suites.custom_archive import StoredCodes
from bittern.benchmarks.eval.systems.base import Training
from bittern.benchmarks.eval.systems.learned import SavedHasher
from bittern.benchmarks.eval.systems.selection import UNLABELLED
from bittern.benchmarks.eval.tasks import Classes, Items, Protocol, QuerySet, Relevance, Task
from bittern.hashing.saved_model import SavedModel
from bittern.service.models.model import Embedder
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder
from tests.eval.embedding_toys import ArrayRows
from tests.eval.toy_runs import request


def sparse(*of_query: Sequence[int], grade: int = 1) -> Relevance:
    offsets = np.cumsum([0, *(len(each) for each in of_query)])
    items = np.array([item for each in of_query for item in each], dtype=np.int64)
    return Relevance(offsets, items, np.full(len(items), grade, dtype=np.int32))


def a_task(queries: int, items: int, relevance: Relevance, **changed: Any) -> Task:
    query_ids = [f"q{number}" for number in range(queries)]
    ids = [f"i{number}" for number in range(items)]
    none = np.full(max(queries, items), -1, dtype=np.int32)
    given: dict[str, Any] = {
        "name": "text→audio",
        "queries": QuerySet(query_ids, "text", [(q,) for q in query_ids], none[:queries], "text"),
        "items": Items(ids, "audio", ids, none[:items], "audio"),
        "relevance": relevance,
        "classes": Classes([]),
        **changed,
    }
    return Task(**given)


def unit(*angles: float) -> NDArray[np.float32]:
    """Vectors of eight numbers, at angles from the first axis, in degrees."""
    turned = np.radians(angles)
    found = np.zeros((len(angles), 8), dtype=np.float32)
    found[:, 0], found[:, 1] = np.cos(turned), np.sin(turned)
    return found


def vectors_at(
    angles: Sequence[float], owners: Sequence[int], queries: Sequence[float], digest: str = "rows"
) -> Vectors:
    found = unit(*angles)
    spans = np.full((len(angles), 2), np.nan, dtype=np.float32)
    rows = ArrayRows(found, np.array(owners), spans)
    rows.digest = digest
    return Vectors(rows, unit(*queries), Training(found, "audio", unit(*queries), "text"))


def cell_of(
    tmp_path: Path,
    task: Task,
    vectors: Vectors,
    system: str = "float32",
    bits: int | None = None,
    measures: Sequence[str] = ("AP",),
    **protocol: Any,
) -> Cell:
    job = Job(Space("toy", None), task, vectors, [], "digest")
    wanted = request(tmp_path, protocol=Protocol(**protocol), rerank=0)
    return measured_cell(job, UNLABELLED[system], bits, wanted, measures)


EXPECTED = 1
COSINE = Variant("cosine")


def test_each_draw_has_a_seed_and_codes_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    task = a_task(4, 40, sparse([0, 1], [2], [3], [4, 5]))
    vectors = vectors_at(rng.uniform(0, 360, 40).tolist(), range(40), [10, 80, 150, 220])
    cell = cell_of(tmp_path, task, vectors, "hb", 8, seed=5)
    assert cell.about["seeds"] == list(range(5, 15))
    assert len(set(cell.about["digests"])) == 10


# Recording 0 has a near window (10°) and a far one (170°), recording 1 two middling ones.
HALVES = vectors_at([10, 170, 40, 50], [0, 0, 1, 1], [0])


@pytest.mark.parametrize(("windows", "figure"), [("max", 1.0), ("mean", 0.5)])
def test_a_recording_counts_by_its_nearest_window_or_by_their_mean(
    tmp_path: Path, windows: Any, figure: float
) -> None:
    task = a_task(1, 2, sparse([0]))
    values = cell_of(tmp_path, task, HALVES, windows=windows).variants[COSINE].values["AP"]
    assert values[EXPECTED].tolist() == [[figure]]


def test_only_candidates_are_ranked_and_chance_is_among_them(tmp_path: Path) -> None:
    # By angle 0 1 2 3 4 5; candidates of the first query 1, 3, 4, of the second 0 and 5.
    task = a_task(2, 6, sparse([3], [5]), candidates=sparse([1, 3, 4], [0, 5]))
    vectors = vectors_at([5, 10, 20, 30, 40, 50], range(6), [0, 0])
    cell = cell_of(tmp_path, task, vectors)
    ranked = cell.variants[COSINE]
    assert ranked.values["AP"][EXPECTED].tolist() == [[0.5, 0.5]]
    assert [[i for i in hits if i >= 0] for hits in ranked.hits.tolist()] == [[1, 3, 4], [0, 5]]
    results = outcome(tmp_path, [(task, vectors, cell)])
    # One right item among three: (1 + 1/2 + 1/3)/3; among two: (1 + 1/2)/2.
    assert results.tasks[0].groups[0].chance == pytest.approx((11 / 18 + 3 / 4) / 2)


def outcome(
    tmp_path: Path,
    measured: Sequence[tuple[Task, Vectors, Cell]],
    left_out: Sequence[LeftOut] = (),
    spaces: Sequence[str] = (),
) -> Any:
    embedder = Embedder("toy", lambda name: ToyEncoder())
    done = []
    for number, (task, vectors, cell) in enumerate(measured):
        space = Space(spaces[number] if spaces else "toy", embedder)
        job = Job(space, task, vectors, [], f"digest {number}")
        about = {**cell.about, "model": space.name}
        cells = {f"{number:032}": replace(cell, about=about)}
        done.append(Done(job, ["AP"], cells, left_out))
    # Hits are read from the run's folder, where these cells are not.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bittern.benchmarks.eval.outcome._shown", lambda *given: [])
        return results_of(suite_named("custom"), request(tmp_path), done, Begun("", 0.0, None))


def test_hits_of_further_draws_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go: list[Any] = []
    real = measuring._without_hits

    def counted(ranking: Any) -> Any:
        let_go.append(real(ranking))
        return let_go[-1]

    monkeypatch.setattr(measuring, "_without_hits", counted)
    task = a_task(1, 6, sparse([3]))
    cell = cell_of(tmp_path, task, vectors_at([5, 10, 20, 30, 40, 50], range(6), [0]), "hb", 8)
    assert len(let_go) == 2 * 9  # two distances; the hits of the first of ten draws are kept
    for ranking in let_go:
        assert ranking.hits.shape == ranking.distances.shape == ranking.rows.shape == (1, 0)
        assert ranking.hits.base is None
    assert all(ranked.hits.shape == (1, 6) for ranked in cell.variants.values())


def test_of_many_queries_each_keeps_fewer_ranks_but_those_that_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = a_task(3, 60, sparse([0], [1], [2]))
    vectors = vectors_at(np.arange(60.0).tolist(), range(60), [0, 1, 2])

    def kept() -> tuple[int, int]:
        ranked = cell_of(tmp_path, task, vectors).variants[COSINE]
        assert ranked.rows.shape == ranked.distances.shape
        return ranked.hits.shape[1], ranked.rows.shape[1]

    assert kept() == (60, 20)
    monkeypatch.setattr(measuring, "MOST_KEPT", 3 * 30)
    assert kept() == (30, 20)
    monkeypatch.setattr(measuring, "MOST_KEPT", 3)
    assert kept() == (20, 20)
    monkeypatch.setattr(measuring, "DEEPEST_RUN", 7)
    assert kept() == (7, 7)


def digest(task: Task | None = None, **changed: Any) -> str:
    vectors = vectors_at([5, 10, 20], [0, 1, 2], [0])
    changes = {"labels": np.array([0, 0, 0]), **changed.pop("training", {})}
    training = replace(vectors.training, **changes)
    return digest_of(
        task or a_task(1, 3, sparse([1])), replace(vectors, training=training, **changed)
    )


def test_items_queries_relevance_and_training_are_in_the_digest_of_a_job() -> None:
    other = unit(5, 10, 21)
    rows = vectors_at([5, 10, 20], [0, 1, 2], [0], digest="others").rows
    task = a_task(1, 3, sparse([1]))
    digests = [
        digest(),
        digest(training={"items": other}),
        digest(training={"queries": unit(1)}),
        digest(training={"labels": None}),
        digest(training={"labels": np.array([0, 0, 1])}),
        digest(rows=rows),
        digest(queries=unit(3)),
        digest(replace(task, relevance=sparse([2]))),
        digest(replace(task, relevance=sparse([1], grade=2))),
        digest(replace(task, candidates=sparse([1, 2]))),
        digest(replace(task, candidates=sparse([0, 1]))),
    ]
    assert len(set(digests)) == len(digests)
    assert digest() == digests[0]


def stored(codes: list[int], digest: str = "one") -> StoredModel:
    array = np.array([codes], dtype=np.uint8).T
    owners, spans = np.arange(len(codes)), np.zeros((len(codes), 2), dtype=np.float32)
    either = frozenset({"text", "image"})
    return StoredModel(StoredCodes("toy-8", digest, either, Path(), array, owners, spans, 0))


def saved(bits: int, seed: int, name: str = "pond") -> SavedModel:
    model = toy_model(ToyEncoder(), bits, seed)
    card = model.card
    return SavedModel.describe(
        name, model.hasher, encoder=card.encoder, towers=dict(card.towers), licence=card.licence
    )


def test_systems_of_one_name_have_cells_of_their_own() -> None:
    same, others, model = stored([1, 2]), stored([1, 3]), stored([1, 2], "two")
    assert same.name == others.name == model.name
    assert len({each.identity for each in (same, others, model, stored([1, 2]))}) == 3
    one, other = (SavedHasher(saved(16, seed)) for seed in (0, 1))
    assert one.name == other.name
    assert one.identity != other.identity


def test_saved_models_of_one_name_and_length_get_names_of_their_own() -> None:
    models = (saved(16, 0), saved(16, 1), saved(32, 0))
    space = Space("toy", Embedder("toy", lambda name: ToyEncoder()), "", models)
    vectors = vectors_at([5, 10, 20], [0, 1, 2], [0])
    wanted: Any = SimpleNamespace(systems=("learned",))
    names = [system.name for system in _systems(space, vectors, wanted)]
    plain = SavedHasher(models[2]).name
    assert names == [*(f"{plain} {m.card.digest[:8]}" for m in models[:2]), plain]


def test_queries_that_no_window_answers_take_their_own_vectors_away() -> None:
    before = a_task(3, 3, sparse([0], [1], [2]))
    left = replace(before.queries, ids=["q0", "q2"])
    after = replace(before, queries=left, relevance=sparse([0], [2]))
    vectors = vectors_at([0, 10, 20], [0, 1, 2], [0, 10, 20])
    by_window = replace(before, by_window=lambda owners, spans: after)
    np.testing.assert_array_equal(
        _with_windows(by_window, vectors, Protocol())[1].queries, unit(0, 20)
    )
    assert _with_windows(before, vectors, Protocol()) == (before, vectors)


def with_classes(task: Task, seen: list[bool], repeat: int = 0) -> Task:
    """Each query asks for the class of its number, and so is each item."""
    queries = replace(task.queries, classes=np.arange(len(task.queries), dtype=np.int32))
    items = replace(task.items, classes=np.arange(len(task.items), dtype=np.int32))
    members = np.array(seen)
    return replace(
        task,
        queries=queries,
        items=items,
        classes=Classes([f"class {number}" for number in range(len(task.items))]),
        groups={"seen": members, "novel": ~members},
        repeat=repeat,
    )


def test_a_class_has_its_figure_over_the_splits_in_which_it_is_in_the_group(
    tmp_path: Path,
) -> None:
    task = a_task(2, 2, sparse([0], [1]))
    near = vectors_at([0, 90], [0, 1], [0, 90])
    turned = vectors_at([90, 0], [0, 1], [0, 90])
    measured = [
        (each, vectors, cell_of(tmp_path, each, vectors))
        for each, vectors in (
            (with_classes(task, [True, True]), near),
            (with_classes(task, [True, False], repeat=1), turned),
        )
    ]
    results = outcome(tmp_path, measured)
    found = {(c.group, c.name): list(c.values.values()) for c in results.classes if c.values}
    assert found == {
        ("seen", "class 0"): [0.75],
        ("seen", "class 1"): [1.0],
        ("novel", "class 1"): [0.5],
    }
    [summary] = results.tasks
    assert (summary.splits, [(g.name, g.queries) for g in summary.groups]) == (
        2,
        [("all", 2), ("seen", 2), ("novel", 1)],
    )


def test_each_group_has_its_own_chance_and_each_model_its_own_summary(tmp_path: Path) -> None:
    task = with_classes(a_task(2, 3, sparse([0], [1, 2])), [True, False])
    vectors = vectors_at([0, 40, 80], [0, 1, 2], [0, 80])
    cell = cell_of(tmp_path, task, vectors)
    results = outcome(tmp_path, [(task, vectors, cell)] * 2, spaces=["one", "other"])
    assert [(t.name, t.model, t.splits) for t in results.tasks] == [
        ("text→audio", "one", 1),
        ("text→audio", "other", 1),
    ]
    chances = {group.name: group.chance for group in results.tasks[0].groups}
    # One of three: 1, 1/2 or 1/3. Two of three, at ranks 1 2, 1 3, 2 3: 1, 5/6, 7/12.
    assert chances["seen"] == pytest.approx(11 / 18)
    assert chances["novel"] == pytest.approx((1 + 5 / 6 + 7 / 12) / 3)
    assert chances["all"] == pytest.approx((chances["seen"] + chances["novel"]) / 2)
    assert {row.model for row in results.rows} == {"one", "other"}


def test_what_was_left_out_and_what_failed_is_counted(tmp_path: Path) -> None:
    task = a_task(2, 3, sparse([0, 2], [1, 2]))
    vectors = vectors_at([0, 40], [0, 1], [0, 40])
    vectors.rows.failed = ((2, "no such file"),)
    cell = cell_of(tmp_path, task, vectors)
    left = [LeftOut("text→audio", "PQ", bits, f"{bits} rows are too few") for bits in (16, 8)]
    results = outcome(tmp_path, [(task, vectors, cell)], left)
    assert results.notes[0] == (
        "PQ is left out at 8, 16 bits (text→audio), for example: 16 rows are too few"
    )
    assert list(results.tasks[0].left_out) == [
        "1 item could not be used and counts as not found; the right answer 2 times"
    ]
