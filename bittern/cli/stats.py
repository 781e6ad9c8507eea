"""`bittern stats`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bittern.cli.screen import counted, out, plain, print_json
from bittern.cli.searching import reach

if TYPE_CHECKING:
    from index.observation import ArchiveStats, EngineStats

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(stats)


def stats(
    archive: Annotated[str, typer.Argument(help="Archive folder, or HOST:PORT of a server.")],
    name: Annotated[
        str, typer.Option("--archive", help="Which archive of a server that has several.")
    ] = "",
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Tell what an archive holds, what searches it, and why.

    Example: bittern stats my-archive

    Example: bittern stats localhost:50051 --json
    """
    told = _of_folder(Path(archive)) if Path(archive).exists() else _of_server(archive, name)
    if as_program:
        print_json(asdict(told))
        return
    held = ", ".join(f"{rows:,} {modality}" for modality, rows in _in_order(told.observations))
    recordings = f" ({counted(told.recordings, 'recording')})" if told.recordings else ""
    out.print(
        plain(
            f"{told.name}: {held or 'no'} observations{recordings}, generation {told.generation}, "
            f"{size(told.code_bytes)} of codes in memory"
        )
    )
    if told.models:
        out.print(engine_table(told))


def _of_folder(path: Path) -> ArchiveStats:
    from service.engine import Engine

    engine = Engine.open(path)
    try:
        engine.load_codes()
        return engine.stats()
    finally:
        engine.close()


def _of_server(address: str, name: str) -> ArchiveStats:
    with reach(address, name) as opened:
        return opened.stats()


def engine_table(told: ArchiveStats) -> Table:
    """What searches the codes of each model and modality, and why."""
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "of", "rows", "engine", "memory", "why"):
        right = heading in ("rows", "memory")
        table.add_column(
            heading,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=heading not in ("model", "why"),
        )
    for model in told.models:
        for modality, rows in _in_order(model.rows):
            engine = model.engines.get(modality)
            cells = (
                _engine_cells(engine) if engine else ("", "", "not in memory yet" if rows else "")
            )
            table.add_row(*map(plain, (model.name, modality, f"{rows:,}", *cells)))
    return table


def _in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Images before audio, also where they came over the wire, which keeps no order."""
    return sorted(counts.items(), reverse=True)


def _engine_cells(engine: EngineStats) -> tuple[str, str, str]:
    kind = f"{engine.kind}, {'exact' if engine.exact else 'approximate'}"
    building = f"; being built: {engine.building}" if engine.building else ""
    return kind, size(engine.code_bytes + engine.other_bytes), f"{engine.reason}{building}"


def size(count: int) -> str:
    """Bytes as people read them: ``512 bytes``, ``61.0 MiB``."""
    power = min(max(count.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{count / 1024**power:,.1f} {_UNITS[power]}" if power else f"{count} bytes"
