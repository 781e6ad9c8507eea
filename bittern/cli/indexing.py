"""`bittern index`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bittern.cli.screen import counted, err, licence_notice, print_failures, print_json, progress
from bittern.cli.searching import refuse_address

if TYPE_CHECKING:
    from service.indexing import IndexOptions, IndexReport
    from service.sources import Source

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(index)


def index(
    archive: Annotated[Path, typer.Argument(help="Archive folder; made if it does not exist.")],
    source: Annotated[Path, typer.Argument(help="Folder of media, or a CSV manifest.")],
    model: Annotated[
        str,
        typer.Option(
            help="Model of the archive, encoder, folder of a saved model, or its name in "
            "./models or $BITTERN_MODELS."
        ),
    ] = "field",
    bits: Annotated[int | None, typer.Option(help="Code length; 256 by default.")] = None,
    hasher: Annotated[str | None, typer.Option(help="pca, itq or lsh.")] = None,
    on_duplicate: Annotated[
        str, typer.Option(help="What to do with items that are there: skip, overwrite or error.")
    ] = "skip",
    keep_embeddings: Annotated[
        bool, typer.Option(help="Store float16 embeddings beside the codes.")
    ] = False,
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Put photographs and recordings into an archive.

    A manifest is a CSV file with a column `media` (paths relative to it, or absolute) and
    whatever Darwin Core columns there are. What is in the archive already is skipped, so a job
    that was stopped goes on where it was.

    Example: bittern index my-archive ~/photos

    Example: bittern index my-archive recordings.csv --model biolingual --bits 256
    """
    from bittern.arguments import check_on_duplicate
    from service.indexing import IndexOptions
    from service.sources import read_source

    refuse_address(archive, "a folder is indexed where the archive lies")
    check_on_duplicate(on_duplicate)
    options = IndexOptions(
        model=model,
        bits=bits,
        hasher=hasher,  # type: ignore[arg-type]  # checked by fit, with the choices named
        on_duplicate=on_duplicate,  # type: ignore[arg-type]
        keep_embeddings=keep_embeddings,
    )
    listed = read_source(source)
    try:
        report = index_with_bar(archive, listed, options)
    except KeyboardInterrupt:
        err.print("stopped; what was committed is in. The same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    if as_program:
        print_json(report_as_json(report))
    else:
        print_report(archive, report)
    if report.failures and len(report.failures) == len(listed):
        raise typer.Exit(1)


def index_with_bar(archive: Path, source: Source, options: IndexOptions) -> IndexReport:
    """Index with a progress bar; the archive is made if it does not exist."""
    from index.archive import Archive
    from service.embedders import Embedders
    from service.engine import Engine, catalogue_encoder
    from service.indexing import index_source
    from service.model_choice import encoders_behind, load_first

    exists = archive.is_dir() and any(archive.iterdir())
    embedders = Embedders(catalogue_encoder)
    if not exists:
        load_first(options, embedders, source.entries)

    with Archive.open(archive, write=True) if exists else Archive.create(archive) as opened:
        engine = Engine(opened, embedders=embedders)
        for encoder in sorted({*encoders_behind(options), *engine.encoders()}):
            licence_notice(encoder)
        bar, task = progress("indexing", len(source))
        with bar:
            return index_source(
                engine,
                source.entries,
                options,
                lambda results: bar.advance(task, len(results)),
            )


def report_as_json(report: IndexReport) -> dict[str, Any]:
    """The report of an indexing run for programs."""
    return {
        "model": report.model,
        "items": {str(status): count for status, count in report.items.items()},
        "observations": report.observations,
        "warnings": report.warnings,
        "failures": [
            {"id": f.occurrence_id, "reason": f.reason, "message": f.message}
            for f in report.failures
        ],
        "seconds": round(report.seconds, 3),
        "stages": {
            "decode_wait_s": round(report.times.decode_wait_s, 3),
            "network_s": round(report.times.network_s, 3),
            "hash_s": round(report.times.hash_s, 3),
            "commit_s": round(report.times.commit_s, 3),
            "pieces": report.times.pieces,
        },
    }


def print_report(archive: Path, report: IndexReport) -> None:
    """The report of an indexing run for people."""
    counts = ", ".join(f"{count} {status}" for status, count in report.items.items() if count)
    by = f" by {report.model}" if report.model else ""
    err.print(
        f"{archive}: {counts}; {counted(report.observations, 'observation')} coded"
        f"{by} in {report.seconds:.1f} s",
        markup=False,
    )
    for warning in report.warnings:
        err.print(f"warning: {warning}", style="yellow")
    if report.failures:
        print_failures(report.failures)
