"""`bittern search`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bittern.cli.screen import (
    as_json,
    counted,
    err,
    hits_table,
    licence_notice,
    out,
    plain,
    print_json,
)

if TYPE_CHECKING:
    from bittern.api import ArchiveAPI
    from service.requests import SearchResult

_ADDRESS = re.compile(r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):\d{1,5}$")


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(search)


def search(
    archive: Annotated[str, typer.Argument(help="Archive folder, or HOST:PORT of a server.")],
    words: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for what this picture shows.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Look for what this recording holds.")] = None,
    like: Annotated[
        str | None, typer.Option("--id", help="Look for what resembles this observation.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="image or audio; images by default where there are some.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    where: Annotated[str | None, typer.Option(help="SQL condition over metadata columns.")] = None,
    metric: Annotated[str | None, typer.Option(help="asymmetric (default) or hamming.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the archive to ask.")] = None,
    within: Annotated[
        float | None,
        typer.Option(metavar="DISTANCE", help="Only hits no farther than this, in bits."),
    ] = None,
    relevance: Annotated[
        str | None,
        typer.Option(
            "--relevance",
            "--relevant",
            metavar="LEVEL",
            help="Leave out what is not relevant: strict, usual or loose, or the share of queries "
            "about something else that may get an answer, 0.001 to 0.5.",
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true nearest that must be found; less than 1 may be faster."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--archive", help="Which archive of a server that has several.")
    ] = "",
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Search an archive by words, by a picture, or by a sound.

    Example: bittern search my-archive "an owl on a branch" -k 5

    Example: bittern search my-archive --audio call.wav --target image --json

    Example: bittern search localhost:50051 "frogs" --target audio --where "countryCode = 'FR'"

    Example: bittern search my-archive "an owl" --relevant usual
    """
    from bittern.errors import MediaError

    with reach(archive, name) as opened:
        try:
            result = opened.search(
                words,
                image=image,
                audio=audio,
                id=like,
                target=target,
                k=k,
                where=where,
                metric=metric,  # type: ignore[arg-type]  # checked by search
                model=model,
                within=within,
                relevance=_number_or_name(relevance),
                recall=recall,
            )
        except MediaError as error:
            _, _, reason = error.message.rpartition("the query's image: ")
            _, _, reason = reason.rpartition("the query's audio: ")
            file = str(image or audio)
            raise type(error)(reason if file in reason else f"{file}: {reason}") from error
    if as_program:
        told = (within, relevance, recall) != (None, None, None)
        print_json(as_json(result, how=told))
        return
    if relevance is not None and result.cutoff is None:
        err.print("too few observations to tell what is relevant: the nearest are shown")
    if not result.hits:
        err.print(plain(_nothing(result, where, relevance)), soft_wrap=not err.is_terminal)
        return
    out.print(hits_table(result))
    # In this process the networks were loaded for this one question; a server keeps them.
    loading = ", loading included" if Path(archive).exists() else ""
    err.print(
        f"{counted(len(result.hits), 'hit')} by {result.model}, {result.metric} distance, "
        f"{result.took_ms:.0f} ms{loading}{_how(result)}",
        style="dim",
    )


def _number_or_name(given: str | None) -> str | float | None:
    """What was typed, as a number if it is one."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given


def _nothing(result: SearchResult, where: str | None, relevance: str | None) -> str:
    """What to say where there is no hit: what comes closest, and how to see it."""
    from service.result_table import distance, left_out

    there = f" where {where}" if where else ""
    if result.cutoff is None or result.nearest is None:
        return f"nothing matches{there}"
    far_enough = math.ceil(result.nearest.distance * 100) / 100
    judged, instead = ("near enough", "") if relevance is None else ("relevant", " instead")
    return (
        f"nothing{there} is {judged}: {left_out(result)}. To see it{instead}: "
        f"--within {distance(far_enough)}"
    )


def _how(result: SearchResult) -> str:
    """What was not searched in full, or not shown in full."""
    from service.result_table import distance

    near = "" if result.cutoff is None else f", none beyond {distance(result.cutoff)}"
    return near + ("" if result.exact else f", approximate ({result.engine})")


def reach(archive: str, name: str = "") -> ArchiveAPI:
    """Open the folder, or connect to the server, that `archive` names."""
    from bittern.errors import ArchiveNotFoundError

    if Path(archive).exists():
        import bittern

        opened = bittern.open(archive)
        for info in opened.models():
            licence_notice(info.encoder)
        return opened
    if _ADDRESS.match(archive):
        from bittern.client import connect

        return connect(archive, archive=name)
    raise ArchiveNotFoundError(
        f"there is no archive at '{archive}', and it is no HOST:PORT of a server either. "
        "Make one with: bittern index ARCHIVE FOLDER"
    )
