"""`bittern models`, `bittern verify` and `bittern export`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from bittern.cli.screen import counted, err, out, plain, print_json, progress

if TYPE_CHECKING:
    from service.catalogue import EncoderInfo
    from service.saved_models import SavedModelInfo


def attach_models(app: typer.Typer) -> None:
    """Add `models` to the app."""
    app.command()(models)


def attach(app: typer.Typer) -> None:
    """Add `verify` and `export` to the app."""
    app.command()(verify)
    app.command()(export)


def models(
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also list the saved models in this folder, or the one that it is; repeatable."
        ),
    ] = None,
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON array for programs.")
    ] = False,
) -> None:
    """List what can be loaded, which modalities it has, and whether its weights are here.

    That is: the encoders, the models that ship with Bittern, and saved models in `./models`, in
    `$BITTERN_MODELS` and in the folders given. After `--model` goes the name of an encoder or
    shipped model, the folder of a saved one, or that folder's name alone where it is in
    `./models` or `$BITTERN_MODELS`.

    Example: bittern models --json

    Example: bittern models --folder runs
    """
    from service.catalogue import encoders
    from service.saved_models import saved_models

    saved = saved_models(folder or [])
    infos = encoders()
    if as_program:
        as_objects = [{"kind": "encoder", **asdict(info)} for info in infos]
        print_json(as_objects + [asdict(info) for info in saved])
        return
    out.print(_encoder_table(infos))
    out.print()
    out.print(_model_table([model for model in saved if not model.damaged]))
    for model in saved:
        if model.damaged:
            line = Text.assemble(plain(model.folder), ": ", plain(model.message), style="red")
            out.print(line, soft_wrap=not out.is_terminal)
    missing = [info for info in infos if not info.ready]
    if missing:
        err.print("\nTo bring weights, on a machine that reaches the hub:")
        for info in missing:
            err.print(f"  {info.bring}", markup=False, soft_wrap=True)
        err.print("then set BITTERN_WEIGHTS=DIR. `bittern models --json` tells where it looked.")


def _encoder_table(infos: Sequence[EncoderInfo]) -> Table:
    table = _table("encoder", "takes", "dims", "weights", "licence")
    for info in infos:
        here = "here" if info.ready else "not here"
        takes = ", ".join(info.modalities)
        table.add_row(*map(plain, (info.name, takes, info.dim, here, info.licence)))
    return table


def _model_table(infos: Sequence[SavedModelInfo]) -> Table:
    table = _table("model", "takes", "bits", "hasher", "encoder", "weights", "measured")
    for column in table.columns:
        column.no_wrap = column.header in ("takes", "bits", "hasher", "weights")
    for info in infos:
        cells = (
            _after_model(info),
            ", ".join(info.modalities),
            info.bits,
            info.hasher,
            " + ".join(info.encoders),
            "here" if info.ready else "not here",
            "" if info.value is None else f"{_short(info.metric)} {_figure(info.value)}",
        )
        table.add_row(*map(plain, cells))
    return table


def _after_model(info: SavedModelInfo) -> str:
    """What to type after ``--model``, and the card's name where that is another."""
    if info.kind == "shipped":
        return info.name
    same = Path(info.folder).resolve().name == info.name
    return info.folder if same else f"{info.folder} ({info.name})"


def _short(metric: str) -> str:
    """``held_out.words to sounds.mAP_learned`` as ``words to sounds mAP``."""
    before, _, figure = metric.rpartition(".")
    task = before.removeprefix("held_out").removeprefix("validation").lstrip(".")
    return f"{task} {figure.removesuffix('_learned')}".strip()


def _figure(value: float) -> str:
    """``.40``; figures that are no shares in three digits."""
    return f"{value:.2f}".removeprefix("0") if 0 <= value < 0.995 else f"{value:.3g}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def verify(
    archive: Annotated[Path, typer.Argument(help="Archive folder.")],
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Check that the parts of an archive agree with each other; change nothing.

    Files in `derived/` only spare work: damaged ones are named, are made anew when they are
    wanted, and are no problem of the archive.

    Example: bittern verify my-archive
    """
    from index.archive import Archive

    with _without_log("index.derived"), Archive.open(archive) as opened:
        found = opened.verification()
    problems = found.problems
    if as_program:
        print_json(
            {
                "archive": str(archive),
                "ok": not problems,
                "problems": problems,
                "derived_made_anew": found.made_anew,
            }
        )
    else:
        for problem in problems:
            err.print(plain(problem), style="red")
        if found.made_anew:
            err.print("derived files that are damaged, and made anew when they are wanted:")
            for line in found.made_anew:
                err.print(plain(f"  {line}"), soft_wrap=not err.is_terminal)
        rows = ", ".join(f"{n} {modality}" for modality, n in found.observations.items())
        verdict = counted(len(problems), "problem") if problems else "sound"
        out.print(f"{archive}: {verdict}; {rows or 'no'} observations", markup=False)
    if problems:
        raise typer.Exit(1)


@contextmanager
def _without_log(name: str) -> Iterator[None]:
    """Keep a logger's warnings to itself: what it would say is told otherwise."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


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
