"""Jobs of a server: recorded, run in turn, watched, cancelled, continued after a restart."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.errors import (
    JobNotFoundError,
    LimitExceededError,
    PreconditionError,
    ServiceUnavailableError,
    SourceNotFoundError,
)
from bittern.service.ingest.report import JobReport, OnProgress
from bittern.service.jobs import queue as queue_module
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.queue import JobQueue
from bittern.service.jobs.record import JobFolder, JobRecord, JobState, Progress
from bittern.service.jobs.run import judged
from bittern.service.sources import SourceOptions
from bittern.types import AddResult, AddStatus

WAIT_S = 20.0
SPEC = JobSpec(kind="index", target="marsh", source="herons")


class Runner:
    """Runs jobs under control of a test: each reports one item, and waits for `go`."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.order: list[str] = []
        self.error: Exception | None = None
        self.failed_items = 0

    def __call__(
        self, record: JobRecord, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> JobReport:
        self.order.append(record.id)
        report = JobReport(model="fake-64", counted=3)
        report.count([AddResult("a", AddStatus.ADDED, 1)])
        on_progress(report)
        self.begun.release()
        while not self.go.acquire(timeout=0.02):
            if cancelled():
                return report
        if self.error is not None:
            raise self.error
        failures = [AddResult(f"f{i}", AddStatus.FAILED) for i in range(self.failed_items)]
        report.count(failures)
        report.state = "done"
        return judged(record.spec, report)


def queue_at(path: Path, run: Runner) -> JobQueue:
    return JobQueue({"marsh": path / "jobs"}, run)


@pytest.fixture
def run() -> Runner:
    return Runner()


@pytest.fixture
def jobs(tmp_path: Path, run: Runner) -> Iterator[JobQueue]:
    made = queue_at(tmp_path, run)
    yield made
    made.close()


def ended(jobs: JobQueue, name: str) -> JobRecord:
    return list(jobs.watch(name, lambda: False))[-1]


def test_jobs_run_one_after_another_in_the_order_of_their_submission(
    jobs: JobQueue, run: Runner
) -> None:
    ids = [jobs.submit("marsh", SPEC).id for _ in range(3)]
    run.begun.acquire(timeout=WAIT_S)
    states = [jobs.get(name).state for name in ids]
    assert states == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
    run.go.release(3)
    assert [ended(jobs, name).state for name in ids] == [JobState.DONE] * 3
    assert run.order == ids == sorted(ids)


def test_a_submission_that_is_repeated_makes_no_second_job(jobs: JobQueue, run: Runner) -> None:
    first = jobs.submit("marsh", SPEC, "tonight")
    assert jobs.submit("marsh", SPEC, "tonight").id == first.id
    assert jobs.submit("marsh", SPEC, "tomorrow").id != first.id
    assert jobs.submit("marsh", SPEC).id != first.id
    run.go.release(3)


def test_who_watches_sees_progress_and_the_end(jobs: JobQueue, run: Runner) -> None:
    watched = jobs.watch(jobs.submit("marsh", SPEC).id, lambda: False)
    seen = [next(watched)]
    run.begun.acquire(timeout=WAIT_S)
    run.go.release()
    seen += watched
    assert seen[-1].state is JobState.DONE
    assert any(
        r.state is JobState.RUNNING and r.progress.items.get(AddStatus.ADDED) == 1 for r in seen[1:]
    )
    assert seen[-1].progress.total == 3


def test_what_was_queued_or_running_goes_on_after_a_restart(tmp_path: Path) -> None:
    run = Runner()
    before = queue_at(tmp_path, run)
    ids = [before.submit("marsh", SPEC).id for _ in range(2)]
    run.begun.acquire(timeout=WAIT_S)
    watched = before.watch(ids[0], lambda: False)
    next(watched)
    before.close()
    with pytest.raises(ServiceUnavailableError, match="continues when it is started again"):
        list(watched)
    with pytest.raises(ServiceUnavailableError):
        before.submit("marsh", SPEC)
    again = Runner()
    again.go.release(2)
    after = queue_at(tmp_path, again)
    assert [ended(after, name).state for name in ids] == [JobState.DONE] * 2
    assert [after.get(name).runs for name in ids] == [2, 1]
    assert again.order == ids
    after.close()


def test_a_server_that_was_killed_finds_its_jobs_again(run: Runner, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs", "marsh")
    running = JobRecord("000000000000001-aa", "marsh", SPEC, JobState.RUNNING, runs=1)
    folder.write(running)
    folder.write(replace(running, id="000000000000002-bb", cancelling=True))
    folder.write(replace(running, id="000000000000003-cc", crashes=queue_module.MAX_CRASHES - 1))
    run.go.release()
    jobs = queue_at(tmp_path, run)
    assert ended(jobs, "000000000000001-aa").state is JobState.DONE
    assert jobs.get("000000000000002-bb").state is JobState.CANCELLED
    hopeless = jobs.get("000000000000003-cc")
    assert hopeless.state is JobState.FAILED
    assert "has died 5 times while it ran this job" in hopeless.error
    assert run.order == ["000000000000001-aa"]
    jobs.close()


def test_a_server_that_ends_in_good_order_may_do_so_as_often_as_it_likes(tmp_path: Path) -> None:
    jobs = queue_at(tmp_path, Runner())
    name = jobs.submit("marsh", SPEC).id
    for _ in range(queue_module.MAX_CRASHES + 2):
        run = Runner()
        jobs.close()
        jobs = queue_at(tmp_path, run)
        assert run.begun.acquire(timeout=WAIT_S)
    assert jobs.get(name).state is JobState.RUNNING
    run.go.release()
    assert ended(jobs, name).state is JobState.DONE
    jobs.close()


def test_a_job_that_cannot_run_now_waits_and_those_behind_it_go_on(tmp_path: Path) -> None:
    run = Runner()
    run.go.release(2)
    folders = {"marsh": tmp_path / "jobs"}
    jobs = JobQueue(folders, run, ready=lambda record: record.spec.source != "herons")
    waits = jobs.submit("marsh", SPEC).id
    goes_on = jobs.submit("marsh", replace(SPEC, source="owls")).id
    assert ended(jobs, goes_on).state is JobState.DONE
    assert jobs.get(waits).state is JobState.QUEUED
    jobs.close()
    jobs = JobQueue(folders, run)
    assert ended(jobs, waits).state is JobState.DONE
    jobs.close()


def test_progress_does_not_undo_that_a_job_was_cancelled(tmp_path: Path) -> None:
    callbacks: list[OnProgress] = []
    go = threading.Event()

    def run(record: JobRecord, on_progress: OnProgress, cancelled: Callable[[], bool]) -> JobReport:
        callbacks.append(on_progress)
        go.wait(WAIT_S)
        return JobReport()

    ticks = iter(range(0, 10_000, 10))
    jobs = JobQueue({"marsh": tmp_path / "jobs"}, run, clock=lambda: float(next(ticks)))
    name = jobs.submit("marsh", SPEC).id
    watched = jobs.watch(name, lambda: False)
    while next(watched).state is not JobState.RUNNING or not callbacks:
        pass
    jobs.cancel(name)
    callbacks[0](JobReport())
    [written] = JobFolder(tmp_path / "jobs", "marsh").read()
    assert written.cancelling
    go.set()
    jobs.close()


def test_progress_that_cannot_be_written_does_not_end_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Runner()
    ticks = iter(range(0, 10_000, 10))
    jobs = JobQueue({"marsh": tmp_path / "jobs"}, run, clock=lambda: float(next(ticks)))
    name = jobs.submit("marsh", SPEC).id

    def refuse(folder: JobFolder, record: JobRecord) -> None:
        raise PreconditionError("the disk is full")

    monkeypatch.setattr(JobFolder, "write", refuse)
    run.go.release()
    assert ended(jobs, name).state is JobState.DONE
    assert "the disk is full" in caplog.text
    jobs.close()


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_a_little_later(
    jobs: JobQueue, run: Runner
) -> None:
    first, second = (jobs.submit("marsh", SPEC).id for _ in range(2))
    run.begun.acquire(timeout=WAIT_S)
    assert jobs.cancel(second).state is JobState.CANCELLED
    assert jobs.cancel(first).state is JobState.RUNNING
    stopped = ended(jobs, first)
    assert stopped.state is JobState.CANCELLED
    assert stopped.progress.items[AddStatus.ADDED] == 1
    assert run.order == [first]
    assert jobs.cancel(first) == stopped


def test_an_error_ends_a_job_and_not_those_after_it(jobs: JobQueue, run: Runner) -> None:
    run.error = SourceNotFoundError("there is nothing at 'herons'")
    run.go.release()
    failed = ended(jobs, jobs.submit("marsh", SPEC).id)
    assert (failed.state, failed.reason) == (JobState.FAILED, "SOURCE_NOT_FOUND")
    assert failed.error == "there is nothing at 'herons'"
    run.error = RuntimeError("/secret/path is on fire")
    run.go.release()
    unforeseen = ended(jobs, jobs.submit("marsh", SPEC).id)
    assert unforeseen.reason == "INTERNAL"
    assert "secret" not in unforeseen.error
    run.error = None
    run.go.release()
    assert ended(jobs, jobs.submit("marsh", SPEC).id).state is JobState.DONE


def test_one_failed_item_makes_a_strict_job_fail(jobs: JobQueue, run: Runner) -> None:
    run.failed_items = 2
    run.go.release(2)
    assert ended(jobs, jobs.submit("marsh", SPEC).id).state is JobState.DONE
    strict = ended(jobs, jobs.submit("marsh", replace(SPEC, strict=True)).id)
    assert (strict.state, strict.reason) == (JobState.FAILED, "ITEMS_FAILED")
    assert strict.error.startswith("2 items could not be used")


def test_no_more_jobs_wait_than_the_limit(jobs: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MAX_WAITING", 2)
    jobs.submit("marsh", SPEC)
    jobs.submit("marsh", SPEC)
    with pytest.raises(LimitExceededError, match="2 jobs wait already, the limit is 2"):
        jobs.submit("marsh", SPEC)


def test_the_oldest_jobs_that_have_ended_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "MAX_ENDED", 2)
    run = Runner()
    run.go.release(4)
    jobs = queue_at(tmp_path, run)
    ids = [jobs.submit("marsh", SPEC).id for _ in range(4)]
    jobs.close()
    run.go.release(4)  # for the one that was running then: it may have to run again
    jobs = queue_at(tmp_path, run)
    for name in ids[2:]:
        ended(jobs, name)
    known = {record.id for record in jobs.list(None, "", 10)}
    assert set(ids[2:]) <= known
    jobs.close()
    assert len(list((tmp_path / "jobs").glob("*.json"))) == len(known) <= 3


def test_jobs_are_listed_newest_first_page_by_page(jobs: JobQueue) -> None:
    ids = [jobs.submit("marsh", SPEC).id for _ in range(5)]
    page = [record.id for record in jobs.list("marsh", "", 3)]
    assert page == ids[:1:-1]
    assert [record.id for record in jobs.list("marsh", page[-1], 3)] == ids[1::-1]
    assert jobs.list("fen", "", 3) == []


def test_a_clock_that_jumps_back_changes_no_order(
    jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = jobs.submit("marsh", SPEC).id
    monkeypatch.setattr("bittern.service.jobs.queue.time.time", lambda: 1.0)
    assert jobs.submit("marsh", SPEC).id > first


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b'{"id": 3}', b"\xff\xfe", b"[" * 100_000),
        b'{"id": "../../x"}',
        {"submitted": "2020"},
        {"submitted": "yesterday"},
        {"progress": {"stages": 3}},
        {"progress": []},
        {"runs": "many"},
        {"crashes": -1},
        {"state": "asleep"},
    ],
)
def test_a_damaged_record_is_skipped(
    tmp_path: Path, content: bytes | dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    folder = JobFolder(tmp_path, "marsh")
    good = JobRecord("000000000000001-aa", "marsh", SPEC, JobState.DONE)
    damaged = replace(good, id="000000000000000-00")
    folder.write(good)
    folder.write(damaged)
    path = tmp_path / f"{damaged.id}.json"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(path.read_text()), **content}).encode()
    path.write_bytes(content)
    assert list(folder.read()) == [good]
    assert "000000000000000-00.json is skipped" in caplog.text


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, "marsh")
    record = JobRecord(
        "000000000000001-aa",
        "marsh",
        replace(SPEC, bits=64, on_duplicate="overwrite"),
        JobState.FAILED,
        submitted="2026-05-01T00:00:00+00:00",
        progress=Progress.of(JobReport(model="fake-64", counted=2)),
        error="no",
        request_id="x",
    )
    folder.write(record)
    assert list(folder.read()) == [record]
    assert json.loads((tmp_path / "000000000000001-aa.json").read_text())["state"] == "failed"


