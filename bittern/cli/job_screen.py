"""What commands that run jobs have in common: options, a bar, a report, how they are stopped."""

from __future__ import annotations

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
"""A job that takes longer is told of at more length."""
_SKIPPED = {
    "IN_ARCHIVE": "in the archive already",
    "UNCHANGED": "not changed since they were coded",
    "CODED_BEFORE": "coded before",
    "LINKED_FOLDER": "links to folders",
}
"""Reasons of items that were skipped, in words."""

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
    typer.Option(help="Code length, where a hasher is made. [default: 256]", show_default=False),
]
Hasher = Annotated[
    str | None,
    typer.Option(
        metavar="pca|itq|lsh",
        help="Kind of hasher, where one is made. By default the encoder's own.",
        show_default=False,
    ),
]
OnDuplicate = Annotated[
    str,
    typer.Option(
        metavar="skip|overwrite|error", help="What to do with items that are in the archive."
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        help="Folder of media, table, export of a site, or address; see docs/how-to/sources.md."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help=f"Format of the source: {', '.join(FORMATS)}. By default told by its content.",
        show_default=False,
    ),
]
Media = Annotated[
    str | None, typer.Option(help="Folder or address below which the source's media lie.")
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--rename", help="HEADING=NAME: a table's column HEADING becomes the column NAME."
    ),
]
Include = Annotated[
    list[str] | None, typer.Option(help="Glob of paths below a folder that are wanted.")
]
Exclude = Annotated[list[str] | None, typer.Option(help="Glob of paths that are left out.")]
Fetch = Annotated[
    list[str] | None,
    typer.Option(help="Beginning of addresses from which media may be fetched."),
]
CommitItems = Annotated[int, typer.Option(help="Most items of one commit.")]
CommitSeconds = Annotated[
    float, typer.Option(help="Seconds after which what is coded is committed.")
]
Strict = Annotated[bool, typer.Option(help="Fail at the end if any item has failed.")]
EngineOption = Annotated[
    str,
    typer.Option("--engine", metavar="local|ray", help="This process, or the workers of Ray."),
]
Workers = Annotated[int, typer.Option(help="Processes of the network, with --engine ray.")]
ReportTo = Annotated[
    Path | None, typer.Option("--report", help="File for the report, as JSON, while it runs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


def reading_of(
    *,
    format: str | None,  # noqa: A002  # the name of the option
    media: str | None,
    column: Sequence[str] | None,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    fetch: Sequence[str] | None,
) -> SourceOptions:
    """How a source is to be read.

    Raises:
        InvalidInputError: a column that is not HEADING=NAME.
    """
    from bittern.errors import InvalidInputError
    from bittern.service.sources import SourceOptions

    columns: dict[str, str] = {}
    for one in column or ():
        heading, equals, name = one.rpartition("=")
        if not (heading and equals and name):
            raise InvalidInputError(
                f"--rename takes HEADING=NAME, as in --rename 'file name=media', not {one!r}",
                field="rename",
            )
        columns[heading] = name
    return SourceOptions(
        format=format,
        media=media,
        rename=columns,
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
    """Whether Ctrl-C or SIGTERM came; the second time it ends the command at once."""
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
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
        TextColumn("{task.fields[told]}"),
        console=err,
        disable=not err.is_terminal,
    )
    task = bar.add_task(what, total=None, told="")

    noted = 0

    def show(report: JobReport) -> None:
        nonlocal noted
        for note in report.notes[noted:]:
            err.print(plain(note), soft_wrap=not err.is_terminal)
            noted += 1
        bar.update(task, completed=report.done, total=report.total, told=_told(report))

    with bar:
        yield show


def _told(report: JobReport) -> str:
    told = []
    if not report.done and (pieces := report.stages["network"].items):
        told.append(f"{counted(pieces, 'piece')} embedded, none committed yet")
    if report.per_second:
        told.append(f"{report.per_second:.3g}/s")
    if report.left_s is not None and report.state == "running":
        told.append(f"{_duration(report.left_s)} left")
    if report.failed:
        told.append(f"{report.failed} failed")
    return ", ".join(told)


def _duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_report(target: object, report: JobReport, written: Path | None = None) -> None:
    """The report of a job for people.

    Args:
        target: what was filled.
        report: of the job.
        written: the report's file; named where the job took long, or left something to look up.
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
        told = ", ".join(f"{name} {_rate(rate)}" for name, rate in rates.items())
        err.print(plain(f"per second of work: {told}"), soft_wrap=not err.is_terminal)
    for warning in report.warnings:
        err.print(plain(f"warning: {warning}"), style="yellow", soft_wrap=not err.is_terminal)
    if report.failures:
        print_failures(report.failures)
    if written is not None and (long or report.failures) and written.is_file():
        err.print(plain(f"report: {written}"), soft_wrap=True)
    if report.state == "stopped":
        err.print("stopped; what was committed is in. The same command goes on from there.")


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
        written: file that the report was written to, where that is not the usual one.

    Raises:
        typer.Exit: with 130 where it was stopped, 1 where it failed.
    """
    from bittern.service.jobs.run import report_file

    if as_program:
        told: dict[str, Any] = report.to_json()
        print_json(told)
    else:
        print_report(spec.target, report, written or report_file(spec))
    if report.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    if report.state == "failed":
        print_error(report.error)
        raise typer.Exit(FAILED)
