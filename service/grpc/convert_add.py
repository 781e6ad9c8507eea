"""Between the messages of Add and the values that the rest of Bittern works with."""

from __future__ import annotations

from bittern.errors import QueryError
from bittern.service.grpc.convert import (
    metadata_from_wire,
    modality_from_wire,
    modality_to_wire,
    name_of,
    number_of,
    write_metadata,
)
from bittern.types import AddResult, AddStatus, MediaItem, OnDuplicate
from bittern.v1 import archive_service_pb2 as pb

_ON_DUPLICATE: dict[OnDuplicate, pb.OnDuplicate.ValueType] = {
    "error": pb.ON_DUPLICATE_ERROR,
    "skip": pb.ON_DUPLICATE_SKIP,
    "overwrite": pb.ON_DUPLICATE_OVERWRITE,
}
_ADD_STATUS: dict[AddStatus, pb.AddStatus.ValueType] = {
    AddStatus.ADDED: pb.ADD_STATUS_ADDED,
    AddStatus.OVERWRITTEN: pb.ADD_STATUS_OVERWRITTEN,
    AddStatus.SKIPPED: pb.ADD_STATUS_SKIPPED,
    AddStatus.FAILED: pb.ADD_STATUS_FAILED,
}


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
    return number_of(_ON_DUPLICATE, policy, "on_duplicate")


def on_duplicate_from_wire(number: pb.OnDuplicate.ValueType) -> OnDuplicate:
    """Policy of a number; ``error`` for unspecified."""
    return name_of(_ON_DUPLICATE, number, "on_duplicate") if number else "error"


def add_result_to_wire(result: AddResult) -> pb.AddResult:
    """Message of what became of one item."""
    return pb.AddResult(
        occurrence_id=result.occurrence_id,
        status=_ADD_STATUS[result.status],
        observations=result.observations,
        reason=result.reason,
        message=result.message,
    )


def add_result_from_wire(message: pb.AddResult) -> AddResult:
    """What became of one item."""
    return AddResult(
        occurrence_id=message.occurrence_id,
        status=name_of(_ADD_STATUS, message.status, "status"),
        observations=message.observations,
        reason=message.reason,
        message=message.message,
    )
