"""Remote media and lists of media: https, S3, and whatever else fsspec reaches.

Only addresses that an operator named are fetched: a source by its address, and the media that a
source names below allowed prefixes (`service.sources.addresses`). This is checked for the first
address and for each redirect. Media have limits of size and time, and are tried three times. Large
ones are kept in a temporary file.
"""

from __future__ import annotations

import os
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from bittern.errors import (
    BitternError,
    InvalidInputError,
    MediaTooLargeError,
    SourceNotFoundError,
    SourceUnreachableError,
)
from bittern.service.sources.addresses import may_fetch, parsed

IN_MEMORY_BYTES = 64 << 20
"""Larger media go through a temporary file."""
MAX_MEDIA_BYTES = 4 << 30
"""Largest photograph or recording read from a stream: 6 hours of 48 kHz stereo."""
SILENCE_S = 60.0
"""Seconds without a byte after which a transfer is aborted."""
MAX_TRANSFER_S = 1_800.0
"""Longest time of one transfer."""
PAUSES_S = (0.5, 4.0)
"""Seconds between attempts, of which there is one more."""
MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 20
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MISSING = frozenset({404, 410})
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
_Result = TypeVar("_Result")


def fetch_media(url: str, allowed: tuple[str, ...] = ()) -> bytes | Path:
    """The file at an address: up to 64 MiB as bytes, more as the path of a temporary file.

    The temporary file is deleted with the path object: keep a reference to it.

    Args:
        url: the address.
        allowed: prefixes of addresses; the url and its redirects must lie below one.

    Raises:
        SourceNotFoundError: the address does not exist.
        SourceUnreachableError: it may not or cannot be fetched.
        MediaTooLargeError: more than 4 GiB.
    """
    return with_retries(lambda: spool(_chunks(url, allowed), url), url)


def with_retries(work: Callable[[], _Result], url: str) -> _Result:
    """Call `work`, again after each of `PAUSES_S` while failures may be temporary.

    Raises:
        SourceNotFoundError, SourceUnreachableError: it failed for good.
    """
    for pause in (*PAUSES_S, None):
        try:
            return work()
        except BitternError:
            raise
        except Exception as error:  # of the library behind the address
            if pause is None or not _is_temporary(error):
                raise _typed(error, url) from error
            _wait(pause)
    raise AssertionError("the last attempt returns or raises")


def system_of(address: str) -> tuple[Any, str]:
    """The fsspec file system behind an address that the operator gave, and the path on it.

    Raises:
        InvalidInputError: an unknown kind of address, or its package is not installed.
    """
    import fsspec

    scheme = urlsplit(address).scheme.lower()
    try:
        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            import aiohttp

            waiting = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
            options = {"client_kwargs": {"timeout": waiting, "trust_env": True}}
        system, path = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        remedy = f"pip install {package}" if package else str(error)
        raise InvalidInputError(
            f"addresses with {scheme}:// need a package that is not installed: {remedy}",
            field="source",
        ) from error
    except ValueError as error:
        raise InvalidInputError(
            f"addresses with {scheme}:// cannot be read: {error}", field="source"
        ) from error
    except Exception as error:  # credentials, configuration: every library has its own
        raise _typed(error, address) from error
    return system, str(path)


def open_address(address: str) -> IO[bytes]:
    """A file that the operator named, as a stream.

    Raises:
        SourceNotFoundError, SourceUnreachableError, InvalidInputError: as `system_of`.
    """
    system, path = system_of(address)
    opened: IO[bytes] = with_retries(lambda: system.open(path, "rb"), address)
    return opened


def _chunks(url: str, allowed: tuple[str, ...]) -> Iterator[bytes]:
    """The bytes at an address that may be fetched, within a limit of time."""
    if not may_fetch(url, allowed):
        raise SourceUnreachableError(
            f"'{url[:200]}' may not be fetched; allow a prefix of that address with --fetch if "
            "you trust it",
            field="source",
            details={"url": url[:500]},
        )
    is_http = parsed(url).scheme in ("http", "https")
    begun = time.monotonic()
    for chunk in _http_chunks(url, allowed) if is_http else _system_chunks(url):
        if time.monotonic() - begun > MAX_TRANSFER_S:
            raise SourceUnreachableError(
                f"'{url[:200]}' took more than {MAX_TRANSFER_S:g} s; download it another way"
            )
        yield chunk


