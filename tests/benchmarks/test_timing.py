from __future__ import annotations

import numpy as np
import pytest

from bittern.benchmarks.speed.timing import Rounds, interleaved


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    rounds = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warmup=1
    )
    assert calls == ["a", "b"] * 3
    assert {name: len(times) for name, times in rounds.seconds.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_taken_round_by_round() -> None:
    # One slow round slows down both: the ratio does not notice.
    rounds = Rounds({"a": np.array([2.0, 20.0, 2.0]), "b": np.array([1.0, 10.0, 1.0])})
    assert rounds.ratio("a", "b").median == pytest.approx(2.0)
    assert rounds.ratio("a", "b").high == pytest.approx(2.0)


def test_an_excess_is_taken_round_by_round() -> None:
    rounds = Rounds({"a": np.array([3.0, 13.0]), "b": np.array([1.0, 11.0])})
    assert rounds.excess("a", "b", 1e3).median == pytest.approx(2000.0)
