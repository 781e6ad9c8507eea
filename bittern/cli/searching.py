"""`bittern search`."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bittern.cli.connect import reach
from bittern.cli.exporting import FORMAT_HELP, written
from bittern.cli.output import (
    as_json,
    command,
    counted,
    err,
    hits_table,
    out,
    plain,
    print_json,
    working,
)

if TYPE_CHECKING:
    from bittern.api import ArchiveAPI
    from bittern.types import SearchResult


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
            help="Share of the true nearest that must be found; less than 1 is faster in an "
            "archive of 200,000 rows or more with an index: `bittern optimize` makes it."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--archive", help="Which archive of a server that has several.")
    ] = "",
    snapshot: Annotated[
        str | None, typer.Option(help="Search the archive as it was: a snapshot's name.")
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write the hits to a file, as `bittern export`."),
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help=FORMAT_HELP)] = None,
    as_program: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Search an archive by words, by a picture, or by a sound.

    Example: bittern search my-archive "an owl on a branch" -k 5

    Example: bittern search my-archive --audio call.wav --target image --json

    Example: bittern search localhost:50051 "frogs" --target audio --where "countryCode = 'FR'"

    Example: bittern search my-archive "an owl" --relevance usual

    Example: bittern search my-archive "an owl" -k 200 --save owls.geojson
    """
    from bittern.errors import MediaError

    if save is not None or format_ is not None:
        _check_save(save, format_)
    with reach(archive, name, recall, snapshot) as opened:
        # The texts that relevance is judged by are coded first: seconds, in this process.
        first_time = relevance is not None and Path(archive).exists()
        try:
            with working("judging relevance") if first_time else nullcontext():
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
        if relevance is None:
            _hint_at_an_index(opened, archive, result, recall)
        if save is not None:
            written(opened, save, format_, hits=result)
        judged = relevance is None or _is_judged(opened, result, within)
    if as_program:
        told = (within, relevance, recall) != (None, None, None) or not result.exact
        print_json(as_json(result, how=told))
        return
    if not judged and (result.hits or result.nearest):
        instead = "the nearest are shown" if result.cutoff is None else "only the distance counts"
        err.print(f"too few observations to tell what is relevant: {instead}")
    if not result.hits:
        # Where both bounds are given, the smaller is told by name.
        by_relevance = relevance is not None and judged and result.cutoff != within
        line = _nothing(result, where, by_relevance=by_relevance)
        err.print(plain(line), soft_wrap=not err.is_terminal)
        return
    out.print(hits_table(result))
    # In this process the networks were loaded for this one question; a server keeps them.
    loading = ", loading included" if Path(archive).exists() else ""
    err.print(
        f"{counted(len(result.hits), 'hit')} by {result.model}, {result.metric} distance, "
        f"{result.took_ms:.0f} ms{loading}{_how(result)}",
        style="dim",
    )


def _check_save(save: str | None, format_: str | None) -> None:
    """Refuse a file that could not be written, before anything is searched."""
    from bittern.errors import InvalidInputError
    from bittern.service.export import FOLDER, format_of
    from bittern.service.export.base import check_file

    if save is None:
        raise InvalidInputError("--format says how hits are saved: add --save FILE", field="format")
    if format_of(save, format_) != FOLDER:
        check_file(Path(save))


def _number_or_name(given: str | None) -> str | float | None:
    """What was typed, as a number if it is one."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given


def _is_judged(opened: ArchiveAPI, result: SearchResult, within: float | None) -> bool:
    """Whether relevance could be judged; where `within` is the cut-off, by the number of rows."""
    from bittern.index.relevance import FEWEST_ROWS

    if result.cutoff is None or result.cutoff != within:
        return result.cutoff is not None
    rows = [m.rows.get(result.target, 0) for m in opened.stats().models if m.name == result.model]
    return max(rows, default=0) >= FEWEST_ROWS


def _hint_at_an_index(
    opened: ArchiveAPI, archive: str, result: SearchResult, recall: float | None
) -> None:
    """Where less than all was wanted of a large archive in vain: how to make an index."""
    from bittern.index.engines.choosing import APPROXIMATE_FROM

    if recall is None or recall >= 1 or not Path(archive).exists():
        return
    for model in opened.stats().models:
        engine = model.engines.get(result.target)
        if model.name != result.model or engine is None or not engine.exact:
            continue
        if engine.rows >= APPROXIMATE_FROM:
            err.print(
                plain(
                    f"searched exactly: there is no index of these {engine.rows:,} rows. "
                    f"To make one: {command()} optimize {archive}"
                ),
                soft_wrap=not err.is_terminal,
            )


def _nothing(result: SearchResult, where: str | None, *, by_relevance: bool) -> str:
    """What to say where there is no hit: what comes closest, and how to see it."""
    from bittern.result_table import distance, left_out

    there = f" where {where}" if where else ""
    if result.cutoff is None or result.nearest is None:
        return f"nothing matches{there}{_approximate(result)}"
    far_enough = math.ceil(result.nearest.distance * 100) / 100
    judged, instead = ("relevant", " instead") if by_relevance else ("near enough", "")
    return (
        f"nothing{there} is {judged}{_approximate(result)}: "
        f"{left_out(result)}. To see it{instead}: --within {distance(far_enough)}"
    )


def _how(result: SearchResult) -> str:
    """What was not searched in full, or not shown in full."""
    from bittern.result_table import distance

    near = "" if result.cutoff is None else f", none beyond {distance(result.cutoff)}"
    return near + _approximate(result)


def _approximate(result: SearchResult) -> str:
    return "" if result.exact else f", approximate ({result.engine})"
