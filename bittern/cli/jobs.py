"""`bittern jobs`: batch jobs of a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bittern.cli.job_screen import (
    Bits,
    Exclude,
    Format,
    Include,
    Json,
    KeepEmbeddings,
    OnDuplicate,
    Rename,
    Strict,
    reading_of,
)
from bittern.cli.options import reach
from bittern.cli.output import err, out, plain, print_failures, print_json, progress
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.jobs import RemoteJobs
    from bittern.service.grpc.job_messages import Job

Address = Annotated[str, typer.Argument(help="HOST:PORT of the server.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id; see `bittern jobs list`.")]
Archive = Annotated[
    str, typer.Option("--archive", help="Which archive of a server that has several.")
]
ENDED = ("done", "failed", "cancelled")

jobs = typer.Typer(
    name="jobs",
    help="Let a server encode media on its own disks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def attach(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(jobs)


@jobs.command()
def submit(
    address: Address,
    source: Annotated[
        str, typer.Argument(help="Name of a folder that the server allows, and a path below it.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model of the archive, encoder, or model on the server. By default the archive's "
            "own, and `field` if it has none.",
            show_default=False,
        ),
    ] = None,
    bits: Bits = None,
    format_: Format = None,
    media: Annotated[
        str | None,
        typer.Option(help="Folder of the media on the server, if not beside the source."),
    ] = None,
    rename: Rename = None,
    include: Include = None,
    exclude: Exclude = None,
    on_duplicate: OnDuplicate = "skip",
    keep_embeddings: KeepEmbeddings = False,
    strict: Strict = False,
    request_id: Annotated[
        str,
        typer.Option(help="Name of this submission; the same name again returns the existing job."),
    ] = "",
    watch_it: Annotated[
        bool, typer.Option("--watch", help="Show the progress until the job ends.")
    ] = False,
    name: Archive = "",
    as_program: Json = False,
) -> None:
    """Submit a job. It runs on the server, and continues after a restart of the server.

    Example: bittern jobs submit localhost:50051 camera-traps/2026 --watch
    """
    reading = reading_of(format_, media, rename, include, exclude)
    with reach(address, name) as opened:
        server_jobs = _jobs_of(opened)
        job = server_jobs.submit(
            source,
            model=model,
            bits=bits,
            format=reading.format,
            media=reading.media,
            rename=reading.rename,
            include=reading.include,
            exclude=reading.exclude,
            on_duplicate=on_duplicate,  # type: ignore[arg-type]  # validated by JobSpec
            keep_embeddings=keep_embeddings,
            strict=strict,
            request_id=request_id,
        )
        if watch_it:
            _watch(server_jobs, job.id, as_program)
            return
    if as_program:
        print_json(as_object(job))
    else:
        out.print(job.id)
        err.print(
            f"{job.state}; watch it with: bittern jobs watch {address} {job.id}", markup=False
        )


@jobs.command("list")
def list_(address: Address, name: Archive = "", as_program: Json = False) -> None:
    """List the jobs of an archive, the newest first.

    Example: bittern jobs list localhost:50051
    """
    with reach(address, name) as opened:
        found = _jobs_of(opened).list()
    if as_program:
        print_json([as_object(job) for job in found])
        return
    if not found:
        err.print("no jobs")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "state", "source", "done", "failed", "submitted"):
        table.add_column(heading, overflow="fold")
    for job in found:
        done = job.progress.done
        cells = (
            job.id,
            job.state,
            job.source,
            f"{done}/{job.progress.total}" if job.progress.total else done,
            job.progress.items["failed"],
            f"{job.submitted:%Y-%m-%d %H:%M}",
        )
        table.add_row(*map(plain, cells))
    out.print(table)


@jobs.command()
def show(address: Address, id_: Id, name: Archive = "", as_program: Json = False) -> None:
    """Show the state of a job.

    Example: bittern jobs show localhost:50051 001795461234567-ab12cd34
    """
    with reach(address, name) as opened, _known(address, id_):
        job = _jobs_of(opened).get(id_)
    _print(job, as_program)


@jobs.command()
def watch(address: Address, id_: Id, name: Archive = "", as_program: Json = False) -> None:
    """Show the progress of a job until it ends. Ctrl-C stops watching; the job continues.

    With --json, one line of JSON after each change.

    Example: bittern jobs watch localhost:50051 001795461234567-ab12cd34
    """
    with reach(address, name) as opened, _known(address, id_):
        _watch(_jobs_of(opened), id_, as_program)


@jobs.command()
def cancel(address: Address, id_: Id, name: Archive = "", as_program: Json = False) -> None:
    """Cancel a job; what it has committed stays.

    Example: bittern jobs cancel localhost:50051 001795461234567-ab12cd34
    """
    with reach(address, name) as opened, _known(address, id_):
        server_jobs = _jobs_of(opened)
        before = server_jobs.get(id_)
        ended = before.state in ENDED
        job = before if ended else server_jobs.cancel(id_)
    if as_program:
        print_json(as_object(job))
    elif ended:
        out.print(plain(f"{job.id}: already ended: {job.state}"), soft_wrap=True)
    elif job.state == "running":
        out.print(
            plain(
                f"{job.id}: ends after a last commit; watch it with: "
                f"bittern jobs watch {address} {job.id}"
            ),
            soft_wrap=True,
        )
    else:
        out.print(plain(f"{job.id}: {job.state}"), soft_wrap=True)


@contextmanager
def _known(address: str, id_: str) -> Iterator[None]:
    """For an unknown job, name the command that lists jobs."""
    from bittern.errors import JobNotFoundError

    try:
        yield
    except JobNotFoundError:
        raise JobNotFoundError(
            f"unknown job {id_[:80]!r} at {address}; list its jobs with: "
            f"bittern jobs list {address}",
            field="id",
        ) from None


def _jobs_of(opened: Any) -> RemoteJobs:
    from bittern.client import RemoteArchive
    from bittern.errors import InvalidInputError

    if not isinstance(opened, RemoteArchive):
        raise InvalidInputError(
            "jobs run on a server: give its HOST:PORT. For a folder, use `bittern index`"
        )
    return opened.jobs


def _watch(server_jobs: RemoteJobs, id_: str, as_program: bool) -> None:
    job = None
    bar, task = progress("coding", 0)
    with bar:
        for job in server_jobs.watch(id_):
            if as_program:
                print_json(as_object(job))
            bar.update(task, completed=job.progress.done, total=job.progress.total)
    if job is not None:
        _print(job, False, quiet=as_program)


def _print(job: Job, as_program: bool, quiet: bool = False) -> None:
    if as_program:
        print_json(as_object(job))
    elif not quiet:
        counts = ", ".join(f"{n} {status}" for status, n in job.progress.items.items() if n)
        by = f" by {job.progress.model}" if job.progress.model else ""
        stored = counted(job.progress.observations, "observation")
        line = f"{job.id} {job.state}: {job.source} into {job.archive}: {counts or 'nothing yet'}"
        out.print(plain(f"{line}; {stored} coded{by}"), soft_wrap=True)
        for warning in job.progress.warnings:
            err.print(plain(f"warning: {warning}"), style="yellow")
        if job.progress.failures:
            print_failures(job.progress.failures)
        if job.error:
            err.print(plain(f"error: {job.error}"), style="red")
    if job.state == "failed":
        raise typer.Exit(1)


def as_object(job: Job) -> dict[str, Any]:
    """A job for programs."""
    progress = job.progress
    return {
        "id": job.id,
        "archive": job.archive,
        "source": job.source,
        "state": str(job.state),
        "submitted": job.submitted.isoformat(),
        "started": job.started.isoformat() if job.started else None,
        "ended": job.ended.isoformat() if job.ended else None,
        "model": progress.model,
        "listed": progress.listed,
        "total": progress.total,
        "items": {str(status): count for status, count in progress.items.items()},
        "observations": progress.observations,
        "seconds": round(progress.seconds, 3),
        "left_s": job.left_s,
        "failures": [
            {"id": f.occurrence_id, "reason": f.reason, "message": f.message}
            for f in progress.failures
        ],
        "warnings": progress.warnings,
        "error": job.error,
        "reason": job.reason,
        "runs": job.runs,
    }
