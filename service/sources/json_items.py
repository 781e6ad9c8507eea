"""The elements of long lists in a JSON file, one by one: the file may be larger than memory.

`ijson` reads the file event by event; this module builds elements from the events, with limits on
depth, size and length of texts. (`ijson.items` has no limits: it keeps a path for each level of
nesting, so that some kilobytes of ``[`` need gigabytes.)
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import ijson
from ijson.common import ObjectBuilder

from bittern.errors import ManifestError

MAX_DEPTH = 32
"""Deepest nesting of an element."""
MAX_ELEMENT_VALUES = 10_000
"""Most values of an element."""
MAX_ELEMENT_CHARS = 1 << 20
"""Most characters of all of an element's texts and keys."""
MAX_TOKEN_BYTES = 8 << 20
"""Longest text; a file with a longer one is refused as a whole."""
_PEEKED_BYTES = 256 << 10
_CHUNK_BYTES = 64 << 10

_STARTS = frozenset({"start_map", "start_array"})
_ENDS = frozenset({"end_map", "end_array"})

Event = tuple[str, Any]


class Element(NamedTuple):
    """An element of one of the lists.

    Attributes:
        member: name of the list; empty for an element of a list that is the whole file, without
            the requested lists in it.
        number: its index in its list, from 0.
        value: the element, made of dicts, lists, str, int, float, bool and None.
        error: why it cannot be used, or empty. With an error, `value` is None.
        file: name of the file.
    """

    member: str
    number: int
    value: Any
    error: str = ""
    file: str = ""

    @property
    def position(self) -> str:
        """Its position: ``train.json, images[12]``."""
        return f"{self.file}, {self.member or 'element '}[{self.number}]"

    def fields(self) -> dict[str, Any]:
        """The element as an object with named values.

        Raises:
            ManifestError: it cannot be used, or is not an object.
        """
        if self.error:
            raise ManifestError(self.error)
        if not isinstance(self.value, dict):
            raise ManifestError("it is not a JSON object")
        return self.value


def elements(path: Path, members: frozenset[str], *, flat: bool = False) -> Iterator[Element]:
    """The elements of some lists of a JSON object, or of each object in a list of such objects.

    Args:
        path: a file with one JSON value, UTF-8.
        members: names of the lists; other members are skipped.
        flat: leave out lists and objects within elements.

    Raises:
        ManifestError: the file cannot be opened, is not JSON from some byte on, holds neither
            an object nor a list, or a text in it is longer than 8 MiB.
    """
    done = "its beginning"
    guarded = _Guarded()
    try:
        with path.open("rb") as guarded.file:
            for element in _Elements(guarded.events(), members, flat).all():
                yield element._replace(file=path.name)
                done = f"{element.member or 'element '}[{element.number}]"
    except (ijson.JSONError, ValueError, RuntimeError) as error:
        raise ManifestError(
            f"{path.name} is not valid JSON after {done}, before byte {guarded.total:,}: "
            f"{_message(error)}; download or write it again (NaN and Infinity are not JSON: write "
            "null)",
            field="source",
        ) from error
    except _TooLongError as error:
        raise ManifestError(
            f"{path.name} has a text of more than {MAX_TOKEN_BYTES >> 20} MiB after {done}",
            field="source",
        ) from error
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}", field="source") from error


def first_keys(path: Path) -> frozenset[str]:
    """Keys of a JSON file's object, or of the first object in its list, within the first 256 KiB.

    Empty for any other file; never raises.
    """
    keys: set[str] = set()
    guarded = _Guarded()
    try:
        with path.open("rb") as file:
            guarded.file = io.BytesIO(file.read(_PEEKED_BYTES))
        depth = level = 0
        for event, value in guarded.events():
            if event in _STARTS:
                depth += 1
                if event == "start_map" and not level and depth <= 2:
                    level = depth
            elif event in _ENDS:
                if depth == level:
                    break
                depth -= 1
            elif event == "map_key" and depth == level:
                keys.add(value)
    except (ijson.JSONError, ValueError, RuntimeError, OSError):
        pass  # usually cut off by the limit
    return frozenset(keys)


class _TooLongError(Exception):
    """A text is longer than the limit."""


