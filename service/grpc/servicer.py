"""The rpcs of `bittern.v1.ArchiveService`."""

# ruff: noqa: N802 - the methods are named as the rpcs are
from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import grpc

from bittern.checks import check_where
from bittern.errors import (
    ArchiveNotFoundError,
    QueryError,
    ServiceUnavailableError,
)
from bittern.query import Query
from bittern.service.export.files import file_chunks
from bittern.service.export.rows import rows_of_hits
from bittern.service.export.writers import writer_of
from bittern.service.grpc import messages
from bittern.service.grpc.add_stream import answer_add
from bittern.service.grpc.status import rpc_context
from bittern.service.limits import ServiceConfig, Slots, check_query_media
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from bittern.service.local.archive import LocalArchive

_NAMES_SHOWN = 20


class ArchiveServicer(pb_grpc.ArchiveServiceServicer):
    """Answers calls from open archives.

    A call cannot open files of this machine: media arrive as bytes, and their names are labels.

    Attributes:
        stopping: set when the server stops; open Add and Export calls then end.
    """

    def __init__(self, archives: Mapping[str, LocalArchive], config: ServiceConfig) -> None:
        self._archives = dict(archives)
        self._config = config
        self._add_streams = Slots(
            config.max_add_streams,
            f"{config.max_add_streams} Add calls are open, which is the limit; "
            "try again when one has ended",
        )
        self._exports = Slots(
            config.at_most_a_quarter(config.max_exports),
            "as many exports are being sent as this server sends at once; try again when one has "
            "ended",
        )
        self.stopping = threading.Event()

    def Search(self, request: pb.SearchRequest, context: grpc.ServicerContext) -> pb.SearchResponse:
        """Answer one search."""
        with rpc_context("Search", context) as deadline:
            archive = self.archive(request.archive)
            result = archive.answer(self._query(request), deadline)
            deadline.check("the hits were sent")
            return messages.result_to_wire(result)

    def Add(
        self, request_iterator: Iterator[pb.AddRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.AddResponse]:
        """Commit batches and answer each."""
        with rpc_context("Add", context) as deadline, self._add_streams.taken():
            yield from answer_add(
                request_iterator,
                archive_of=self.archive,
                config=self._config,
                deadline=deadline,
                stopping=self.stopping,
            )

    def Get(self, request: pb.GetRequest, context: grpc.ServicerContext) -> pb.GetResponse:
        """Return one observation."""
        with rpc_context("Get", context):
            observation = self.archive(request.archive).get(request.id)
            return pb.GetResponse(observation=messages.observation_to_wire(observation))

    def List(self, request: pb.ListRequest, context: grpc.ServicerContext) -> pb.ListResponse:
        """Return one page."""
        with rpc_context("List", context):
            page = self.archive(request.archive).page(
                page_size=messages.page_size_from_wire(request.page_size, request.page_token),
                page_token=request.page_token,
                where=check_where(request.where or None),
            )
            return pb.ListResponse(
                observations=[messages.observation_to_wire(each) for each in page.observations],
                next_page_token=page.next_token,
            )

    def Delete(self, request: pb.DeleteRequest, context: grpc.ServicerContext) -> pb.DeleteResponse:
        """Remove observations."""
        with rpc_context("Delete", context):
            removed = self.archive(request.archive).delete(list(request.ids))
            return pb.DeleteResponse(ids=removed)

    def Encode(self, request: pb.EncodeRequest, context: grpc.ServicerContext) -> pb.EncodeResponse:
        """Code words or media."""
        with rpc_context("Encode", context) as deadline:
            archive = self.archive(request.archive)
            query = messages.encode_from_wire(request)
            check_query_media(query, self._config)
            encoded = archive.encode_query(query)
            deadline.check("the codes were sent")
            return pb.EncodeResponse(encoded=[messages.encoded_to_wire(each) for each in encoded])

    def Export(
        self, request: pb.ExportRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ExportResponse]:
        """Send a file of observations, or of the hits of a search, in chunks."""
        with rpc_context("Export", context) as deadline:
            archive = self.archive(request.archive)
            writer = writer_of(_format_of(request))
            _check_export(request)
            with self._exports.taken():
                if request.HasField("search"):
                    query = self._query(request.search)
                    rows = rows_of_hits(archive.answer(query, deadline).hits)
                else:
                    rows = archive.rows(check_where(request.where or None), codes=writer.codes)
                for chunk in file_chunks(writer, rows):
                    deadline.check("the next chunk of the file was sent")
                    if self.stopping.is_set():
                        raise ServiceUnavailableError("the server is stopping; export again later")
                    yield pb.ExportResponse(**chunk._asdict())

    def Stats(self, request: pb.StatsRequest, context: grpc.ServicerContext) -> pb.StatsResponse:
        """Return statistics of an archive."""
        with rpc_context("Stats", context):
            stats = self.archive(request.archive).stats()
            name = request.archive or next(iter(self._archives))
            return messages.stats_to_wire(stats, name)

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """List the models of an archive."""
        with rpc_context("ListModels", context):
            models = self.archive(request.archive).models()
            return pb.ListModelsResponse(models=[messages.model_to_wire(each) for each in models])

    def ListArchives(
        self, request: pb.ListArchivesRequest, context: grpc.ServicerContext
    ) -> pb.ListArchivesResponse:
        """List the archives."""
        with rpc_context("ListArchives", context):
            return pb.ListArchivesResponse(
                archives=[pb.ArchiveEntry(name=name) for name in sorted(self._archives)]
            )

    def _query(self, request: pb.SearchRequest) -> Query:
        query = messages.query_from_wire(request)
        check_query_media(query, self._config)
        return query

    def archive(self, name: str) -> LocalArchive:
        """The archive of this name; with an empty name, the only one.

        Raises:
            ArchiveNotFoundError: no such archive, or no name where there are several.
        """
        if not name and len(self._archives) == 1:
            return next(iter(self._archives.values()))
        if name in self._archives:
            return self._archives[name]
        names = sorted(self._archives)
        listed = ", ".join(names[:_NAMES_SHOWN]) + ("…" if len(names) > _NAMES_SHOWN else "")
        problem = (
            f"no archive is called {name!r} here" if name else "several archives are served here"
        )
        raise ArchiveNotFoundError(
            f"{problem}; name one of these in `archive`: {listed}",
            field="archive",
            details={"archives": listed},
        )


def _format_of(request: pb.ExportRequest) -> str:
    if not request.format:
        return "csv"
    return messages.name_of(messages.EXPORT_FORMATS, request.format, "format")


def _check_export(request: pb.ExportRequest) -> None:
    """Refuse a filter beside a search, and a search of another archive: `QueryError`."""
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
