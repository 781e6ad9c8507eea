"""Every error that Bittern raises on purpose, as one tree.

    BitternError
    ├── InvalidInputError              INVALID_ARGUMENT
    │   ├── MediaError                 a photograph or recording that cannot be used
    │   │   ├── UnreadableMediaError       damaged, truncated, empty, or a header that lies
    │   │   ├── UnsupportedMediaError      a format that is not on the list
    │   │   └── MediaTooLargeError         more pixels, samples or bytes than the limit
    │   ├── QueryError                 k, target, metric, empty text, unusable combination
    │   ├── FilterError                a `where` that is not a filter over known columns
    │   ├── CodeError                  wrong length, dtype or shape of codes or logits
    │   ├── MetadataError              a value that its column cannot hold
    │   ├── ManifestError              a manifest that cannot be read, or one of its rows
    │   ├── LayoutError                benchmark data with missing files, or in another layout
    │   └── QrelsError                 relevance judgements that cannot be used
    ├── NotFoundError                  NOT_FOUND
    │   ├── ObservationNotFoundError
    │   ├── ModelNotFoundError
    │   ├── SourceNotFoundError
    │   ├── JobNotFoundError
    │   └── ArchiveNotFoundError
    ├── DuplicateObservationError      ALREADY_EXISTS
    ├── PreconditionError              FAILED_PRECONDITION
    │   ├── WeightsMissingError            a model's weights are not on this machine
    │   ├── DigestMismatchError            codes and query come from different models
    │   ├── UnsupportedModalityError       no loaded model has the tower that is needed
    │   ├── ArchiveLockedError             another process writes to this archive
    │   ├── TrainingError                  a training that cannot go on or resume
    │   └── ArchiveVersionError            made by a newer version of Bittern
    ├── ArchiveDamagedError            DATA_LOSS
    ├── ModelDamagedError              DATA_LOSS
    ├── LimitExceededError             RESOURCE_EXHAUSTED
    ├── DeadlineExceededError          DEADLINE_EXCEEDED
    ├── SourceUnreachableError         UNAVAILABLE (an address that does not answer as it should)
    ├── ServiceUnavailableError        UNAVAILABLE (raised by the client)
    │   └── ShardUnavailableError          part of a sharded index is lost, and being read again
    └── InternalError                  INTERNAL    (raised by the client)

A message says what was wrong, with the values, and what to do about it. `reason` is the
stable machine-readable name that travels in `google.rpc.ErrorInfo`; `field` names the
offending request field for `google.rpc.BadRequest`; `details` holds the values as strings.
"""

from __future__ import annotations

from typing import ClassVar


class BitternError(Exception):
    """Root of the tree.

    Args:
        message: what was wrong, with the values, and the remedy.
        field: the argument, column or request field at fault, if there is one.
        details: the values behind the message, for programs.
    """

    status: ClassVar[str] = "INTERNAL"
    """Name of the `grpc.StatusCode` that this error maps to."""

    def __init__(
        self, message: str, *, field: str = "", details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.details = dict(details or {})

    @property
    def reason(self) -> str:
        """Stable upper-snake-case name, e.g. ``UNREADABLE_MEDIA``."""
        name = type(self).__name__.removesuffix("Error")
        return "".join("_" + c if c.isupper() and i else c for i, c in enumerate(name)).upper()


class InvalidInputError(BitternError):
    """The caller's input cannot be used as it is."""

    status = "INVALID_ARGUMENT"


class MediaError(InvalidInputError):
    """A photograph or recording that cannot be used."""


class UnreadableMediaError(MediaError):
    """The bytes are damaged, truncated, empty, or not what their header says."""


class UnsupportedMediaError(MediaError):
    """The bytes are of a format that is not on the list."""


class MediaTooLargeError(MediaError):
    """More pixels, samples or bytes than the limit allows."""


class QueryError(InvalidInputError):
    """A search request that cannot be answered."""


class FilterError(InvalidInputError):
    """A `where` that is not a filter over the archive's columns."""


class CodeError(InvalidInputError):
    """Codes, logits or embeddings of the wrong length, shape or dtype."""


class MetadataError(InvalidInputError):
    """A metadata value that its column cannot hold."""


class ManifestError(InvalidInputError):
    """A manifest, or one of its rows, cannot be used."""


class LayoutError(InvalidInputError):
    """Benchmark data with missing files, or not in the published layout."""


class QrelsError(InvalidInputError):
    """Relevance judgements, or runs, that cannot be used."""


class NotFoundError(BitternError):
    """Something that was named does not exist."""

    status = "NOT_FOUND"


class ObservationNotFoundError(NotFoundError):
    """No observation has this id."""


class ModelNotFoundError(NotFoundError):
    """No model has this name."""


class SourceNotFoundError(NotFoundError):
    """The folder or file with the media does not exist."""


class JobNotFoundError(NotFoundError):
    """A server has no job of this id."""


class ArchiveNotFoundError(NotFoundError):
    """There is no archive at this path or under this name."""


class DuplicateObservationError(BitternError):
    """An observation with this `occurrenceID` is already in the archive."""

    status = "ALREADY_EXISTS"


class PreconditionError(BitternError):
    """The system is not in the state that the request needs."""

    status = "FAILED_PRECONDITION"


class WeightsMissingError(PreconditionError):
    """A model's weights are not on this machine."""


class DigestMismatchError(PreconditionError):
    """Codes and query were made by different models."""


class UnsupportedModalityError(PreconditionError):
    """No model at hand has the tower that the request needs."""


class ArchiveLockedError(PreconditionError):
    """Another process is writing to this archive."""


class TrainingError(PreconditionError):
    """A training run cannot go on (it diverged or collapsed), or resume with other options."""


class ArchiveVersionError(PreconditionError):
    """The archive was made by a newer version of Bittern."""


class ArchiveDamagedError(BitternError):
    """Files of the archive are missing or contradict each other."""

    status = "DATA_LOSS"


class ModelDamagedError(BitternError):
    """Files of a saved model are missing or contradict its card."""

    status = "DATA_LOSS"


class LimitExceededError(BitternError):
    """A stated limit on size or number was passed."""

    status = "RESOURCE_EXHAUSTED"


class DeadlineExceededError(BitternError):
    """The caller's deadline passed before the answer was ready."""

    status = "DEADLINE_EXCEEDED"


class SourceUnreachableError(BitternError):
    """Media, or a list of them, cannot be fetched from their address."""

    status = "UNAVAILABLE"


class ServiceUnavailableError(BitternError):
    """The server cannot be reached."""

    status = "UNAVAILABLE"


class ShardUnavailableError(ServiceUnavailableError):
    """Part of a sharded index cannot be searched now."""


class InternalError(BitternError):
    """The server failed in a way that it did not foresee."""
