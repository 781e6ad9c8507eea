"""The curve of recall by effort: measured until told to stop, and read back with suspicion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.calibration import Curve, measured
from bittern.index.engines.flat import FlatEngine

CURVE = Curve(100, np.array([300, 1_200]), np.array([0.9, 0.999]))


class EnoughError(Exception):
    """Raised by a test to end a measurement."""


def blocks(rows: int = 500) -> CodeBlocks:
    codes = np.random.default_rng(0).integers(0, 256, (rows, 8), dtype=np.uint8)
    return CodeBlocks.of(np.arange(rows), codes)


def test_a_stored_curve_comes_back() -> None:
    again = Curve.from_arrays(CURVE.arrays())
    assert (again.k, again.effort(0.95)) == (100, 1_200)
    assert again.efforts.tolist() == [300, 1_200]
    assert again.recalls.tolist() == [0.9, 0.999]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", np.array([2**63 + 1], np.uint64)),
        ("k", np.array([100], np.int32)),
        ("k", np.array([1 << 31])),
        ("k", np.array([0])),
        ("k", np.array(100)),
        ("efforts", np.array([1, 2**63 + 5], np.uint64)),
        ("efforts", np.array([1_200, 300], np.uint64)),
        ("efforts", np.array([300, 1_200], np.int32)),
        ("efforts", np.array([300, 1 << 31])),
        ("efforts", np.array([-(1 << 62), 1 << 62])),
        ("efforts", np.array([1 << 62, -(1 << 62)])),
        ("efforts", np.array([1_200, 300])),
        ("efforts", np.array([300, 300])),
        ("efforts", np.array([0, 300])),
        ("efforts", np.array([[300], [1_200]])),
        ("efforts", np.array([300.0, 1_200.0])),
        ("efforts", np.empty(0, np.int64)),
        ("recalls", np.array([0.9, np.nan])),
        ("recalls", np.array([0.9, 1.1])),
        ("recalls", np.array([0.9])),
        ("recalls", np.array([0.9, 1.0], np.float32)),
    ],
)
def test_a_stored_curve_that_cannot_be_is_refused(name: str, value: NDArray[Any]) -> None:
    with pytest.raises(ArchiveDamagedError, match="curve of recall"):
        Curve.from_arrays({**CURVE.arrays(), f"curve_{name}": value})


@given(
    efforts=st_numpy.arrays(st.sampled_from(["<i8", "<u8", "<i4"]), st.integers(0, 4)),
    k=st_numpy.arrays(st.sampled_from(["<i8", "<u8"]), st.just(1)),
)
def test_whatever_is_not_refused_ascends_within_limits(
    efforts: NDArray[Any], k: NDArray[Any]
) -> None:
    arrays = {"curve_k": k, "curve_efforts": efforts, "curve_recalls": np.ones(len(efforts))}
    try:
        curve = Curve.from_arrays(arrays)
    except ArchiveDamagedError:
        return
    tried = curve.efforts.tolist()
    assert tried == sorted(set(tried))
    assert 1 <= tried[0] <= curve.effort(0.9) <= tried[-1] < 1 << 31
    assert 1 <= curve.k < 1 << 31


@pytest.mark.parametrize("end_at", [1, 4, 5, 8])
def test_a_measurement_ends_when_it_is_told_to(end_at: int) -> None:
    base, calls = blocks(), 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == end_at:
            raise EnoughError

    with pytest.raises(EnoughError):
        measured(lambda _: FlatEngine(base), base, [1, 2], check)
    assert calls == end_at


def test_it_is_asked_before_each_batch_of_queries() -> None:
    base = blocks()
    asked = []
    curve = measured(lambda _: FlatEngine(base), base, [1, 2, 3], lambda: asked.append(1))
    assert curve.efforts.tolist() == [1], "an exact engine finds everything at once"
    assert len(asked) == 8
