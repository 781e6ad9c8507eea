"""`bittern index` and `bittern encode`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from bittern.cli.job_screen import (
    Bits,
    EngineOption,
    Exclude,
    Fetch,
    Format,
    Hasher,
    Include,
    Json,
    KeepEmbeddings,
    Media,
    OnDuplicate,
    Rename,
    ReportTo,
    SourceArgument,
    Strict,
    Workers,
    commit_settings,
    end,
    reading_of,
    run_with_bar,
)
from bittern.cli.options import refuse_address
from bittern.cli.output import licence_notice


def attach(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(index)
    app.command()(encode)


def index(
    archive: Annotated[Path, typer.Argument(help="Archive folder; made if it does not exist.")],
    source: SourceArgument,
    model: Annotated[
        str,
        typer.Option(
            help="Encoder, model of the archive, or saved model: its folder, or its name in "
            "./models or $BITTERN_MODELS. By default the archive's model; `field` if it is new.",
            show_default=False,
        ),
    ] = "",
    bits: Bits = None,
    hasher: Hasher = None,
    on_duplicate: OnDuplicate = "skip",
    keep_embeddings: KeepEmbeddings = False,
    format_: Format = None,
    media: Media = None,
    rename: Rename = None,
    include: Include = None,
    exclude: Exclude = None,
    fetch: Fetch = None,
    strict: Strict = False,
    engine: EngineOption = "local",
    workers: Workers = 1,
    report: ReportTo = None,
    as_program: Json = False,
) -> None:
    """Put photographs and recordings into an archive.

    The source is a folder of media, a table with a column `media` and any Darwin Core columns, or
    an export of a website or camera-trap platform. Unchanged items that are already in the archive
    are skipped, so the same command continues a job that was stopped.

    Example: bittern index my-archive ~/photos

    Example: bittern index my-archive recordings.csv --model biolingual --bits 256
    """
    from bittern.service.jobs.description import JobSpec

    refuse_address(archive, "index on the machine that has the archive")
    spec = JobSpec(
        kind="index",
        target=str(archive),
        source=source,
        reading=reading_of(format_, media, rename, include, exclude, fetch),
        model=model,
        bits=bits,
        hasher=hasher,  # type: ignore[arg-type]  # validated by JobSpec
        on_duplicate=on_duplicate,  # type: ignore[arg-type]
        keep_embeddings=keep_embeddings,
        strict=strict,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
        **commit_settings(),
    )
    show_licences(model, archive)
    end(spec, run_with_bar(spec, report, "indexing"), as_program=as_program, written=report)


def encode(
    source: SourceArgument,
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    model: Annotated[
        str,
        typer.Option(
            help="Encoder, or saved model: its folder, or its name in ./models or $BITTERN_MODELS."
        ),
    ] = "field",
    bits: Bits = None,
    hasher: Hasher = None,
    format_: Format = None,
    media: Media = None,
    rename: Rename = None,
    include: Include = None,
    exclude: Exclude = None,
    fetch: Fetch = None,
    strict: Strict = False,
    engine: EngineOption = "local",
    workers: Workers = 1,
    report: ReportTo = None,
    as_program: Json = False,
) -> None:
    """Turn media into binary codes, in a Parquet file, without an archive.

    The file appears when it is complete. Until then, finished parts are kept beside it; to
    continue a job that was stopped, run the same command again.

    Example: bittern encode photos/ --model field --output codes.parquet
    """
    from bittern.service.jobs.description import JobSpec
    from bittern.service.jobs.encoding import check_parquet

    check_parquet(output)
    spec = JobSpec(
        kind="encode",
        target=str(output),
        source=source,
        reading=reading_of(format_, media, rename, include, exclude, fetch),
        model=model,
        bits=bits,
        hasher=hasher,  # type: ignore[arg-type]  # validated by JobSpec
        strict=strict,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
        **commit_settings(),
    )
    show_licences(model)
    end(spec, run_with_bar(spec, report, "encoding"), as_program=as_program, written=report)


def show_licences(model: str, archive: Path | None = None) -> None:
    """Print the licence notices of the encoders that a job may use."""
    from bittern.errors import BitternError
    from bittern.index.folder import ArchiveFolder
    from bittern.service.jobs.description import IndexOptions
    from bittern.service.jobs.model_choice import encoders_behind

    encoders = set()
    if archive is not None and (folder := ArchiveFolder(archive)).header_file.is_file():
        with suppress(BitternError):  # opening it reports what is wrong
            encoders |= {record.encoder for record in folder.read_header().models}
    if model or not encoders:
        encoders |= set(encoders_behind(IndexOptions(model=model)))
    for encoder in sorted(encoders):
        licence_notice(encoder)
