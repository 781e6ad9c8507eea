"""`bittern models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from bittern.cli.output import err, out, plain, print_json

if TYPE_CHECKING:
    from bittern.service.models.saved import EncoderInfo, SavedModelInfo


def attach_models(app: typer.Typer) -> None:
    """Add `models` to the app."""
    app.command()(models)


def models(
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also list saved models in this folder, or this saved model. Repeatable."
        ),
    ] = None,
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON array for programs.")
    ] = False,
) -> None:
    """List encoders and models, what they encode, and whether their weights are on this machine.

    Listed are encoders, models that ship with Bittern, and saved models in `./models`, in
    `$BITTERN_MODELS` and in the folders given. The option `--model` of other commands takes the
    name of an encoder or shipped model, or the folder of a saved model; the folder's name alone
    is enough in `./models` and `$BITTERN_MODELS`.

    Example: bittern models --json

    Example: bittern models --folder runs
    """
    from bittern.service.models.saved import encoders, saved_models

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
        err.print("\nTo get weights, on a machine with internet access:")
        for info in missing:
            err.print(f"  {info.bring}", markup=False, soft_wrap=True)
        err.print(
            "Then set BITTERN_WEIGHTS=DIR. `bittern models --json` lists the folders searched."
        )


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
