"""`bittern search`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bittern.cli.exporting import FORMAT_HELP, written
from bittern.cli.options import reach
from bittern.cli.output import (
    as_json,
    command,
    err,
    hits_table,
    out,
    plain,
    print_json,
    working,
)
from bittern.result_table import distance, left_out
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.api import ArchiveAPI
    from bittern.types import SearchResult


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(search)


def search(
    archive: Annotated[str, typer.Argument(help="Archive folder, or HOST:PORT of a server.")],
    words: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Find what this picture shows.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Find what this recording contains.")] = None,
    like: Annotated[
        str | None, typer.Option("--id", help="Find observations like the one with this id.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="image or audio. By default images, if there are any.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    where: Annotated[str | None, typer.Option(help="SQL condition over metadata columns.")] = None,
    metric: Annotated[str | None, typer.Option(help="asymmetric (default) or hamming.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the archive to use.")] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(metavar="BITS", help="Only hits at most this far from the query, in bits."),
    ] = None,
    relevance: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Show only relevant hits: strict, usual, loose, or a number from 0.001 to 0.5: "
            "the share of unrelated queries that may still get a hit.",
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true nearest hits to find, up to 1 (exact). A lower share may be "
            "faster in an archive of 200,000 rows or more with an index from `bittern serve`."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--archive", help="Name of the archive, if a server has several.")
    ] = "",
    snapshot: Annotated[str | None, typer.Option(help="Name of a snapshot to search.")] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write the hits to a file, like `bittern export`."),
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

    Example: bittern search my-archive "an owl" -k 200 --output owls.geojson
    """
    from bittern.api import read_media
    from bittern.types import Query

    if output is not None or format_ is not None:
        _check_output(output, format_)
    local = Path(archive).exists()
    with _named_as_options(image or audio):
        given: dict[str, Any] = {
            "text": words,
            "image": None if image is None else read_media(image, "image"),
            "audio": None if audio is None else read_media(audio, "audio"),
            "id": like,
            "target": target,
            "k": k,
            "where": where,
            "metric": metric,
            "model": model,
            "within": max_distance,
            "relevance": _number_or_name(relevance),
            "recall": recall,
        }
        Query(**given)  # refuses wrong values before the archive is opened
    with reach(archive, name, recall, snapshot) as opened:
        # Judging relevance codes some reference texts first: seconds, in this process.
        wait = working("judging relevance") if local and relevance is not None else nullcontext()
        with wait, _named_as_options(image or audio):
            result = opened.search(**given)
        if local and relevance is None and recall is not None and recall < 1:
            _hint_at_an_index(opened, archive, result)
        if output is not None:
            written(opened, output, format_, hits=result)
        judged = relevance is None or _is_judged(opened, result, max_distance)
    if as_program:
        print_json(as_json(result))
        return
    if not judged and (result.hits or result.nearest):
        instead = "the nearest are shown" if result.cutoff is None else "only the distance counts"
        err.print(f"too few observations to judge relevance: {instead}")
    if not result.hits:
        by_relevance = relevance is not None and judged and result.cutoff != max_distance
        line = _no_hits(result, where, by_relevance=by_relevance)
        err.print(plain(line), soft_wrap=not err.is_terminal)
        return
    out.print(hits_table(result))
    # In this process the networks were loaded for this one query; a server keeps them.
    loading = ", loading included" if local else ""
    beyond = "" if result.cutoff is None else f", none beyond {distance(result.cutoff)}"
    err.print(
        f"{counted(len(result.hits), 'hit')} by {result.model}, {result.metric} distance, "
        f"{result.took_ms:.0f} ms{loading}{beyond}{_approximate(result)}",
        style="dim",
    )


@contextmanager
def _named_as_options(file: Path | None) -> Iterator[None]:
    """Errors about the query name its file, and options as the command line calls them."""
    from bittern.errors import MediaError, QueryError

    try:
        yield
    except MediaError as error:
        reason = re.sub(r".*the query's (image|audio): ", "", error.message)
        named = str(file) in reason
        raise type(error)(reason if named else f"{file}: {reason}") from error
    except QueryError as error:
        if error.field != "within":
            raise
        message = error.message.replace("within", "--max-distance", 1)
        raise QueryError(message, field=error.field) from error


def _check_output(output: str | None, format_: str | None) -> None:
    """Refuse a file that cannot be written, before anything is searched."""
    from bittern.errors import InvalidInputError
    from bittern.files import check_output_file
    from bittern.service.export.writers import FOLDER, format_of

    if output is None:
        raise InvalidInputError(
            "--format is the format of the file with the hits: add --output FILE", field="format"
        )
    if format_of(output, format_) != FOLDER:
        check_output_file(Path(output))


def _number_or_name(given: str | None) -> str | float | None:
    """What was typed, as a number if it is one."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given


def _is_judged(opened: ArchiveAPI, result: SearchResult, max_distance: float | None) -> bool:
    """Whether relevance could be judged: not among few rows of the model and the target."""
    from bittern.index.relevance import FEWEST_ROWS

    if result.cutoff is None or result.cutoff != max_distance:
        return result.cutoff is not None
    rows = [m.rows.get(result.target, 0) for m in opened.stats().models if m.name == result.model]
    return max(rows, default=0) >= FEWEST_ROWS


def _hint_at_an_index(opened: ArchiveAPI, archive: str, result: SearchResult) -> None:
    """Say what builds an index, where a recall below 1 was searched exactly for lack of one."""
    from bittern.index.engines.choosing import APPROXIMATE_FROM

    for model in opened.stats().models:
        engine = model.engines.get(result.target)
        if model.name != result.model or engine is None or not engine.exact:
            continue
        if engine.rows >= APPROXIMATE_FROM:
            line = f"searched exactly: these {engine.rows:,} rows have no index. "
            line += f"A server builds it: {command()} serve {archive} --recall 0.95"
            err.print(plain(line), soft_wrap=not err.is_terminal)


def _no_hits(result: SearchResult, where: str | None, *, by_relevance: bool) -> str:
    """Why there is no hit, what the nearest observation is, and how to see it."""
    rows = f" where {where}" if where else ""
    if result.cutoff is None or result.nearest is None:
        return f"nothing matches{rows}{_approximate(result)}"
    far_enough = math.ceil(result.nearest.distance * 100) / 100
    judged, instead = ("relevant", " instead") if by_relevance else ("near enough", "")
    return (
        f"nothing{rows} is {judged}{_approximate(result)}: "
        f"{left_out(result)}. To see it{instead}: --max-distance {distance(far_enough)}"
    )


def _approximate(result: SearchResult) -> str:
    return "" if result.exact else f", approximate ({result.engine})"
