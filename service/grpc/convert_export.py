"""Exports: between the wire's messages and the values of the rest."""

from __future__ import annotations

from bittern.errors import QueryError
from bittern.service.export.base import Piece
from bittern.service.grpc.convert import name_of, number_of
from bittern.v1 import archive_service_pb2 as pb

_FORMATS: dict[str, pb.ExportFormat.ValueType] = {
    "csv": pb.EXPORT_FORMAT_CSV,
    "parquet": pb.EXPORT_FORMAT_PARQUET,
    "jsonl": pb.EXPORT_FORMAT_JSON_LINES,
    "geojson": pb.EXPORT_FORMAT_GEOJSON,
    "raven": pb.EXPORT_FORMAT_RAVEN,
    "ids": pb.EXPORT_FORMAT_IDS,
    "folder": pb.EXPORT_FORMAT_FOLDER,
}


def format_to_wire(format_: str) -> pb.ExportFormat.ValueType:
    """Number of a format."""
    return number_of(_FORMATS, format_, "format")


def format_from_wire(number: pb.ExportFormat.ValueType) -> str:
    """Name of a format; CSV for unspecified.

    Raises:
        QueryError: a number that this version does not know.
    """
    return name_of(_FORMATS, number, "format") if number else "csv"


def check_request(request: pb.ExportRequest) -> None:
    """Refuse a request that asks for two things.

    Raises:
        QueryError: a condition beside a search, or a search of another archive.
    """
    if not request.HasField("search"):
        return
    if request.where:
        raise QueryError("give `where` inside of `search`, not beside it", field="where")
    if request.search.archive not in ("", request.archive):
        raise QueryError(
            f"the search names the archive {request.search.archive!r}, the export "
            f"{request.archive!r}; name it once",
            field="search.archive",
        )


def piece_to_wire(piece: Piece) -> pb.ExportResponse:
    """Message of a piece of a file."""
    return pb.ExportResponse(
        data=piece.data, done=piece.done, total=piece.total, left_out=piece.left_out
    )


def piece_from_wire(message: pb.ExportResponse) -> Piece:
    """A piece of a file."""
    return Piece(message.data, message.done, message.total, message.left_out)
