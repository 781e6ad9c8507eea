"""`bittern jobs`: batch jobs of a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bittern.cli.options import (
    ArchiveName,
    Bits,
    Json,
    KeepEmbeddings,
    OnDuplicate,
    Reading,
    Strict,
    flag,
    grouped,
    opened_archive,
)
from bittern.cli.output import (
    FAILED,
    copyable,
    note,
    print_failures,
    print_json,
    progress,
    show,
    table,
)
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.jobs import RemoteJobs
    from bittern.service.grpc.job_messages import Job

Address = Annotated[str, typer.Argument(help="HOST:PORT of the server.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id; see `bittern jobs list`.")]
ENDED = ("done", "failed", "cancelled")

jobs = typer.Typer(help="Let a server encode media on its own disks.", no_args_is_help=True)


@contextmanager
def _jobs_of(address: str, archive: str, id_: str = "") -> Iterator[RemoteJobs]:
    """The jobs of a server; for an unknown job, the error names the command that lists them."""
    from bittern.client import RemoteArchive
    from bittern.errors import InvalidInputError, JobNotFoundError

    with opened_archive(address, archive) as opened:
        if not isinstance(opened, RemoteArchive):
            raise InvalidInputError(
                "jobs run on a server: give its HOST:PORT. For a folder, use `bittern index`"
            )
        try:
            yield opened.jobs
        except JobNotFoundError:
            raise JobNotFoundError(
                f"unknown job {id_[:80]!r} at {address}; list its jobs with: "
                f"bittern jobs list {address}",
                field="id",
            ) from None


@jobs.command()
@grouped
def submit(
    address: Address,
    source: Annotated[
        str, typer.Argument(help="Name of a folder that the server allows, and a path below it.")
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model of the archive, encoder, or model on the server. By default the archive's "
            "own, and `field` if it has none.",
        ),
    ] = None,
    bits: Bits = None,
    on_duplicate: OnDuplicate = "skip",
    keep_embeddings: KeepEmbeddings = False,
    strict: Strict = False,
    request_id: Annotated[
        str,
        typer.Option(help="Name of this submission; the same name again returns the existing job."),
    ] = "",
    watched: Annotated[bool, flag("--watch", "Show the progress until the job ends.")] = False,
    archive: ArchiveName = "",
    as_json: Json = False,
    reading: Reading,
) -> None:
    """Submit a job. It runs on the server, and continues after a restart of the server.

    Example: bittern jobs submit localhost:50051 camera-traps/2026 --watch
    """
    options = reading.options()
    with _jobs_of(address, archive) as server_jobs:
        job = server_jobs.submit(
            source,
            model=model,
            bits=bits,
            format=options.format,
            media=options.media,
            rename=options.rename,
            include=options.include,
            exclude=options.exclude,
            on_duplicate=on_duplicate,
            keep_embeddings=keep_embeddings,
            strict=strict,
            request_id=request_id,
        )
        if watched:
            _watch(server_jobs, job.id, as_json)
            return
    if as_json:
        print_json(as_object(job))
    else:
        show(job.id)
        note(copyable(f"{job.state}; watch it with: bittern jobs watch {address} {job.id}"))


@jobs.command("list")
def list_(address: Address, archive: ArchiveName = "", as_json: Json = False) -> None:
    """List the jobs of an archive, the newest first.

    Example: bittern jobs list localhost:50051
    """
    with _jobs_of(address, archive) as server_jobs:
        found = server_jobs.list()
    if as_json:
        print_json([as_object(job) for job in found])
        return
    if not found:
        note("no jobs")
        return
    rows = []
    for job in found:
        done, total, failed = job.progress.done, job.progress.total, job.progress.items["failed"]
        of = f"{done}/{total}" if total else done
        rows.append((job.id, job.state, job.source, of, failed, f"{job.submitted:%Y-%m-%d %H:%M}"))
    headings = ("job", "state", "source", "done", "failed", "submitted")
    show(table(headings, rows, whole=("job", "source")))


@jobs.command("show")
def show_job(address: Address, id_: Id, archive: ArchiveName = "", as_json: Json = False) -> None:
    """Show the state of a job.

    Example: bittern jobs show localhost:50051 001795461234567-ab12cd34
    """
    with _jobs_of(address, archive, id_) as server_jobs:
        job = server_jobs.get(id_)
    if as_json:
        print_json(as_object(job))
    else:
        _print(job)
    _exit_as(job)


@jobs.command()
def watch(address: Address, id_: Id, archive: ArchiveName = "", as_json: Json = False) -> None:
    """Show the progress of a job until it ends. Ctrl-C stops watching; the job continues.

    With --json, one line of JSON after each change.

    Example: bittern jobs watch localhost:50051 001795461234567-ab12cd34
    """
    with _jobs_of(address, archive, id_) as server_jobs:
        _watch(server_jobs, id_, as_json)


@jobs.command()
def cancel(address: Address, id_: Id, archive: ArchiveName = "", as_json: Json = False) -> None:
    """Cancel a job; what it has committed stays.

    Example: bittern jobs cancel localhost:50051 001795461234567-ab12cd34
    """
    with _jobs_of(address, archive, id_) as server_jobs:
        before = server_jobs.get(id_)
        ended = before.state in ENDED
        job = before if ended else server_jobs.cancel(id_)
    if as_json:
        print_json(as_object(job))
    elif ended:
        show(f"{job.id}: already ended: {job.state}")
    elif job.state == "running":
        show(
            copyable(
                f"{job.id}: ends after a last commit; watch it with: "
                f"bittern jobs watch {address} {job.id}"
            )
        )
    else:
        show(f"{job.id}: {job.state}")


def _watch(server_jobs: RemoteJobs, id_: str, as_json: bool) -> None:
    job = None
    bar, task = progress("coding", 0)
    with bar:
        for job in server_jobs.watch(id_):
            if as_json:
                print_json(as_object(job))
            bar.update(task, completed=job.progress.done, total=job.progress.total)
    if job is None:
        return
    if not as_json:
        _print(job)
    _exit_as(job)


def _exit_as(job: Job) -> None:
    if job.state == "failed":
        raise typer.Exit(FAILED)


def _print(job: Job) -> None:
    counts = ", ".join(f"{n} {status}" for status, n in job.progress.items.items() if n)
    by = f" by {job.progress.model}" if job.progress.model else ""
    stored = counted(job.progress.observations, "observation")
    line = f"{job.id} {job.state}: {job.source} into {job.archive}: {counts or 'nothing yet'}"
    show(f"{line}; {stored} coded{by}")
    for warning in job.progress.warnings:
        note(f"warning: {warning}", style="yellow")
    print_failures(job.progress.failures)
    if job.error:
        note(f"error: {job.error}", style="red")


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
