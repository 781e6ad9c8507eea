"""Costs of growing archives: a commit, opening, bytes on disk, many small commits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bittern.benchmarks.speed.codes import clustered, coded, record_of, write_archive
from bittern.benchmarks.speed.harness import (
    Ratio,
    Report,
    Spread,
    Table,
    bar,
    say,
    seconds_of,
    short,
)
from bittern.benchmarks.speed.opening import Opened, opened_once
from bittern.benchmarks.speed.process import MIB, bytes_of, files_of
from bittern.index.archive import Archive
from bittern.index.observation import CodedObservation

BITS = 256
COMMIT_ROWS = 1_000
_COMMIT_TARGET = 1.5
_OPENINGS = 3
_FOLDERS = ("store", "derived", "models")
_SMALL_COMMIT_ROWS = 4
_STEPS = 10


def measure_sizes(folder: Path, sizes: Sequence[int], rounds: int, report: Report) -> None:
    """Archives of these sizes, written into `folder`: commits, openings, bytes."""
    collection = clustered(max(sizes), BITS)
    paths = {rows: folder / f"archive-{rows}" for rows in sizes}
    for rows, path in paths.items():
        say(f"writing an archive of {short(rows)}")
        write_archive(path, collection.first(rows))
    disk = {rows: _bytes_per_row(path, rows) for rows, path in paths.items()}
    queries = folder / "queries.npy"
    np.save(queries, collection.logits[:1])
    openings: dict[int, list[Opened]] = {rows: [] for rows in sizes}
    for turn in range(1 + _OPENINGS):
        for rows, path in paths.items():
            one = opened_once(path, queries)
            if turn:  # the first may write derived files
                openings[rows].append(one)
    commits = _commits(paths, rounds)
    smallest, *larger = sizes
    ratios = [
        Ratio(
            f"commit {short(COMMIT_ROWS)} rows at {short(rows)}",
            f"at {short(smallest)}",
            Spread.of(np.array(commits[rows]) / np.array(commits[smallest])),
            _COMMIT_TARGET if rows == max(larger) else None,
        )
        for rows in larger
    ]
    lines = [
        [
            short(rows),
            *(_ms(commits[rows]), f"{max(commits[rows]) * 1e3:.0f}"),
            _ms([one.opened for one in openings[rows]]),
            _ms([one.first for one in openings[rows]]),
            *(f"{size:.0f}" for size in disk[rows].values()),
        ]
        for rows in sizes
    ]
    table = Table(
        f"Archives of photographs, {BITS} bits",
        ["rows", "commit, ms", "slowest", "open, ms", "answer, ms", *_FOLDERS, "all"],
        lines,
        [
            f"commit: {COMMIT_ROWS} new rows, durable. open, answer: in a fresh process whose "
            "libraries are loaded.",
            f"{', '.join(_FOLDERS)}, all: bytes on disk per observation, of which {BITS // 8} are "
            "its code.",
        ],
    )
    value = {
        "commits": commits,
        "opened": {rows: [one.opened for one in turns] for rows, turns in openings.items()},
        "answered": {rows: [one.first for one in turns] for rows, turns in openings.items()},
        "disk": disk,
        "ratios": [ratio.to_json() for ratio in ratios],
    }
    report.add("archives", [table, Table.of_ratios("Commits, by size", ratios)], value)
    report.add_targets("archives", ratios)


def _commits(paths: dict[int, Path], rounds: int) -> dict[int, list[float]]:
    """Seconds of each commit of `COMMIT_ROWS` rows, by the rows before."""
    say(f"committing {short(COMMIT_ROWS)} rows, {rounds} times each")
    codes = clustered(COMMIT_ROWS, BITS).codes
    commits: dict[int, list[float]] = {rows: [] for rows in paths}
    with ExitStack() as stack:
        archives = {
            rows: stack.enter_context(Archive.open(path, write=True))
            for rows, path in paths.items()
        }
        for turn in range(1 + rounds):
            items = coded(codes, f"commit {turn}")
            for rows, archive in archives.items():
                took = _seconds_to_add(archive, items)
                if turn:
                    commits[rows].append(took)
    return commits


def _seconds_to_add(archive: Archive, items: list[list[CodedObservation]]) -> float:
    return seconds_of(lambda: archive.add(items, model=record_of(BITS).digest))


def _bytes_per_row(path: Path, rows: int) -> dict[str, float]:
    sizes = {folder: bytes_of(path / folder) / rows for folder in _FOLDERS}
    return {**sizes, "all": bytes_of(path) / rows}


def _ms(seconds: Sequence[float]) -> str:
    return f"{float(np.median(seconds)) * 1e3:.0f}"


def measure_many_commits(folder: Path, commits: int, report: Report) -> None:
    """Many small commits: whether their time and their bytes stay bounded."""
    codes, path = clustered(_SMALL_COMMIT_ROWS, BITS).codes, folder / "many"
    seconds: list[float] = []
    files: list[int] = []
    sizes: list[int] = []
    with Archive.create(path) as archive, bar(commits) as advance:
        archive.register_model(record_of(BITS), {"model.json": b"{}"})
        for number in range(commits):
            seconds.append(_seconds_to_add(archive, coded(codes, f"commit {number}")))
            if (number + 1) % (commits // _STEPS) == 0:
                files.append(len(files_of(path)))
                sizes.append(bytes_of(path))
            advance()
    closed = bytes_of(path)
    tenths = [float(np.mean(tenth)) for tenth in np.array_split(seconds, _STEPS)]
    ratios = [
        Ratio.once("a commit in the last tenth", "in the second tenth", tenths[-1] / tenths[1]),
        Ratio.once("files after the last tenth", "the second", files[-1] / files[1]),
    ]
    lines = [
        [
            str((number + 1) * commits // _STEPS),
            f"{tenths[number] * 1e3:.1f}",
            str(files[number]),
            f"{sizes[number] / MIB:.1f}",
        ]
        for number in range(_STEPS)
    ]
    table = Table(
        f"{commits} commits of {_SMALL_COMMIT_ROWS} rows",
        ["commits", "ms, mean", "files", "MiB"],
        lines,
        [
            "Compaction included. Versions that a compaction has replaced stay for readers, "
            f"up to a bound. After closing: {closed / MIB:.1f} MiB."
        ],
    )
    value = {
        "commits": commits,
        "mean_ms": [mean * 1e3 for mean in tenths],
        "files": files,
        "bytes": sizes,
        "closed": closed,
        "ratios": [ratio.to_json() for ratio in ratios],
    }
    report.add("commits", [table, Table.of_ratios("Many commits", ratios)], value)
