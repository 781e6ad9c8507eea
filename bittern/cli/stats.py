"""`bittern stats`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bittern.cli.options import reach
from bittern.cli.output import byte_size, out, plain, print_json
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.types import ArchiveStats, EngineStats


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(stats)


def stats(
    archive: Annotated[str, typer.Argument(help="Archive folder, or HOST:PORT of a server.")],
    name: Annotated[
        str, typer.Option("--archive", help="Name of the archive, if a server has several.")
    ] = "",
    snapshot: Annotated[str | None, typer.Option(help="Name of a snapshot to show.")] = None,
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Show what an archive contains, which engines search it, and why these were chosen.

    Example: bittern stats my-archive

    Example: bittern stats localhost:50051 --json
    """
    if Path(archive).exists():
        found = _of_folder(Path(archive), snapshot)
    else:
        found = _of_server(archive, name, snapshot)
    if as_program:
        print_json(asdict(found))
        return
    held = ", ".join(f"{rows:,} {modality}" for modality, rows in _in_order(found.observations))
    recordings = f" ({counted(found.recordings, 'recording')})" if found.recordings else ""
    besides = sum(e.other_bytes for model in found.models for e in model.engines.values())
    memory = f"{byte_size(found.code_bytes)} of codes and {byte_size(besides)} of other data"
    out.print(
        plain(
            f"{found.name}: {held or 'no'} observations{recordings}, generation "
            f"{found.generation}; in memory {memory}"
        )
    )
    if found.models:
        out.print(engine_table(found))


def _of_folder(path: Path, snapshot: str | None) -> ArchiveStats:
    from bittern.service.local.archive import LocalArchive

    engine = LocalArchive.open(path, snapshot=snapshot)
    try:
        engine.load_codes()
        return engine.stats()
    finally:
        engine.close()


def _of_server(address: str, name: str, snapshot: str | None) -> ArchiveStats:
    with reach(address, name, snapshot=snapshot) as opened:
        return opened.stats()


def engine_table(found: ArchiveStats) -> Table:
    """Which engine searches the codes of each model and modality, and why."""
    silent = found.code_bytes > 0 and not any(model.engines for model in found.models)
    unknown = "unknown: the server has an earlier version" if silent else ""
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "target", "rows", "engine", "codes", "other data", "why"):
        right = heading in ("rows", "codes", "other data")
        table.add_column(
            heading,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=heading not in ("model", "why"),
        )
    for model in found.models:
        for modality, rows in _in_order(model.rows):
            engine = model.engines.get(modality)
            why_not = (unknown or "not in memory yet") if rows else ""
            cells = _engine_cells(engine) if engine else ("", "", "", why_not)
            table.add_row(*map(plain, (model.name, modality, f"{rows:,}", *cells)))
    return table


def _in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Images before audio, also where they came over the wire, which keeps no order."""
    return sorted(counts.items(), reverse=True)


def _engine_cells(engine: EngineStats) -> tuple[str, str, str, str]:
    kind = f"{engine.kind}, {'exact' if engine.exact else 'approximate'}"
    building = f"; being built: {engine.building}" if engine.building else ""
    codes, besides = byte_size(engine.code_bytes), byte_size(engine.other_bytes)
    return kind, codes, besides, f"{engine.reason}{building}"
