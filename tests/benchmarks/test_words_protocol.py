from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.benchmarks.words.data import EmbeddedWords, Words
from bittern.benchmarks.words.protocol import (
    Training,
    WordsTask,
    evaluate,
    evaluate_hasher,
    evaluate_logits,
    inner_split,
    split,
)
from bittern.errors import InvalidInputError
from bittern.hashing.training_free import fit

CLASSES, EACH, DIM = 20, 12, 8


def embedded(classes: int = CLASSES, each: int = EACH) -> EmbeddedWords:
    """Items whose first number tells them apart, and whose text is that number."""
    rng = np.random.default_rng(7)
    items = rng.standard_normal((classes * each, DIM)).astype(np.float32)
    items[:, 0] = np.arange(len(items))
    queries = rng.standard_normal((classes, DIM)).astype(np.float32)
    queries[:, 0] = -1.0 - np.arange(classes)
    words = Words(
        texts=tuple(str(i) for i in range(len(items))),
        labels=np.repeat(np.arange(classes), each),
        names=tuple(f"class {c}" for c in range(classes)),
    )
    return EmbeddedWords(words, items, queries)


@given(st.integers(0, 1000))
def test_training_and_database_share_no_item_and_leave_none_out(seed: int) -> None:
    task = split(embedded(), seed)
    together = np.concatenate([task.train_rows, task.database_rows])
    assert np.sort(together).tolist() == list(range(CLASSES * EACH))


@given(st.integers(0, 1000))
def test_nothing_of_a_novel_class_is_in_training(seed: int) -> None:
    task = split(embedded(), seed)
    assert (len(task.seen), len(task.novel)) == (16, 4)
    assert not set(task.seen) & set(task.novel)
    assert set(task.labels[task.train_rows]) == set(task.seen)
    training = task.training()
    assert set(training.names) == {f"class {c}" for c in task.seen}
    assert set(training.queries[:, 0]) == {-1.0 - c for c in task.seen}


def test_half_of_each_seen_class_is_for_training() -> None:
    task = split(embedded(), 0)
    assert np.bincount(task.labels[task.train_rows])[task.seen].tolist() == [EACH // 2] * 16


def test_training_numbers_its_classes_anew_but_keeps_who_belongs_to_whom() -> None:
    task = split(embedded(), 3)
    training = task.training()
    assert sorted(set(training.labels)) == list(range(len(task.seen)))
    for text, item, label in zip(training.texts, training.items, training.labels, strict=True):
        row = int(text)
        assert item[0] == row
        assert training.names[label] == f"class {row // EACH}"


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_inner_split_is_made_of_training_items_and_seen_classes_alone(
    seed: int, inner: int
) -> None:
    outer = split(embedded(), seed)
    task = inner_split(outer.training(), inner)
    assert set(task.item_embeddings[:, 0]) == set(outer.train_rows)
    assert set(task.queries[:, 0]) == {-1.0 - c for c in outer.seen}
    assert len(task.novel) == 3
    assert not set(task.train_rows) & set(task.database_rows)
    assert not set(task.labels[task.train_rows]) & set(task.novel)


def test_a_split_depends_on_nothing_but_its_seed() -> None:
    one, same, other = (split(embedded(), seed) for seed in (1, 1, 2))
    assert np.array_equal(one.train_rows, same.train_rows)
    assert not np.array_equal(one.train_rows, other.train_rows)


def test_classes_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="2 classes"):
        split(embedded(classes=2), 0)
    with pytest.raises(InvalidInputError, match="of 1 items"):
        split(embedded(each=1), 0)


@pytest.fixture
def small() -> WordsTask:
    """Two classes, five items; item 1 is for training, the database is 0, 2, 3, 4."""
    return WordsTask(
        item_embeddings=np.eye(5, dtype=np.float32),
        labels=np.array([0, 0, 1, 0, 1]),
        queries=np.eye(5, dtype=np.float32)[:2],
        train_rows=np.array([1]),
        database_rows=np.array([0, 2, 3, 4]),
        seen=np.array([0]),
        novel=np.array([1]),
    )


