"""What a run keeps: written whole, read back the same, and never trusted when it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.eval.cells import Cell, Ranked, Variant, key_of, read_cell, write_cell
from bittern.benchmarks.eval.measures import TIES

KEY = key_of({"system": "ITQ", "bits": 64})


def a_cell() -> Cell:
    rng = np.random.default_rng(5)
    ranked = Ranked(
        values={"AP": rng.random((len(TIES), 3, 7)), "P@10": rng.random((len(TIES), 3, 7))},
        hits=rng.integers(-1, 9, (7, 4)).astype(np.int32),
        distances=rng.random((7, 2)),
        rows=rng.integers(0, 9, (7, 2)),
        search_ms=0.25,
        bytes_per_item=8.5,
    )
    about = {"task": "text→image", "system": "ITQ", "bits": 64}
    return Cell(about, {Variant("symmetric"): ranked, Variant("asymmetric", 100): ranked})


def test_a_cell_is_read_as_it_was_written(tmp_path: Path) -> None:
    cell = a_cell()
    write_cell(tmp_path, KEY, cell)
    read = read_cell(tmp_path, KEY)
    assert read is not None
    assert read.about == cell.about
    assert list(read.variants) == list(cell.variants)
    for variant, ranked in cell.variants.items():
        again = read.variants[variant]
        assert (again.search_ms, again.bytes_per_item) == (0.25, 8.5)
        assert list(again.values) == list(ranked.values)
        for name, values in ranked.values.items():
            np.testing.assert_array_equal(again.values[name], values)
        for one, other in (
            (again.hits, ranked.hits),
            (again.distances, ranked.distances),
            (again.rows, ranked.rows),
        ):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_there_is_no_cell_before_one_is_written(tmp_path: Path) -> None:
    assert read_cell(tmp_path, KEY) is None


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_a_cell_that_was_cut_short_is_measured_again(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    write_cell(tmp_path, KEY, a_cell())
    path = tmp_path / f"{KEY}.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert read_cell(tmp_path, KEY) is None
    assert "is measured again" in caplog.text


def test_a_cell_without_its_description_is_measured_again(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"AP": np.zeros(3)}, tmp_path / f"{KEY}.safetensors")
    assert read_cell(tmp_path, KEY) is None


def test_keys_differ_with_everything_that_decides_and_with_nothing_else() -> None:
    decides = {"system": "ITQ", "bits": 64, "seed": 0}
    assert key_of(decides) == key_of(dict(reversed(decides.items())))
    others = [{**decides, "bits": 128}, {**decides, "seed": 1}, {**decides, "depth": None}]
    assert len({key_of(each) for each in (decides, *others)}) == 4


def lying(tmp_path: Path, **changes: object) -> None:
    """The cell with another description, or other arrays."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    write_cell(tmp_path, KEY, a_cell())
    path = tmp_path / f"{KEY}.safetensors"
    with safe_open(path, framework="numpy") as kept:
        about = json.loads(kept.metadata()["about"])
        arrays = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
    arrays |= {k: v for k, v in changes.items() if isinstance(v, np.ndarray)}
    about |= {k: v for k, v in changes.items() if not isinstance(v, np.ndarray)}
    save_file(arrays, path, metadata={"about": json.dumps(about)})


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "another"},
        {"variants": []},
        {"variants": 3},
        {"variants": [{"metric": "symmetric", "rerank": 1e999}]},
        {"symmetric+0/AP": np.zeros((4, 3, 6))},
        {"symmetric+0/AP": np.zeros((4, 3, 7), np.float32)},
        {"symmetric+0/AP": np.full((4, 3, 7), np.inf)},
        {"symmetric+0/AP": np.zeros((4, 0, 7))},
        {"symmetric+0//hits": np.zeros((7, 4))},
        {"symmetric+0//rows": np.zeros((6, 2), np.int64)},
    ],
)
def test_a_cell_that_lies_is_measured_again(
    tmp_path: Path, changes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    lying(tmp_path)
    assert read_cell(tmp_path, KEY, (3, 7)) is not None
    lying(tmp_path, **changes)
    assert read_cell(tmp_path, KEY, (3, 7)) is None
    assert "is measured again" in caplog.text


def test_a_cell_of_other_queries_or_draws_is_measured_again(tmp_path: Path) -> None:
    write_cell(tmp_path, KEY, a_cell())
    assert read_cell(tmp_path, KEY, (3, 8)) is None
    assert read_cell(tmp_path, KEY, (2, 7)) is None


def test_without_hits_nothing_of_them_stays_in_memory() -> None:
    small = a_cell().without_hits().variants[Variant("symmetric")]
    assert small.hits.base is None
    assert small.hits.shape == (7, 0)
    assert small.values["AP"].shape == (4, 3, 7)
