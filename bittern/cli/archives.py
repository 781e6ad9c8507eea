"""`bittern models`, `bittern verify` and `bittern export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bittern.cli.screen import counted, err, out, plain, print_json, progress


def attach_models(app: typer.Typer) -> None:
    """Add `models` to the app."""
    app.command()(models)


def attach(app: typer.Typer) -> None:
    """Add `verify` and `export` to the app."""
    app.command()(verify)
    app.command()(export)


def models(
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON array for programs.")
    ] = False,
) -> None:
    """List what can be loaded, which modalities it has, and whether its weights are here.

    Example: bittern models --json
    """
    from service.catalogue import encoders

    infos = encoders()
    if as_program:
        print_json([asdict(info) for info in infos])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "takes", "dims", "weights", "licence"):
        table.add_column(heading, overflow="fold")
    for info in infos:
        here = "here" if info.ready else "not here"
        takes = ", ".join(info.modalities)
        table.add_row(*map(plain, (info.name, takes, info.dim, here, info.licence)))
    out.print(table)
    missing = [info for info in infos if not info.ready]
    if missing:
        err.print("\nTo bring weights, on a machine that reaches the hub:")
        for info in missing:
            err.print(f"  {info.bring}", markup=False, soft_wrap=True)
        err.print("then set BITTERN_WEIGHTS=DIR. `bittern models --json` tells where it looked.")


def verify(
    archive: Annotated[Path, typer.Argument(help="Archive folder.")],
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Check that the parts of an archive agree with each other.

    Example: bittern verify my-archive
    """
    from index.archive import Archive

    with Archive.open(archive) as opened:
        problems = opened.verify()
        stats = opened.stats()
    if as_program:
        print_json({"archive": str(archive), "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            err.print(plain(problem), style="red")
        rows = ", ".join(f"{n} {modality}" for modality, n in stats.observations.items())
        verdict = counted(len(problems), "problem") if problems else "sound"
        out.print(f"{archive}: {verdict}; {rows or 'no'} observations", markup=False)
    if problems:
        raise typer.Exit(1)


def export(
    archive: Annotated[Path, typer.Argument(help="Archive folder.")],
    to: Annotated[Path, typer.Option("--to", help="File to write: .csv, .parquet or .jsonl.")],
    where: Annotated[str | None, typer.Option(help="SQL condition over metadata columns.")] = None,
) -> None:
    """Write the observations of an archive, with their metadata, to a file.

    CSV and JSON Lines hold the metadata; Parquet holds the codes as well.

    Example: bittern export my-archive --to observations.csv --where "license = 'CC0-1.0'"
    """
    from service.exporting import export_archive

    bar, task = progress("exporting", 0)
    with bar:
        rows = export_archive(
            archive, to, where, lambda done, total: bar.update(task, completed=done, total=total)
        )
    err.print(f"{to}: {counted(rows, 'observation')}", markup=False)
