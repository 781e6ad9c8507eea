"""Archives behind a server: the same methods, values and errors as an archive in process."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

import grpc

from bittern.api import ArchiveAPI, read_media
from bittern.errors import (
    ArchiveNotFoundError,
    BitternError,
    InvalidInputError,
    PreconditionError,
    QueryError,
    ServiceUnavailableError,
)
from bittern.query import Query
from bittern.service.grpc import messages
from bittern.service.grpc.status import from_rpc_error
from bittern.service.limits import check_item, check_names
from bittern.types import (
    AddResult,
    ArchiveStats,
    Encoded,
    Exported,
    ExportOptions,
    MediaItem,
    ModelInfo,
    Observation,
    OnDuplicate,
    Page,
    SearchResult,
)
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from bittern.jobs import RemoteJobs
    from bittern.service.export.files import FileChunk

DEFAULT_TIMEOUT_S = 30.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_KEEPALIVE_MS = 60_000
_MAX_INT32 = 2**31 - 1
_MAX_WAITING = 2
_POLL_S = 0.1


def connect(
    address: str,
    *,
    archive: str = "",
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> RemoteArchive:
    """Connect to an archive that `bittern serve` serves.

        with bittern.connect("localhost:50051") as archive:
            print(archive.search("a heron standing in reeds"))

    The connection is not encrypted: across machines, put a proxy that speaks TLS in between,
    or tunnel it.

    Args:
        address: ``host:port``.
        archive: which archive; may be empty where the server serves only one.
        timeout_s: seconds that one answer may take; None waits for ever. For `add` it bounds
            nothing but the beginning, since batches take as long as they take.
        max_message_bytes: largest answer that is accepted.

    Raises:
        ServiceUnavailableError: no server answers there.
        ArchiveNotFoundError: the server serves no archive of this name, or serves several
            and none was named; the message lists their names.
        InvalidInputError: `address` or `timeout_s` is not usable.
    """
    if not isinstance(address, str) or not address.strip():
        raise InvalidInputError(f"address must be host:port, not {address!r}", field="address")
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidInputError(
            f"timeout_s must be above 0 seconds, or None, not {timeout_s!r}", field="timeout_s"
        )
    channel = grpc.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ],
    )
    remote = RemoteArchive(channel, address=address, archive=archive, timeout_s=timeout_s)
    try:
        remote.check()
    except BaseException:
        remote.close()
        raise
    return remote


class RemoteArchive(ArchiveAPI):
    """An archive behind a server; made by `connect`.

    Attributes:
        address: ``host:port`` of the server.
        name: name of the archive there.
    """

    def __init__(
        self, channel: grpc.Channel, *, address: str, archive: str, timeout_s: float | None
    ) -> None:
        self._channel = channel
        self._stub = pb_grpc.ArchiveServiceStub(channel)
        self._timeout_s = timeout_s
        self.address = address
        self.name = archive

    def __repr__(self) -> str:
        return f"<RemoteArchive {self.name!r} at {self.address}>"

    def check(self) -> None:
        """Make sure that the server answers and serves this archive; learn its name.

        Raises:
            ServiceUnavailableError: no server answers.
            ArchiveNotFoundError: the archive is not there.
        """
        with self._typed_errors():
            answer = self._stub.ListArchives(pb.ListArchivesRequest(), timeout=self._timeout_s)
        names = [entry.name for entry in answer.archives]
        if not self.name and len(names) == 1:
            self.name = names[0]
        if self.name not in names:
            problem = f"serves no archive called {self.name!r}" if self.name else "serves several"
            raise ArchiveNotFoundError(
                f"{self.address} {problem}; name one of these with archive=...: {', '.join(names)}",
                field="archive",
                details={"archives": ", ".join(names)},
            )

    def stats(self) -> ArchiveStats:
        """Tell what the archive holds; see `ArchiveAPI.stats`."""
        with self._typed_errors():
            answer = self._stub.Stats(pb.StatsRequest(archive=self.name), timeout=self._timeout_s)
            return messages.stats_from_wire(answer)

    def models(self) -> builtins.list[ModelInfo]:
        """List the archive's models; see `ArchiveAPI.models`."""
        with self._typed_errors():
            request = pb.ListModelsRequest(archive=self.name)
            answer = self._stub.ListModels(request, timeout=self._timeout_s)
            return [messages.model_from_wire(each) for each in answer.models]

    @property
    def jobs(self) -> RemoteJobs:
        """Jobs that code media on the server's own disks into this archive."""
        from bittern.jobs import RemoteJobs

        return RemoteJobs(self._channel, self.name, self._timeout_s, self._typed_errors)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _get(self, id: str) -> Observation:  # noqa: A002
        with self._typed_errors():
            request = pb.GetRequest(archive=self.name, id=id)
            answer = self._stub.Get(request, timeout=self._timeout_s)
            return messages.observation_from_wire(answer.observation)

    def answer(self, query: Query) -> SearchResult:
        """See `ArchiveAPI.answer`."""
        with self._typed_errors():
            request = messages.query_to_wire(query, self.name)
            try:
                answer = self._stub.Search(request, timeout=self._timeout_s)
            except grpc.RpcError as error:
                refused = from_rpc_error(error, self.address)
                if request.inputs and isinstance(refused, QueryError) and refused.field == "query":
                    raise self._earlier("a query of several inputs", "query") from None
                raise refused from None
            for field in ("within", "relevance"):
                if getattr(query, field) is not None and not answer.engine:
                    raise self._earlier(f"`{field}`", field)
            return messages.result_from_wire(answer)

    def _earlier(self, unknown: str, field: str) -> PreconditionError:
        return PreconditionError(
            f"the server at {self.address} is of an earlier version, which does not know "
            f"{unknown}; search without it, or update the server",
            field=field,
        )

    def _delete(self, ids: builtins.list[str]) -> builtins.list[str]:
        with self._typed_errors():
            request = pb.DeleteRequest(archive=self.name, ids=ids)
            return list(self._stub.Delete(request, timeout=self._timeout_s).ids)

    def page(self, *, page_size: int, page_token: str = "", where: str | None = None) -> Page:
        """See `ArchiveAPI.page`."""
        with self._typed_errors():
            request = pb.ListRequest(
                archive=self.name,
                page_size=page_size,
                page_token=page_token,
                where=where or "",
            )
            answer = self._stub.List(request, timeout=self._timeout_s)
            return Page(
                [messages.observation_from_wire(each) for each in answer.observations],
                answer.next_page_token,
            )

    def _export(self, to: str | Path, options: ExportOptions) -> Exported:
        from bittern.service.export.files import check_export, file_chunks, write_file
        from bittern.service.export.rows import rows_of_hits
        from bittern.service.export.writers import writer_of

        chosen = check_export(to, options)
        writer = writer_of(chosen)  # refuses a folder of media, which lie on the server
        if options.hits is not None:
            chunks = file_chunks(writer, rows_of_hits(options.hits.hits))
        else:
            chunks = self._download(chosen, options.where)
        return write_file(chunks, Path(to), chosen, options.on_progress)

    def _download(self, format_: str, where: str | None) -> Iterator[FileChunk]:
        """An exported file as it arrives, however long it takes."""
        from bittern.service.export.files import FileChunk

        request = pb.ExportRequest(
            archive=self.name,
            format=messages.number_of(messages.EXPORT_FORMATS, format_, "format"),
            where=where or "",
        )
        with self._typed_errors():
            call = self._stub.Export(request)
            try:
                for response in call:
                    yield FileChunk(response.data, response.done, response.total, response.left_out)
            finally:
                call.cancel()

    def encode_query(self, query: Query) -> builtins.list[Encoded]:
        """See `ArchiveAPI.encode_query`."""
        with self._typed_errors():
            request = messages.encode_to_wire(query, self.name)
            answer = self._stub.Encode(request, timeout=self._timeout_s)
            return [messages.encoded_from_wire(each) for each in answer.encoded]

    def _add(
        self,
        items: Iterable[MediaItem],
        on_duplicate: OnDuplicate,
        model: str | None,
        batch_size: int,
    ) -> Iterator[builtins.list[AddResult]]:
        """Send a batch, wait until it is committed, hand out the answer, go on."""
        options = pb.AddOptions(
            archive=self.name,
            model=model or "",
            on_duplicate=messages.on_duplicate_to_wire(on_duplicate),
            batch_size=min(batch_size, _MAX_INT32),
        )
        flush = pb.AddRequest(flush=pb.AddFlush())
        queue = SendQueue()
        with self._typed_errors():
            call = self._stub.Add(queue)
        try:
            queue.put(pb.AddRequest(options=options), call)
            rest = iter(items)
            while True:
                sent, refused = self._send_batch(islice(rest, batch_size), queue, call)
                if not sent and not refused:
                    break
                if sent:
                    queue.put(flush, call)
                    for response in self._answers(call, until_flushed=True):
                        yield refused + response
                        refused = []
                if refused:
                    yield refused
            queue.close()
            yield from self._answers(call, until_flushed=False)
        finally:
            # Not in good order: what has been sent since the last answer is not to be stored.
            call.cancel()
            queue.close()

    def _send_batch(
        self, items: Iterable[MediaItem], queue: SendQueue, call: grpc.Call
    ) -> tuple[int, builtins.list[AddResult]]:
        """Send items one by one; return how many, and those that could not be."""
        sent = 0
        refused = []
        for item in items:
            try:
                message = pb.AddRequest(item=_item_message(item))
            except BitternError as error:
                refused.append(AddResult.failure(item.occurrence_id, error))
            else:
                queue.put(message, call)
                sent += 1
        return sent, refused

    def _answers(
        self, call: Iterator[pb.AddResponse], *, until_flushed: bool
    ) -> Iterator[builtins.list[AddResult]]:
        """Results of each commit, until the flush marker is answered or the stream has ended."""
        with self._typed_errors():
            for response in call:
                if response.results:
                    yield [messages.add_result_from_wire(each) for each in response.results]
                if response.flushed and until_flushed:
                    return
        if until_flushed:
            raise ServiceUnavailableError(
                f"{self.address} ended the call early; what it has answered is stored"
            )

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        """Turn what gRPC raises into Bittern's own errors."""
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None
        except ValueError as error:
            if "closed channel" in str(error):
                raise PreconditionError(
                    f"the connection to {self.address} was closed; connect again"
                ) from None
            raise InvalidInputError(f"a value cannot be sent: {error}") from error
        except TypeError as error:
            raise InvalidInputError(f"a value cannot be sent: {error}") from error


