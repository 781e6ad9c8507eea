from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bittern.service.ingest.commit import CommitPolicy, store_all
from bittern.service.ingest.items import Embedded
from bittern.service.ingest.report import JobReport
from bittern.types import AddResult, AddStatus, MediaItem


def embedded(number: int, rows: int = 1) -> Embedded:
    return Embedded(
        MediaItem(f"i{number}", "m", "image"),
        [(None, None)] * rows,
        [np.zeros(2, np.float32)] * rows,
    )


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Archive:
    """Remembers what was committed together."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.seen = threading.Event()

    def commit(self, batch: Sequence[Embedded]) -> list[AddResult]:
        names = [e.item.occurrence_id for e in batch if e.item]
        self.commits.append(names)
        self.seen.set()
        return [AddResult(name, AddStatus.ADDED, 1) for name in names]


def test_a_commit_is_due_after_so_many_items() -> None:
    archive, report = Archive(), JobReport()
    store_all(map(embedded, range(10)), archive.commit, report, policy=CommitPolicy(4, 1e9))
    assert [len(batch) for batch in archive.commits] == [4, 4, 2]
    assert [name for batch in archive.commits for name in batch] == [f"i{n}" for n in range(10)]
    assert (report.commits, report.observations, report.done) == (3, 10, 10)


def test_a_commit_is_due_after_so_many_seconds_though_nothing_more_comes() -> None:
    archive, clock = Archive(), Clock()

    def slow() -> Iterator[Embedded]:
        yield embedded(0)
        clock.now = 29.0
        yield embedded(1)
        assert not archive.commits
        clock.now = 31.0
        assert archive.seen.wait(20)  # while the next item is waited for
        yield embedded(2)

    store_all(slow(), archive.commit, JobReport(), policy=CommitPolicy(1000, 30.0, clock))
    assert archive.commits == [["i0", "i1"], ["i2"]]


def test_long_recordings_are_committed_in_smaller_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bittern.service.ingest.commit.COMMIT_ROWS", 10)
    archive = Archive()
    items = (embedded(number, rows=6) for number in range(4))
    store_all(items, archive.commit, JobReport(), policy=CommitPolicy(1000, 1e9))
    assert [len(batch) for batch in archive.commits] == [2, 2]


def test_what_was_embedded_before_an_error_is_committed() -> None:
    def breaks() -> Iterator[Embedded]:
        yield from map(embedded, range(3))
        raise RuntimeError("the card fell off")

    archive, report = Archive(), JobReport()
    with pytest.raises(RuntimeError, match="card"):
        store_all(breaks(), archive.commit, report, policy=CommitPolicy(1000, 1e9))
    assert archive.commits == [["i0", "i1", "i2"]]
    assert report.done == 3


def test_a_commit_that_fails_ends_the_job_and_its_threads() -> None:
    def refuse(batch: Sequence[Embedded]) -> list[AddResult]:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        store_all(map(embedded, range(1000)), refuse, JobReport(), policy=CommitPolicy(2, 1e9))
    assert "bittern-store" not in {t.name for t in threading.enumerate()}


def test_progress_is_reported_after_each_commit() -> None:
    reported: list[int] = []
    archive = Archive()
    store_all(
        map(embedded, range(6)),
        archive.commit,
        JobReport(),
        policy=CommitPolicy(2, 1e9),
        on_progress=lambda report: reported.append(report.done),
    )
    assert reported == [2, 4, 6]


def test_a_report_estimates_the_time_left_and_is_replaced_atomically(
    tmp_path: Path,
) -> None:
    report = JobReport(counted=100, seconds=8.0)
    results = [AddResult(f"a{n}", AddStatus.ADDED, 1) for n in range(20)]
    results += [AddResult(f"s{n}", AddStatus.SKIPPED, reason="UNCHANGED") for n in range(40)]
    report.count([*results, AddResult("f", AddStatus.FAILED, 0, "UNREADABLE_MEDIA", "f: empty")])
    assert report.left_s == pytest.approx(39 * 8 / 21)
    report.write(tmp_path / "r.json")
    report.write(tmp_path / "r.json")
    reported = json.loads((tmp_path / "r.json").read_text())
    assert reported["items"] == {"added": 20, "overwritten": 0, "skipped": 40, "failed": 1}
    assert reported["skipped"] == {"UNCHANGED": 40}
    assert reported["failures"] == [
        {"id": "f", "reason": "UNREADABLE_MEDIA", "message": "f: empty"}
    ]
    assert reported["stages"].keys() == report.stages.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
