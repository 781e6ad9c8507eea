"""Observations and hits as files that other programs read.

A writer turns rows into the bytes of one kind of file, chunk by chunk, whether they go to a disk or
over the wire. Media with a manifest (`service.export.folder`) are the one kind that is a folder.
"""

from __future__ import annotations

from bittern.service.export.base import Exported, Piece, Rows, Writer, pieces, write_file
from bittern.service.export.formats import FOLDER, FORMATS, WRITERS, format_of, writer_of
from bittern.service.export.rows import rows_of_archive, rows_of_hits, rows_of_observations

__all__ = [
    "FOLDER",
    "FORMATS",
    "WRITERS",
    "Exported",
    "Piece",
    "Rows",
    "Writer",
    "format_of",
    "pieces",
    "rows_of_archive",
    "rows_of_hits",
    "rows_of_observations",
    "write_file",
    "writer_of",
]
