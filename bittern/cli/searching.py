"""`bittern search` and `bittern export`: observations of an archive, on the screen or in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from bittern.cli.options import (
    ArchiveName,
    FolderOrServer,
    Json,
    Snapshot,
    Where,
    opened_archive,
)
from bittern.cli.output import (
    command,
    licence_notice,
    note,
    print_json,
    progress,
    result_as_json,
    show_hits,
    working,
)
from bittern.result_table import distance, left_out
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.api import ArchiveAPI
    from bittern.query import Query
    from bittern.service.local.archive import LocalArchive
    from bittern.types import Exported, SearchResult

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="csv, parquet, jsonl, geojson, raven (selection table), ids (iNaturalist numbers) or "
        "folder (media with a manifest). By default the ending of the name decides.",
    ),
]
_ROOTS_SHOWN = 5
_WHY_SKIPPED = {"raven": " (no windows of recordings)", "ids": " (not iNaturalist records)"}


_minus = partial(typer.Option, rich_help_panel="Subtract from the query")


@dataclass
class QueryOptions:
    """What to look for, and how."""

    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Find what this picture shows. Repeatable."),
    ] = None
    audio: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Find what this recording contains. Repeatable."),
    ] = None
    id: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Find observations like this one. Repeatable."),
    ] = None
    minus: Annotated[
        list[str] | None, _minus(metavar="WORDS", help="But not like these words. Repeatable.")
    ] = None
    minus_image: Annotated[
        list[Path] | None, _minus(metavar="FILE", help="But not like this picture. Repeatable.")
    ] = None
    minus_audio: Annotated[
        list[Path] | None, _minus(metavar="FILE", help="But not like this recording. Repeatable.")
    ] = None
    minus_id: Annotated[
        list[str] | None, _minus(metavar="ID", help="But not like this observation. Repeatable.")
    ] = None
    target: Annotated[
        str | None, typer.Option(help="image or audio. By default images, if there are any.")
    ] = None
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10
    where: Where = None
    metric: Annotated[str | None, typer.Option(help="asymmetric (default) or hamming.")] = None
    model: Annotated[str | None, typer.Option(help="Model of the archive to use.")] = None
    max_distance: Annotated[
        float | None,
        typer.Option(metavar="BITS", help="Only hits at most this far from the query, in bits."),
    ] = None
    relevance: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Show only relevant hits: strict, usual, loose, or a number from 0.001 to 0.5: "
            "the share of unrelated queries that may still get a hit.",
        ),
    ] = None
    recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true nearest hits to find, up to 1 (exact). A lower share may be "
            "faster in an archive of 200,000 rows or more with an index from `bittern serve`."
        ),
    ] = None

    def query(self, words: str | None) -> Query:
        """The query, checked, with its files read.

        Raises:
            QueryError: nothing to look for, or a value that cannot be used.
            MediaError, SourceNotFoundError: a file cannot be read.
        """
        from bittern.api import read_inputs
        from bittern.errors import QueryError
        from bittern.query import Query

        wanted = {"text": words, "image": self.image, "audio": self.audio, "id": self.id}
        minus = {
            "text": self.minus,
            "image": self.minus_image,
            "audio": self.minus_audio,
            "id": self.minus_id,
        }
        if not any(value is not None for value in wanted.values()):
            raise QueryError("give at least one of WORDS, --image, --audio and --id", field="query")
        return Query(
            inputs=read_inputs(wanted, minus),
            target=self.target,
            k=self.k,
            where=self.where,
            metric=self.metric,  # type: ignore[arg-type]  # checked there
            model=self.model,
            within=self.max_distance,
            relevance=_number_or_name(self.relevance),
            recall=self.recall,
        )


def search(
    archive: FolderOrServer,
    words: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    *,
    query: QueryOptions,
    name: ArchiveName = "",
    snapshot: Snapshot = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write the hits to a file, like `bittern export`."),
    ] = None,
    format_: Format = None,
    as_json: Json = False,
) -> None:
    """Search an archive by words, by pictures, by sounds, or by all of them together.

    Example: bittern search my-archive "an owl on a branch" -k 5

    Example: bittern search my-archive "in flight" --image owl.jpg --minus "a branch"

    Example: bittern search my-archive --audio call.wav --target image --json

    Example: bittern search localhost:50051 "owls" --target audio --where "license LIKE 'CC%'"

    Example: bittern search my-archive "an owl" --relevance usual

    Example: bittern search my-archive "an owl" -k 200 --output owls.geojson
    """
    from bittern.query import SearchOptions

    if output is not None or format_ is not None:
        _check_output(output, format_)
    with _errors_as_typed():
        checked = query.query(words)  # before the archive is opened
    local = Path(archive).exists()
    # A folder is opened for this one search: it uses an index that is stored, and builds none.
    once = SearchOptions(recall=1.0 if query.recall is None else query.recall, build=False)
    with opened_archive(archive, name, snapshot, once) as opened:
        if local:
            licence_notice(*cast("LocalArchive", opened).registry.encoders())
        # Judging relevance codes some reference texts first: seconds, in this process.
        judging = local and query.relevance is not None
        with working("judging relevance") if judging else nullcontext(), _errors_as_typed():
            result = opened.answer(checked)
        if local and query.relevance is None and query.recall is not None and query.recall < 1:
            _hint_at_an_index(opened, archive, result)
        if output is not None:
            _export(opened, output, format_, hits=result)
        judged = query.relevance is None or _is_judged(opened, result, query.max_distance)
    if as_json:
        print_json(result_as_json(result))
    else:
        _print_result(result, query, local=local, judged=judged)


def export(
    archive: FolderOrServer,
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="File to write: .csv, .parquet, .jsonl, .geojson or .txt; or a new folder, with "
            "a / at the end.",
        ),
    ],
    where: Where = None,
    format_: Format = None,
    name: ArchiveName = "",
    snapshot: Snapshot = None,
    media: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="For a folder: copy only media below FOLDER. Repeatable.",
        ),
    ] = None,
) -> None:
    """Write the observations of an archive, with their metadata, to a file.

    Parquet holds the codes as well. A selection table of Raven holds windows of recordings only.
    A folder holds copies of the media and a manifest, which `bittern index` reads again.

    An archive says where its media are. If you did not make it yourself, limit with --media the
    folders that may be copied from.

    Example: bittern export my-archive --output observations.csv --where "license = 'CC0-1.0'"

    Example: bittern export my-archive --output owls/ --where "taxon('Strix aluco')"

    Example: bittern export localhost:50051 --output calls.txt --format raven
    """
    with opened_archive(archive, name, snapshot) as opened:
        _export(opened, output, format_, where=where, media=media or ())


def _export(
    opened: ArchiveAPI,
    to: str,
    format_: str | None,
    *,
    where: str | None = None,
    hits: SearchResult | None = None,
    media: Sequence[Path] = (),
) -> None:
    """Export with a progress bar, and print a summary."""
    bar, task = progress("exporting", 0)
    with bar:
        done = opened.export(
            to,
            format=format_,
            where=where,
            hits=hits,
            media=media,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total or None),
        )
    note(_summary(done, to))


def _summary(done: Exported, to: str) -> str:
    """``owls.txt: 12 observations; 3 skipped (not iNaturalist records)``."""
    line = (
        f"{to}: {counted(done.observations, 'file' if done.format == 'folder' else 'observation')}"
    )
    if done.left_out:
        line += f"; {done.left_out} skipped{_WHY_SKIPPED.get(done.format, '')}"
    if done.missing:
        line += f"; {done.missing} missing, listed in {Path(to) / 'missing.csv'}"
    if done.copied_from:
        shown = ", ".join(done.copied_from[:_ROOTS_SHOWN])
        more = len(done.copied_from) - _ROOTS_SHOWN
        line += f"; copied from {shown}{f' and {more} other folders' if more > 0 else ''}"
    return line


@contextmanager
def _errors_as_typed() -> Iterator[None]:
    """Errors about the query call options as the command line calls them."""
    from bittern.errors import QueryError

    try:
        yield
    except QueryError as error:
        message = error.message
        if error.field == "within":
            message = message.replace("within", "--max-distance", 1)
        elif ": give it as " in message:
            what, _, kinds = message.partition(": give it as ")
            message = f"{what}: give it with --{kinds.replace(' or ', ' or --')}"
        else:
            raise
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
            note(
                f"searched exactly: these {engine.rows:,} rows have no index. "
                f"A server builds it: {command()} serve {archive} --recall 0.95"
            )


def _print_result(result: SearchResult, query: QueryOptions, *, local: bool, judged: bool) -> None:
    """Hits as a table, or why there are none."""
    if not judged and (result.hits or result.nearest):
        instead = "the nearest are shown" if result.cutoff is None else "only the distance counts"
        note(f"too few observations to judge relevance: {instead}")
    approximate = "" if result.exact else f", approximate ({result.engine})"
    if not result.hits:
        bounded = query.relevance is not None and judged and result.cutoff != query.max_distance
        note(_no_hits(result, query.where, approximate, by_relevance=bounded))
        return
    show_hits(result)
    # In this process the networks were loaded for this one query; a server keeps them.
    loading = ", loading included" if local else ""
    beyond = "" if result.cutoff is None else f", none beyond {distance(result.cutoff)}"
    note(
        f"{counted(len(result.hits), 'hit')} by {result.model}, {result.metric} distance, "
        f"{result.took_ms:.0f} ms{loading}{beyond}{approximate}",
        style="dim",
    )


def _no_hits(
    result: SearchResult, where: str | None, approximate: str, *, by_relevance: bool
) -> str:
    """Why there is no hit, what the nearest observation is, and how to see it."""
    rows = f" where {where}" if where else ""
    if result.cutoff is None or result.nearest is None:
        return f"nothing matches{rows}{approximate}"
    far_enough = math.ceil(result.nearest.distance * 100) / 100
    judged, instead = ("relevant", " instead") if by_relevance else ("near enough", "")
    return (
        f"nothing{rows} is {judged}{approximate}: "
        f"{left_out(result)}. To see it{instead}: --max-distance {distance(far_enough)}"
    )
