"""`bittern encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bittern.cli.indexing import show_licences
from bittern.cli.job_screen import (
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
    ReportTo,
    SourceArgument,
    Strict,
    Workers,
    end,
    reading_of,
    run_with_bar,
)


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(encode)


def encode(
    source: SourceArgument,
    to: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    model: Annotated[
        str,
        typer.Option(
            help="Encoder, folder of a saved model, or its name in ./models or $BITTERN_MODELS."
        ),
    ] = "field",
    bits: Bits = None,
    hasher: Hasher = None,
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
    """Turn media into binary codes, in a Parquet file, without an archive.

    The file appears when it is complete. Until then its parts lie beside it, and the same
    command goes on from them.

    Example: bittern encode photos/ --model field --out codes.parquet
    """
    from bittern.service.jobs.description import JobSpec
    from bittern.service.jobs.encoding import check_parquet

    check_parquet(to)
    spec = JobSpec(
        kind="encode",
        target=str(to),
        source=source,
        reading=reading_of(
            format=format_,
            media=media,
            column=column,
            include=include,
            exclude=exclude,
            fetch=fetch,
        ),
        model=model,
        bits=bits,
        hasher=hasher,  # type: ignore[arg-type]  # checked here, with the choices named
        commit_items=commit_items,
        commit_s=commit_seconds,
        strict=strict,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
    )
    show_licences(model)
    end(spec, run_with_bar(spec, report, "encoding"), as_program=as_program, written=report)
