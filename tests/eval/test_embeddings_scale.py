"""The measurement of embeddings in shards runs, and cleans up."""

from __future__ import annotations

from pathlib import Path

from bittern.benchmarks.speed import embedding_scale


def test_the_measurement_reads_every_row_and_leaves_nothing(tmp_path: Path) -> None:
    report = embedding_scale.run(3_000, 8, tmp_path)
    assert {step: found["rows"] for step, found in report.values.items()} == dict.fromkeys(
        ["write", "open", "tiles", "drawn"], 3_000
    )
    assert not list(tmp_path.iterdir())
