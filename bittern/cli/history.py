"""`bittern snapshots`, `bittern restore`, `bittern backup` and `bittern reencode`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bittern.cli.indexing import show_licences
from bittern.cli.job_screen import (
    Bits,
    Fetch,
    Hasher,
    Json,
    ReportTo,
    commit_settings,
    end,
    reading_of,
    run_with_bar,
)
from bittern.cli.options import refuse_address
from bittern.cli.output import byte_size, err, out, plain, print_json, working
from bittern.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bittern.index.snapshots import SnapshotInfo

_BESIDE_NAMES = 74
"""Columns that a list of snapshots takes beside their names at least."""
ArchiveArgument = Annotated[Path, typer.Argument(help="Archive folder.")]


def attach(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(snapshots)
    app.command()(restore)
    app.command()(backup)
    app.command()(reencode)


def snapshots(
    archive: ArchiveArgument,
    take: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the current state under this name.")
    ] = None,
    note: Annotated[str, typer.Option(help="Note to store with the snapshot.")] = "",
    drop: Annotated[str | None, typer.Option(metavar="NAME", help="Drop this snapshot.")] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Also list versions without a name that can still be opened."),
    ] = False,
    as_program: Json = False,
) -> None:
    """List the snapshots of an archive, take one, or drop one.

    A snapshot takes almost no time and space: it shares its files with the archive, and keeps
    them when later changes replace them. Others may write meanwhile.

    Example: bittern snapshots my-archive --take before-cleaning --note "as collected"

    Example: bittern search my-archive "an owl" --snapshot before-cleaning
    """
    from bittern.errors import InvalidInputError
    from bittern.index.archive import Archive

    refuse_address(archive, "run this on the machine that has the archive")
    if take is not None and drop is not None:
        raise InvalidInputError("take or drop a snapshot, not both at once", field="drop")
    if note and take is None:
        raise InvalidInputError("--note goes with --take NAME", field="note")
    with Archive.open(archive) as opened:
        if drop is not None:
            opened.drop_snapshot(drop)
        if take is not None:
            opened.take_snapshot(take, note=note)
        found = opened.snapshots(unnamed=every)
    if as_program:
        print_json({"archive": str(archive), "snapshots": [_as_json(info) for info in found]})
    elif found:
        # Names are typed again: they stay whole, wherever a narrow terminal breaks the rest.
        longest = max(len(info.name or "") for info in found)
        out.print(_table(found), width=max(out.width, longest + _BESIDE_NAMES), crop=False)
    else:
        err.print("no snapshots; take one with: bittern snapshots ARCHIVE --take NAME")


def restore(
    archive: ArchiveArgument,
    snapshot: Annotated[str, typer.Argument(help="Name of a snapshot, or number of a version.")],
    as_program: Json = False,
) -> None:
    """Make an old state of an archive the newest one. Nothing is lost.

    The state before is kept as a snapshot, so you can undo a restore. Searches and servers see
    the old state or the new one, never a mixture, and need no restart.

    Example: bittern restore my-archive before-cleaning
    """
    from bittern.index.archive import Archive

    refuse_address(archive, "run this on the machine that has the archive")
    with Archive.open(archive, write=True) as opened, working("restoring"):
        before = opened.restore(snapshot)
        rows = len(opened.rows())
        generation = opened.generation
    if as_program:
        print_json(
            {
                "archive": str(archive),
                "restored": snapshot,
                "before": before.name,
                "observations": rows,
                "generation": generation,
            }
        )
        return
    out.print(
        plain(
            f"{archive}: {snapshot} restored, {counted(rows, 'observation')}. The state before is "
            f"kept as {before.name}"
        ),
        soft_wrap=not out.is_terminal,
    )


def backup(
    archive: ArchiveArgument,
    to: Annotated[
        Path, typer.Argument(help="New folder, or an earlier backup of the archive to renew.")
    ],
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Hard links instead of copies: no protection against a broken disk."
        ),
    ] = False,
    snapshot: Annotated[
        str | None, typer.Option(help="Copy this snapshot instead of the newest state.")
    ] = None,
    as_program: Json = False,
) -> None:
    """Copy an archive, even while others write to it. The copy is an archive of its own.

    The copy holds exactly one state. Into an earlier backup, only new files are copied. Every file
    is compared with its checksum. Media and snapshots are not copied.

    Example: bittern backup my-archive /mnt/backup/my-archive

    Example: bittern backup my-archive before-the-update --link
    """
    from bittern.index.backup import backup as copied

    refuse_address(archive, "run this on the machine that has the archive")
    with working("copying"):
        done = copied(archive, to, link=link, snapshot=snapshot)
    if as_program:
        print_json({"archive": str(archive), **asdict(done)})
        return
    counts = [f"{counted(done.copied, 'file')} copied ({byte_size(done.bytes)})"]
    counts += [f"{done.linked} linked"] if done.linked else []
    counts += [f"{done.reused} unchanged"] if done.reused else []
    line = f"{to}: version {done.version} of {archive}; {', '.join(counts)} in {done.seconds:.1f} s"
    out.print(plain(line), soft_wrap=not out.is_terminal)


def reencode(
    archive: ArchiveArgument,
    model: Annotated[
        str,
        typer.Option(
            help="Encoder, model of the archive, folder of a saved model, or its name in "
            "./models or $BITTERN_MODELS."
        ),
    ],
    bits: Bits = None,
    hasher: Hasher = None,
    give_up: Annotated[
        bool,
        typer.Option("--give-up", help="Give up: remove the new model and its codes so far."),
    ] = False,
    drop_old: Annotated[
        bool,
        typer.Option(
            "--drop-old",
            help="Remove the model that this one replaces, and its codes. Others stay.",
        ),
    ] = False,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Switch even if some media have no new codes."),
    ] = False,
    media: Annotated[
        str | None, typer.Option(help="Folder of the media, if they were moved.")
    ] = None,
    fetch: Fetch = None,
    keep_embeddings: Annotated[
        bool, typer.Option(help="Store float16 embeddings beside the codes.")
    ] = False,
    report: ReportTo = None,
    as_program: Json = False,
) -> None:
    """Encode an archive again with another model or code length, then switch to it.

    Searches use the old codes until everything is encoded, and the new ones from then on, without
    a restart. The same command continues a job that was stopped. If embeddings of the same
    encoder are stored, no media are read. The old model stays for searches that name it, unless
    it is dropped.

    Example: bittern reencode my-archive --model field --bits 64

    Example: bittern reencode my-archive --model runs/owls --drop-old

    Example: bittern reencode my-archive --model runs/owls --give-up
    """
    from bittern.index.folder import ArchiveFolder
    from bittern.service.jobs.description import JobSpec

    refuse_address(archive, "run this on the machine that has the archive")
    if give_up:
        _give_up(archive, model, bits, hasher, as_program=as_program)
        return
    spec = JobSpec(
        kind="reencode",
        target=str(archive),
        reading=reading_of(media=media, fetch=fetch),
        model=model,
        bits=bits,
        hasher=hasher,  # type: ignore[arg-type]  # checked with the job
        keep_embeddings=keep_embeddings,
        drop_old=drop_old,
        allow_missing=allow_missing,
        **commit_settings(),
    )
    ArchiveFolder(archive).check_present()  # before a report is written into the folder
    show_licences(model, archive)
    done = run_with_bar(spec, report, "encoding again")
    end(spec, done, as_program=as_program, written=report)


def _give_up(
    archive: Path, model: str, bits: int | None, hasher: str | None, *, as_program: bool
) -> None:
    from bittern.index.archive import Archive
    from bittern.service.jobs.reencode import give_up

    with Archive.open(archive, write=True) as opened, working("removing"):
        record = give_up(opened, model, bits, hasher)
    if as_program:
        given_up = record and {"name": record.name, "digest": record.digest}
        print_json({"archive": str(archive), "given_up": given_up})
        return
    what = f"model {record.name} removed" if record else "what was left of a model removed"
    out.print(plain(f"{archive}: {what}"), soft_wrap=not out.is_terminal)


def _as_json(info: SnapshotInfo) -> dict[str, Any]:
    value = {name: one for name, one in info.to_json().items() if name != "pin"}
    models = [
        {"name": one.name, "digest": one.digest, "bits": one.bits, "state": one.state}
        for one in info.models
    ]
    return {**value, "name": info.name or None, "models": models}


def _table(found: Sequence[SnapshotInfo]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("snapshot", "version", "time (UTC)", "rows", "size", "models", "note"):
        right = heading in ("version", "size")
        table.add_column(
            heading,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=heading in ("snapshot", "version", "time (UTC)", "size"),
        )
    for info in found:
        rows = ", ".join(f"{number:,} {kind}" for kind, number in info.rows.items() if number)
        table.add_row(
            plain(info.name),
            str(info.version),
            plain(info.time[:16].replace("T", " ")),
            rows or f"{info.observations:,}",
            byte_size(info.bytes),
            plain(", ".join(record.name for record in info.models)),
            plain(info.note),
        )
    return table
