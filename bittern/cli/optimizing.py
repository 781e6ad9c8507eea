"""`bittern optimize`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from bittern.cli.connect import refuse_address
from bittern.cli.output import byte_size, err, out, plain, print_json, working

if TYPE_CHECKING:
    from bittern.index.archive import Archive
    from bittern.index.models import ModelRecord

_KINDS = ("auto", "ivf", "graph")
_WANTED = 0.95
"""Any recall below 1: what the archive is opened with, so that its statistics tell of indexes."""


@dataclass(frozen=True)
class Optimized:
    """What became of the index of one model's codes of one modality.

    Attributes:
        model: name of the model.
        digest: hex digest of the model.
        modality: ``image`` or ``audio``.
        rows: how many codes there are.
        engine: ``ivf`` or ``graph``; empty where no index is of use.
        built: whether it was built, or brought up to date, by this command.
        seconds: that the model took, all modalities together.
        bytes: of the files that keep it; 0 where nothing is kept.
        reason: why there is one, or none.
    """

    model: str
    digest: str
    modality: str
    rows: int
    engine: str
    built: bool
    seconds: float
    bytes: int
    reason: str


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(optimize)


def optimize(
    archive: Annotated[Path, typer.Argument(help="Archive folder.")],
    engine: Annotated[
        str,
        typer.Option(help="Index to build: auto (what suits the archive), ivf or graph."),
    ] = "auto",
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Build and keep the indexes by which searches with a recall below 1 are faster.

    A server builds them by itself when they are first wanted; `bittern search` only uses those that
    are kept. What is there is brought up to date. Below 200,000 rows there is nothing to gain.

    Example: bittern optimize my-archive

    Example: bittern optimize my-archive --engine graph
    """
    from bittern.errors import QueryError
    from bittern.index.archive import Archive
    from bittern.index.engines.threads import usable_cores
    from bittern.types import MAX_THREADS, SearchOptions

    refuse_address(archive, "an index is built where the archive lies")
    if engine not in _KINDS:
        raise QueryError(f"engine must be one of {', '.join(_KINDS)}, not {engine!r}")
    options = SearchOptions(
        engine=engine,  # type: ignore[arg-type]  # checked above
        recall=_WANTED,
        # Half of these build, since the others are left to searches; here nobody searches.
        threads=min(2 * usable_cores(), MAX_THREADS),
    )
    with Archive.open(archive, search=options) as opened:
        done = [each for record in opened.models() for each in _optimized(opened, record)]
    if as_program:
        print_json({"archive": str(archive), "indexes": [asdict(each) for each in done]})
    else:
        for each in done:
            out.print(plain(_told(each)), soft_wrap=not out.is_terminal)
        if not done:
            out.print(plain(f"{archive}: there are no codes"))
    if any(each.engine and not each.bytes for each in done):
        err.print(plain(f"nothing could be kept: {archive / 'derived'} cannot be written"))
        raise typer.Exit(1)


def _optimized(archive: Archive, record: ModelRecord) -> list[Optimized]:
    """Build the indexes of one model, and tell what became of them."""
    before = _kept(archive)
    begun = perf_counter()
    with working(f"building the index of {record.name}"):
        # The first takes up what is kept; the second adds what has come since.
        archive.build_index(record.digest)
        archive.build_index(record.digest)
    seconds = perf_counter() - begun
    after = _kept(archive)
    [told] = [model for model in archive.stats().models if model.digest == record.digest]
    found = []
    for modality, engine in sorted(told.engines.items(), reverse=True):
        kind = "" if engine.exact else engine.kind
        own = f"{record.code_column}-{modality}-{kind}."
        files = {name: size for name, size in after.items() if kind and name.startswith(own)}
        found.append(
            Optimized(
                model=record.name,
                digest=record.digest,
                modality=modality,
                rows=engine.rows,
                engine=kind,
                built=not files.keys() <= before.keys(),
                seconds=round(seconds, 3),
                bytes=sum(files.values()),
                reason=engine.reason,
            )
        )
    return found


def _kept(archive: Archive) -> dict[str, int]:
    """Sizes of the derived files, by name."""
    folder = archive.path / "derived"
    return {path.name: path.stat().st_size for path in folder.glob("*") if path.is_file()}


def _told(done: Optimized) -> str:
    what = f"{done.model}, {done.modality}"
    if not done.engine:
        return f"{what}: no index, {done.reason}"
    did = f"built in {done.seconds:.1f} s" if done.built else "was up to date"
    return f"{what}: {done.engine} over {done.rows:,} rows {did}, {byte_size(done.bytes)} kept"
