"""Media that arrive as a stream: kept in memory as long as they are small, on disk otherwise."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path

from bittern.errors import MediaTooLargeError

IN_MEMORY_BYTES = 64 << 20
"""Larger media go through a temporary file."""
MAX_MEDIA_BYTES = 4 << 30
"""Largest photograph or recording that is taken from a stream: 6 hours of 48 kHz stereo."""


class TemporaryMedia(type(Path())):  # type: ignore[misc]
    """Path of a temporary file that is deleted once nothing refers to this path any more.

    Copies of it (also in another process) are plain paths and keep nothing alive.
    """

    _gone: weakref.finalize[..., object]

    @classmethod
    def holding(cls, name: str) -> TemporaryMedia:
        """The path of a file that exists already."""
        path = cls(name)
        path._gone = weakref.finalize(path, _delete, name)
        return path


def spool(chunks: Iterable[bytes], name: str) -> bytes | Path:
    """All of a stream: its bytes, or where they lie if there are more than `IN_MEMORY_BYTES`.

    Args:
        chunks: the stream, in pieces of whatever size.
        name: for messages.

    Raises:
        MediaTooLargeError: more than `MAX_MEDIA_BYTES`.
    """
    small = bytearray()
    stream = iter(chunks)
    for chunk in stream:
        small += chunk
        if len(small) > IN_MEMORY_BYTES:
            return _on_disk(small, stream, name)
    return bytes(small)


def _on_disk(begun: bytearray, rest: Iterable[bytes], name: str) -> Path:
    handle, file_name = tempfile.mkstemp(prefix="bittern-media-")
    path = TemporaryMedia.holding(file_name)
    with os.fdopen(handle, "wb") as file:
        file.write(begun)
        written = len(begun)
        begun.clear()
        for chunk in rest:
            written += len(chunk)
            if written > MAX_MEDIA_BYTES:
                raise MediaTooLargeError(
                    f"'{name[:200]}' has more than {MAX_MEDIA_BYTES:,} bytes, which is the limit; "
                    "cut it into shorter recordings"
                )
            file.write(chunk)
    return path


def _delete(name: str) -> None:
    Path(name).unlink(missing_ok=True)
