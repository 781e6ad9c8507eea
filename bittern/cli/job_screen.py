"""What commands that run jobs share: options, a progress bar, the report, stopping."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from bittern.cli.output import err, plain, print_error, print_failures, print_json
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.service.ingest.report import JobReport
    from bittern.service.jobs.description import JobSpec
    from bittern.service.sources import SourceOptions

FAILED = 1
INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""
LONG_S = 3.0
"""The report of a longer job says more."""
_SKIPPED = {
    "IN_ARCHIVE": "in the archive already",
    "UNCHANGED": "not changed since they were coded",
    "CODED_BEFORE": "coded before",
    "LINKED_FOLDER": "links to folders",
}
"""Reasons of skipped items, in words."""

FORMATS = (
    "camtrap-dp",
    "coco",
    "xeno-canto",
    "darwin-core",
    "inaturalist-open-data",
    "inaturalist",
    "tar",
    "folder",
    "manifest",
)
"""Names of `bittern.service.sources.formats.READERS`, which takes longer to load."""
Bits = Annotated[
    int | None,
    typer.Option(help="Code length, if a new hasher is fitted. [default: 256]", show_default=False),
]
Hasher = Annotated[
    str | None,
    typer.Option(
        metavar="pca|itq|lsh",
        help="Kind of hasher, if a new one is fitted. By default the encoder's own.",
        show_default=False,
    ),
]
OnDuplicate = Annotated[
    str,
    typer.Option(
        metavar="skip|overwrite|error", help="What to do with items already in the archive."
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(help="Folder of media, table, export of a website, or address (URL)."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help=f"Format of the source: {', '.join(FORMATS)}. By default detected.",
        show_default=False,
    ),
]
Media = Annotated[
    str | None, typer.Option(help="Folder or address of the media, if not beside the source.")
]
Rename = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HEADING=NAME", help="Read the column HEADING of a table as NAME. Repeatable."
    ),
]
Include = Annotated[
    list[str] | None, typer.Option(help="Glob of files to include, such as '*.jpg'. Repeatable.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Glob of files or folders to exclude. Repeatable.")
]
Fetch = Annotated[
    list[str] | None,
    typer.Option(help="Allow downloads from addresses that begin with this. Repeatable."),
]
KeepEmbeddings = Annotated[
    bool, typer.Option("--keep-embeddings", help="Store float16 embeddings beside the codes.")
]
Strict = Annotated[bool, typer.Option(help="Fail at the end if any item failed.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", metavar="local|ray", help="Encode in this process, or on Ray workers."
    ),
]
Workers = Annotated[int, typer.Option(help="Number of encoding processes, with --engine ray.")]
ReportTo = Annotated[
    Path | None,
    typer.Option("--report", help="Write a JSON report to this file while the job runs."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


COMMIT_VARIABLES = {
    "commit_items": "BITTERN_COMMIT_ITEMS",
    "commit_s": "BITTERN_COMMIT_SECONDS",
}
"""Environment variables for when a job commits."""


def commit_settings() -> dict[str, Any]:
    """Fields of a job from `COMMIT_VARIABLES`."""
    return {field: os.environ[v] for field, v in COMMIT_VARIABLES.items() if os.environ.get(v)}


def reading_of(
    format_: str | None = None,
    media: str | None = None,
    rename: Sequence[str] | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    fetch: Sequence[str] | None = None,
) -> SourceOptions:
    """How to read a source, from the options of a command.

    Raises:
        InvalidInputError: a renaming that is not HEADING=NAME.
    """
    from bittern.errors import InvalidInputError
    from bittern.service.sources import SourceOptions

    names: dict[str, str] = {}
    for one in rename or ():
        heading, equals, name = one.rpartition("=")
        if not (heading and equals and name):
            raise InvalidInputError(
                f"--rename takes HEADING=NAME, as in --rename 'file name=media', not {one!r}",
                field="rename",
            )
        names[heading] = name
    return SourceOptions(
        format=format_,
        media=media,
        rename=names,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        fetch=tuple(fetch or ()),
    )


def run_with_bar(spec: JobSpec, report_to: Path | None = None, what: str = "") -> JobReport:
    """Run a job with a progress bar; Ctrl-C and SIGTERM end it after a last commit."""
    from bittern.files import check_output_file
    from bittern.service.jobs.run import JobResources, run_job

    if report_to is not None:
        check_output_file(report_to, "report")
    with stopping() as cancelled, job_bar(what or f"{spec.kind}ing") as show:
        return run_job(spec, show, cancelled, resources=JobResources(report=report_to))


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
        for note in report.notes[noted:]:
            err.print(plain(note), soft_wrap=not err.is_terminal)
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
    err.print(
        f"{target}: {counts or 'no items'}; {counted(report.observations, 'observation')} coded"
        f"{by} in {report.seconds:.1f} s",
        markup=False,
    )
    if report.skipped:
        err.print(plain(f"skipped: {_reasons(report.skipped)}"), soft_wrap=not err.is_terminal)
    long = report.seconds >= LONG_S
    if long and (rates := report.rates()):
        shown = ", ".join(f"{name} {_rate(rate)}" for name, rate in rates.items())
        err.print(plain(f"per second of work: {shown}"), soft_wrap=not err.is_terminal)
    for warning in report.warnings:
        err.print(plain(f"warning: {warning}"), style="yellow", soft_wrap=not err.is_terminal)
    if report.failures:
        print_failures(report.failures)
    if written is not None and (long or report.failures) and written.is_file():
        err.print(plain(f"report: {written}"), soft_wrap=True)
    if report.state == "stopped":
        err.print("stopped; everything committed is kept. The same command continues.")


def _reasons(skipped: Mapping[str, int]) -> str:
    """``12 in the archive already, 3 not changed since they were coded``."""
    return ", ".join(f"{n:,} {_SKIPPED.get(why, why)}" for why, n in skipped.items())


def _rate(per_second: float) -> str:
    """``0.85``, ``64``, ``2,300``."""
    return f"{float(f'{per_second:.2g}'):,.10g}"


def end(spec: JobSpec, report: JobReport, *, as_program: bool, written: Path | None = None) -> None:
    """Print the report and end the command as the job ended.

    Args:
        spec: the job.
        report: of the job.
        as_program: print it as JSON.
        written: the report's file, if it is not the usual one.

    Raises:
        typer.Exit: with 130 if it was stopped, 1 if it failed.
    """
    from bittern.service.jobs.run import report_file

    if as_program:
        print_json(report.to_json())
    else:
        print_report(spec.target, report, written or report_file(spec))
    if report.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    if report.state == "failed":
        print_error(report.error)
        raise typer.Exit(FAILED)
