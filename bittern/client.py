"""Archives behind a server: the same methods, values and errors as an archive in process."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import grpc

from bittern.api import ArchiveAPI
from bittern.arguments import read_media
from bittern.errors import (
    ArchiveNotFoundError,
    BitternError,
    InvalidInputError,
    PreconditionError,
    ServiceUnavailableError,
)
from bittern.jobs import RemoteJobs
from bittern.outbox import Outbox
from bittern.service.export.base import Exported, OnProgress, Piece
from bittern.service.export.formats import FOLDER, writer_of
from bittern.service.grpc import convert, convert_add, convert_export, convert_stats
from bittern.service.grpc.status import from_rpc_error
from bittern.service.limits import check_item
from bittern.types import (
    AddResult,
    AddStatus,
    ArchiveStats,
    Encoded,
    Hit,
    MediaItem,
    ModelInfo,
    Observation,
    OnDuplicate,
    Page,
    Query,
    SearchResult,
)
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc

DEFAULT_TIMEOUT_S = 30.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_KEEPALIVE_MS = 60_000
_MAX_INT32 = 2**31 - 1


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
            said = f"serves no archive called {self.name!r}" if self.name else "serves several"
            raise ArchiveNotFoundError(
                f"{self.address} {said}; ask for one of these with archive=...: {', '.join(names)}",
                field="archive",
                details={"archives": ", ".join(names)},
            )

    def stats(self) -> ArchiveStats:
        """Tell what the archive holds; see `ArchiveAPI.stats`."""
        with self._typed_errors():
            answer = self._stub.Stats(pb.StatsRequest(archive=self.name), timeout=self._timeout_s)
            return convert_stats.stats_from_wire(answer)

    def models(self) -> builtins.list[ModelInfo]:
        """List the archive's models; see `ArchiveAPI.models`."""
        with self._typed_errors():
            request = pb.ListModelsRequest(archive=self.name)
            answer = self._stub.ListModels(request, timeout=self._timeout_s)
            return [convert_stats.model_from_wire(each) for each in answer.models]

    @property
    def jobs(self) -> RemoteJobs:
        """Jobs that code media on the server's own disks into this archive."""
        return RemoteJobs(self._channel, self.name, self._timeout_s, self._typed_errors)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _get(self, id: str) -> Observation:  # noqa: A002
        with self._typed_errors():
            request = pb.GetRequest(archive=self.name, id=id)
            answer = self._stub.Get(request, timeout=self._timeout_s)
            return convert.observation_from_wire(answer.observation)

    def _search(self, query: Query) -> SearchResult:
        with self._typed_errors():
            request = convert.query_to_wire(query, self.name)
            answer = self._stub.Search(request, timeout=self._timeout_s)
            for field in ("within", "relevance"):
                if getattr(query, field) is not None and not answer.engine:
                    raise PreconditionError(
                        f"the server at {self.address} is of an earlier version, which does not "
                        f"know `{field}`; ask without it, or update the server",
                        field=field,
                    )
            return convert.result_from_wire(answer)

    def _delete(self, ids: builtins.list[str]) -> builtins.list[str]:
        with self._typed_errors():
            request = pb.DeleteRequest(archive=self.name, ids=ids)
            return list(self._stub.Delete(request, timeout=self._timeout_s).ids)

    def _list_page(self, page_size: int, page_token: str, where: str | None) -> Page:
        with self._typed_errors():
            request = pb.ListRequest(
                archive=self.name,
                page_size=page_size,
                page_token=page_token,
                where=where or "",
            )
            answer = self._stub.List(request, timeout=self._timeout_s)
            return Page(
                [convert.observation_from_wire(each) for each in answer.observations],
                answer.next_page_token,
            )

    def _export(self, format_: str, where: str | None) -> Iterator[Piece]:
        """The file as it arrives; however long it takes."""
        request = pb.ExportRequest(
            archive=self.name, format=convert_export.format_to_wire(format_), where=where or ""
        )
        with self._typed_errors():
            call = self._stub.Export(request)
            try:
                for response in call:
                    yield convert_export.piece_from_wire(response)
            finally:
                call.cancel()

    def _export_folder(
        self,
        to: Path,
        where: str | None,
        hits: Sequence[Hit] | None,
        below: Sequence[Path],
        on_progress: OnProgress,
    ) -> Exported:
        writer_of(FOLDER)  # says why not
        raise AssertionError

    def _encode(
        self, modality: str, data: str | bytes, model: str | None, name: str
    ) -> builtins.list[Encoded]:
        with self._typed_errors():
            request = pb.EncodeRequest(archive=self.name, model=model or "", name=name)
            setattr(request, modality, data)
            answer = self._stub.Encode(request, timeout=self._timeout_s)
            return [convert_stats.encoded_from_wire(each) for each in answer.encoded]

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
            on_duplicate=convert_add.on_duplicate_to_wire(on_duplicate),
            batch_size=min(batch_size, _MAX_INT32),
        )
        flush = pb.AddRequest(flush=pb.AddFlush())
        outbox = Outbox()
        with self._typed_errors():
            call = self._stub.Add(outbox)
        try:
            outbox.put(pb.AddRequest(options=options), call)
            rest = iter(items)
            while True:
                sent, refused = self._send_batch(islice(rest, batch_size), outbox, call)
                if not sent and not refused:
                    break
                if sent:
                    outbox.put(flush, call)
                    for response in self._answers(call, until_flushed=True):
                        yield refused + response
                        refused = []
                if refused:
                    yield refused
            outbox.close()
            yield from self._answers(call, until_flushed=False)
        finally:
            # Not in good order: what has been sent since the last answer is not to be stored.
            call.cancel()
            outbox.close()

    def _send_batch(
        self, items: Iterable[MediaItem], outbox: Outbox, call: grpc.Call
    ) -> tuple[int, builtins.list[AddResult]]:
        """Send items one by one; return how many, and those that could not be."""
        sent = 0
        refused = []
        for item in items:
            try:
                message = pb.AddRequest(item=_item_message(item))
            except BitternError as error:
                refused.append(
                    AddResult(
                        item.occurrence_id,
                        AddStatus.FAILED,
                        reason=error.reason,
                        message=error.message,
                    )
                )
            else:
                outbox.put(message, call)
                sent += 1
        return sent, refused

    def _answers(
        self, call: Iterator[pb.AddResponse], *, until_flushed: bool
    ) -> Iterator[builtins.list[AddResult]]:
        """Results of each commit, until the flush marker is answered or the stream has ended."""
        with self._typed_errors():
            for response in call:
                if response.results:
                    yield [convert_add.add_result_from_wire(each) for each in response.results]
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


def _item_message(item: MediaItem) -> pb.MediaItem:
    check_item(item)
    source = item.data if item.data is not None else item.path
    assert source is not None
    data = read_media(source, field="data")
    try:
        return convert_add.item_to_wire(item, data)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{item.media!r}: a value cannot be sent: {error}") from error
