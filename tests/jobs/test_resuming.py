from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.errors import (
    ArchiveLockedError,
    ManifestError,
    PreconditionError,
    SourceUnreachableError,
)
from bittern.index.archive import Archive
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import JobKind, JobSpec
from bittern.service.jobs.indexing import JobControl
from bittern.service.jobs.run import counting, report_file
from bittern.service.sources import Listed, Source, read_source
from bittern.types import AddResult, AddStatus
from tests.engine.toy import picture
from tests.jobs.toy_job import Counted, fill, run, save_model, stored

ROOT = Path(__file__).parents[2]
ITEMS = 157
"""150 pictures, six recordings of two windows each, one unusable file."""
CODED = 162
Kinds = pytest.mark.parametrize("kind", ["index", "encode"])


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("source") / "media")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, media: Path, model: Path
) -> dict[str, list[dict[str, Any]]]:
    """What a job stores that nothing has stopped, by its kind."""
    folder = tmp_path_factory.mktemp("undisturbed")
    kinds: tuple[JobKind, ...] = ("index", "encode")
    specs = [
        JobSpec(kind, str(folder / f"{kind}.parquet"), str(media), model=str(model))
        for kind in kinds
    ]
    for spec in specs:
        run(spec)
    return {spec.kind: stored(spec) for spec in specs}


@pytest.fixture
def spec_of(tmp_path: Path, media: Path, model: Path) -> Callable[..., JobSpec]:
    def spec(kind: JobKind, name: str = "out", **changes: Any) -> JobSpec:
        target = tmp_path / (f"{name}.parquet" if kind == "encode" else name)
        made = JobSpec(kind, str(target), str(media), model=str(model), commit_items=16)
        return replace(made, **changes)

    return spec


class FallenError(Exception):
    """What ends a job in the middle."""


def fall() -> None:
    raise FallenError


@Kinds
@pytest.mark.parametrize("after", [0, 7])
def test_a_job_that_was_ended_goes_on_to_the_rows_of_one_that_was_not(
    spec_of: Callable[..., JobSpec],
    undisturbed: dict[str, list[dict[str, Any]]],
    kind: JobKind,
    after: int,
) -> None:
    spec = spec_of(kind)
    with pytest.raises(FallenError):
        run(spec, Counted(after, fall))
    encoder = Counted()
    report = run(spec, encoder)
    assert stored(spec) == undisturbed[kind]
    assert report.items[AddStatus.ADDED] + report.items[AddStatus.SKIPPED] == ITEMS - 1
    assert [failure.occurrence_id for failure in report.failures] == ["0060-broken.png"]
    assert encoder.coded <= CODED - 16 * (after - 6)


