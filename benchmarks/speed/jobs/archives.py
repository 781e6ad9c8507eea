"""Costs of growing archives: a commit, opening, bytes on disk, many small commits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bittern.benchmarks.speed.codes import clustered, coded, record_of, write_archive
from bittern.benchmarks.speed.harness import (
    Cell,
    Ratio,
    Report,
    Spread,
    Table,
    bar,
    ratio_table,
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
_COMMIT_TARGET = "<= 1.5"
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
    disk = {
        rows: [bytes_of(inside) / rows for inside in (*(path / f for f in _FOLDERS), path)]
        for rows, path in paths.items()
    }
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
            _COMMIT_TARGET if rows == max(larger) else "",
        )
        for rows in larger
    ]
    lines: list[list[Cell]] = [
        [
            short(rows),
            _ms(commits[rows]),
            max(commits[rows]) * 1e3,
            _ms([one.opened for one in openings[rows]]),
            _ms([one.first for one in openings[rows]]),
            *disk[rows],
        ]
        for rows in sizes
    ]
    numbers = ("commit, ms", "slowest", "open, ms", "answer, ms", *_FOLDERS, "all")
    table = Table(
        f"Archives of photographs, {BITS} bits",
        {"rows": "", **dict.fromkeys(numbers, ".0f")},
        lines,
        [
            f"commit: {COMMIT_ROWS} new rows, durable. open, answer: in a fresh process whose "
            "libraries are loaded.",
            f"{', '.join(_FOLDERS)}, all: bytes on disk per observation, of which {BITS // 8} are "
            "its code.",
        ],
    )
    by_size = ratio_table("Commits, by size", ratios)
    report.add("archives", table, by_size, commits=commits, openings=openings)
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


def _ms(seconds: Sequence[float]) -> float:
    return float(np.median(seconds)) * 1e3


def measure_many_commits(folder: Path, commits: int, report: Report) -> None:
    """Many small commits: whether their time and their bytes stay bounded."""
    codes, path = clustered(_SMALL_COMMIT_ROWS, BITS).codes, folder / "many"
    lines: list[list[Cell]] = []
    means: list[float] = []
    files: list[int] = []
    with Archive.create(path) as archive, bar(commits) as advance:
        archive.register_model(record_of(BITS), {"model.json": b"{}"})
        for tenth in np.array_split(np.arange(commits), _STEPS):
            seconds = []
            for number in tenth:
                seconds.append(_seconds_to_add(archive, coded(codes, f"commit {number}")))
                advance()
            means.append(float(np.mean(seconds)))
            files.append(len(files_of(path)))
            done = int(tenth[-1]) + 1
            lines.append([str(done), means[-1] * 1e3, files[-1], bytes_of(path) / MIB])
    table = Table(
        f"{commits} commits of {_SMALL_COMMIT_ROWS} rows",
        {"commits": "", "ms, mean": ".1f", "files": "", "MiB": ".1f"},
        lines,
        [
            "Compaction included. Versions that a compaction has replaced stay for readers, "
            f"up to a bound. After closing: {bytes_of(path) / MIB:.1f} MiB."
        ],
    )
    ratios = [
        Ratio("a commit in the last tenth", "in the second tenth", means[-1] / means[1]),
        Ratio("files after the last tenth", "the second", files[-1] / files[1]),
    ]
    report.add("commits", table, ratio_table("Many commits", ratios))
