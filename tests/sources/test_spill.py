"""Tables on disk that readers join rows by."""

from __future__ import annotations

import pytest

from bittern.service.sources import spill as spill_module
from bittern.service.sources.spill import IN_MEMORY_BYTES, Spill


@pytest.fixture(autouse=True, params=[0, 500, IN_MEMORY_BYTES], ids=["disk", "both", "memory"])
def bound(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests run with maps on disk, with maps that move there, and with maps in memory."""
    monkeypatch.setattr(spill_module, "IN_MEMORY_BYTES", request.param)


def test_a_map_keeps_the_first_value_of_a_key_and_is_sorted_by_key() -> None:
    with Spill() as spill:
        assert spill.get("taxa", "2") is None
        assert [spill.add_first("taxa", key, value) for key, value in ("2b", "1c", "2d")] == [
            True,
            True,
            False,
        ]
        assert (spill.get("taxa", "2"), spill.has("taxa", "3")) == ("b", False)
        assert list(spill.items("taxa")) == [("1", "c"), ("2", "b")]


def test_a_list_keeps_all_values_of_a_key_in_order_also_after_it_was_searched() -> None:
    with Spill() as spill:
        assert list(spill.find("media", "k")) == []
        for number in range(3):
            spill.add("media", "k", {"n": number})
            spill.add("media", "other", [number])
            assert [value["n"] for value in spill.find("media", "k")] == list(range(number + 1))
        assert [key for key, _ in spill.rows("media")] == ["k", "other"] * 3


def test_values_at_a_number_are_found_by_their_range_in_the_order_of_adding() -> None:
    with Spill() as spill:
        for at in (5.0, 1.0, 3.0, 2.0):
            spill.add("events", "d1", at, at=at)
        spill.add("events", "d2", 0, at=2.5)
        assert list(spill.between("events", "d1", 2.0, 5.0)) == [5.0, 3.0, 2.0]


def test_rows_may_be_added_while_others_are_read() -> None:
    with Spill() as spill:
        for key in "abc":
            spill.add("media", key, None)
        assert [k for k, _ in spill.rows("media") if spill.add_first("used", k)] == ["a", "b", "c"]
