"""`bittern snapshots`, `bittern restore` and `bittern backup`: earlier states and copies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bittern.cli.options import ArchivePath, Json, flag
from bittern.cli.output import byte_size, note, print_json, show, table, working
from bittern.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bittern.index.snapshots import SnapshotInfo


def snapshots(
    archive: ArchivePath,
    take: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the current state under this name.")
    ] = None,
    remark: Annotated[str, typer.Option("--note", help="Note to store with the snapshot.")] = "",
    drop: Annotated[str | None, typer.Option(metavar="NAME", help="Drop this snapshot.")] = None,
    every: Annotated[
        bool,
        flag("--all", "Also list versions without a name that can still be opened."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the snapshots of an archive, take one, or drop one.

    A snapshot takes almost no time and space: it shares its files with the archive, and keeps
    them when later changes replace them. Others may write meanwhile.

    Example: bittern snapshots my-archive --take before-cleaning --note "as collected"

    Example: bittern search my-archive "an owl" --snapshot before-cleaning
    """
    from bittern.errors import InvalidInputError
    from bittern.index.archive import Archive

    if take is not None and drop is not None:
        raise InvalidInputError("take or drop a snapshot, not both at once", field="drop")
    if remark and take is None:
        raise InvalidInputError("--note goes with --take NAME", field="note")
    with Archive.open(archive) as opened:
        if drop is not None:
            opened.drop_snapshot(drop)
        if take is not None:
            opened.take_snapshot(take, note=remark)
        found = opened.snapshots(unnamed=every)
    if as_json:
        print_json({"archive": str(archive), "snapshots": [_as_json(info) for info in found]})
    elif found:
        show(_table(found))
    else:
        note("no snapshots; take one with: bittern snapshots ARCHIVE --take NAME")


def restore(
    archive: ArchivePath,
    snapshot: Annotated[str, typer.Argument(help="Name of a snapshot, or number of a version.")],
    as_json: Json = False,
) -> None:
    """Make an old state of an archive the newest one. Nothing is lost.

    The state before is kept as a snapshot, so you can undo a restore. Searches and servers see
    the old state or the new one, never a mixture, and need no restart.

    Example: bittern restore my-archive before-cleaning
    """
    from bittern.index.archive import Archive

    with Archive.open(archive, write=True) as opened, working("restoring"):
        before = opened.restore(snapshot)
        rows = len(opened.rows())
        generation = opened.generation
    if as_json:
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
    show(
        f"{archive}: {snapshot} restored, {counted(rows, 'observation')}. The state before is "
        f"kept as {before.name}"
    )


def backup(
    archive: ArchivePath,
    to: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="New folder, or an earlier backup of the archive to renew."
        ),
    ],
    link: Annotated[
        bool,
        flag("--link", "Hard links instead of copies: no protection against a broken disk."),
    ] = False,
    snapshot: Annotated[
        str | None, typer.Option(help="Copy this snapshot instead of the newest state.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy an archive, even while others write to it. The copy is an archive of its own.

    The copy holds exactly one state. Into an earlier backup, only new files are copied. Every file
    is compared with its checksum. Media and snapshots are not copied.

    Example: bittern backup my-archive /mnt/backup/my-archive

    Example: bittern backup my-archive before-the-update --link
    """
    from bittern.index.backup import backup as copied

    with working("copying"):
        done = copied(archive, to, link=link, snapshot=snapshot)
    if as_json:
        print_json({"archive": str(archive), **asdict(done)})
        return
    counts = [f"{counted(done.copied, 'file')} copied ({byte_size(done.bytes)})"]
    counts += [f"{done.linked} linked"] if done.linked else []
    counts += [f"{done.reused} unchanged"] if done.reused else []
    show(f"{to}: version {done.version} of {archive}; {', '.join(counts)} in {done.seconds:.1f} s")


def _as_json(info: SnapshotInfo) -> dict[str, Any]:
    value = {name: one for name, one in info.to_json().items() if name != "pin"}
    models = [
        {"name": one.name, "digest": one.digest, "bits": one.bits, "state": one.state}
        for one in info.models
    ]
    return {**value, "name": info.name or None, "models": models}


def _table(found: Sequence[SnapshotInfo]) -> Table:
    rows = []
    for info in found:
        counts = ", ".join(f"{number:,} {kind}" for kind, number in info.rows.items() if number)
        time = info.time[:16].replace("T", " ")
        models = ", ".join(record.name for record in info.models)
        observations = counts or f"{info.observations:,}"
        size = byte_size(info.bytes)
        rows.append((info.name, info.version, time, observations, size, models, info.note))
    return table(
        ("snapshot", "version", "time (UTC)", "rows", "size", "models", "note"),
        rows,
        right=("version", "size"),
        whole=("snapshot", "version", "time (UTC)", "size"),
    )
