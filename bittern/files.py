"""Files that are replaced atomically and durably, and checks of where they lie."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bittern.errors import InvalidInputError, PreconditionError


def replace_file(path: Path, content: bytes, prefix: str | None = None) -> None:
    """Replace a file durably and at once: whoever reads it finds the old content or the new.

    Args:
        path: of the file, in an existing folder.
        content: the new content.
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


@contextmanager
def writing_file(path: Path) -> Iterator[BinaryIO]:
    """A stream for the new content of a large file: it replaces the file when the block ends.

    Until then the content is in ``NAME.partial`` beside it; an error removes that. A process that
    is killed leaves it, and the next one overwrites it.

    Raises:
        OSError: the disk refuses; the old content is still there.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.absolute().parent)


def check_output_file(path: Path, field: str = "output") -> None:
    """Check that a file can be written at `path`, before any work is done for it.

    Args:
        path: of the file.
        field: the option or argument that names it.

    Raises:
        InvalidInputError: its folder does not exist, or it is a folder itself.
    """
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(
            f"there is no folder {path.parent} to write {path.name} into", field=field
        )
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; name a file in it", field=field)


def check_inside(folder: Path, path: Path) -> None:
    """Check that a file or folder really lies in `folder`, before it is written or removed.

    Raises:
        PreconditionError: a symbolic link leads out of the folder.
    """
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise PreconditionError(
            f"{path} is a symbolic link, or lies behind one that leads out of {folder}: Bittern "
            "writes and deletes nothing there; replace the link by the folder itself"
        )


def sync_folder(path: Path) -> None:
    """Make sure that the names in a folder are on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
