"""`bittern index`, `bittern encode` and `bittern reencode`: media become codes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from bittern.cli.job_screen import run_to_end
from bittern.cli.options import (
    ArchivePath,
    Bits,
    Embeddings,
    Fetch,
    HasherKind,
    Json,
    KeepEmbeddings,
    Model,
    NewArchivePath,
    OnDuplicate,
    Reading,
    Report,
    Source,
    Strict,
    commit_settings,
    flag,
)
from bittern.cli.output import licence_notice, print_json, show, working


@dataclass
class Coding:
    """Fields of a `JobSpec` that say how media are coded."""

    bits: Bits = None
    hasher: HasherKind = None
    strict: Strict = False
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(metavar="local|ray", help="Encode in this process, or on Ray workers."),
    ] = "local"
    workers: Annotated[
        int, typer.Option(help="Number of encoding processes, with --engine ray.")
    ] = 1


def index(
    archive: NewArchivePath,
    source: Source,
    *,
    model: Model = "",
    coding: Coding,
    on_duplicate: OnDuplicate = "skip",
    embeddings: Embeddings = None,
    keep_embeddings: KeepEmbeddings = False,
    report: Report = None,
    as_json: Json = False,
    reading: Reading,
    fetch: Fetch = None,
) -> None:
    """Put photographs and recordings into an archive.

    The source is a folder of media, a table with a column `media` and any Darwin Core columns, or
    an export of a website or camera-trap platform. Unchanged items that are already in the archive
    are skipped, so the same command continues a job that was stopped.

    Example: bittern index my-archive ~/photos

    Example: bittern index my-archive recordings.csv --model biolingual --bits 256
    """
    from bittern.service.jobs.description import JobSpec

    spec = JobSpec(
        kind="index",
        target=str(archive),
        source=source,
        reading=reading.options(fetch),
        model=model,
        on_duplicate=on_duplicate,
        embeddings=str(embeddings or ""),
        keep_embeddings=keep_embeddings,
        **vars(coding),
        **commit_settings(),
    )
    _show_licences(model, archive)
    run_to_end(spec, "indexing", report, as_json=as_json)


def encode(
    source: Source,
    *,
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    model: Annotated[
        str,
        typer.Option(
            help="Encoder, or saved model: its folder, or its name in ./models or $BITTERN_MODELS."
        ),
    ] = "field",
    coding: Coding,
    embeddings: Embeddings = None,
    keep_embeddings: Annotated[
        bool, flag("--store-embeddings", "Store float32 embeddings beside the codes.")
    ] = False,
    report: Report = None,
    as_json: Json = False,
    reading: Reading,
    fetch: Fetch = None,
) -> None:
    """Turn media into binary codes, in a Parquet file, without an archive.

    The file appears when it is complete. Until then, finished parts are kept beside it; to
    continue a job that was stopped, run the same command again.

    Example: bittern encode photos/ --model field --output codes.parquet
    """
    from bittern.service.jobs.description import JobSpec
    from bittern.service.jobs.encoding import check_parquet

    check_parquet(output)
    spec = JobSpec(
        kind="encode",
        target=str(output),
        source=source,
        reading=reading.options(fetch),
        model=model,
        embeddings=str(embeddings or ""),
        keep_embeddings=keep_embeddings,
        **vars(coding),
        **commit_settings(),
    )
    _show_licences(model)
    run_to_end(spec, "encoding", report, as_json=as_json)


@dataclass
class Replacing:
    """Fields of a `JobSpec` that say how a new model replaces an old one."""

    bits: Bits = None
    hasher: HasherKind = None
    keep_embeddings: KeepEmbeddings = False
    drop_old: Annotated[
        bool,
        flag("--drop-old", "Remove the model that this one replaces, and its codes. Others stay."),
    ] = False
    allow_missing: Annotated[
        bool, flag("--allow-missing", "Switch even if some media have no new codes.")
    ] = False


def reencode(
    archive: ArchivePath,
    *,
    model: Annotated[
        str,
        typer.Option(
            help="Encoder, model of the archive, or saved model: its folder, or its name in "
            "./models or $BITTERN_MODELS."
        ),
    ],
    replacing: Replacing,
    give_up: Annotated[
        bool, flag("--give-up", "Give up: remove the new model and its codes so far.")
    ] = False,
    media: Annotated[
        str | None, typer.Option(help="Folder of the media, if they were moved.")
    ] = None,
    fetch: Fetch = None,
    report: Report = None,
    as_json: Json = False,
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

    if give_up:
        _give_up(archive, model, replacing, as_json=as_json)
        return
    spec = JobSpec(
        kind="reencode",
        target=str(archive),
        reading=Reading(media=media).options(fetch),
        model=model,
        **vars(replacing),
        **commit_settings(),
    )
    ArchiveFolder(archive).check_present()  # before a report is written into the folder
    _show_licences(model, archive)
    run_to_end(spec, "encoding again", report, as_json=as_json)


def _give_up(archive: Path, model: str, replacing: Replacing, *, as_json: bool) -> None:
    from bittern.index.archive import Archive
    from bittern.service.jobs.reencode import give_up

    with Archive.open(archive, write=True) as opened, working("removing"):
        record = give_up(opened, model, replacing.bits, replacing.hasher)
    if as_json:
        given_up = record and {"name": record.name, "digest": record.digest}
        print_json({"archive": str(archive), "given_up": given_up})
        return
    what = f"model {record.name}" if record else "the remains of a model"
    show(f"{archive}: {what} removed")


def _show_licences(model: str, archive: Path | None = None) -> None:
    """Print the licence notices of the encoders that a job may use."""
    from bittern.errors import BitternError
    from bittern.index.folder import ArchiveFolder
    from bittern.service.jobs.description import IndexOptions
    from bittern.service.jobs.model_choice import encoders_behind

    encoders = set()
    if archive is not None and (folder := ArchiveFolder(archive)).header_file.is_file():
        with suppress(BitternError):  # opening it reports what is wrong
            encoders |= {record.encoder for record in folder.read_header().models}
    if model or not encoders:
        encoders |= set(encoders_behind(IndexOptions(model=model)))
    licence_notice(*encoders)
