"""The memory of a device that archives share: kept, freed, evicted, never mixed up."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bittern.errors import InvalidInputError, LimitExceededError, PreconditionError
from bittern.index.engines import device_memory
from bittern.index.engines.blocks import Block, CodeBlocks
from bittern.index.engines.device_memory import LEAST_TILE_ROWS, DeviceMemory, shared_memory
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.gpu import GpuEngine
from tests.search.collections import collection, pairs, questions
from tests.search.test_gpu import METRICS, block, engine_of, memory_of


def contents(memory: DeviceMemory, one: Block) -> NDArray[np.uint8]:
    with memory.using(one) as codes:
        return codes.cpu().numpy().copy()


def test_codes_are_put_on_the_device_once_and_kept() -> None:
    memory, one = memory_of(), block(100)
    assert one not in memory
    addresses = set()
    for _ in range(3):
        with memory.using(one) as codes:
            addresses.add(codes.data_ptr())
    assert len(addresses) == 1
    assert one in memory
    assert memory.nbytes == one.codes.nbytes
    assert np.array_equal(contents(memory, one), one.codes)


def test_codes_are_freed_when_their_block_is_gone() -> None:
    memory = memory_of()
    kept, gone = block(100, seed=1), block(200, seed=2)
    contents(memory, kept)
    contents(memory, gone)
    del gone
    gc.collect()
    assert memory.nbytes == kept.codes.nbytes
    for seed in range(20):
        # Some get the number that another had.
        fresh = block(50, seed=seed)
        assert np.array_equal(contents(memory, fresh), fresh.codes)
    assert memory.nbytes == kept.codes.nbytes + fresh.codes.nbytes


def test_a_block_with_the_number_of_another_is_not_taken_for_it() -> None:
    memory, former, latter = memory_of(), block(100, seed=1), block(100, seed=2)
    contents(memory, former)
    # As if the first block were deleted and its id reused before the callback ran.
    memory._held[id(latter)] = memory._held.pop(id(former))
    assert latter not in memory
    assert np.array_equal(contents(memory, latter), latter.codes)


def test_a_block_that_goes_while_the_device_is_used_is_freed_afterwards() -> None:
    memory = memory_of()
    used, gone = block(100, seed=1), block(200, seed=2)
    contents(memory, gone)
    with memory.using(used):
        del gone
        gc.collect()
        assert memory.nbytes == 300 * 8
    assert memory.nbytes == 100 * 8


def test_what_lay_unused_for_longest_makes_room() -> None:
    memory = memory_of(3 * 800)
    a, b, c, d = (block(100, seed=seed) for seed in range(4))
    for one in (a, b, c, a, d):
        contents(memory, one)
    assert [one in memory for one in (a, b, c, d)] == [True, False, True, True]
    assert memory.nbytes == 3 * 800
    assert np.array_equal(contents(memory, b), b.codes)


def test_a_block_larger_than_the_budget_is_refused_and_makes_no_room() -> None:
    memory, small, large = memory_of(1_000), block(100), block(200)
    contents(memory, small)
    with pytest.raises(LimitExceededError, match="1,600 bytes"):
        contents(memory, large)
    assert small in memory


def test_a_failed_transfer_leaves_the_memory_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, one = memory_of(), block(100)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "from_numpy", full)
        with pytest.raises(torch.OutOfMemoryError):
            contents(memory, one)
    assert memory.nbytes == 0
    assert np.array_equal(contents(memory, one), one.codes)


def test_generations_share_the_codes_on_the_device() -> None:
    rng = np.random.default_rng(3)
    first = CodeBlocks.of(np.arange(4_000), rng.integers(0, 256, (4_000, 8), dtype=np.uint8))
    memory = memory_of()
    engine_of(first, memory).search(questions("hamming", 1), 5)
    second = first.without(np.arange(100)).appended(
        np.arange(4_000, 4_100), rng.integers(0, 256, (100, 8), dtype=np.uint8)
    )
    engine = engine_of(second, memory)
    engine.search(questions("hamming", 1), 5)
    assert memory.nbytes == 4_100 * 8


def test_a_few_rows_are_scanned_without_the_device() -> None:
    memory = memory_of()
    made = collection(500)
    queries = questions("asymmetric", 2)
    found = GpuEngine(made.blocks, memory=memory).search(queries, 9)
    assert [pairs(one) for one in found] == [one[:9] for one in made.nearest(queries)]
    assert memory.nbytes == 0


def test_archives_that_share_a_small_card_are_searched_exactly_at_once() -> None:
    collections = [collection(3_000, seed=seed) for seed in range(4)]
    memory = memory_of(40_000)
    engines = [engine_of(made.blocks, memory) for made in collections]
    flats = [FlatEngine(made.blocks, threads=1) for made in collections]
    wrong: list[object] = []

    def ask(seed: int) -> None:
        try:
            for turn in range(12):
                which = (seed + turn) % 4
                queries = questions(METRICS[turn % 2], 2, seed=turn)
                found = engines[which].search(queries, 10)
                wanted = flats[which].search(queries, 10)
                if [pairs(one) for one in found] != [pairs(one) for one in wanted]:
                    wrong.append(which)
                if memory.nbytes > memory.budget:
                    wrong.append(memory.nbytes)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_process_has_one_memory_per_device_and_the_last_budget_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_memory, "_shared", {})
    memory = shared_memory("cpu", 5_000)
    assert shared_memory("cpu") is memory
    assert memory.budget == 5_000
    assert shared_memory("cpu", 900) is memory
    assert memory.budget == 900
    assert GpuEngine(collection(10).blocks, "cpu").memory is memory


def test_a_card_that_is_not_there_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_memory.available_device() is None
    with pytest.raises(PreconditionError, match="no graphics card"):
        DeviceMemory("cuda")
    with pytest.raises(PreconditionError, match="no device 'abacus'"):
        DeviceMemory("abacus")


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_of_nothing_is_refused(budget: int) -> None:
    with pytest.raises(InvalidInputError, match="above 0 bytes"):
        memory_of(budget)
    with pytest.raises(InvalidInputError, match="above 0 bytes"):
        shared_memory("cpu", budget)


def test_tiles_are_halved_down_to_a_least_size() -> None:
    memory = memory_of()
    sizes = [memory.smaller_tiles() for _ in range(20)]
    assert sizes[0] == device_memory.MOST_TILE_ROWS // 2
    assert sizes[-2:] == [LEAST_TILE_ROWS] * 2
