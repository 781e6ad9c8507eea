"""One contract for everything that can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems import learned
from bittern.benchmarks.eval.systems.base import Fitted, System, Training
from bittern.benchmarks.eval.systems.selection import LABELLED, UNLABELLED
from bittern.errors import CodeError, InvalidInputError

CLASSES, EACH, DIM, BITS = 12, 40, 24, 24
ROWS = 300
SEEDLESS = {"float32", "float16", "int8", "centred"}
QUANTIZED = {"pq", "opq"}
QUICK = ("aligned-float32", "crovca", "hb-crovca")
NAMES = [*UNLABELLED, *QUICK]
Rows = NDArray[np.float32]


def clouds(seed: int) -> Training:
    """Classes with a text each, and items around it after a turn; both sides off the origin."""
    rng = np.random.default_rng(seed)
    names = rng.standard_normal((CLASSES, DIM))
    labels = np.repeat(np.arange(CLASSES), EACH)
    items = names[labels] @ (np.eye(DIM) + 0.2 * rng.standard_normal((DIM, DIM)))
    items += 0.7 * rng.standard_normal(items.shape) + 0.5
    return Training(unit(items), "image", unit(names - 0.5), "text", labels)


def unit(rows: NDArray[Any]) -> Rows:
    found: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def training() -> Training:
    return clouds(5)


@pytest.fixture(scope="module")
def items() -> Rows:
    """Items of which every one comes again, somewhere else."""
    rng = np.random.default_rng(6)
    once = clouds(7).items[rng.permutation(CLASSES * EACH)[: ROWS // 2]]
    return np.ascontiguousarray(np.concatenate([once, once[::-1]]))


@pytest.fixture(scope="module")
def queries() -> Rows:
    return clouds(7).queries


@pytest.fixture(scope="module")
def fitted(training: Training) -> dict[str, Fitted]:
    return {name: fit(name, training, 1) for name in NAMES}


def system(name: str) -> System:
    return {**UNLABELLED, **LABELLED}[name]


def fit(name: str, training: Training, seed: int) -> Fitted:
    one = system(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "EPOCHS", 2)
        return one.fit(training, BITS if one.coded else None, seed)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_takes_exactly_the_bytes_that_are_said(
    name: str, fitted: dict[str, Fitted], items: Rows
) -> None:
    stored = fitted[name].encode_items(items)
    assert len(stored) == ROWS
    assert stored.nbytes == fitted[name].bytes_per_row * ROWS
    if system(name).coded:
        assert fitted[name].bits == BITS
        assert stored.dtype == np.uint8
        assert stored.shape == (ROWS, BITS // 8)
    else:
        assert fitted[name].bits is None


@pytest.mark.parametrize("name", NAMES)
def test_distances_are_those_of_the_queries_given(
    name: str, fitted: dict[str, Fitted], items: Rows, queries: Rows
) -> None:
    one = fitted[name]
    stored = one.encode_items(items)
    for metric in one.metrics:
        encoded = one.encode_queries(queries, metric)
        distances = one.distances(encoded, stored, 0, len(queries))
        assert distances.shape == (len(queries), ROWS)
        counted = metric == "symmetric" and name not in QUANTIZED
        assert distances.dtype == (np.int32 if counted else np.float64)
        assert np.isfinite(distances).all()
        assert np.array_equal(one.distances(encoded, stored, 2, 5), distances[2:5])
        assert one.distances(encoded, stored, 3, 3).shape == (0, ROWS)
        assert one.distances(encoded, one.encode_items(items[:0]), 0, 1).shape == (1, 0)


@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_are_at_equal_distances_wherever_they_stand(
    name: str, fitted: dict[str, Fitted], items: Rows, queries: Rows
) -> None:
    one = fitted[name]
    stored = one.encode_items(items)
    assert np.array_equal(stored[: ROWS // 2], stored[ROWS // 2 :][::-1])
    for metric in one.metrics:
        encoded = one.encode_queries(queries, metric)
        distances = one.distances(encoded, stored, 0, len(queries))
        assert np.array_equal(distances[:, : ROWS // 2], distances[:, ROWS // 2 :][:, ::-1])


@pytest.mark.parametrize("tile", [1, 7, 64, 299])
@pytest.mark.parametrize("name", NAMES)
def test_tiles_change_nothing(
    name: str, tile: int, fitted: dict[str, Fitted], items: Rows, queries: Rows
) -> None:
    one = fitted[name]
    stored = one.encode_items(items)
    starts = range(0, ROWS, tile)
    assert np.array_equal(
        np.concatenate([one.encode_items(items[s : s + tile]) for s in starts]), stored
    )
    for metric in one.metrics:
        encoded = one.encode_queries(queries, metric)
        whole = one.distances(encoded, stored, 0, len(queries))
        tiles = [one.distances(encoded, stored[s : s + tile], 0, len(queries)) for s in starts]
        assert np.array_equal(np.concatenate(tiles, axis=1), whole)
        single = [one.distances(encoded, stored, q, q + 1) for q in range(len(queries))]
        assert np.array_equal(np.concatenate(single), whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_everything(
    name: str, fitted: dict[str, Fitted], training: Training, items: Rows
) -> None:
    again, other = fit(name, training, 1), fit(name, training, 2)
    assert again.digest == fitted[name].digest
    assert np.array_equal(again.encode_items(items), fitted[name].encode_items(items))
    if name in SEEDLESS:
        assert other.digest == again.digest
    else:
        assert other.digest != again.digest
        assert not np.array_equal(other.encode_items(items), again.encode_items(items))


def test_every_system_has_a_digest_of_its_own(fitted: dict[str, Fitted]) -> None:
    digests = {one.digest for one in fitted.values()}
    assert len(digests) == len(fitted)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"float32", "float16"}))
def test_other_training_rows_give_another_digest(name: str, fitted: dict[str, Fitted]) -> None:
    assert fit(name, clouds(8), 1).digest != fitted[name].digest


@pytest.mark.parametrize("name", UNLABELLED)
def test_an_item_is_found_by_itself_where_both_sides_are_the_same(
    name: str, training: Training, items: Rows
) -> None:
    same = Training(training.items, "image", training.items, "image")
    one = fit(name, same, 1)
    stored = one.encode_items(items)
    for metric in one.metrics:
        distances = one.distances(one.encode_queries(items, metric), stored, 0, ROWS)
        own = np.diagonal(distances)
        nearer = (distances < own[:, None]).sum(axis=1)
        assert np.median(nearer) <= 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_is_not_finite_is_refused_by_number(
    name: str, value: float, fitted: dict[str, Fitted], items: Rows, training: Training
) -> None:
    bad = items.copy()
    bad[17, 3] = value
    one = fitted[name]
    with pytest.raises(CodeError, match="row 17 "):
        one.encode_items(bad)
    with pytest.raises(CodeError, match="row 17 "):
        one.encode_queries(bad, one.metrics[0])
    with pytest.raises(CodeError, match=r"training items .* row 17 "):
        fit(name, Training(bad, "image", training.queries, "text", np.zeros(ROWS, np.int64)), 1)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_dimensions_metrics_and_empty_parts_are_refused(
    name: str, fitted: dict[str, Fitted], items: Rows, training: Training
) -> None:
    one = fitted[name]
    with pytest.raises(CodeError, match=rf"\[n, {DIM}\]"):
        one.encode_items(items[:, :-1])
    with pytest.raises(InvalidInputError, match="offers"):
        one.encode_queries(items, "euclidean")  # type: ignore[arg-type]
    empty = Training(training.items[:0], "image", training.queries, "text", training.labels)
    with pytest.raises(InvalidInputError):
        fit(name, empty, 1)


@pytest.mark.parametrize("name", NAMES)
def test_lengths_that_do_not_fit_have_a_reason_and_are_refused(
    name: str, training: Training
) -> None:
    one = system(name)
    if not one.coded:
        assert one.fits(DIM, None) == ""
        assert one.fits(DIM, 32) != ""
        return
    assert one.fits(DIM, BITS) == ""
    for bits in (None, 0, 12, 8192):
        assert one.fits(DIM, bits) != ""
        with pytest.raises(InvalidInputError):
            one.fit(training, bits, 0)
