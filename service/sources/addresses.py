"""Addresses, and which of them may be fetched.

An address is fetched only if the operator gave it, or a prefix of it. Addresses in a manifest, an
archive or a request are fetched only below such a prefix: scheme, host and port are equal, and the
path continues the prefix at a slash. ``https://host/photos`` allows
``https://host/photos/1.jpg`` and not ``https://host/photos-private/1.jpg``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from bittern.errors import InvalidInputError, ManifestError

MAX_ADDRESS_CHARS = 4_096
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORTS = {"http": 80, "https": 443}
_LOCAL = frozenset({"file", "local", "dir", "blockcache", "filecache", "simplecache", "cached"})


class Address(NamedTuple):
    """The parts of an address that decide whether it may be fetched.

    Attributes:
        scheme: lower case.
        host: lower case; the bucket, where there are buckets.
        port: the scheme's own where none is given; None if it has none.
        path: its segments, with percent signs resolved.
    """

    scheme: str
    host: str
    port: int | None
    path: tuple[str, ...]


def is_address(name: str | None) -> bool:
    """Whether a name is an address (``https://…``) rather than a path."""
    return name is not None and _ADDRESS.match(name) is not None


def parsed(address: str) -> Address:
    """Parse an address that can be fetched.

    Raises:
        ManifestError: not an address, with a password, with ``..``, or ambiguous between programs.
    """
    shown = address[:200]
    if len(address) > MAX_ADDRESS_CHARS:
        raise ManifestError(
            f"'{shown}…' is longer than {MAX_ADDRESS_CHARS} characters, the limit for an address"
        )
    if not is_address(address) or not address.isprintable() or set(address) & set('\\"<>'):
        raise ManifestError(f"'{shown}' is not a valid address")
    try:
        split = urlsplit(address)
        port = split.port
    except ValueError as error:
        raise ManifestError(f"'{shown}' is not a valid address: {error}") from error
    if "@" in split.netloc:
        raise ManifestError(
            f"the address at {split.hostname} contains a user name or password; remove it, "
            "and set credentials in the environment, as its library requires"
        )
    scheme = split.scheme.lower()
    if scheme in _PORTS and " " in address:
        raise ManifestError(f"'{shown}' contains a space; write %20")
    segments = tuple(unquote(one) for one in split.path.split("/")[1:])
    if scheme in _LOCAL or (scheme not in _PORTS and "::" in address):
        raise ManifestError(
            f"'{shown}' cannot be fetched: addresses with {scheme}:// are not allowed"
        )
    if any(one in (".", "..") or set(one) & set("/\\\0") for one in segments):
        raise ManifestError(
            f"'{shown}' is not allowed: its path contains '.', '..' or an encoded slash"
        )
    if not split.netloc:
        raise ManifestError(f"'{shown}' has no host")
    host = split.hostname or ""
    if scheme not in _PORTS:  # buckets may differ in case
        host = split.netloc
        port = None
    return Address(scheme, host, port or _PORTS.get(scheme), segments)


@lru_cache(maxsize=64)
def _prefix(prefix: str) -> Address:
    try:
        address = parsed(prefix)
    except ManifestError as error:
        raise InvalidInputError(
            f"give the beginning of the addresses that may be fetched, such as "
            f"https://example.org/photos/: {error.message}",
            field="fetch",
        ) from error
    if set(prefix) & set("?#"):
        raise InvalidInputError(
            f"'{prefix}' is not allowed as the beginning of addresses: remove '?' or '#' "
            "and the text after it",
            field="fetch",
        )
    path = address.path[:-1] if address.path and not address.path[-1] else address.path
    return address._replace(path=path)


def check_prefixes(prefixes: Iterable[str]) -> None:
    """Refuse invalid prefixes of addresses.

    Raises:
        InvalidInputError: one of them is not an address.
    """
    for prefix in prefixes:
        _prefix(prefix)


def may_fetch(address: str, prefixes: Iterable[str]) -> bool:
    """Whether an address lies below one of the prefixes that the operator allowed.

    Raises:
        InvalidInputError: a prefix is not an address.
    """
    allowed = [_prefix(prefix) for prefix in prefixes]
    try:
        wanted = parsed(address)
    except ManifestError:
        return False
    return any(
        wanted[:3] == each[:3] and wanted.path[: len(each.path)] == each.path for each in allowed
    )


def below(base: str, relative: str) -> str:
    """The address of a path below another address.

    Raises:
        ManifestError: the path is absolute, empty, or contains ``..``.
    """
    segments = relative.replace("\\", "/").split("/")
    if not relative or any(one in ("", ".", "..") or not one.isprintable() for one in segments):
        raise ManifestError(f"'{relative[:200]}' is not a path below {base}")
    quoted = quote("/".join(segments)) if base.lower().startswith(("http:", "https:")) else relative
    return f"{base.rstrip('/')}/{quoted}"
