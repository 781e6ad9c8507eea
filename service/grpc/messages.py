"""Conversions between the messages of ArchiveService and Bittern's types.

`*_to_wire` makes a message, `*_from_wire` reads one. Fields have the same names on both sides.
Values of one machine, such as `Observation.media_root`, have no field in a message.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.message import Message

from bittern.checks import check_page_size
from bittern.errors import MetadataError, QueryError
from bittern.query import HIGHEST_RATE, LOWEST_RATE, QUERY_KINDS, Query, QueryInput
from bittern.types import (
    AddResult,
    AddStatus,
    ArchiveStats,
    Encoded,
    EngineStats,
    Hit,
    MediaItem,
    Metadata,
    Metric,
    ModelInfo,
    ModelStats,
    Observation,
    OnDuplicate,
    SearchResult,
)
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import observation_pb2 as opb

MODALITIES: dict[str, opb.Modality.ValueType] = {
    "text": opb.MODALITY_TEXT,
    "image": opb.MODALITY_IMAGE,
    "audio": opb.MODALITY_AUDIO,
}
METRICS: dict[Metric, pb.Metric.ValueType] = {
    "asymmetric": pb.METRIC_ASYMMETRIC,
    "hamming": pb.METRIC_HAMMING,
}
ON_DUPLICATE: dict[OnDuplicate, pb.OnDuplicate.ValueType] = {
    "error": pb.ON_DUPLICATE_ERROR,
    "skip": pb.ON_DUPLICATE_SKIP,
    "overwrite": pb.ON_DUPLICATE_OVERWRITE,
}
ADD_STATUS: dict[AddStatus, pb.AddStatus.ValueType] = {
    AddStatus.ADDED: pb.ADD_STATUS_ADDED,
    AddStatus.OVERWRITTEN: pb.ADD_STATUS_OVERWRITTEN,
    AddStatus.SKIPPED: pb.ADD_STATUS_SKIPPED,
    AddStatus.FAILED: pb.ADD_STATUS_FAILED,
}
EXPORT_FORMATS: dict[str, pb.ExportFormat.ValueType] = {
    "csv": pb.EXPORT_FORMAT_CSV,
    "parquet": pb.EXPORT_FORMAT_PARQUET,
    "jsonl": pb.EXPORT_FORMAT_JSON_LINES,
    "geojson": pb.EXPORT_FORMAT_GEOJSON,
    "raven": pb.EXPORT_FORMAT_RAVEN,
    "ids": pb.EXPORT_FORMAT_IDS,
    "folder": pb.EXPORT_FORMAT_FOLDER,
}
DEFAULT_PAGE_SIZE = 100
_MAX_TOKEN_CHARS = 1_000
_INT64 = range(-(2**63), 2**63)
_K = TypeVar("_K", bound=str)
_V = TypeVar("_V", bound=int)
_T = TypeVar("_T")


# Fields of the same name


def _values(value: Any, *without: str) -> dict[str, Any]:
    """The attributes of a dataclass as arguments of its message."""
    return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in without}


def _read(kind: type[_T], message: Message, **given: Any) -> _T:
    """A dataclass from the fields of a message; optional fields that are absent become None."""
    values = dict(given)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in given or field.name not in message.DESCRIPTOR.fields_by_name:
            continue
        described = message.DESCRIPTOR.fields_by_name[field.name]
        if described.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if isinstance(value, MutableMapping):
            value = dict(value)
        values[field.name] = value
    return kind(**values)


# Observations and their metadata


def observation_to_wire(observation: Observation) -> opb.Observation:
    """Message of an observation, without `media_root`."""
    values = _values(observation, "media_root", "modality", "metadata")
    message = opb.Observation(modality=modality_to_wire(observation.modality), **values)
    write_metadata(observation.metadata, message.metadata)
    return message


def observation_from_wire(message: opb.Observation) -> Observation:
    """Observation of a message; its `media_root` is empty."""
    modality = modality_from_wire(message.modality) or ""
    metadata = metadata_from_wire(message.metadata)
    return _read(Observation, message, modality=modality, metadata=metadata)


def write_metadata(metadata: Metadata, wire: MutableMapping[str, opb.MetadataValue]) -> None:
    """Copy metadata into a message's map.

    Raises:
        MetadataError: a value that no column can hold; the message names the column.
    """
    for column, value in metadata.items():
        target = wire[column]  # access creates it, empty for None
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
    return number_of(MODALITIES, modality, "modality")


def modality_from_wire(number: opb.Modality.ValueType, field: str = "modality") -> str | None:
    """Name of a modality; None for unspecified.

    Raises:
        QueryError: a number that this version does not know.
    """
    return name_of(MODALITIES, number, field) if number else None


# Searching


def query_to_wire(query: Query, archive: str) -> pb.SearchRequest:
    """Message of a query to the archive of this name."""
    values = {n: value for n, value in _values(query, "inputs").items() if value is not None}
    if query.target is not None:
        values["target"] = modality_to_wire(query.target)
    if query.metric is not None:
        values["metric"] = number_of(METRICS, query.metric, "metric")
    if len(query.inputs) == 1:  # as servers of 0.1.0 know it
        values |= _one_input(query.inputs[0])
    else:
        values["inputs"] = [
            pb.QueryInput(minus=each.minus, **_one_input(each)) for each in query.inputs
        ]
    return pb.SearchRequest(archive=archive, **values)


def query_from_wire(message: pb.SearchRequest) -> Query:
    """Query of a message.

    Raises:
        QueryError: nothing to search with, or both `query` and `inputs`; a number that this version
            does not know, or a relevance that is not a share.
        QueryError, MediaTooLargeError, CodeError, FilterError: see `Query`.
    """
    one = message.WhichOneof("query") is not None
    if one and message.inputs:
        raise QueryError(
            f"give either {message.WhichOneof('query')} or inputs, not both", field="inputs"
        )
    if message.HasField("relevance") and not LOWEST_RATE <= message.relevance <= HIGHEST_RATE:
        raise QueryError(
            f"relevance must be a number from {LOWEST_RATE} to {HIGHEST_RATE} (the share of "
            f"unrelated queries that may still get a hit), not {message.relevance!r}",
            field="relevance",
        )
    return _read(
        Query,
        message,
        inputs=tuple(map(_input_from_wire, [message] if one else message.inputs)),
        target=modality_from_wire(message.target, "target"),
        metric=name_of(METRICS, message.metric, "metric") if message.metric else None,
        where=message.where or None,
        model=message.model or None,
    )


def _one_input(each: QueryInput) -> dict[str, Any]:
    """The fields of one input."""
    return {each.kind: each.value, "name": each.name}


def _input_from_wire(message: pb.SearchRequest | pb.QueryInput) -> QueryInput:
    kind = message.WhichOneof("query")
    if kind is None:
        raise QueryError(f"an input is empty; give one of {', '.join(QUERY_KINDS)}", field="inputs")
    minus = isinstance(message, pb.QueryInput) and message.minus
    return QueryInput(kind, getattr(message, kind), minus, message.name)


def encode_to_wire(query: Query, archive: str) -> pb.EncodeRequest:
    """Message of a text or a file to encode."""
    [each] = query.inputs
    return pb.EncodeRequest(archive=archive, model=query.model or "", **_one_input(each))


def encode_from_wire(message: pb.EncodeRequest) -> Query:
    """What to encode, as a query.

    Raises:
        QueryError: nothing to encode; see also `Query`.
    """
    kind = message.WhichOneof("input")
    if kind is None:
        raise QueryError("nothing to encode; give one of text, image and audio", field="input")
    each = QueryInput(kind, getattr(message, kind), name=message.name)
    return Query(inputs=(each,), model=message.model or None)


def page_size_from_wire(page_size: int, page_token: str) -> int:
    """How many entries a page has: `DEFAULT_PAGE_SIZE` for 0.

    Raises:
        QueryError: negative, more than `MAX_PAGE_SIZE`, or a token that is no token.
    """
    if len(page_token) > _MAX_TOKEN_CHARS:
        raise QueryError("page_token is not one that this server gave out", field="page_token")
    return check_page_size(page_size or DEFAULT_PAGE_SIZE)


def result_to_wire(result: SearchResult) -> pb.SearchResponse:
    """Message of a search result."""
    return pb.SearchResponse(
        **_values(result, "target", "metric", "hits", "nearest"),
        target=modality_to_wire(result.target),
        metric=number_of(METRICS, result.metric, "metric"),
        hits=map(hit_to_wire, result.hits),
        nearest=None if result.nearest is None else hit_to_wire(result.nearest),
    )


def result_from_wire(message: pb.SearchResponse) -> SearchResult:
    """Search result of a message; a server that names no engine searched exactly."""
    return _read(
        SearchResult,
        message,
        target=modality_from_wire(message.target) or "",
        metric=name_of(METRICS, message.metric, "metric"),
        hits=[hit_from_wire(hit) for hit in message.hits],
        engine=message.engine or "flat",
        exact=message.exact or not message.engine,
        nearest=hit_from_wire(message.nearest) if message.HasField("nearest") else None,
    )


def hit_to_wire(hit: Hit) -> pb.Hit:
    """Message of one hit."""
    observation = observation_to_wire(hit.observation)
    return pb.Hit(rank=hit.rank, distance=hit.distance, observation=observation)


def hit_from_wire(message: pb.Hit) -> Hit:
    """One hit."""
    return Hit(message.rank, message.distance, observation_from_wire(message.observation))


# Adding


def item_to_wire(item: MediaItem, data: bytes) -> pb.MediaItem:
    """Message of a media item whose file holds `data`.

    Raises:
        QueryError, MetadataError: a value that the wire cannot carry.
    """
    message = pb.MediaItem(
        occurrence_id=item.occurrence_id,
        media=item.media,
        modality=modality_to_wire(item.modality),
        data=data,
    )
    write_metadata(item.metadata, message.metadata)
    return message


def item_from_wire(message: pb.MediaItem) -> MediaItem:
    """Media item of a message: bytes and labels, never a path.

    Raises:
        QueryError: its modality is neither image nor audio.
    """
    modality = modality_from_wire(message.modality)
    if modality not in ("image", "audio"):
        raise QueryError(
            f"modality must be image or audio, not {modality or 'left out'}", field="modality"
        )
    return MediaItem(
        occurrence_id=message.occurrence_id,
        media=message.media,
        modality=modality,
        data=message.data,
        metadata=metadata_from_wire(message.metadata),
    )


def on_duplicate_to_wire(policy: OnDuplicate) -> pb.OnDuplicate.ValueType:
    """Number of a policy."""
    return number_of(ON_DUPLICATE, policy, "on_duplicate")


def on_duplicate_from_wire(number: pb.OnDuplicate.ValueType) -> OnDuplicate:
    """Policy of a number; ``error`` for unspecified."""
    return name_of(ON_DUPLICATE, number, "on_duplicate") if number else "error"


def add_result_to_wire(result: AddResult) -> pb.AddResult:
    """Message of the result of one item."""
    return pb.AddResult(status=ADD_STATUS[result.status], **_values(result, "status"))


def add_result_from_wire(message: pb.AddResult) -> AddResult:
    """The result of one item."""
    return _read(AddResult, message, status=name_of(ADD_STATUS, message.status, "status"))


# Codes, models, statistics


def encoded_to_wire(encoded: Encoded) -> pb.Encoded:
    """Message of one code."""
    return pb.Encoded(**_values(encoded))


def encoded_from_wire(message: pb.Encoded) -> Encoded:
    """One code."""
    return _read(Encoded, message, logits=tuple(message.logits))


def model_to_wire(model: ModelInfo) -> pb.Model:
    """Message of a model."""
    modalities = [modality_to_wire(modality) for modality in model.modalities]
    return pb.Model(modalities=modalities, **_values(model, "modalities"))


def model_from_wire(message: pb.Model) -> ModelInfo:
    """A model."""
    modalities = tuple(modality_from_wire(number) or "" for number in message.modalities)
    return _read(ModelInfo, message, modalities=modalities)


def stats_to_wire(stats: ArchiveStats, name: str) -> pb.StatsResponse:
    """Message of an archive's statistics, with the name on this server."""
    models = [
        pb.ModelStats(
            **_values(model, "engines"),
            engines={m: pb.EngineStats(**_values(engine)) for m, engine in model.engines.items()},
        )
        for model in stats.models
    ]
    return pb.StatsResponse(name=name, models=models, **_values(stats, "name", "models"))


def stats_from_wire(message: pb.StatsResponse) -> ArchiveStats:
    """Statistics of an archive."""
    models = []
    for model in message.models:
        engines = {m: _read(EngineStats, engine) for m, engine in model.engines.items()}
        state = model.state or "ready"
        models.append(_read(ModelStats, model, engines=engines, state=state))
    return _read(ArchiveStats, message, models=models)


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