class SendQueue(Iterator[pb.AddRequest]):
    """Messages on their way into a streaming call: the caller fills it, gRPC's thread empties it.

    It holds two messages at most, so the caller reads files no faster than they are sent.
    """

    def __init__(self) -> None:
        self._queue: Queue[pb.AddRequest | None] = Queue(_MAX_WAITING)
        self._closed = False

    def put(self, message: pb.AddRequest, call: grpc.Call) -> None:
        """Hand over a message; wait for room.

        It is dropped when the call has ended: the call's error shows at the next answer.
        """
        while call.is_active():
            try:
                self._queue.put(message, timeout=_POLL_S)
            except Full:
                continue
            return

    def close(self) -> None:
        """End the caller's side of the stream once everything handed over has been sent."""
        self._closed = True
        with suppress(Full):
            self._queue.put_nowait(None)  # so that the end is noticed sooner

    def __next__(self) -> pb.AddRequest:
        while True:
            try:
                message = self._queue.get(timeout=_POLL_S)
            except Empty:
                if self._closed:
                    raise StopIteration from None
                continue
            if message is None:
                raise StopIteration
            return message


def _item_message(item: MediaItem) -> pb.MediaItem:
    check_names(item)
    check_item(item)
    source = item.data if item.data is not None else item.path
    assert source is not None
    data = read_media(source, "data")
    try:
        return messages.item_to_wire(item, data)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{item.media!r}: a value cannot be sent: {error}") from error
