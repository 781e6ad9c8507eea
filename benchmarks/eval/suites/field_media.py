"""Media of a manifest, or of whatever else can be indexed, in the order in which it lists them."""

from __future__ import annotations

from pathlib import Path

from bittern.benchmarks.eval.layouts import Missing
from bittern.errors import BitternError, LayoutError, LimitExceededError
from bittern.service.sources import read_source
from bittern.text import agreeing, counted
from bittern.types import MediaItem

MAX_ITEMS = 1_000_000
"""Most entries: they are kept in memory."""
_NAMED = 3


def listed_media(path: Path, missing: Missing) -> tuple[list[MediaItem], list[str]]:
    """The usable entries, and sentences on what was left out.

    Args:
        path: a folder, a manifest, or a file of another format of `bittern.service.sources`.
        missing: whether an entry of no use (its file is not there, say) ends it.

    Raises:
        LayoutError: it cannot be read, or has entries of no use that may not be skipped.
        LimitExceededError: more than 1,000,000 entries.
    """
    media: list[MediaItem] = []
    unusable: list[str] = []
    try:
        for entry in read_source(path):
            if len(media) + len(unusable) >= MAX_ITEMS:
                raise LimitExceededError(
                    f"{path} lists more than {MAX_ITEMS:,} items, which is the limit; index them "
                    "and give the archive to the suite custom, which takes one of any size",
                    field="data",
                )
            if isinstance(entry, MediaItem):
                media.append(entry)
            else:
                unusable.append(entry.message or f"{entry.occurrence_id} is {entry.status}")
    except LimitExceededError:
        raise
    except BitternError as error:
        raise LayoutError(error.message, field="data") from error
    first = "; ".join(unusable[:_NAMED])
    if unusable and missing == "error":
        raise LayoutError(
            f"{counted(len(unusable), 'entry', 'entries')} of {path} cannot be used: {first}; mend "
            f"{(them := agreeing(len(unusable), 'it', 'them'))}, or leave {them} out with "
            "--missing skip",
            field="data",
        )
    entries = counted(len(unusable), "entry", "entries")
    was = agreeing(len(unusable), "was", "were")
    told = [f"{entries} of {path.name} cannot be used and {was} left out ({first})"]
    return media, told if unusable else []