@Kinds
def test_a_job_that_was_killed_goes_on_and_repeats_little(
    spec_of: Callable[..., JobSpec],
    undisturbed: dict[str, list[dict[str, Any]]],
    kind: JobKind,
    tmp_path: Path,
) -> None:
    spec = spec_of(kind)
    (tmp_path / "job.json").write_text(json.dumps(spec.to_json()))
    killed = subprocess.run(
        [sys.executable, "-m", "tests.jobs.toy_job", str(tmp_path / "job.json"), "9"],
        cwd=ROOT,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    encoder = Counted()
    run(spec, encoder)
    assert stored(spec) == undisturbed[kind]
    # Of nine batches, those were lost that waited for the recordings among the last 64 entries,
    # that were being committed (16) and that waited for it (16).
    assert encoder.coded <= CODED - 9 * 16 + 64 + 2 * 16


@Kinds
def test_the_same_job_again_codes_only_the_rest(
    spec_of: Callable[..., JobSpec], kind: JobKind
) -> None:
    spec, encoder = spec_of(kind), Counted()
    stopping = Counted(6, lambda: encoder)
    done = {"stop": False}
    report = run(
        spec,
        stopping,
        cancelled=lambda: done["stop"],
        on_progress=lambda report: done.update(stop=report.done >= 64),
    )
    assert report.state == "stopped"
    assert 64 <= report.done < ITEMS
    again = run(spec, encoder)
    assert again.state == "done"
    assert again.items[AddStatus.SKIPPED] == report.items[AddStatus.ADDED]
    assert stopping.coded + encoder.coded <= CODED + 64


def test_a_file_whose_content_has_changed_replaces_its_codes(
    spec_of: Callable[..., JobSpec], tmp_path: Path
) -> None:
    folder = fill(tmp_path / "some", 5)
    spec = spec_of("index", source=str(folder))
    run(spec)
    before = {row["observation"].id: row for row in stored(spec)}
    (folder / "0001.png").write_bytes(picture("blue"))
    os.utime(folder / "0002.png", ns=(1, 1))  # the same content, at another time
    encoder = Counted()
    report = run(spec, encoder)
    after = {row["observation"].id: row for row in stored(spec)}
    assert report.items[AddStatus.OVERWRITTEN] == encoder.coded == 1
    changed = [name for name in after if after[name] != before[name]]
    assert changed == ["0001.png"]
    assert after["0001.png"]["observation"].row == before["0001.png"]["observation"].row
    assert report.skipped == {"UNCHANGED": 5}


def test_a_folder_that_was_moved_is_known_by_its_content(
    spec_of: Callable[..., JobSpec], tmp_path: Path
) -> None:
    folder = fill(tmp_path / "some", 5)
    run(spec_of("index", source=str(folder)))
    folder.rename(tmp_path / "moved")
    (tmp_path / "moved" / "0003.png").write_bytes(picture("blue"))
    report = run(spec_of("index", source=str(tmp_path / "moved")))
    assert report.skipped == {"UNCHANGED": 5}
    assert [(f.occurrence_id, f.reason) for f in report.failures] == [
        ("0003.png", "DUPLICATE_OBSERVATION"),
        ("0060-broken.png", "UNSUPPORTED_MEDIA"),
    ]


def test_parts_of_another_job_are_refused_and_stay(
    spec_of: Callable[..., JobSpec], tmp_path: Path
) -> None:
    spec = spec_of("encode")
    with pytest.raises(FallenError):
        run(spec, Counted(6, fall))
    parts = sorted(path.name for path in tmp_path.glob("out.parquet.parts/part-*"))
    other = replace(spec, source=str(fill(tmp_path / "other", 3)))
    with pytest.raises(PreconditionError, match="unfinished codes of another job"):
        run(other)
    assert sorted(path.name for path in tmp_path.glob("out.parquet.parts/part-*")) == parts
    assert parts


def test_a_listing_that_has_changed_since_is_coded_from_the_first_difference_on(
    spec_of: Callable[..., JobSpec], tmp_path: Path
) -> None:
    folder = fill(tmp_path / "some", 100)
    spec = spec_of("encode", source=str(folder))
    with pytest.raises(FallenError):
        run(spec, Counted(6, fall))
    (folder / "0020-new.png").write_bytes(picture("blue"))
    (folder / "0000.png").touch()
    encoder = Counted()
    run(spec, encoder)
    undisturbed = spec_of("encode", "undisturbed", source=str(folder))
    whole = Counted()
    run(undisturbed, whole)
    forget = {"mediaModified"}
    assert [{k: v for k, v in row.items() if k not in forget} for row in stored(spec)] == [
        {k: v for k, v in row.items() if k not in forget} for row in stored(undisturbed)
    ]
    assert encoder.coded == whole.coded - 17  # sixteen entries, one a recording of two windows


@pytest.mark.parametrize("times", ["new", "old"])
def test_a_file_that_has_changed_since_its_part_was_written_is_coded_again(
    spec_of: Callable[..., JobSpec], tmp_path: Path, times: str
) -> None:
    folder = fill(tmp_path / "some", 100)
    spec = spec_of("encode", source=str(folder))
    with pytest.raises(FallenError):
        run(spec, Counted(6, fall))
    changed, now = folder / "0018.png", picture("blue")  # in the second part of sixteen
    stat = changed.stat()
    assert (changed.read_bytes() == now) is False
    changed.write_bytes(now)
    if times == "old":
        os.utime(changed, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        assert changed.stat().st_size != stat.st_size
    encoder, whole = Counted(), Counted()
    run(spec, encoder)
    undisturbed = spec_of("encode", "undisturbed", source=str(folder))
    run(undisturbed, whole)
    assert stored(spec) == stored(undisturbed)
    assert encoder.coded == whole.coded - 17  # sixteen entries, one a recording of two windows


def test_a_damaged_part_is_made_again(
    spec_of: Callable[..., JobSpec],
    undisturbed: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    spec = spec_of("encode")
    with pytest.raises(FallenError):
        run(spec, Counted(8, fall))
    second = sorted(tmp_path.glob("out.parquet.parts/part-*"))[1]
    second.write_bytes(second.read_bytes()[:100])
    run(spec)
    assert stored(spec) == undisturbed["encode"]


@Kinds
def test_a_report_lies_beside_what_a_job_makes(
    spec_of: Callable[..., JobSpec], kind: JobKind
) -> None:
    spec = spec_of(kind)
    report = run(spec)
    reported = json.loads(report_file(spec).read_text())
    assert reported == report.to_json()
    assert (reported["state"], reported["total"], reported["commits"]) == (
        "done",
        ITEMS,
        report.commits,
    )
    assert reported["items"] == {"added": ITEMS - 1, "overwritten": 0, "skipped": 0, "failed": 1}
    with pytest.raises(FallenError):
        run(replace(spec, on_duplicate="overwrite"), Counted(3, fall))
    reported = json.loads(report_file(spec).read_text())
    assert (reported["state"], "FallenError" in reported["error"]) == ("failed", True)


@Kinds
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("raised", "typed"),
    [
        (ManifestError("the list ends in the middle"), ManifestError),
        (OSError("the disk fell off"), SourceUnreachableError),
    ],
)
def test_a_job_whose_listing_breaks_off_fails_with_what_it_had_stored(
    spec_of: Callable[..., JobSpec],
    undisturbed: dict[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    kind: JobKind,
    again: bool,
    raised: Exception,
    typed: type[Exception],
) -> None:
    def broken(path: str, options: object) -> Source:
        whole = read_source(path)

        def listing() -> Iterator[Listed]:
            yield from list(whole.listing())[:50]
            raise raised

        source = replace(whole, listing=listing)
        next(iter(source))
        return source

    spec = spec_of(kind)
    with monkeypatch.context() as patched:
        patched.setattr("bittern.service.jobs.run.read_source", broken)
        patched.setattr(
            "bittern.service.jobs.model_choice.PEEKED", 8
        )  # else it meets that before it begins
        for _ in range(1 + again):
            with pytest.raises(typed, match=str(raised)):
                run(spec)
    reported = json.loads(report_file(spec).read_text())
    assert (reported["state"], reported["total"]) == ("failed", None)
    assert str(raised) in reported["error"]
    assert reported["items"]["skipped" if again else "added"] == 50
    report = run(spec)
    assert (report.state, report.done) == ("done", ITEMS)
    assert report.items[AddStatus.SKIPPED] == 50
    assert stored(spec) == undisturbed[kind]


@pytest.mark.parametrize("kind", ["index", "encode", "reencode"])
def test_a_command_that_is_refused_leaves_the_report_of_the_one_at_work(
    spec_of: Callable[..., JobSpec], tmp_path: Path, kind: JobKind
) -> None:
    spec = spec_of("index" if kind == "reencode" else kind)
    refused = replace(spec, kind=kind, source="" if kind == "reencode" else spec.source)
    reported: list[bytes] = []

    def meanwhile() -> None:
        report_file(refused).parent.mkdir(exist_ok=True)
        if kind == "reencode":
            report_file(refused).write_text("of a job that is at work")
        reported.append(report_file(refused).read_bytes())
        with pytest.raises(ArchiveLockedError if kind != "encode" else PreconditionError):
            run(refused)
        reported.append(report_file(refused).read_bytes())

    if kind == "reencode":
        run(spec)
        with Archive.open(spec.target, write=True):
            meanwhile()
    else:
        run(spec, Counted(3, meanwhile))
        assert json.loads(reported[0])["state"] == "running"
        assert json.loads(report_file(spec).read_bytes())["state"] == "done"
    assert reported[0] == reported[1]


def test_a_count_that_ends_after_the_job_does_not_change_its_total(media: Path) -> None:
    counted, finished = threading.Event(), threading.Event()

    class Report(JobReport):
        """Holds back the counting thread when it is about to report."""

        def __setattr__(self, name: str, value: object) -> None:
            if threading.current_thread().name == "bittern-count":
                counted.set()
                assert finished.wait(60)
            super().__setattr__(name, value)

    report = Report()
    with counting(read_source(media), report):
        assert counted.wait(60)
        report.count([AddResult("a", AddStatus.ADDED)])
        JobControl(report=report).finish()
        finished.set()
    assert "bittern-count" not in {thread.name for thread in threading.enumerate()}
    assert (report.done, report.total) == (1, 1)


@pytest.mark.parametrize("address", ["", "https://example.org/m.csv"])
def test_counting_lists_for_itself_and_only_what_lies_here(media: Path, address: str) -> None:
    begun: list[int] = []
    there = read_source(media)

    def listing() -> Iterator[Listed]:
        begun.append(1)
        yield from there.listing()

    source, report = replace(there, listing=listing, address=address), JobReport()
    next(iter(source))
    with counting(source, report):
        for thread in threading.enumerate():
            if thread.name == "bittern-count":
                thread.join()
        assert sum(1 for _ in source) == ITEMS
    assert len(begun) == (1 if address else 2)  # what was looked into is gone on with
    assert report.total == (None if address else ITEMS)