def test_a_record_of_0_1_0_is_read(tmp_path: Path) -> None:
    reading = {"format": None, "media": "fens", "columns": {"file": "media"}, "include": ["*.jpg"]}
    spec = {
        "kind": "index", "target": "marsh", "source": "herons", "model": "", "bits": None,
        "reading": {**reading, "exclude": [], "fetch": []}, "hasher": None, "on_duplicate": "skip",
        "keep_embeddings": False, "commit_items": 64, "commit_s": 30.0, "strict": True,
        "engine": "local", "workers": 1, "drop_old": False, "allow_missing": False,
    }  # fmt: skip
    progress = {
        "model": "fake-64", "listed": 3, "total": None, "observations": 2, "seconds": 1.25,
        "items": {"added": 2, "overwritten": 0, "skipped": 0, "failed": 1}, "left_s": None,
        "stages": {"list": {"items": 3, "busy_s": 0.5}}, "warnings": [],
        "failures": [{"id": "a", "reason": "UNREADABLE_MEDIA", "message": "a: empty"}],
    }  # fmt: skip
    record = {
        "id": "000000000000001-aa", "archive": "marsh", "state": "running", "runs": 1,
        "submitted": "2026-05-01T00:00:00.000000+00:00", "started": "", "ended": "", "error": "",
        "reason": "", "crashes": 0, "request_id": "", "cancelling": False, "spec": spec,
    }  # fmt: skip
    content = json.dumps({**record, "progress": progress})
    (tmp_path / "000000000000001-aa.json").write_text(content)
    [found] = JobFolder(tmp_path, "marsh").read()
    assert found.state is JobState.RUNNING
    assert found.spec.reading == SourceOptions(
        media="fens", rename={"file": "media"}, include=("*.jpg",)
    )
    assert (found.spec.strict, found.progress.items[AddStatus.FAILED]) == (True, 1)
    assert found.progress.failures[0].message == "a: empty"


def test_an_unknown_job_is_not_found(jobs: JobQueue) -> None:
    for call in (jobs.get, jobs.cancel, lambda name: next(jobs.watch(name, lambda: False))):
        with pytest.raises(JobNotFoundError, match="unknown job 'x'"):
            call("x")


def test_no_job_is_read_or_written_behind_a_link_out_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    record = JobRecord("000000000000001-aa", "marsh", SPEC, JobState.DONE)
    JobFolder(tmp_path / "outside", "marsh").write(record)
    (tmp_path / "marsh").mkdir()
    (tmp_path / "marsh" / "jobs").symlink_to(tmp_path / "outside")
    folder = JobFolder(tmp_path / "marsh" / "jobs", "marsh")
    assert list(folder.read()) == []
    with pytest.raises(PreconditionError, match="is a symbolic link"):
        folder.write(replace(record, state=JobState.RUNNING))
