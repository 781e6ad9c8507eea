"""`bittern index`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from bittern.cli.connect import refuse_address
from bittern.cli.job_screen import (
    INTERRUPTED,
    Bits,
    Column,
    CommitItems,
    CommitSeconds,
    EngineOption,
    Exclude,
    Fetch,
    Format,
    Hasher,
    Include,
    Json,
    Media,
    OnDuplicate,
    ReportTo,
    SourceArgument,
    Strict,
    Workers,
    end,
    print_report,
    reading_of,
    run_with_bar,
)
from bittern.cli.output import licence_notice

__all__ = ["INTERRUPTED", "attach", "print_report", "show_licences"]


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(index)


def index(
    archive: Annotated[Path, typer.Argument(help="Archive folder; made if it does not exist.")],
    source: SourceArgument,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model of the archive, encoder, folder of a saved model, or its name in "
            "./models or $BITTERN_MODELS. By default the archive's own, and `field` for a new one.",
            show_default=False,
        ),
    ] = None,
    bits: Bits = None,
    hasher: Hasher = None,
    on_duplicate: OnDuplicate = "skip",
    keep_embeddings: Annotated[
        bool, typer.Option(help="Store float16 embeddings beside the codes.")
    ] = False,
    format_: Format = None,
    media: Media = None,
    column: Column = None,
    include: Include = None,
    exclude: Exclude = None,
    fetch: Fetch = None,
    commit_items: CommitItems = 64,
    commit_seconds: CommitSeconds = 30.0,
    strict: Strict = False,
    engine: EngineOption = "local",
    workers: Workers = 1,
    report: ReportTo = None,
    as_program: Json = False,
) -> None:
    """Put photographs and recordings into an archive.

    The source is a folder of media, a table with a column `media` and whatever Darwin Core
    columns there are, or what a site or a device exports. What is in the archive already and
    has not changed since is skipped, so a job that was stopped goes on where it was.

    Example: bittern index my-archive ~/photos

    Example: bittern index my-archive recordings.csv --model biolingual --bits 256
    """
    from bittern.service.jobs.description import JobSpec
    from bittern.types import check_on_duplicate

    refuse_address(archive, "a folder is indexed where the archive lies")
    check_on_duplicate(on_duplicate)
    spec = JobSpec(
        kind="index",
        target=str(archive),
        source=source,
        reading=reading_of(
            format=format_,
            media=media,
            column=column,
            include=include,
            exclude=exclude,
            fetch=fetch,
        ),
        model=model or "",
        bits=bits,
        hasher=hasher,  # type: ignore[arg-type]  # checked by run_job, with the choices named
        on_duplicate=on_duplicate,  # type: ignore[arg-type]
        keep_embeddings=keep_embeddings,
        commit_items=commit_items,
        commit_s=commit_seconds,
        strict=strict,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
    )
    show_licences(model or "", archive)
    end(spec, run_with_bar(spec, report, "indexing"), as_program=as_program, written=report)


def show_licences(model: str, archive: Path | None = None) -> None:
    """What the licences of the encoders that a job may use ask to be said."""
    from bittern.errors import BitternError
    from bittern.index.folder import ArchiveFolder
    from bittern.service.jobs.description import IndexOptions
    from bittern.service.jobs.model_choice import encoders_behind

    encoders = set()
    if archive is not None and (folder := ArchiveFolder(archive)).header_file.is_file():
        with suppress(BitternError):  # opening it will say what is wrong
            encoders |= {record.encoder for record in folder.read_header().models}
    if model or not encoders:
        encoders |= set(encoders_behind(IndexOptions(model=model)))
    for encoder in sorted(encoders):
        licence_notice(encoder)
