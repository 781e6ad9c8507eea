"""Search on a device: candidates, precision, the memory that archives share.

PyTorch's device is the CPU unless `engines.DEVICE` says otherwise: then the arithmetic and the
book-keeping are tested, and not a card.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.errors import LimitExceededError
from bittern.hashing.codes import MAX_BITS
from bittern.index.engines import gpu
from bittern.index.engines.blocks import Block, BlockSelection, CodeBlocks, RowNumbers
from bittern.index.engines.device_memory import LEAST_TILE_ROWS, DeviceMemory
from bittern.index.engines.gpu import MOST_NEAREST, DeviceScan, GpuEngine, WholeWeights
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import Candidates
from tests.search.collections import collection, pairs, questions
from tests.search.engines import DEVICE

METRICS = ("hamming", "asymmetric")


def block(n: int, bits: int = 64, *, seed: int = 0) -> Block:
    codes = np.random.default_rng(seed).integers(0, 256, (n, bits // 8), dtype=np.uint8)
    return Block(RowNumbers(np.arange(n)), codes)


def memory_of(budget: int = 1 << 24) -> DeviceMemory:
    return DeviceMemory(DEVICE, budget)


def engine_of(blocks: CodeBlocks, memory: DeviceMemory | None = None) -> GpuEngine:
    return GpuEngine(blocks, memory=memory or memory_of(), least_rows=0)


def check(
    found: list[Candidates], queries: Queries, made: Block, mask: NDArray[np.bool_], count: int
) -> None:
    """What a proof of exactness rests on."""
    allowed = int(mask.sum())
    for query, one in enumerate(found):
        exact = queries.distances(query, made.codes)
        assert len(set(one.positions.tolist())) == len(one.positions) == min(count, allowed)
        assert mask[one.positions].all()
        assert (np.abs(one.distances - exact[one.positions]) <= one.error).all()
        outside = mask.copy()
        outside[one.positions] = False
        assert (exact[outside] >= one.floor).all()
        assert (one.floor == np.inf) == (count >= allowed)


# Candidates


@given(
    n=st.integers(1, 3 * LEAST_TILE_ROWS + 5),
    bits=st.sampled_from([8, 40, 64, 256]),
    share=st.sampled_from([None, 0.01, 0.2, 0.3, 0.9]),
    count=st.sampled_from([1, 10, 700, 2_000, 10_000]),
    metric=st.sampled_from(METRICS),
    exponent=st.sampled_from([0, -300, -9, 3, 20]),
    outlier=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=100, deadline=None)
def test_no_code_outside_the_candidates_is_nearer_than_their_floor(
    n: int,
    bits: int,
    share: float | None,
    count: int,
    metric: str,
    exponent: int,
    outlier: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    made = block(n, bits, seed=seed)
    queries = questions(metric, 3, bits, seed=seed)
    if metric == "asymmetric":
        weights = queries.weights * 10.0**exponent
        weights[0, 0] *= 1e6 if outlier else 1.0
        queries = Queries.of_weights(weights)
    mask = np.ones(n, dtype=bool) if share is None else rng.random(n) < share
    mask[rng.integers(n)] = True
    part = BlockSelection(made, None if share is None else mask, int(mask.sum()))
    memory = memory_of()
    memory.tile_rows = LEAST_TILE_ROWS
    found = DeviceScan(memory, least_rows=0)(part, queries, count, None)
    assert len(found) == 3
    check(found, queries, made, mask, count)


def test_hamming_distances_from_the_device_are_exact() -> None:
    made = block(3_000, 256)
    queries = questions("hamming", 4, 256)
    found = DeviceScan(memory_of(), least_rows=0)(
        BlockSelection(made, None, 3_000), queries, 90, None
    )
    for query, one in enumerate(found):
        assert one.error == 0.0
        assert (
            one.distances.tolist() == queries.distances(query, made.codes[one.positions]).tolist()
        )


def test_rounded_weights_put_a_distance_off_by_a_small_part_of_a_bit() -> None:
    whole = WholeWeights.of(questions("asymmetric", 50, 256))
    assert whole.errors.max() < 0.2


@pytest.mark.parametrize("metric", METRICS)
def test_whole_weights_are_the_same_in_every_precision_that_a_product_may_use(metric: str) -> None:
    numbers = torch.from_numpy(WholeWeights.of(questions(metric, 20, 256)).numbers)
    assert torch.equal(numbers, numbers.round())
    # TF32 holds three digits more than bfloat16.
    assert torch.equal(numbers, numbers.bfloat16().float())


def test_sums_over_the_longest_codes_are_whole_numbers_that_single_precision_holds() -> None:
    largest = WholeWeights.of(Queries.of_weights(np.ones((1, MAX_BITS)))).numbers
    assert largest.sum(dtype=np.float64) < 2**24


@pytest.mark.parametrize("bits", [64, 2_048])
def test_half_precision_adds_up_hamming_products_exactly(bits: int) -> None:
    codes = np.random.default_rng(1).integers(0, 256, (50, bits // 8), dtype=np.uint8)
    codes[:2] = [[255], [0]]
    part = BlockSelection(Block(RowNumbers(np.arange(50)), codes), None, 50)
    queries = Queries.of_codes(codes[:3])
    numbers = torch.from_numpy(WholeWeights.of(queries).numbers)
    found = []
    for dtype in (torch.float32, torch.float16):
        assert gpu._halves_do(queries)
        products, positions = gpu._largest(
            torch.from_numpy(codes), part, numbers.to(dtype), 50, LEAST_TILE_ROWS
        )
        found.append(torch.empty(products.shape).scatter_(1, positions, products.float()))
    assert torch.equal(*found)
    assert not gpu._halves_do(questions("hamming", 1, 2_056))
    assert not gpu._halves_do(questions("asymmetric", 1, 64))


# The caller's PyTorch


@contextmanager
def strange_settings() -> Iterator[None]:
    precision, dtype = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"), torch.autocast(DEVICE, dtype=torch.bfloat16):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(dtype)


@pytest.mark.parametrize("metric", METRICS)
def test_the_callers_settings_of_pytorch_make_no_candidate_less_exact(metric: str) -> None:
    made = block(6_000, 1_024)
    # Large sums, that bfloat16 would round to more than the error that is promised.
    queries = Queries.of_weights(np.random.default_rng(0).uniform(0.5, 1.0, (4, 1_024)))
    if metric == "hamming":
        queries = Queries.of_codes(queries.codes)
    with strange_settings():
        found = DeviceScan(memory_of(), least_rows=0)(
            BlockSelection(made, None, 6_000), queries, 500, None
        )
    check(found, queries, made, np.ones(6_000, dtype=bool), 500)


def test_a_search_leaves_the_callers_settings_of_pytorch_as_they_were() -> None:
    def seen() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.is_autocast_enabled(DEVICE),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    with strange_settings():
        before = seen()
        engine_of(collection(3_000).blocks).search(questions("asymmetric", 2), 5)
        assert seen() == before


# Limits


def test_more_nearest_than_a_card_keeps_are_refused_with_the_limit() -> None:
    engine = engine_of(collection(50).blocks)
    with pytest.raises(LimitExceededError, match="16,384") as refused:
        engine.search(questions("hamming", 1), MOST_NEAREST + 1)
    assert refused.value.field == "k"


def test_as_many_nearest_as_a_card_keeps_are_found_exactly() -> None:
    made = collection(20_000)
    queries = questions("asymmetric", 2)
    found = engine_of(made.blocks).search(queries, MOST_NEAREST)
    assert [pairs(one) for one in found] == [one[:MOST_NEAREST] for one in made.nearest(queries)]


def test_codes_larger_than_the_budget_are_refused_with_both_sizes() -> None:
    with pytest.raises(LimitExceededError, match=r"8,000 bytes .* 7,999 bytes") as refused:
        engine_of(collection(1_000).blocks, memory_of(7_999))
    assert refused.value.field == "device_memory"
    assert engine_of(collection(1_000).blocks, memory_of(8_000)).exact


def test_a_search_that_a_card_has_no_memory_for_is_answered_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = collection(6_000)
    queries = questions("asymmetric", 3)
    expected = [one[:20] for one in made.nearest(queries)]
    engine = engine_of(made.blocks)
    tiles = engine.memory.tile_rows

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(gpu, "_largest", full)
        assert [pairs(one) for one in engine.search(queries, 20)] == expected
    assert len(caplog.records) == 1
    assert "runs on the CPU" in caplog.text
    assert engine.memory.tile_rows == tiles // 2
    assert [pairs(one) for one in engine.search(queries, 20)] == expected
    assert len(caplog.records) == 1
