"""Run a job from the command line: progress bar, Ctrl-C, report, exit status."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from bittern.cli.output import (
    FAILED,
    INTERRUPTED,
    err,
    note,
    print_error,
    print_failures,
    print_json,
)
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.service.ingest.report import JobReport
    from bittern.service.jobs.description import JobSpec

LONG_S = 3.0
"""The report of a longer job says more."""
_SKIPPED = {
    "IN_ARCHIVE": "in the archive already",
    "UNCHANGED": "not changed since they were coded",
    "CODED_BEFORE": "coded before",
    "LINKED_FOLDER": "links to folders",
}
"""Reasons of skipped items, in words."""


def run_with_bar(spec: JobSpec, what: str, report_to: Path | None = None) -> JobReport:
    """Run a job with a progress bar; Ctrl-C and SIGTERM end it after a last commit."""
    from bittern.files import check_output_file
    from bittern.service.jobs.run import run_job

    if report_to is not None:
        check_output_file(report_to, "report")
    with stopping() as cancelled, job_bar(what) as show:
        return run_job(spec, show, cancelled, report_to=report_to)


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came; the second one ends the command at once."""
    stop_requested = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stop_requested.is_set():
            raise KeyboardInterrupt
        stop_requested.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop_requested.is_set
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def job_bar(what: str) -> Iterator[Callable[[JobReport], None]]:
    """A bar with rate, time left and failures on a terminal; silent elsewhere."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}"),
        console=err,
        disable=not err.is_terminal,
    )
    task = bar.add_task(what, total=None, status="")

    noted = 0

    def show(report: JobReport) -> None:
        nonlocal noted
        for line in report.notes[noted:]:
            note(line)
            noted += 1
        bar.update(task, completed=report.done, total=report.total, status=_status(report))

    with bar:
        yield show


def _status(report: JobReport) -> str:
    shown = []
    if not report.done and (embedded := report.stages["network"].items):
        shown.append(f"{embedded:,} embedded, none committed yet")
    if report.per_second:
        shown.append(f"{report.per_second:.3g}/s")
    if report.left_s is not None and report.state == "running":
        shown.append(f"{_duration(report.left_s)} left")
    if report.failed:
        shown.append(f"{report.failed} failed")
    return ", ".join(shown)


def _duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_report(target: object, report: JobReport, written: Path | None = None) -> None:
    """The report of a job for people.

    Args:
        target: archive or file.
        report: of the job.
        written: the report's file; shown if the job took long or had failures.
    """
    counts = ", ".join(f"{count} {status}" for status, count in report.items.items() if count)
    by = f" by {report.model}" if report.model else ""
    note(
        f"{target}: {counts or 'no items'}; {counted(report.observations, 'observation')} coded"
        f"{by} in {report.seconds:.1f} s"
    )
    if report.skipped:
        reasons = (f"{n:,} {_SKIPPED.get(why, why)}" for why, n in report.skipped.items())
        note(f"skipped: {', '.join(reasons)}")
    long = report.seconds >= LONG_S
    if long and (rates := report.rates()):
        shown = ", ".join(f"{name} {_rate(rate)}" for name, rate in rates.items())
        note(f"per second of work: {shown}")
    for warning in report.warnings:
        note(f"warning: {warning}", style="yellow")
    print_failures(report.failures)
    if written is not None and (long or report.failures) and written.is_file():
        note(f"report: {written}")
    if report.state == "stopped":
        note("stopped; everything committed is kept. The same command continues.")


def _rate(per_second: float) -> str:
    """``0.85``, ``64``, ``2,300``."""
    return f"{float(f'{per_second:.2g}'):,.10g}"


def run_to_end(spec: JobSpec, what: str, report_to: Path | None, *, as_json: bool) -> None:
    """Run a job, print its report, and end the command as the job ended.

    Args:
        spec: the job.
        what: the progress bar's text.
        report_to: file for the report, instead of the usual one.
        as_json: print the report as JSON.

    Raises:
        typer.Exit: with 130 if it was stopped, 1 if it failed.
    """
    from bittern.service.jobs.run import report_file

    report = run_with_bar(spec, what, report_to)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(spec.target, report, report_to or report_file(spec))
    if report.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    if report.state == "failed":
        print_error(report.error)
        raise typer.Exit(FAILED)
