"""A search, and how an archive searches: checked when they are made.

Every folder may import this module; it imports none of them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from math import inf, nan
from typing import Literal, SupportsFloat, get_args

import numpy as np

from bittern.checks import (
    MAX_MEDIA_BYTES,
    check_choice,
    check_id,
    check_model,
    check_string,
    check_where,
    check_whole,
)
from bittern.errors import CodeError, MediaTooLargeError, QueryError
from bittern.types import Metric

EngineKind = Literal["auto", "flat", "ivf", "gpu"]

DEFAULT_K = 10
MAX_K = 10_000
"""Most hits of one search."""
MAX_INPUTS = 20
"""Most inputs of one query."""
MAX_TEXT_CHARS = 2_000
"""Longest text query, in characters."""
MAX_THREADS = 1_024
"""Most threads of one search."""
QUERY_KINDS = ("text", "image", "audio", "id", "code")
"""Kinds of inputs of a query."""
RELEVANCE_LEVELS = {"strict": 0.01, "usual": 0.05, "loose": 0.2}
"""False-alarm rates with a name: the share of queries about something else that get any hit."""
LOWEST_RATE, HIGHEST_RATE = 0.001, 0.5
"""Range of the false-alarm rate. Below, the fitted law would be stretched too far; above, hardly
anything is left out."""


@dataclass(frozen=True, slots=True)
class QueryInput:
    """One input of a query: an example of what is looked for or, with `minus`, of what is not.

    Attributes:
        kind: ``text``, ``image``, ``audio``, ``id`` or ``code``.
        value: words; bytes of a picture or sound file; id of an observation; bits/8 bytes.
        minus: whether it is subtracted.
        name: name of the file, for messages.

    Raises:
        QueryError: a value of the wrong type, empty or too long.
        CodeError: a code that is not bytes.
    """

    kind: str
    value: str | bytes
    minus: bool = False
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check the value, and make its type the plain one."""
        check_choice(self.kind, QUERY_KINDS, "kind")
        object.__setattr__(self, "value", _checked_input(self.kind, self.value, self.name))

    @property
    def is_stored(self) -> bool:
        """Whether it is a code, or the id of one, and so has no logits."""
        return self.kind in ("id", "code")

    def __repr__(self) -> str:
        return f"<{'minus ' if self.minus else ''}{self.kind}: {self}>"

    def __str__(self) -> str:
        """The words, id or file name, for messages."""
        if isinstance(self.value, str):
            return repr(self.value if len(self.value) <= 100 else f"{self.value[:99]}…")
        return self.name or f"the query's {self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One search, checked when it is made: whoever gets one need not check it again.

    `text`, `image`, `audio`, `id` and `code` are short for one input each. To encode without
    searching, give one input and a model at the most.

    The other attributes are the arguments of `bittern.ArchiveAPI.search`, with `relevance` as a
    share: ``strict``, ``usual`` and ``loose`` are made one.

    Attributes:
        inputs: the examples, `minus` ones included; at least one is not `minus`.

    Raises:
        QueryError: no example, or a value of the wrong type, empty or out of range.
        MediaTooLargeError: pictures and sounds of more than 60 MiB together.
        CodeError: a code that is not bytes.
        FilterError: `where` of more than 10,000 characters.
    """

    inputs: tuple[QueryInput, ...] = ()
    text: InitVar[str | None] = None
    image: InitVar[bytes | None] = None
    audio: InitVar[bytes | None] = None
    id: InitVar[str | None] = None
    code: InitVar[bytes | None] = None
    target: str | None = None
    k: int = DEFAULT_K
    where: str | None = None
    metric: Metric | None = None
    model: str | None = None
    within: float | None = None
    relevance: str | float | None = None
    recall: float | None = None

    def __post_init__(self, *values: str | bytes | None) -> None:
        """Check every value, and make its type the plain one."""
        given = zip(QUERY_KINDS, values, strict=True)
        short = [QueryInput(kind, value) for kind, value in given if value is not None]
        checked: dict[str, object] = {
            "inputs": _checked_inputs((*self.inputs, *short)),
            "k": check_whole(self.k, "k", 1, MAX_K),
            "where": check_where(self.where),
            "model": check_model(self.model),
        }
        if self.target is not None:
            checked["target"] = check_choice(self.target, ("image", "audio"), "target")
        if self.metric is not None:
            checked["metric"] = check_choice(self.metric, get_args(Metric), "metric")
        if self.within is not None:
            checked["within"] = check_within(self.within)
        if self.relevance is not None:
            checked["relevance"] = check_relevance(self.relevance)
        if self.recall is not None:
            checked["recall"] = check_recall(self.recall)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.metric == "asymmetric" and self.is_code:
            raise QueryError(
                f"a query by one {self.inputs[0].kind} has a code and no logits; use the hamming "
                "metric",
                field="metric",
            )

    @property
    def is_code(self) -> bool:
        """Whether a stored code is the query, unchanged."""
        return len(self.inputs) == 1 and self.inputs[0].is_stored


def _checked_inputs(inputs: tuple[QueryInput, ...]) -> tuple[QueryInput, ...]:
    """The inputs, if they can be combined."""
    if not inputs:
        raise QueryError(
            f"nothing to search with: give at least one of {', '.join(QUERY_KINDS)}", field="query"
        )
    if len(inputs) > MAX_INPUTS:
        raise QueryError(
            f"the query has {len(inputs)} inputs, the limit is {MAX_INPUTS}; leave some out",
            field="query",
        )
    wanted = {(each.kind, each.value) for each in inputs if not each.minus}
    if not wanted:
        raise QueryError(
            "everything given is to be subtracted; also give an example of what to look for",
            field="minus",
        )
    for each in inputs:
        if each.minus and (each.kind, each.value) in wanted:
            raise QueryError(
                f"{each} is both looked for and subtracted; give it once", field="minus"
            )
    size = sum(len(each.value) for each in inputs if each.kind in ("image", "audio"))
    if size > MAX_MEDIA_BYTES:
        raise MediaTooLargeError(
            f"the files of the query have {size:,} bytes together, the limit is "
            f"{MAX_MEDIA_BYTES:,}; make them smaller, or give fewer",
            details={"limit_bytes": str(MAX_MEDIA_BYTES)},
        )
    return inputs


def _checked_input(kind: str, value: object, name: str = "") -> str | bytes:
    """The words, media, id or code of a query."""
    if kind in ("text", "id"):
        text = check_id(value) if kind == "id" else check_string(value, kind)
        if kind == "text" and not text.strip():
            raise QueryError("the text is empty; say what to look for", field="text")
        if kind == "text" and len(text) > MAX_TEXT_CHARS:
            raise QueryError(
                f"the text has {len(text)} characters, the limit is {MAX_TEXT_CHARS}; shorten it",
                field="text",
                details={"length": str(len(text)), "limit": str(MAX_TEXT_CHARS)},
            )
        return text
    if not isinstance(value, bytes | bytearray | memoryview):
        error = CodeError if kind == "code" else QueryError
        raise error(f"{kind} must be bytes, not {type(value).__name__}", field=kind)
    if not value and kind != "code":
        raise QueryError(f"{name or f'the {kind}'} is empty; give another file", field=kind)
    return bytes(value)


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How an archive is searched; decided when it is opened.

    Attributes:
        engine: ``auto`` takes the fastest for the size and the wanted recall; ``flat`` is always
            exact; ``ivf`` uses the approximate index also for small archives, where a recall
            below 1 is wanted; ``gpu`` searches on the graphics card where there is one.
        recall: share of the true nearest that a search must find unless it says otherwise, above
            0 to 1; 1 is exact.
        threads: most threads of one search, 1 to 1,024; None for one per usable core.
        gpu_memory: most bytes of codes on the graphics card; None for half of its memory.
        build: whether an approximate index is built in the background when a search first wants
            one. Without it, only an index that is already stored is used.
    """

    engine: EngineKind = "auto"
    recall: float = 1.0
    threads: int | None = None
    gpu_memory: int | None = None
    build: bool = True

    def __post_init__(self) -> None:
        """Check the values; whole numbers of any type become int, and other numbers float.

        Raises:
            QueryError: one of them is unusable.
        """
        if str(self.engine) == "graph":
            raise QueryError(
                "the graph engine was removed, since it was never faster: use engine 'ivf'",
                field="engine",
            )
        check_choice(self.engine, get_args(EngineKind), "engine")
        if not isinstance(self.build, bool):
            raise QueryError(f"build must be True or False, not {self.build!r}", field="build")
        checked = {
            "recall": check_recall(self.recall),
            "threads": _count(self.threads, "threads", MAX_THREADS),
            "gpu_memory": _count(self.gpu_memory, "gpu_memory"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def check_options(options: object) -> SearchOptions:
    """Return the options, or the defaults for None; a QueryError for anything else."""
    if options is None:
        return SearchOptions()
    if not isinstance(options, SearchOptions):
        raise QueryError(
            "search must be SearchOptions, e.g. bittern.SearchOptions(recall=0.95), "
            f"not {type(options).__name__}",
            field="search",
        )
    return options


def _count(value: object, field: str, most: int | None = None) -> int | None:
    return None if value is None else check_whole(value, field, 1, most)


def check_within(within: object) -> float:
    """The distance, if it is a finite number, 0 or more; else a `QueryError`."""
    distance = _number(within)
    if not 0 <= distance < inf:
        raise QueryError(
            f"within must be a distance in bits, 0 or more, not {within!r}", field="within"
        )
    return distance + 0.0  # -0.0 becomes 0.0


def check_recall(recall: object) -> float:
    """The share of the true nearest that is wanted, above 0 and at most 1; else a `QueryError`."""
    share = _number(recall)
    if not 0 < share <= 1:
        raise QueryError(
            f"recall must be above 0 and at most 1 (exact), not {recall!r}", field="recall"
        )
    return share


def check_relevance(relevance: object) -> float:
    """The false-alarm rate of a level of relevance, or of a rate itself; else a `QueryError`."""
    if isinstance(relevance, str) and relevance in RELEVANCE_LEVELS:
        return RELEVANCE_LEVELS[relevance]
    rate = nan if isinstance(relevance, str) else _number(relevance)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise QueryError(
            f"relevance must be {', '.join(RELEVANCE_LEVELS)}, or a number from {LOWEST_RATE} to "
            f"{HIGHEST_RATE} (the share of unrelated queries that may still get a hit), "
            f"not {relevance!r}",
            field="relevance",
        )
    return rate


def _number(value: object) -> float:
    """A number as a float; NaN for what is none."""
    if isinstance(value, SupportsFloat) and not isinstance(value, bool | np.bool_ | str):
        with suppress(ValueError, TypeError, OverflowError):
            return float(value)
    return nan
