"""The elements of long lists in a JSON file, one by one: the file may be larger than memory.

`ijson` reads the file event by event; here the events become elements, within limits: no element
is deeper or larger than is plausible, and no single text swallows the memory. (`ijson.items` has
no such limits: it keeps a path for each level of nesting, and some kilobytes of ``[`` make these
gigabytes.)
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ijson

from bittern.errors import ManifestError

MAX_DEPTH = 32
"""Deepest nesting of an element; what lies deeper makes the element unusable."""
MAX_ELEMENT_VALUES = 10_000
"""Most values and keys of an element."""
MAX_ELEMENT_CHARS = 1 << 20
"""Most characters of all of an element's texts."""
MAX_TOKEN_BYTES = 8 << 20
"""Longest text of a file: the file as a whole is refused where one is longer."""
_PEEKED_BYTES = 256 << 10
_CHUNK_BYTES = 64 << 10

Event = tuple[str, Any]


class Element(NamedTuple):
    """An element of one of the lists.

    Attributes:
        member: name of the list; empty for an element of a list that is the whole file, with
            what it holds beside the lists asked for.
        number: its place in its list, from 0.
        value: the element, made of dicts, lists, str, int, float, bool and None.
        unusable: what is wrong with it; empty if nothing is. `value` is None then.
    """

    member: str
    number: int
    value: Any
    unusable: str = ""

    def place(self, file: str) -> str:
        """Where it stands, for people: ``train.json, images[12]``."""
        return f"{file}, {self.member or 'element '}[{self.number}]"


