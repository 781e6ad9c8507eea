from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.training.sampling import Sampler


def batches(sampler: Sampler, epoch: int, start: int = 0) -> list[NDArray[np.int64]]:
    return [b.rows[p] for b in sampler.epoch(epoch, start) for p in b.batches]


def plain(count: int = 1000, batch: int = 32, buffer: int = 200, seed: int = 0) -> Sampler:
    return Sampler(np.arange(count, dtype=np.int64), batch, seed, buffer_rows=buffer)


def test_an_epoch_shows_each_item_once_at_most_and_drops_less_than_a_batch() -> None:
    found = batches(plain(), 1)
    assert len(found) == plain().steps == 1000 // 32
    assert len(np.unique(np.concatenate(found))) == len(found) * 32


def test_order_follows_from_seed_and_epoch_alone() -> None:
    first = np.concatenate(batches(plain(), 1))
    assert np.array_equal(first, np.concatenate(batches(plain(), 1)))
    assert not np.array_equal(first, np.concatenate(batches(plain(), 2)))
    assert not np.array_equal(first, np.concatenate(batches(plain(seed=1), 1)))


@pytest.mark.parametrize("start", [0, 1, 5, 6, 7, 30, 31])
def test_an_epoch_can_be_entered_at_any_batch(start: int) -> None:
    whole = batches(plain(), 3)
    entered = batches(plain(), 3, start)
    assert len(entered) == len(whole) - start
    assert all(np.array_equal(a, b) for a, b in zip(entered, whole[start:], strict=True))


def test_a_buffer_reads_no_more_rows_than_it_may_and_reads_them_in_order() -> None:
    for buffer in plain().epoch(1):
        assert len(buffer.rows) <= 200
        assert (np.diff(buffer.rows) > 0).all()


def test_batches_mix_rows_that_lie_far_apart() -> None:
    spread = [np.ptp(batch) for batch in batches(plain(10_000, 64, 2048), 1)]
    assert min(spread) > 2000


def test_only_given_rows_are_drawn() -> None:
    rows = np.arange(7, 5000, 13)
    found = np.concatenate(batches(Sampler(rows, 16, 0, buffer_rows=64), 1))
    assert set(found) <= set(rows)


@pytest.mark.parametrize("count", [40, 300])
def test_no_batch_holds_two_items_of_a_group(count: int) -> None:
    random = np.random.default_rng(0)
    groups = np.sort((count * random.random(3000) ** 3).astype(np.int32))
    sampler = Sampler(np.arange(3000), 32, 0, groups, buffer_rows=1024)
    for epoch in (1, 2):
        found = batches(sampler, epoch)
        assert len(found) == sampler.steps
        for batch in found:
            assert len(batch) == 32
            assert len(np.unique(groups[batch])) == 32


def test_groups_that_fit_evenly_lose_no_item() -> None:
    groups = np.repeat(np.arange(50, dtype=np.int32), 20)
    sampler = Sampler(np.arange(1000), 25, 0, groups, buffer_rows=1000)
    seen = Counter(np.concatenate(batches(sampler, 1)).tolist())
    assert len(seen) == 1000
    assert set(seen.values()) == {1}


def test_an_epoch_of_groups_can_be_entered_at_any_batch() -> None:
    groups = np.random.default_rng(0).integers(0, 60, 2000).astype(np.int32)
    sampler = Sampler(np.arange(2000), 32, 0, groups, buffer_rows=500)
    whole = batches(sampler, 2)
    for start in (1, 13, 14, len(whole) - 1):
        entered = batches(sampler, 2, start)
        assert all(np.array_equal(a, b) for a, b in zip(entered, whole[start:], strict=True))


def test_a_batch_shrinks_to_the_items_and_says_so() -> None:
    for count, size in ((2, 2), (20, 8), (100, 12), (255, 31)):
        sampler = plain(count, batch=256)
        assert (sampler.size, sampler.steps) == (size, count // size)
        assert {len(batch) for batch in batches(sampler, 1)} == {size}
        assert sampler.warnings == [
            f"batches have {size} items instead of 256: there are {count} to train on"
        ]
    assert (plain(256, batch=256).size, plain(256, batch=256).warnings) == (256, [])


def test_a_batch_shrinks_to_the_groups_each_of_which_is_in_it_once() -> None:
    groups = np.repeat(np.arange(3), 5).astype(np.int32)
    sampler = Sampler(np.arange(15), 32, 0, groups)
    found = batches(sampler, 1)
    assert len(found) == 5
    assert all(sorted(groups[batch]) == [0, 1, 2] for batch in found)
    assert "15 to train on, of 3 species" in sampler.warnings[0]


@pytest.mark.parametrize(
    ("groups", "message"),
    [([7], "1 item to train on"), ([7, 7, 7], "all 3 items .* of one group")],
)
def test_a_training_needs_two_items_of_two_groups(groups: list[int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Sampler(np.arange(len(groups)), 32, 0, np.array(groups, np.int32))


def test_groups_that_lie_together_are_refused_where_no_buffer_has_a_batch_of_them() -> None:
    groups = np.repeat(np.arange(40), 100).astype(np.int32)
    with pytest.raises(InvalidInputError, match="lie together"):
        Sampler(np.arange(4000), 32, 0, groups, buffer_rows=64)
