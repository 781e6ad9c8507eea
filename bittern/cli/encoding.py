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
    model: Annotated[
        str,
        typer.Option(
            help="Encoder, folder of a saved model, or its name in ./models or $BITTERN_MODELS."
        ),
    ] = "field",
    bits: Annotated[int | None, typer.Option(help="Code length; 256 by default.")] = None,
    hasher: Annotated[str | None, typer.Option(help="pca, itq or lsh.")] = None,
) -> None:
    """Turn media into binary codes, in a Parquet file, without an archive.

    Example: bittern encode photos/ --model field --out codes.parquet
    """
    from service.coding import code_source
    from service.embedders import Embedders
    from service.engine import catalogue_encoder
    from service.model_choice import IndexOptions, load_first
    from service.sources import read_source

    listed = read_source(source)
    options = IndexOptions(model=model, bits=bits, hasher=hasher)  # type: ignore[arg-type]
    embedders = Embedders(catalogue_encoder)
    for encoder in load_first(options, embedders, listed.entries).encoders:
        licence_notice(encoder)
    bar, task = progress("encoding", len(listed))
    with bar:
        report = code_source(
            listed.entries,
            to,
            options,
            lambda results: bar.advance(task, len(results)),
            embedders=embedders,
        )
    err.print(
        f"{to}: {counted(report.observations, 'code')} by {report.model} in {report.seconds:.1f} s",
        markup=False,
    )
    if report.failures:
        print_failures(report.failures)
