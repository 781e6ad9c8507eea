"""What systems are fitted on: labels that fit their queries, rows that are drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.eval.jobs import Vectors, drawn_rows, vectors_of
from bittern.benchmarks.eval.spaces import Space
from bittern.benchmarks.eval.tasks import (
    Classes,
    Items,
    Protocol,
    QuerySet,
    Relevance,
    Task,
    TrainingSplit,
)
from bittern.errors import InvalidInputError
from bittern.service.models.model import Embedder
from tests.engine.toy import COLOURS, DIM, ToyEncoder
from tests.eval.toy_runs import request

NAMES = list(COLOURS)


def queries_of(classes: list[int]) -> QuerySet:
    words = [(NAMES[number],) for number in classes]
    return QuerySet([w[0] for w in words], "text", words, np.array(classes, dtype=np.int32), "text")


def items(classes: list[int]) -> Items:
    ids = [f"{position}" for position in range(len(classes))]
    texts = [NAMES[number] if number >= 0 else "nothing" for number in classes]
    return Items(ids, "text", texts, np.array(classes, dtype=np.int32), "gloss")


def vectors(tmp_path: Path, trained: list[int], queries: list[int]) -> Vectors:
    """A task of three texts, with a training split of its own."""
    all_items, all_queries = items([0, 1, 2]), queries_of([0, 1, 2])
    task = Task(
        name="text→text",
        queries=all_queries,
        items=all_items,
        relevance=Relevance.by_class(all_queries.classes, all_items.classes),
        classes=Classes(NAMES),
        training=TrainingSplit(items(trained), queries_of(queries)),
    )
    space = Space("toy", Embedder("toy", lambda name: ToyEncoder()))
    return vectors_of(task, space, request(tmp_path), tmp_path / "cache", lambda done: None)


def test_labels_name_the_query_of_each_class_in_whatever_order_queries_stand(
    tmp_path: Path,
) -> None:
    training = vectors(tmp_path, [0, 1, 2, 2, 0], [2, 0, 1]).training
    assert training.labels is not None
    assert training.labels.tolist() == [1, 2, 0, 0, 1]
    for item, label in zip(training.items, training.labels.tolist(), strict=True):
        np.testing.assert_allclose(item, training.queries[label], atol=1e-6)


@pytest.mark.parametrize(("trained", "queries"), [([0, -1, 1], [0, 1]), ([0, 2], [0, 1])])
def test_a_training_split_with_an_item_of_no_query_has_no_labels(
    tmp_path: Path, trained: list[int], queries: list[int]
) -> None:
    training = vectors(tmp_path, trained, queries).training
    assert training.labels is None
    assert len(training.items) == len(trained)


def test_another_seed_draws_other_rows_and_the_same_seed_the_same() -> None:
    possible = np.arange(1_000)
    drawn = [drawn_rows(possible, Protocol(fit_rows=20, seed=seed)) for seed in (3, 3, 4)]
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()
    assert (np.diff(drawn[0]) > 0).all()


def test_embeddings_of_another_dimension_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    given = items([0, 1, 2])
    (folder / "ids.txt").write_text("\n".join(given.ids))
    task = Task(
        name="text→text",
        queries=queries_of([0, 1, 2]),
        items=given,
        relevance=Relevance.by_class(given.classes, given.classes),
        classes=Classes(NAMES),
    )
    space = Space("toy", Embedder("toy", lambda name: ToyEncoder()))
    wanted = request(tmp_path, embeddings=folder)
    for dim in (DIM, DIM + 4):
        np.save(folder / "embeddings.npy", np.eye(3, dim, dtype=np.float32))
        if dim == DIM:
            found = vectors_of(task, space, wanted, tmp_path / "cache", lambda done: None)
            assert found.rows.dim == DIM
        else:
            with pytest.raises(InvalidInputError, match="16 dimensions, the model's have 12"):
                vectors_of(task, space, wanted, tmp_path / "cache", lambda done: None)


def test_fewer_rows_are_fitted_on_where_the_protocol_says_so(tmp_path: Path) -> None:
    given = items([0, 1, 2, 0, 1, 2])
    task = Task(
        name="text→text",
        queries=queries_of([0, 1, 2]),
        items=given,
        relevance=Relevance.by_class(np.array([0, 1, 2], np.int32), given.classes),
        classes=Classes(NAMES),
    )
    space = Space("toy", Embedder("toy", lambda name: ToyEncoder()))
    wanted = replace(request(tmp_path), protocol=Protocol(fit_rows=2))
    found = vectors_of(task, space, wanted, tmp_path / "cache", lambda done: None)
    assert (len(found.rows), len(found.training.items)) == (6, 2)
