"""`bittern verify`, which also repairs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bittern.cli.options import ArchivePath, Json, flag
from bittern.cli.output import (
    FAILED,
    byte_size,
    note,
    print_json,
    print_lines,
    progress,
    show,
    working,
)
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.index.verify import Verification
    from bittern.service.local.sample_check import SampleCheck


def verify(
    archive: ArchivePath,
    sample: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="Media items per model to encode again and compare; 0: none.",
        ),
    ] = 16,
    repair: Annotated[
        bool, flag("--repair", "Repair the archive; nobody may write to it meanwhile.")
    ] = False,
    dry_run: Annotated[bool, flag("--dry-run", "With --repair: only print the steps.")] = False,
    as_json: Json = False,
) -> None:
    """Check an archive for damage, and say how to repair it.

    Compares every file with its checksum, checks that rows, models and index agree, and encodes
    some media again if they are still in place. Changes nothing without --repair. Damaged files in
    `derived/` are no problem: they are built again when needed. Moved or changed media are listed,
    but are no problem of the archive.

    With --repair, restores the newest readable version, or removes unreadable rows and lists them,
    so that you can index them again. Damaged files are moved to `lost-found` in the archive's
    folder, never deleted.

    Example: bittern verify my-archive

    Example: bittern verify my-archive --repair --dry-run
    """
    from bittern.errors import InvalidInputError

    if repair:
        _repair(archive, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        raise InvalidInputError("--dry-run goes with --repair", field="dry_run")
    found, coded = _verified(archive, sample)
    problems = found.problems
    if coded and coded.wrong:
        problems.append(
            f"{len(coded.wrong)} of {coded.codes} codes differ when made again: "
            f"{', '.join(coded.wrong[:5])}{', ...' if len(coded.wrong) > 5 else ''}; "
            "index their media again with --on-duplicate overwrite"
        )
    if as_json:
        print_json(_as_json(archive, found, coded, problems))
    else:
        _print(archive, found, coded, problems)
    if problems:
        raise typer.Exit(FAILED)


def _verified(path: Path, sample: int) -> tuple[Verification, SampleCheck | None]:
    from bittern.errors import ArchiveDamagedError
    from bittern.index.archive import Archive
    from bittern.index.folder import ArchiveFolder
    from bittern.index.verify import Finding, verified_files
    from bittern.service.local.sample_check import check_sample

    bar, task = progress("checking MiB", 0)

    def on_checked(done: int, total: int) -> None:
        bar.update(task, completed=done >> 20, total=total >> 20)

    with _without_log("bittern.index.derived_files"), bar:
        try:
            with Archive.open(path) as opened:
                found = opened.verification(on_checked)
                bar.stop()
                with working("encoding a sample again"):
                    return found, check_sample(opened, sample)
        except ArchiveDamagedError as error:
            found = verified_files(ArchiveFolder(path), on_checked)
            if not found.findings:
                remedy = f"run bittern verify {path} --repair"
                found.findings.append(Finding("rows", error.message, remedy))
            return found, None


def _as_json(
    archive: Path, found: Verification, coded: SampleCheck | None, problems: list[str]
) -> dict[str, Any]:
    return {
        "archive": str(archive),
        "ok": not problems,
        "problems": problems,
        "derived_made_anew": found.made_anew,
        "findings": [asdict(finding) for finding in found.findings],
        "observations": dict(found.observations),
        "files": found.files,
        "bytes": found.size,
        "files_without_checksum": found.without_checksums,
        "orphans": found.orphans,
        "codes": asdict(coded) if coded else None,
    }


def _print(
    archive: Path, found: Verification, coded: SampleCheck | None, problems: list[str]
) -> None:
    for problem in problems:
        note(problem, style="red")
    print_lines("damaged derived files, built again when needed:", found.made_anew)
    print_lines(
        "unused files (unless somebody is writing to the archive now); --repair removes them:",
        found.orphans,
    )
    if found.without_checksums:
        files = counted(found.without_checksums, "file")
        note(f"{files} without a checksum yet; opening the archive for writing adds them")
    if coded:
        _print_coded(coded)
    rows = ", ".join(f"{n} {modality}" for modality, n in found.observations.items())
    verdict = counted(len(problems), "problem") if problems else "sound"
    size = f"{counted(found.files, 'file')}, {byte_size(found.size)}"
    show(f"{archive}: {verdict}; {rows or 'no'} observations; {size}")


def _print_coded(coded: SampleCheck) -> None:
    if coded.codes:
        share = coded.flipped / coded.bits
        show(
            f"{counted(coded.media, 'media item')} coded again: {coded.flipped} of {coded.bits} "
            f"bits differ ({share:.2%})"
        )
    for what, lines in (
        ("models that could not be loaded to encode again:", coded.unchecked),
        ("media that have changed since they were encoded; index them again:", coded.changed),
        ("media that can no longer be encoded:", coded.unusable),
    ):
        print_lines(what, lines)
    if coded.missing:
        note(
            f"{coded.missing} of {coded.searched} media files are missing, for example that of "
            f"{coded.some_missing[0]}; searches still find their observations"
        )


def _repair(archive: Path, *, dry_run: bool, as_json: bool) -> None:
    from bittern.index.repair import repair
    from bittern.service.models.saved import is_sound

    def on_step(what: str) -> None:
        if not as_json:
            show(f"would {what}" if dry_run else what)

    with _without_log("bittern.index.derived_files"):
        done = repair(archive, dry_run=dry_run, on_step=on_step, is_sound_model=is_sound)
    if as_json:
        print_json(
            {
                "archive": str(archive),
                "dry_run": dry_run,
                "steps": done.steps,
                "lost": done.lost,
                "lost_rows": done.lost_rows,
                "versions_given_up": done.given_up,
                "lost_found": str(done.aside) if done.aside else None,
            }
        )
        return
    if not done.steps:
        show(f"{archive}: nothing to repair")
        return
    print_lines(
        f"{counted(len(done.lost), 'observation')} lost (some may have been deleted before); "
        "index their media again:",
        done.lost,
    )
    if done.lost_rows > len(done.lost):
        note(
            f"{done.lost_rows - len(done.lost)} more observations are lost that cannot be named: "
            "run bittern index on their sources again; unchanged items are skipped"
        )
    if done.given_up:
        versions = ", ".join(map(str, done.given_up))
        note(
            f"the changes of version {versions} are lost: run the last bittern index again, and "
            "delete again what was deleted last"
        )
    if not dry_run:
        show(f"now run: bittern verify {archive}")


@contextmanager
def _without_log(name: str) -> Iterator[None]:
    """Silence a logger's warnings: the command prints the same itself."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
