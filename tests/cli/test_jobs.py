"""`bittern jobs`, against a real server whose jobs are a stub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bittern.service.grpc.server import serve
from bittern.service.ingest.report import JobReport, OnProgress
from bittern.service.jobs.queue import JobQueue
from bittern.service.jobs.record import JobRecord
from bittern.service.jobs.serving import AllowedFolders, Jobs
from tests.cli.conftest import Run
from tests.jobs.test_queue import WAIT_S, Runner
from tests.service.fake_archive import FakeArchive


class Seeing(Runner):
    """Remembers the jobs that were submitted."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[JobRecord] = []

    def __call__(
        self, record: JobRecord, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> JobReport:
        self.seen.append(record)
        return super().__call__(record, on_progress, cancelled)


@pytest.fixture
def runner() -> Seeing:
    return Seeing()


@pytest.fixture
def address(tmp_path: Path, runner: Seeing) -> Iterator[str]:
    (tmp_path / "traps").mkdir()
    queue = JobQueue({"herons": tmp_path / "jobs"}, runner)
    jobs = Jobs(queue, AllowedFolders({"traps": tmp_path / "traps"}))
    server = serve({"herons": FakeArchive()}, listen="127.0.0.1:0", jobs=jobs)
    yield server.address
    server.stop(grace=0)


def test_cancelling_says_when_the_job_ends_and_that_it_has(
    run: Run, address: str, runner: Seeing
) -> None:
    job = run("jobs", "submit", address, "traps").out.strip()
    runner.begun.acquire(timeout=WAIT_S)
    running = run("jobs", "cancel", address, job)
    assert "ends after a last commit" in running.out
    assert run("jobs", "watch", address, job).status == 0
    ended = run("jobs", "cancel", address, job)
    assert (ended.status, ended.out) == (0, f"{job}: already ended: cancelled\n")


@pytest.mark.parametrize("command", ["show", "watch", "cancel"])
def test_an_unknown_job_is_answered_with_the_command_that_lists_jobs(
    run: Run, address: str, command: str
) -> None:
    done = run("jobs", command, address, "x")
    assert done.status == 1
    assert f"bittern jobs list {address}" in done.err


def test_what_the_contract_takes_the_command_line_takes(
    run: Run, address: str, runner: Seeing
) -> None:
    command = [
        "jobs",
        "submit",
        address,
        "traps",
        "--rename",
        "file name=media",
        "--include",
        "a/*",
    ]
    command += ["--exclude", "b/*", "--store-embeddings", "--request-id", "tonight", "--json"]
    first, again = (json.loads(run(*command).out) for _ in range(2))
    assert first["id"] == again["id"]
    runner.begun.acquire(timeout=WAIT_S)
    [record] = runner.seen
    assert dict(record.spec.reading.rename) == {"file name": "media"}
    assert tuple(record.spec.reading.include) == ("a/*",)
    assert tuple(record.spec.reading.exclude) == ("b/*",)
    assert record.spec.keep_embeddings
    runner.go.release()


def test_help_calls_things_by_names_that_are_typed(run: Run) -> None:
    assert "{id_}" not in run("jobs", "cancel", "--help").out


def test_help_names_every_format_of_sources(run: Run) -> None:
    from bittern.cli.options import FORMATS
    from bittern.service.sources.formats import READERS

    assert tuple(reader.name for reader in READERS) == FORMATS
