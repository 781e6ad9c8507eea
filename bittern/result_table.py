"""Search results as a table, for terminals and notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from bittern.text import escaped

if TYPE_CHECKING:
    from bittern.types import Hit, Observation, SearchResult

_COLUMNS = ("rank", "distance", "name", "media", "window", "licence")
_WIDEST = 48


def name_of(observation: Observation) -> str:
    """What people call it: vernacular name with the scientific one, or whichever is known."""
    vernacular = str(observation.metadata.get("vernacularName") or "")
    scientific = str(observation.metadata.get("scientificName") or "")
    if vernacular and scientific:
        return f"{vernacular} ({scientific})"
    return vernacular or scientific or observation.id


def window_of(observation: Observation) -> str:
    """Start and end in seconds, e.g. ``3.0-6.0 s``; empty for a photograph."""
    if observation.start_s is None or observation.end_s is None:
        return ""
    return f"{observation.start_s:.1f}-{observation.end_s:.1f} s"


def distance(bits: float) -> str:
    """A distance as tables show it: two digits after the point, or none where they are zero."""
    return f"{bits:.2f}".removesuffix(".00")


def left_out(result: SearchResult) -> str:
    """Where nothing is near enough: what comes closest, at which distance, in a sentence."""
    nearest, cutoff = result.nearest, result.cutoff
    if nearest is None or cutoff is None:
        return ""
    seen = nearest.observation
    window = f", {window_of(seen)}" if window_of(seen) else ""
    return (
        f"the nearest is {name_of(seen)} ({seen.media}{window}) at {distance(nearest.distance)}, "
        f"beyond {distance(cutoff)}"
    )


def as_text(result: SearchResult) -> str:
    """A table for a terminal. Control characters of the source's metadata are not passed on."""
    rows = [_COLUMNS, *(tuple(_printable(cell) for cell in _cells(h)) for h in result.hits)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if not result.hits:
        lines = [_printable(left_out(result), widest=400)] if result.nearest else []
    return "\n".join([_printable(caption(result), widest=200), *lines])


def as_html(result: SearchResult) -> str:
    """A table for a notebook, everything escaped."""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(hit)) + "</tr>"
        for hit in result.hits
    )
    if result.nearest:
        body = f'<tr><td colspan="{len(_COLUMNS)}">{html.escape(left_out(result))}</td></tr>'
    return (
        f"<table><caption>{html.escape(caption(result))}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def caption(result: SearchResult) -> str:
    """Number of hits, model, metric and time, in a line."""
    hits = "1 hit" if len(result.hits) == 1 else f"{len(result.hits)} hits"
    near = "" if result.cutoff is None else f" of {distance(result.cutoff)} at the most"
    how = "" if result.exact else f", approximate ({result.engine})"
    return (
        f"{hits} ({result.target}) by {result.model}, {result.metric} distance{near}, "
        f"{result.took_ms:.0f} ms{how}"
    )


def _cells(hit: Hit) -> tuple[str, ...]:
    observation = hit.observation
    return (
        str(hit.rank),
        distance(hit.distance),
        name_of(observation),
        observation.media,
        window_of(observation),
        str(observation.metadata.get("license") or ""),
    )


def _printable(cell: str, widest: int = _WIDEST) -> str:
    cell = escaped(cell)
    return cell if len(cell) <= widest else cell[: widest - 1] + "…"
