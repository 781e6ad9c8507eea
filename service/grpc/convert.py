"""Between the wire's messages and the values that the rest of Bittern works with.

`*_to_wire` makes a message, `*_from_wire` reads one. What stays on one machine, such as
`Observation.media_root`, has no place in a message and is dropped here.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, TypeVar

from bittern.errors import MetadataError, QueryError
from bittern.index.relevance import HIGHEST_RATE, LOWEST_RATE
from bittern.service.limits import check_relevance
from bittern.types import DEFAULT_K, Hit, Metadata, Metric, Observation, Query, SearchResult
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import observation_pb2 as opb

_MODALITIES: dict[str, opb.Modality.ValueType] = {
    "text": opb.MODALITY_TEXT,
    "image": opb.MODALITY_IMAGE,
    "audio": opb.MODALITY_AUDIO,
}
_METRICS: dict[Metric, pb.Metric.ValueType] = {
    "asymmetric": pb.METRIC_ASYMMETRIC,
    "hamming": pb.METRIC_HAMMING,
}
_K = TypeVar("_K", bound=str)
_V = TypeVar("_V", bound=int)
_INT64 = range(-(2**63), 2**63)


# Observations and their metadata


def observation_to_wire(observation: Observation) -> opb.Observation:
    """Message of an observation, without `media_root`."""
    message = opb.Observation(
        id=observation.id,
        occurrence_id=observation.occurrence_id,
        modality=modality_to_wire(observation.modality),
        media=observation.media,
        start_s=observation.start_s,
        end_s=observation.end_s,
        row=observation.row,
    )
    write_metadata(observation.metadata, message.metadata)
    return message


def observation_from_wire(message: opb.Observation) -> Observation:
    """Observation of a message; its `media_root` is empty."""
    return Observation(
        id=message.id,
        occurrence_id=message.occurrence_id,
        modality=modality_from_wire(message.modality) or "",
        media=message.media,
        start_s=message.start_s if message.HasField("start_s") else None,
        end_s=message.end_s if message.HasField("end_s") else None,
        metadata=metadata_from_wire(message.metadata),
        row=message.row,
    )


def write_metadata(metadata: Metadata, wire: MutableMapping[str, opb.MetadataValue]) -> None:
    """Put metadata into a message's map.

    Raises:
        MetadataError: a value that no column can hold; the message names the column.
    """
    for column, value in metadata.items():
        target = wire[column]  # comes into being when it is looked up, empty for None
        if value is None:
            continue
        if isinstance(value, bool):
            target.bool_value = value
        elif isinstance(value, int):
            if value not in _INT64:
                raise MetadataError(
                    f"{column}: {value} does not fit into 64 bits; store it as text", field=column
                )
            target.int_value = value
        elif isinstance(value, float):
            target.double_value = value
        elif isinstance(value, str):
            target.string_value = value
        else:
            raise MetadataError(
                f"{column}: a {type(value).__name__} cannot be stored; "
                "use text, a number, True, False or None",
                field=column,
            )


def metadata_from_wire(wire: Mapping[str, opb.MetadataValue]) -> Metadata:
    """Metadata by column name, in the order of the names."""
    metadata: dict[str, str | float | int | bool | None] = {}
    for column in sorted(wire):
        kind = wire[column].WhichOneof("kind")
        metadata[column] = getattr(wire[column], kind) if kind is not None else None
    return metadata


def modality_to_wire(modality: str | None) -> opb.Modality.ValueType:
    """Number of a modality; unspecified for None and ``""``.

    Raises:
        QueryError: there is no such modality.
    """
    if not modality:
        return opb.MODALITY_UNSPECIFIED
    return number_of(_MODALITIES, modality, "modality")


def modality_from_wire(number: opb.Modality.ValueType, field: str = "modality") -> str | None:
    """Name of a modality; None for unspecified.

    Raises:
        QueryError: a number that this version does not know.
    """
    return name_of(_MODALITIES, number, field) if number else None


# Searching


def metric_to_wire(metric: Metric | None) -> pb.Metric.ValueType:
    """Number of a metric; unspecified for None."""
    return pb.METRIC_UNSPECIFIED if metric is None else number_of(_METRICS, metric, "metric")


def query_to_wire(query: Query, archive: str) -> pb.SearchRequest:
    """Message of a query to the archive of this name."""
    kinds = ("text", "image", "audio", "id", "code")
    given: dict[str, Any] = {kind: getattr(query, kind) for kind in kinds}
    return pb.SearchRequest(
        archive=archive,
        **given,
        target=modality_to_wire(query.target),
        k=query.k,
        where=query.where or "",
        metric=metric_to_wire(query.metric),
        model=query.model or "",
        within=query.within,
        recall=query.recall,
        relevance=None if query.relevance is None else check_relevance(query.relevance),
    )


def query_from_wire(message: pb.SearchRequest) -> Query:
    """Query of a message.

    Raises:
        QueryError: nothing to search with, a number that this version does not know, or a
            relevance that is no share; names of shares do not travel.
    """
    kind = message.WhichOneof("query")
    if kind is None:
        raise QueryError(
            "nothing to search with; give one of text, image, audio, id and code", field="query"
        )
    given: dict[str, Any] = {kind: getattr(message, kind)}
    return Query(
        **given,
        target=modality_from_wire(message.target, "target"),
        k=message.k if message.HasField("k") else DEFAULT_K,
        where=message.where or None,
        metric=name_of(_METRICS, message.metric, "metric") if message.metric else None,
        model=message.model or None,
        within=message.within if message.HasField("within") else None,
        recall=message.recall if message.HasField("recall") else None,
        relevance=_share(message.relevance) if message.HasField("relevance") else None,
    )


def _share(relevance: float) -> float:
    if not LOWEST_RATE <= relevance <= HIGHEST_RATE:
        raise QueryError(
            f"relevance must be a share from {LOWEST_RATE} to {HIGHEST_RATE} of queries about "
            f"something else that may get an answer, not {relevance!r}",
            field="relevance",
        )
    return relevance


def result_to_wire(result: SearchResult) -> pb.SearchResponse:
    """Message of a search result."""
    return pb.SearchResponse(
        model=result.model,
        target=modality_to_wire(result.target),
        metric=metric_to_wire(result.metric),
        took_ms=result.took_ms,
        hits=map(hit_to_wire, result.hits),
        engine=result.engine,
        exact=result.exact,
        cutoff=result.cutoff,
        nearest=None if result.nearest is None else hit_to_wire(result.nearest),
    )


def result_from_wire(message: pb.SearchResponse) -> SearchResult:
    """Search result of a message; a server that names no engine searched exactly."""
    return SearchResult(
        model=message.model,
        target=modality_from_wire(message.target) or "",
        metric=name_of(_METRICS, message.metric, "metric"),
        took_ms=message.took_ms,
        hits=[hit_from_wire(hit) for hit in message.hits],
        engine=message.engine or "flat",
        exact=message.exact or not message.engine,
        cutoff=message.cutoff if message.HasField("cutoff") else None,
        nearest=hit_from_wire(message.nearest) if message.HasField("nearest") else None,
    )


def hit_to_wire(hit: Hit) -> pb.Hit:
    """Message of one hit."""
    observation = observation_to_wire(hit.observation)
    return pb.Hit(rank=hit.rank, distance=hit.distance, observation=observation)


def hit_from_wire(message: pb.Hit) -> Hit:
    """One hit."""
    return Hit(message.rank, message.distance, observation_from_wire(message.observation))


# Enumerations


def number_of(numbers: Mapping[_K, _V], name: str, field: str) -> _V:
    """Number of a name.

    Raises:
        QueryError: there is no such name.
    """
    for known, number in numbers.items():
        if known == name:
            return number
    raise QueryError(f"{field} must be one of {', '.join(numbers)}, not {name!r}", field=field)


def name_of(numbers: Mapping[_K, _V], value: _V, field: str) -> _K:
    """Name of a number.

    Raises:
        QueryError: a number that this version does not know.
    """
    for name, number in numbers.items():
        if number == value:
            return name
    known = ", ".join(f"{number} ({name})" for name, number in numbers.items())
    raise QueryError(
        f"{field} {value} is not known to this version, which knows {known}", field=field
    )
