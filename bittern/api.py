"""What every archive offers, whether it is opened in process or reached over gRPC.

`bittern.open(path)` and `bittern.connect("host:port")` both return an `ArchiveAPI`, so a
notebook that works with one works with the other: same methods, same values, same errors.
Arguments are checked here, once; an implementation gets a checked `Query`, ids or options.
"""

from __future__ import annotations

import builtins  # `list` is a method here
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, get_args

from bittern.checks import (
    MAX_MEDIA_BYTES,
    check_choice,
    check_id,
    check_ids,
    check_model,
    check_page_size,
    check_where,
    check_whole,
    modality_of_suffix,
    only_one,
)
from bittern.errors import (
    InvalidInputError,
    MediaTooLargeError,
    QueryError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from bittern.query import DEFAULT_K, QUERY_KINDS, Query, QueryInput
from bittern.types import (
    Adding,
    AddResult,
    ArchiveStats,
    Encoded,
    Exported,
    ExportOptions,
    MediaItem,
    Metric,
    ModelInfo,
    Observation,
    OnDuplicate,
    Page,
    SearchResult,
)

MAX_BATCH_SIZE = 1_000_000
"""Most items of one commit; all their codes are held in memory until then."""
MediaSource = str | Path | bytes
"""A picture or a sound: the path of a file, or the file's bytes."""
_T = TypeVar("_T")
OneOrMore: TypeAlias = _T | list[_T] | tuple[_T, ...]
"""One value, or several."""


class ArchiveAPI(ABC):
    """An archive of wildlife observations.

    Use it as a context manager, or call `close()` when done:

        with bittern.open("my-archive") as archive:
            print(archive.search("a heron standing in reeds", k=5))

    Every error is a `bittern.errors.BitternError`; its message says what to do.
    """

    def search(
        self,
        text: OneOrMore[str] | None = None,
        *,
        image: OneOrMore[MediaSource] | None = None,
        audio: OneOrMore[MediaSource] | None = None,
        id: OneOrMore[str] | None = None,  # noqa: A002 - the word that observations use
        code: OneOrMore[bytes] | None = None,
        minus: Mapping[str, Any] | None = None,
        target: str | None = None,
        k: int = DEFAULT_K,
        where: str | None = None,
        metric: Metric | None = None,
        model: str | None = None,
        within: float | None = None,
        relevance: str | float | None = None,
        recall: float | None = None,
    ) -> SearchResult:
        """Find the observations nearest to words, pictures, sounds, or some of their own.

            archive.search("a frog calling at night", target="audio")
            archive.search(image="heron.jpg", k=20, where="license LIKE 'CC%'")
            archive.search(id="https://www.gbif.org/occurrence/1234")

        Several inputs make one query, and `minus` subtracts others:

            archive.search("in flight", image=["heron-1.jpg", "heron-2.jpg"])
            archive.search("a duck", minus={"text": "a decoy", "id": ["duck-7", "duck-9"]})

        The logits of the query are then ``mean(z of inputs) - mean(z of minus) / 2``, where ``z``
        are an input's logits, and 1 or -1 per bit for a stored code. So an input counts twice if
        it is given twice.

        Args:
            text: words, 1 to 2,000 characters, or a list of such texts.
            image: path or bytes of a picture file, or a list of them.
            audio: path or bytes of a sound file, or a list of them; the windows of a longer one
                are averaged.
            id: an observation of this archive, or a list of them; their stored codes become the
                query.
            code: bits/8 bytes, made by the same model, or a list of them.
            minus: what the hits should not be like: a dictionary with some of the five names above
                as keys, and the same values. At most 20 inputs in all.
            target: ``image`` or ``audio``; None means images where the archive has some.
            k: how many hits, 1 to 10,000.
            where: SQL condition over the metadata columns, e.g. ``license LIKE 'CC%'``; None
                or blank means all.
            metric: ``asymmetric`` (soft query against stored bits) or ``hamming``; None means
                hamming for a single `id` or `code`, else asymmetric.
            model: name or digest (or its first 8 or more digits); None means, of those with both
                towers, the one that coded most of the target.
            within: largest distance of a hit, in bits, 0 or more; None means any. The search is
                exact unless `recall` is given too.
            relevance: ``strict``, ``usual`` or ``loose``: show only hits that are more similar to
                the query than what a query about something else altogether finds. A number from
                0.001 to 0.5 is the share of such queries that may get a hit (0.01, 0.05 and 0.2
                for the names). None means show the nearest, whatever they are. Such a search is
                exact, whatever `recall` is.
            recall: share of the true `k` nearest to find, above 0. With 1 the search is exact;
                with less, e.g. 0.95, it may use an approximate engine that is faster. None means
                what the archive was opened with, which is 1 by default.

        Returns:
            min(`k`, matching observations) hits in order (distance, row), or fewer with
            `within` or `relevance`; without a hit, `nearest` is the nearest observation.
            `cutoff`, `engine` and `exact` say how they were found.

        Raises:
            QueryError: nothing to look for, a value out of range, or a file name as `text`.
            FilterError: `where` is not a condition over known columns.
            MediaError: a picture or a sound cannot be used, or they have more than 60 MiB together.
            SourceNotFoundError: there is no file at a path.
            ObservationNotFoundError: no observation has this `id`.
            ModelNotFoundError: no model has this name.
            UnsupportedModalityError: no model has both towers that this search needs, or
                `relevance` is given and the model has no text tower.
            CodeError: `code` has the wrong length.
        """
        return self.answer(
            Query(
                inputs=read_inputs(
                    {"text": text, "image": image, "audio": audio, "id": id, "code": code}, minus
                ),
                target=target,
                k=k,
                where=where,
                metric=metric,
                model=model,
                within=within,
                relevance=relevance,
                recall=recall,
            )
        )

    def get(self, id: str) -> Observation:  # noqa: A002
        """Return one observation.

        Raises:
            ObservationNotFoundError: no observation has this id.
            QueryError: `id` is not text.
        """
        return self._get(check_id(id))

    def add(
        self,
        items: Iterable[MediaItem],
        *,
        on_duplicate: OnDuplicate = "error",
        model: str | None = None,
        batch_size: int = 64,
    ) -> Adding:
        """Code media and store them, one atomic commit per batch.

        Work happens while the result is iterated, so a progress bar is a `for` loop, and
        leaving the loop stops the work after a whole batch:

            for batch in archive.add(items):
                print([result.status for result in batch])

            totals = archive.add(items).wait()      # or all at once

        An item that cannot be used gets the status ``failed`` and a reason; the others go on.
        Items whose result was returned are on disk.

        Args:
            items: photographs and recordings; read lazily, a batch at a time.
            on_duplicate: what to do with an `occurrence_id` that the archive already has:
                ``error`` (that item fails), ``skip`` or ``overwrite``.
            model: name or digest of the model that makes the codes; None means the archive's.
            batch_size: items per commit.

        Returns:
            An iterator over one list of results per committed batch, with `wait()`.

        Raises:
            InvalidInputError: `on_duplicate` or `batch_size` is not usable, or something among
                the items is no `MediaItem`.
            ModelNotFoundError: no model has this name.
            ArchiveLockedError: another process writes to this archive.
        """
        policy = check_choice(on_duplicate, get_args(OnDuplicate), "on_duplicate")
        size = check_whole(batch_size, "batch_size", 1, MAX_BATCH_SIZE)
        return Adding(self._add(_each_item(items), policy, check_model(model), size))

    def delete(self, ids: str | Sequence[str]) -> builtins.list[str]:
        """Remove observations for good, in one commit: all that are named, or none.

        Args:
            ids: one id or several: of observations, or `occurrence_id`s, which mean all the
                windows of a recording.

        Returns:
            Ids of the observations that were removed, in row order.

        Raises:
            ObservationNotFoundError: some are unknown; nothing has been removed.
            QueryError: something among them is not text.
            LimitExceededError: more than 10,000 ids.
        """
        return self._delete(check_ids(ids))

    def list(self, where: str | None = None, *, page_size: int = 100) -> Iterator[Observation]:
        """Iterate over the observations in row order, fetching them page by page.

        Args:
            where: SQL condition over the metadata columns; None or blank means all.
            page_size: observations fetched at a time, 1 to 1,000.

        Raises:
            FilterError: `where` is not a condition over known columns.
            QueryError: `page_size` is out of range.
        """
        check_page_size(page_size)
        check_where(where)
        return self._every_page(page_size, where)

    def _every_page(self, page_size: int, where: str | None) -> Iterator[Observation]:
        token = ""
        while True:
            page = self.page(page_size=page_size, page_token=token, where=where)
            yield from page.observations
            token = page.next_token
            if not token:
                return

    def encode(
        self,
        text: str | None = None,
        *,
        image: MediaSource | None = None,
        audio: MediaSource | None = None,
        model: str | None = None,
    ) -> builtins.list[Encoded]:
        """Turn words, a picture or a sound into codes without storing them.

        Args:
            text: words, 1 to 2,000 characters.
            image: path or bytes of a picture file.
            audio: path or bytes of a sound file.
            model: name or digest; None means the first that has the tower.

        Returns:
            One code with its logits, or one per window of a recording.

        Raises:
            QueryError: not exactly one of `text`, `image` and `audio`.
            MediaError: the picture or the sound cannot be used.
            ModelNotFoundError: no model has this name.
            UnsupportedModalityError: the model has no such tower.
        """
        given = {"text": text, "image": image, "audio": audio}
        kind = only_one(given)
        return self.encode_query(Query(inputs=(_input(kind, given[kind]),), model=model))

    def export(
        self,
        to: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - the word that people use
        where: str | None = None,
        hits: SearchResult | None = None,
        media: Sequence[str | Path] = (),
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Exported:
        """Write observations, or what a search found, to a file that other programs read.

            archive.export("owls.csv", where="taxon('Strix aluco')")
            archive.export("hits.geojson", hits=archive.search("an owl", k=200))
            archive.export("owls/", hits=archive.search("an owl"))    # media with a manifest

        An existing file is replaced once the new one is complete; a folder must be new.

        Args:
            to: the file, or a folder with a ``/`` at the end.
            format: ``csv``, ``parquet``, ``jsonl``, ``geojson``, ``raven``, ``ids`` or
                ``folder``; None means what the name's ending says.
            where: SQL condition over the metadata columns; None or blank means all.
            hits: write these, with their rank and distance, instead of observations in row
                order. Codes do not come with them.
            media: for a folder, the folders that media may be copied from; none for the folders
                that the archive names, which suits archives of your own.
            on_progress: called with observations written so far, and how many there will be.

        Returns:
            What was written, and how many observations the format cannot hold: photographs in a
            selection table, observations that are not from iNaturalist.

        Raises:
            QueryError: an unknown format, or `where` beside `hits`.
            FilterError: `where` is not a condition over known columns.
            InvalidInputError: nothing can be written at `to`.
            PreconditionError: a folder of media that lie on a server's disks.
            SourceNotFoundError: not one of the media that a folder needs is there.
        """
        check_where(where)
        if hits is not None and where is not None:
            raise QueryError(
                "hits are already filtered; give `where` to the search instead", field="where"
            )
        folders = tuple(map(Path, media))
        return self._export(to, ExportOptions(format, where, hits, folders, on_progress))

    @abstractmethod
    def stats(self) -> ArchiveStats:
        """Count what the archive holds: observations by modality, models, columns, bytes."""

    @abstractmethod
    def models(self) -> builtins.list[ModelInfo]:
        """List the models of the archive, the preferred one first."""

    @abstractmethod
    def close(self) -> None:
        """Release files and connections. Closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What an implementation provides; arguments are already checked.

    @abstractmethod
    def answer(self, query: Query) -> SearchResult:
        """Answer a query; `search` makes one of its arguments."""

    @abstractmethod
    def encode_query(self, query: Query) -> builtins.list[Encoded]:
        """Codes of the text or media of a query with one input."""

    @abstractmethod
    def page(self, *, page_size: int, page_token: str = "", where: str | None = None) -> Page:
        """One page of `list`: from its beginning, or from a page's `next_token`."""

    @abstractmethod
    def _get(self, id: str) -> Observation: ...  # noqa: A002

    @abstractmethod
    def _add(
        self,
        items: Iterable[MediaItem],
        on_duplicate: OnDuplicate,
        model: str | None,
        batch_size: int,
    ) -> Iterator[builtins.list[AddResult]]: ...

    @abstractmethod
    def _delete(self, ids: builtins.list[str]) -> builtins.list[str]: ...

    @abstractmethod
    def _export(self, to: str | Path, options: ExportOptions) -> Exported: ...


def read_inputs(
    given: Mapping[str, object], minus: Mapping[str, object] | None = None
) -> tuple[QueryInput, ...]:
    """The inputs of a query, with their files read.

    Args:
        given: by kind (`bittern.query.QUERY_KINDS`): a value, a list of values, or None.
        minus: the same, of what is subtracted.

    Raises:
        QueryError: a value of the wrong type, or a file name as words.
        MediaError, SourceNotFoundError: see `read_media`.
    """
    if not isinstance(minus, Mapping | None):
        raise QueryError(
            f"minus must be a dictionary, such as {{'text': 'a nest'}}, not {type(minus).__name__}",
            field="minus",
        )
    for name in minus or {}:
        check_choice(name, QUERY_KINDS, "a key of minus")
    return tuple(
        _input(kind, value, subtracted)
        for subtracted, values in ((False, given), (True, minus or {}))
        for kind, several in values.items()
        if several is not None
        for value in (several if isinstance(several, list | tuple) else [several])
    )


def _input(kind: str, value: object, minus: bool = False) -> QueryInput:
    name = ""
    if kind in ("image", "audio"):
        name = Path(value).name if isinstance(value, str | Path) else ""
        value = read_media(value, kind)
    elif kind == "text" and isinstance(value, str):
        check_words(value)
    return QueryInput(kind, value, minus, name)  # type: ignore[arg-type]  # it is checked there


def check_words(text: str) -> None:
    """Refuse a file as words, with a `QueryError`: a name of a picture or sound, or any file."""
    kind = modality_of_suffix(text.strip())
    with suppress(OSError, ValueError):  # too long for a path
        if kind or (set("./") & set(text) and Path(text).is_file()):
            raise QueryError(
                f"{text!r} is a file, not words: give it as {kind or 'image or audio'}",
                field="text",
            )


def read_media(source: object, field: str) -> bytes:
    """Bytes of a picture or a sound that is given as a path or as bytes.

    Raises:
        SourceNotFoundError: there is no file at the path.
        MediaTooLargeError: more than 60 MiB.
        UnreadableMediaError: a folder or a device, or the file cannot be opened.
        QueryError: neither a path nor bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = f"{field} bytes", bytes(source)
    elif isinstance(source, str | Path):
        name, data = str(source), _read_file(source, field)
    else:
        raise QueryError(
            f"{field} must be the path or the bytes of a file, not {type(source).__name__}",
            field=field,
        )
    if len(data) > MAX_MEDIA_BYTES:
        raise MediaTooLargeError(
            f"{name}: larger than the limit of {MAX_MEDIA_BYTES:,} bytes; "
            "make it smaller, or cut a recording into shorter ones",
            field=field,
            details={"limit_bytes": str(MAX_MEDIA_BYTES)},
        )
    return data


def _read_file(source: str | Path, field: str) -> bytes:
    path = Path(source).expanduser()
    if str(source).startswith(("http:/", "https:/")):
        raise SourceNotFoundError(
            f"{source}: addresses are not fetched; download the file first", field=field
        )
    try:
        if not path.exists():
            raise SourceNotFoundError(f"{source}: there is no such file", field=field)
        if not path.is_file():
            raise UnreadableMediaError(f"{source} is not a regular file", field=field)
        with path.open("rb") as file:
            return file.read(MAX_MEDIA_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UnreadableMediaError(f"{source}: cannot be read ({error})", field=field) from error


def _each_item(items: Iterable[MediaItem]) -> Iterator[MediaItem]:
    """The items, checked one by one as they are read.

    Raises:
        InvalidInputError: `items` is nothing to iterate; or, when it is reached, something
            that is no `MediaItem`.
    """
    try:
        rest = iter(items)
    except TypeError:
        raise InvalidInputError(
            f"items must be a list or another iterable of MediaItem, not {type(items).__name__}",
            field="items",
        ) from None
    return _checked_items(rest)


def _checked_items(items: Iterator[MediaItem]) -> Iterator[MediaItem]:
    for number, item in enumerate(items):
        if not isinstance(item, MediaItem):
            raise InvalidInputError(
                f"item {number} is {type(item).__name__}, not a MediaItem", field="items"
            )
        for field in ("occurrence_id", "modality"):
            # They are looked up before the item is checked; other wrong types fail alone.
            if not isinstance(value := getattr(item, field), Hashable):
                raise InvalidInputError(
                    f"{field} of item {number} must be text, not {type(value).__name__}",
                    field=field,
                )
        yield item
