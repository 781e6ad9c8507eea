"""Codes, models and statistics: between the wire's messages and the values of the rest."""

from __future__ import annotations

from bittern.service.grpc.convert import modality_from_wire, modality_to_wire
from bittern.types import ArchiveStats, Encoded, EngineStats, ModelInfo, ModelStats
from bittern.v1 import archive_service_pb2 as pb


def encoded_to_wire(encoded: Encoded) -> pb.Encoded:
    """Message of one code."""
    return pb.Encoded(
        code=encoded.code,
        logits=encoded.logits,
        start_s=encoded.start_s,
        end_s=encoded.end_s,
    )


def encoded_from_wire(message: pb.Encoded) -> Encoded:
    """One code."""
    return Encoded(
        code=message.code,
        logits=tuple(message.logits),
        start_s=message.start_s if message.HasField("start_s") else None,
        end_s=message.end_s if message.HasField("end_s") else None,
    )


def model_to_wire(model: ModelInfo) -> pb.Model:
    """Message of a model."""
    return pb.Model(
        name=model.name,
        digest=model.digest,
        bits=model.bits,
        encoder=model.encoder,
        modalities=[modality_to_wire(modality) for modality in model.modalities],
        rows=model.rows,
        weights=model.weights,
        licence=model.licence,
    )


def model_from_wire(message: pb.Model) -> ModelInfo:
    """A model."""
    return ModelInfo(
        name=message.name,
        digest=message.digest,
        bits=message.bits,
        encoder=message.encoder,
        modalities=tuple(modality_from_wire(number) or "" for number in message.modalities),
        rows=dict(message.rows),
        weights=message.weights,
        licence=message.licence,
    )


def stats_to_wire(stats: ArchiveStats, name: str) -> pb.StatsResponse:
    """Message of what an archive holds, under the name that it is served by."""
    return pb.StatsResponse(
        name=name,
        observations=stats.observations,
        recordings=stats.recordings,
        models=[
            pb.ModelStats(
                name=model.name,
                digest=model.digest,
                bits=model.bits,
                rows=model.rows,
                engines={modality: engine_to_wire(e) for modality, e in model.engines.items()},
            )
            for model in stats.models
        ],
        generation=stats.generation,
        code_bytes=stats.code_bytes,
        columns=stats.columns,
    )


def stats_from_wire(message: pb.StatsResponse) -> ArchiveStats:
    """What an archive holds."""
    return ArchiveStats(
        name=message.name,
        observations=dict(message.observations),
        recordings=message.recordings,
        models=[
            ModelStats(
                model.name,
                model.digest,
                model.bits,
                dict(model.rows),
                {modality: engine_from_wire(e) for modality, e in model.engines.items()},
            )
            for model in message.models
        ],
        generation=message.generation,
        code_bytes=message.code_bytes,
        columns=dict(message.columns),
    )


def engine_to_wire(engine: EngineStats) -> pb.EngineStats:
    """Message of what searches the codes of one model and modality."""
    return pb.EngineStats(
        kind=engine.kind,
        exact=engine.exact,
        reason=engine.reason,
        rows=engine.rows,
        code_bytes=engine.code_bytes,
        other_bytes=engine.other_bytes,
        building=engine.building,
    )


def engine_from_wire(message: pb.EngineStats) -> EngineStats:
    """What searches the codes of one model and modality."""
    return EngineStats(
        kind=message.kind,
        exact=message.exact,
        reason=message.reason,
        rows=message.rows,
        code_bytes=message.code_bytes,
        other_bytes=message.other_bytes,
        building=message.building,
    )
