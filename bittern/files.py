"""Files that are replaced as a whole, and are on the disk when the call returns."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes, prefix: str | None = None) -> None:
    """Replace a file durably and at once: whoever reads it finds the old content or the new.

    Args:
        path: of the file, whose folder is there.
        content: what it is to hold.
        prefix: of the temporary file beside it; a dot and the file's name by default.

    Raises:
        OSError: the disk refuses; the old content is still there.
    """
    handle, temporary = tempfile.mkstemp(prefix=prefix or f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make sure that the names in a folder are on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