def elements(path: Path, members: frozenset[str], *, flat: bool = False) -> Iterator[Element]:
    """The elements of some lists of a JSON object, or of each object in a list of such objects.

    Args:
        path: a file with one JSON value, UTF-8.
        members: names of the lists; whatever else the object has is passed over.
        flat: leave out lists and objects within elements.

    Raises:
        ManifestError: the file cannot be opened, is not JSON from some place on, holds neither
            an object nor a list, or a text in it is longer than 8 MiB.
    """
    done = "its beginning"
    guarded = _Guarded()
    try:
        with path.open("rb") as guarded.file:
            for element in _elements(_events(guarded), members, flat, guarded.reset):
                yield element
                done = f"{element.member or 'element '}[{element.number}]"
    except (ijson.JSONError, ValueError, RuntimeError) as error:
        raise ManifestError(
            f"{path.name} is not readable JSON after {done}, before byte {guarded.total:,}: "
            f"{_told(error)}; download or write it again (NaN and Infinity are not JSON: write "
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

    Empty for whatever is not such a file; raises nothing.
    """
    keys: set[str] = set()
    try:
        with path.open("rb") as file:
            depth = level = 0
            for event, value in _events(io.BytesIO(file.read(_PEEKED_BYTES))):
                if event in ("start_map", "start_array"):
                    depth += 1
                    if event == "start_map" and not level and depth <= 2:
                        level = depth
                elif event in ("end_map", "end_array"):
                    if depth == level:
                        break
                    depth -= 1
                elif event == "map_key" and depth == level:
                    keys.add(value)
    except (ijson.JSONError, ValueError, RuntimeError, OSError):
        pass  # cut off in the middle, most often
    return frozenset(keys)


class _TooLongError(Exception):
    """No event came for many bytes."""


class _Guarded:
    """A file that refuses to be read on where what is read never becomes an event."""

    file: BinaryIO

    def __init__(self) -> None:
        self.total = self._since = 0

    def reset(self) -> None:
        self._since = 0

    def read(self, size: int = -1) -> bytes:
        self._since += size
        if self._since > MAX_TOKEN_BYTES:
            raise _TooLongError
        found = self.file.read(size)
        self.total += len(found)
        return found


def _events(file: Any) -> Iterator[Event]:
    start = file.read(len(codecs.BOM_UTF8))
    rest = start.removeprefix(codecs.BOM_UTF8)
    # Without `use_float`, ijson 3.6 brings the process down at an integer of 5,000 digits; with
    # it, numbers that do not fit into 64 bits are errors.
    events: Iterator[Event] = ijson.basic_parse(
        _Joined(rest, file), buf_size=_CHUNK_BYTES, use_float=True
    )
    return events


class _Joined:
    """Some bytes, and then a file."""

    def __init__(self, start: bytes, file: Any) -> None:
        self._start, self._file = start, file

    def read(self, size: int = -1) -> bytes:
        if size == 0:  # ijson asks so what kind of file this is
            return b""
        if self._start:
            start, self._start = self._start, b""
            return start
        found: bytes = self._file.read(size)
        return found


def _elements(
    events: Iterator[Event], members: frozenset[str], flat: bool, alive: Callable[[], None]
) -> Iterator[Element]:
    event, _ = next(events, ("", None))
    counts = dict.fromkeys(members, 0)
    if event == "start_map":
        yield from _of_object(events, members, counts, flat, alive, None)
    elif event == "start_array":
        for number, (event, value) in enumerate(events):
            alive()
            if event == "end_array":
                break
            rest = _Builder(flat)
            if event == "start_map":
                rest.add("start_map", None)
                yield from _of_object(events, members, counts, flat, alive, rest)
            else:
                _build(rest, event, value, events, alive)
            yield rest.element("", number)
    else:
        raise ValueError("it holds neither an object nor a list")
    if next(events, None) is not None:  # makes ijson look at what follows
        raise ValueError("something follows its end")


def _of_object(
    events: Iterator[Event],
    members: frozenset[str],
    counts: dict[str, int],
    flat: bool,
    alive: Callable[[], None],
    rest: _Builder | None,
) -> Iterator[Element]:
    """One object's lists; all its other members go to `rest`."""
    for event, key in events:
        alive()
        if event == "end_map":
            if rest is not None:
                rest.add(event, None)
            return
        event, value = next(events)
        if event == "start_array" and key in members:
            for event, value in events:
                if event == "end_array":
                    break
                builder = _Builder(flat)
                _build(builder, event, value, events, alive)
                yield builder.element(key, counts[key])
                counts[key] += 1
        elif key in members and event != "null":
            raise ValueError(f"'{key}' is no list")
        elif rest is not None:
            rest.add("map_key", key)
            _build(rest, event, value, events, alive)
        else:
            _build(None, event, value, events, alive)


def _build(
    builder: _Builder | None,
    event: str,
    value: Any,
    events: Iterator[Event],
    alive: Callable[[], None],
) -> None:
    """Take one whole value, which begins with `event`, from the events."""
    depth = 0
    while True:
        alive()
        if builder is not None:
            builder.add(event, value)
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
        if depth == 0 and event != "map_key":
            return
        event, value = next(events)


class _Builder:
    """Puts an element together, and stops where it passes a limit."""

    def __init__(self, flat: bool) -> None:
        self._deepest = 1 if flat else MAX_DEPTH
        self._flat = flat
        self._open: list[Any] = []
        self._keys: list[str] = []
        self._depth = self._values = self._chars = 0
        self._value: Any = None
        self._unusable = ""

    def add(self, event: str, value: Any) -> None:
        """Take the next event."""
        if event in ("start_map", "start_array"):
            self._depth += 1
            if self._depth <= self._deepest:
                self._put({} if event == "start_map" else [], opens=True)
            elif not self._flat:
                self._unusable = f"it is nested more than {MAX_DEPTH} levels deep"
        elif event in ("end_map", "end_array"):
            if self._depth <= self._deepest and self._open:
                self._open.pop()
            self._depth -= 1
        elif self._depth <= self._deepest:
            if event == "map_key":
                self._chars += len(value)
                self._keys[len(self._open) - 1 :] = [value]
            else:
                self._put(value)

    def _put(self, value: Any, *, opens: bool = False) -> None:
        self._values += 1
        if isinstance(value, str):
            self._chars += len(value)
            if not value.isascii() and not _is_unicode(value):
                self._unusable = "it has a text that is not Unicode"
        if self._values > MAX_ELEMENT_VALUES:
            self._unusable = f"it has more than {MAX_ELEMENT_VALUES:,} values"
        elif self._chars > MAX_ELEMENT_CHARS:
            self._unusable = f"it has more than {MAX_ELEMENT_CHARS:,} characters"
        if not self._unusable:
            if not self._open:
                self._value = value
            elif isinstance(self._open[-1], dict):
                self._open[-1][self._keys[len(self._open) - 1]] = value
            else:
                self._open[-1].append(value)
        if opens:
            self._open.append(value)
            self._keys.extend([""] * (len(self._open) - len(self._keys)))

    def element(self, member: str, index: int) -> Element:
        """What has come together."""
        value = None if self._unusable else self._value
        return Element(member, index, value, self._unusable)


def _is_unicode(text: str) -> bool:
    """Whether no half of a pair of surrogates stands alone; some parsers let these pass."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _told(error: Exception) -> str:
    """The first line of a parser's message, which may go on with the bytes around the place."""
    message = error.args[0] if error.args else ""
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return " ".join(text.splitlines()[:1]).strip()[:200] or type(error).__name__
