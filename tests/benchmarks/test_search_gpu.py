from __future__ import annotations

import pytest

from bittern.benchmarks.speed import gpu
from bittern.benchmarks.speed.gpu import K, measure_gpu, run
from bittern.benchmarks.speed.harness import Options


def test_search_on_a_card_is_timed_per_batch_and_checked_against_the_cpu() -> None:
    report = measure_gpu("cpu", [3_000], [64], 1, batches=(1, 8))
    assert [table.title for table in report.tables] == ["3,000 codes of 64 bits"]
    (size,) = report.values["sizes"]
    assert size["right"] == 16
    assert set(size["seconds"]) == {"1", "8"}
    assert all(len(row) in (0, len(report.tables[0].columns)) for row in report.tables[0].rows)
    assert report.values["k"] == K


def test_without_a_gpu_nothing_is_measured_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "available_device", lambda: None)
    report = run(Options())
    assert "no GPU here" in report.size
    assert not report.tables