def test_mean_average_precision_is_what_a_pencil_gives(small: WordsTask) -> None:
    # Labels of the database: 0 1 0 1. Class 0 ranks 2 0 3 4, class 1 ranks 4 3 2 0.
    distances = np.array([[0.2, 0.1, 0.3, 0.4], [4.0, 3.0, 2.0, 1.0]])
    found = evaluate(small, distances)
    assert found.seen == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.novel == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_equal_distances_are_ordered_by_row(small: WordsTask) -> None:
    found = evaluate(small, np.zeros((2, 4)))
    assert found.seen == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found.novel == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_all_queries_at_once_get_what_each_gets_alone() -> None:
    task = split(embedded(), 5)
    distances = np.random.default_rng(0).integers(0, 9, (CLASSES, len(task.database_rows)))
    found = evaluate(task, distances)
    for number, row in enumerate(distances):
        order = np.lexsort((np.arange(len(row)), row))
        ranks = np.flatnonzero(task.labels[task.database_rows][order] == number) + 1
        alone = np.mean(np.arange(1, len(ranks) + 1) / ranks)
        assert found.precisions[number] == pytest.approx(alone)
    assert found.novel == pytest.approx(found.precisions[task.novel].mean())


def test_distances_of_another_shape_or_without_an_order_are_refused(small: WordsTask) -> None:
    with pytest.raises(InvalidInputError, match=r"\[2, 4\], not \[2, 5\]"):
        evaluate(small, np.zeros((2, 5)))
    with pytest.raises(InvalidInputError, match="not a number"):
        evaluate(small, np.full((2, 4), np.nan))


def test_soft_queries_weigh_bits_where_hard_ones_count_them(small: WordsTask) -> None:
    database = np.full((4, 8), -1.0)
    database[0, 0] = 1.0  # one bit away from query 0's code, but in the bit it is sure of
    database[1, 1:4] = 1.0  # three bits away, in bits that it is unsure of
    queries = np.full((2, 8), -0.01)
    queries[:, 0] = -9.0
    # Nearest first: symmetric 3 4 0 2 (rows of the items), asymmetric 3 4 2 0.
    found = evaluate_logits(small, queries, database)
    assert found["symmetric"].seen == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found["asymmetric"].seen == pytest.approx((1 / 1 + 2 / 4) / 2)


def test_a_shared_head_and_one_per_side_are_both_measured() -> None:
    task = split(embedded(), 0)
    training = task.training()
    shared = fit("pca", {"text": training.items}, 8)
    apart = fit("pca", {"query": training.queries, "item": training.items}, 8, basis=["item"])
    one = evaluate_hasher(task, shared, "text", "text")
    two = evaluate_hasher(task, apart)
    assert set(one) == set(two) == {"asymmetric", "symmetric"}
    assert one["asymmetric"].precisions.tolist() != two["asymmetric"].precisions.tolist()


def test_asking_otherwise_changes_what_is_asked_and_nothing_that_is_trained_on() -> None:
    words = embedded()
    otherwise = replace(words, asked=words.queries[::-1].copy())
    plain, task = split(words, 0), split(otherwise, 0)
    assert np.array_equal(task.asked, words.queries[::-1])
    assert np.array_equal(plain.asked, words.queries)
    for name in ("items", "labels", "queries"):
        assert np.array_equal(getattr(task.training(), name), getattr(plain.training(), name))
    assert np.array_equal(inner_split(task.training(), 1).asked, task.training().queries)


def test_texts_may_be_left_out() -> None:
    training = replace(split(embedded(), 0).training(), texts=(), names=())
    assert isinstance(training, Training)
    assert inner_split(training, 0).training().texts == ()