class _Guarded:
    """A file that limits the bytes between two events."""

    file: BinaryIO

    def __init__(self) -> None:
        self.total = self._since = 0

    def read(self, size: int = -1) -> bytes:
        if size == 0:  # ijson reads so to find out the kind of file
            return b""
        self._since += size
        if self._since > MAX_TOKEN_BYTES:
            raise _TooLongError
        found = self.file.read(size)
        if not self.total:
            found = found.removeprefix(codecs.BOM_UTF8)
        self.total += len(found)
        return found

    def events(self) -> Iterator[Event]:
        """Parse the file."""
        # Without `use_float`, ijson 3.6 brings the process down at an integer of 5,000 digits;
        # with it, numbers that do not fit into 64 bits are errors.
        for event in ijson.basic_parse(self, buf_size=_CHUNK_BYTES, use_float=True):
            self._since = 0
            yield cast(Event, event)


class _Elements:
    """Builds elements from the events of one file."""

    def __init__(self, events: Iterator[Event], members: frozenset[str], flat: bool) -> None:
        self._events = events
        self._counts = dict.fromkeys(members, 0)
        self._flat = flat

    def all(self) -> Iterator[Element]:
        event, _ = next(self._events, ("", None))
        if event == "start_map":
            yield from self._lists(None)
        elif event == "start_array":
            for number, (event, value) in enumerate(self._events):
                if event == "end_array":
                    break
                rest = _Builder(self._flat)
                rest.add(event, value)
                if event == "start_map":
                    yield from self._lists(rest)
                else:
                    self._rest_of_value(event, rest)
                yield rest.element("", number)
        else:
            raise ValueError("it is neither an object nor a list")
        if next(self._events, None) is not None:  # makes ijson read to the end of the file
            raise ValueError("there is text after its end")

    def _lists(self, rest: _Builder | None) -> Iterator[Element]:
        """The requested lists of a started object; its other members go to `rest`."""
        for event, key in self._events:
            if event == "end_map":
                if rest is not None:
                    rest.add(event, None)
                return
            event, value = next(self._events)
            if key not in self._counts or event == "null":
                if rest is not None:
                    rest.add("map_key", key)
                    rest.add(event, value)
                self._rest_of_value(event, rest)
            elif event != "start_array":
                raise ValueError(f"'{key}' is not a list")
            else:
                yield from self._list(key)

    def _list(self, member: str) -> Iterator[Element]:
        for event, value in self._events:
            if event == "end_array":
                return
            builder = _Builder(self._flat)
            builder.add(event, value)
            self._rest_of_value(event, builder)
            yield builder.element(member, self._counts[member])
            self._counts[member] += 1

    def _rest_of_value(self, event: str, builder: _Builder | None) -> None:
        """Consume the events of a value after its first one, `event`."""
        depth = int(event in _STARTS)
        while depth:
            event, value = next(self._events)
            depth += (event in _STARTS) - (event in _ENDS)
            if builder is not None:
                builder.add(event, value)


class _Builder:
    """Builds one element, within the limits."""

    def __init__(self, flat: bool) -> None:
        self._deepest = 1 if flat else MAX_DEPTH
        self._flat = flat
        self._builder = ObjectBuilder()
        self._depth = self._values = self._chars = 0
        self._error = ""

    def add(self, event: str, value: Any) -> None:
        """Add the next event."""
        self._depth += event in _STARTS
        if self._depth <= self._deepest:
            self._check(event, value)
            if not self._error:
                self._builder.event(event, value)
        elif not self._flat:
            self._error = f"it is nested more than {MAX_DEPTH} levels deep"
        self._depth -= event in _ENDS

    def _check(self, event: str, value: Any) -> None:
        self._values += event != "map_key"
        if isinstance(value, str):
            self._chars += len(value)
            if not value.isascii() and not _is_unicode(value):
                self._error = "it has a text that is not Unicode"
        if self._values > MAX_ELEMENT_VALUES:
            self._error = f"it has more than {MAX_ELEMENT_VALUES:,} values"
        elif self._chars > MAX_ELEMENT_CHARS:
            self._error = f"it has more than {MAX_ELEMENT_CHARS:,} characters"

    def element(self, member: str, number: int) -> Element:
        """The finished element."""
        value = None if self._error else self._builder.value
        return Element(member, number, value, self._error)


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which some parsers accept."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _message(error: Exception) -> str:
    """The first line of a parser's message, which may go on with the bytes around the error."""
    message = error.args[0] if error.args else ""
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return " ".join(text.splitlines()[:1]).strip()[:200] or type(error).__name__
