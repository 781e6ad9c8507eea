"""What commands print: lines, tables, JSON, progress bars, errors, notices; their exit status."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bittern.result_table import name_of
from bittern.text import counted, escaped

if TYPE_CHECKING:
    from bittern.types import AddResult, Hit, Observation, SearchResult

FAILED = 1
MISUSED = 2
INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""

_WIDE = 120
"""On a terminal of this many columns, a hit fits on one line."""

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")

_UNLIMITED = 100_000
"""More columns than any table needs."""

_CREDIT = 30
"""Least number of columns for the credit."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_error(message: str, *, several: bool = False) -> None:
    """An error on standard error, wrapped only where a person looks at it.

    Args:
        message: what went wrong; may quote what came from outside.
        several: its line breaks are Bittern's own, and are kept.
    """
    first, *more = message.split("\n") if several else [message]
    note(Text.assemble(("error: ", "bold red"), plain(first)))
    for line in more:
        note(line)


def show(value: str | Text | Table = "", style: str = "") -> None:
    """A line or a table of the result, on standard output."""
    _print_to(out, value, style)


def note(value: str | Text = "", style: str = "") -> None:
    """A line beside the result, on standard error."""
    _print_to(err, value, style)


def copyable(line: str) -> Text:
    """A line with a command to copy: not wrapped on a terminal either."""
    shown = plain(line)
    shown.no_wrap = True
    return shown


def _print_to(console: Console, value: str | Text | Table, style: str) -> None:
    shown = plain(value) if isinstance(value, str) else value
    if isinstance(shown, Table):
        unlimited = console.options.update(width=_UNLIMITED)
        least = Measurement.get(console, unlimited, shown).minimum
        console.print(shown, style=style, width=max(least, console.width), crop=False)
    else:  # a long path is not broken, so that it can be copied
        unwrapped = not console.is_terminal
        console.print(shown, style=style, soft_wrap=unwrapped, overflow="ignore", crop=False)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
    whole: Collection[str] = (),
) -> Table:
    """A table of text from outside.

    Args:
        headings: one per column.
        rows: cells of each row.
        right: columns of numbers, aligned on the right.
        whole: columns whose cells are never broken, such as paths: the table overflows instead.
    """
    made = Table(box=None, pad_edge=False)
    for heading in headings:
        made.add_column(
            heading,
            justify="right" if heading in right else "left",
            overflow="fold",
            no_wrap=heading in whole,
        )
    for row in rows:
        made.add_row(*map(plain, row))
    return made


def command() -> str:
    """How to type this command: its name if that is on the path, else its file."""
    here = Path(sys.argv[0])
    found = shutil.which("bittern")
    if found and Path(found).resolve() == here.resolve():
        return "bittern"
    if here.name == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m bittern"
    return os.path.relpath(here)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(escaped(json.dumps(value, ensure_ascii=False, allow_nan=False)))


def plain(text: object) -> Text:
    """Text from outside: no markup, and nothing that a terminal acts on."""
    return Text(escaped(str(text)))


class EscapingFormatter(logging.Formatter):
    """Writes log records so that text from outside neither ends a line nor acts on a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of the base class
        """The line of a record."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - of the base class
        """The traceback, indented."""
        return "\n".join(f"  {escaped(line)}" for line in super().formatException(ei).split("\n"))


