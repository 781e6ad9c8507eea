"""`bittern encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bittern.cli.screen import counted, err, licence_notice, print_failures, progress


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(encode)


def encode(
    source: Annotated[Path, typer.Argument(help="Folder of media, or a CSV manifest.")],
    to: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    model: Annotated[str, typer.Option(help="Encoder, or folder of a saved model.")] = "field",
    bits: Annotated[int | None, typer.Option(help="Code length; 256 by default.")] = None,
    hasher: Annotated[str | None, typer.Option(help="pca, itq or lsh.")] = None,
) -> None:
    """Turn media into binary codes, in a Parquet file, without an archive.

    Example: bittern encode photos/ --model field --out codes.parquet
    """
    from service.coding import code_source
    from service.engine import loader_of
    from service.indexing import IndexOptions, load_first
    from service.sources import read_source

    listed = read_source(source)
    options = IndexOptions(model=model, bits=bits, hasher=hasher)  # type: ignore[arg-type]
    loaded = load_first(options)
    licence_notice(loaded.name)
    bar, task = progress("encoding", len(listed))
    with bar:
        report = code_source(
            listed.entries,
            to,
            options,
            lambda results: bar.advance(task, len(results)),
            load_encoder=loader_of(loaded),
        )
    err.print(
        f"{to}: {counted(report.observations, 'code')} by {report.model} in {report.seconds:.1f} s",
        markup=False,
    )
    if report.failures:
        print_failures(report.failures)