def _system_chunks(url: str) -> Iterator[bytes]:
    system, path = system_of(url)
    with system.open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Turns redirects into errors, so that their targets can be checked."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _http_chunks(url: str, allowed: tuple[str, ...]) -> Iterator[bytes]:
    opener = urllib.request.build_opener(_NoRedirects)
    with _answer(opener, url, allowed) as response:
        length = response.headers.get("Content-Length", "")
        expected = int(length) if length.isascii() and length.isdigit() else None
        count = 0
        while chunk := response.read(_CHUNK_BYTES):
            count += len(chunk)
            yield chunk
    if expected is not None and count != expected:
        raise OSError(f"the download stopped after {count:,} of {expected:,} bytes")


def _answer(
    opener: urllib.request.OpenerDirector, url: str, allowed: tuple[str, ...]
) -> HTTPResponse:
    at = url
    for _ in range(MAX_REDIRECTS):
        request = urllib.request.Request(at, headers={"User-Agent": "bittern"})  # noqa: S310
        try:
            answer: HTTPResponse = opener.open(request, timeout=SILENCE_S)
            return answer
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location") if 300 <= error.code < 400 else None
            error.close()
            if target is None:
                raise
        target = urljoin(at, target)
        if not may_fetch(target, allowed):
            raise SourceUnreachableError(
                f"'{url[:200]}' redirects to '{target[:200]}', which may not be fetched; allow a "
                "prefix of that address with --fetch if you trust it"
            )
        at = target
    raise SourceUnreachableError(f"'{url[:200]}' redirects more than {MAX_REDIRECTS} times")


def _is_temporary(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status in _AGAIN
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    return isinstance(error, OSError | HTTPException | TimeoutError) or "aiohttp" in str(
        type(error).__module__
    )


def _status(error: Exception) -> int | None:
    """The HTTP status of an error of urllib or aiohttp, if it has one."""
    status = getattr(error, "code", None) or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _typed(error: Exception, url: str) -> BitternError:
    status = _status(error)
    if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
        error = error.__cause__  # some libraries call every unreachable file missing
    if isinstance(error, FileNotFoundError) or status in _MISSING:
        return SourceNotFoundError(f"there is nothing at {url[:200]}", field="source")
    if status in (401, 403) or isinstance(error, PermissionError):
        return SourceUnreachableError(
            f"{url[:200]} needs credentials: set them in the environment, as its library requires "
            f"({_message(error)})",
            field="source",
        )
    return SourceUnreachableError(
        f"{url[:200]} cannot be fetched: {_message(error)}",
        field="source",
        details={"url": url[:500]},
    )


def _message(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300]


def _wait(seconds: float) -> None:
    time.sleep(seconds)


class TemporaryMedia(type(Path())):  # type: ignore[misc]
    """Path of a temporary file that is deleted with this path object.

    Copies of it (also in another process) are plain paths and do not keep the file.
    """

    _gone: weakref.finalize[..., object]

    @classmethod
    def holding(cls, name: str) -> TemporaryMedia:
        """The path of a file that exists already."""
        path = cls(name)
        path._gone = weakref.finalize(path, _delete, name)
        return path


def spool(chunks: Iterable[bytes], name: str) -> bytes | Path:
    """Read a whole stream: its bytes, or a file with them if more than `IN_MEMORY_BYTES`.

    Args:
        chunks: the stream, in chunks of any size.
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
                    f"'{name[:200]}' has more than {MAX_MEDIA_BYTES:,} bytes, the limit; cut it "
                    "into shorter recordings"
                )
            file.write(chunk)
    return path


def _delete(name: str) -> None:
    Path(name).unlink(missing_ok=True)