def progress(what: str, total: int | None) -> tuple[Progress, Any]:
    """A progress bar; shown on a terminal only."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    return bar, bar.add_task(escaped(what), total=total)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A line while something takes long; shown on a terminal only."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as line:
        line.add_task(what, total=None)
        yield


def byte_size(count: int) -> str:
    """Bytes as people read them: ``512 bytes``, ``61.0 MiB``."""
    power = min(max(count.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{count / 1024**power:,.1f} {_UNITS[power]}" if power else f"{count} bytes"


def result_as_json(result: SearchResult) -> dict[str, Any]:
    """What `bittern search --json` prints: the same keys whatever the options."""
    return {
        "model": result.model,
        "target": result.target,
        "metric": result.metric,
        "took_ms": round(result.took_ms, 3),
        "engine": result.engine,
        "exact": result.exact,
        "cutoff": result.cutoff,
        "nearest": _hit_as_json(result.nearest) if result.nearest else None,
        "hits": [_hit_as_json(hit) for hit in result.hits],
    }


def _hit_as_json(hit: Hit) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "id": hit.observation.id,
        "distance": hit.distance,
        "media": hit.observation.media,
        "path": None if hit.path is None else str(hit.path),
        "start_s": hit.observation.start_s,
        "end_s": hit.observation.end_s,
        "metadata": {
            "occurrenceID": hit.observation.occurrence_id.partition("#media=")[0],
            **hit.observation.metadata,
        },
    }


def show_hits(result: SearchResult, title: str = "") -> None:
    """Hits as a table; on a narrow terminal each hit has two lines. File names stay whole."""
    narrow = out.width < _WIDE
    sound = result.target == "audio"
    heading = plain(title) if title else None
    hits = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    hits.add_column("", justify="right", style="dim")
    longest = max((cell_len(hit.media) for hit in result.hits), default=0)
    # Columns for names: the width without file name, rank, distance, seconds and gaps.
    left = out.width - longest - 16 - 10 * sound - (0 if narrow else _CREDIT)
    named = any(name_of(h.observation) != h.observation.id for h in result.hits)
    if named:
        hits.add_column("name", style="bold", overflow="fold", max_width=max(left, 12))
    hits.add_column("distance", justify="right")
    if sound:
        hits.add_column("seconds", justify="right", no_wrap=True)
    heading_of_file = "file and licence" if narrow else "file"
    hits.add_column(heading_of_file, overflow="fold", min_width=longest)
    if not narrow:
        hits.add_column("licence", style="dim", overflow="fold")
    for hit in result.hits:
        seen = hit.observation
        file, credit = plain(seen.media), plain(credit_of(seen))
        file.stylize("cyan")
        credit.stylize("dim")
        name = plain(name_of(seen))
        cells = [Text(str(hit.rank)), *([name] if named else []), Text(f"{hit.distance:.2f}")]
        if sound:
            cells.append(Text(f"{seen.start_s:.1f}-{seen.end_s:.1f}"))
        if not narrow:
            cells += [file, credit]
        else:
            cells.append(Text("\n").join([file, credit]) if credit else file)
        hits.add_row(*cells)
    show(hits)
    roots = {hit.observation.media_root for hit in result.hits} - {""}
    if len(roots) == 1:
        show(f"files below {roots.pop()}", style="italic dim")


def credit_of(observation: Observation) -> str:
    """Licence and rights holder, as far as they are known."""
    known = [observation.metadata.get(column) for column in ("license", "rightsHolder")]
    return ", ".join(str(value) for value in known if value)


def print_lines(heading: str, lines: Sequence[str], most: int = 20, style: str = "") -> None:
    """A heading and the first lines below it, on standard error; nothing where there are none."""
    if not lines:
        return
    note(heading, style)
    for line in lines[:most]:
        note(f"  {line}")
    if len(lines) > most:
        note(f"  … and {len(lines) - most} more; --json lists all")


def print_failures(failures: Sequence[AddResult]) -> None:
    """The items that failed, each named, with their reasons."""
    lines = [named_once(failure.occurrence_id, failure.message) for failure in failures]
    print_lines(f"{counted(len(lines), 'item')} could not be used:", lines, style="yellow")


def named_once(name: str, message: str) -> str:
    """A message that begins with a name, unless it holds the name already."""
    return message if name in message else f"{name}: {message}"


def licence_notice(*encoders: str) -> None:
    """Show the licence notices of encoders before this user's first use of them.

    Args:
        encoders: names; or the names of several as on a model's card, joined by ``+``.
    """
    from platformdirs import user_state_path

    from bittern.service.models.saved import notices_of

    for name, notice in notices_of(encoders).items():
        marker = user_state_path("bittern") / f"licence-shown-{name}"
        if marker.exists():
            continue
        err.print(Text(notice, style="yellow"))
        with suppress(OSError):  # it will be shown again next time
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
