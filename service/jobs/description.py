"""`JobSpec`, the validated description of a job.

The command line, Python, the queue of a server, its records and the wire all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from bittern.errors import InvalidInputError
from bittern.hashing.training_free import Kind
from bittern.service.sources import SourceOptions
from bittern.types import OnDuplicate

JobKind = Literal["index", "encode", "reencode"]
"""Code into an archive; into a Parquet file; an archive again, with another model."""
DEFAULT_BITS = 256
T = TypeVar("T")
_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class IndexOptions:
    """How media are coded and committed.

    Attributes:
        model: the first that exists of: a model of the archive, an encoder of the catalogue, a
            shipped model, the folder of a saved one, or that folder's name in `./models` or
            `$BITTERN_MODELS`. Empty: the archive's first searched model that takes the
            source's media; `field` for a new archive, or with `bits` or `hasher`.
        bits: code length, if a hasher is fitted; None for 256.
        hasher: kind of hasher, if one is fitted; None for the encoder's default.
        on_duplicate: what to do with items that are in the archive already.
        keep_embeddings: store float16 embeddings beside the codes.
        commit_items: most items of one atomic commit.
        commit_s: most seconds that a coded item waits for its commit.

    Raises:
        InvalidInputError: an unusable value.
    """

    model: str = ""
    bits: Annotated[int, Field(strict=True)] | None = None
    hasher: Kind | None = None
    on_duplicate: OnDuplicate = "skip"
    keep_embeddings: bool = False
    commit_items: Annotated[int, Field(ge=1)] = 64
    commit_s: Annotated[float, Field(ge=0.01)] = 30.0

    @model_validator(mode="wrap")
    @classmethod
    def _typed_errors(cls, value: Any, validate: Callable[[Any], T]) -> T:
        try:
            return validate(value)
        except ValidationError as error:
            raise _invalid(error) from error

    @property
    def wanted_bits(self) -> int:
        """Code length of a hasher that is fitted now."""
        return DEFAULT_BITS if self.bits is None else self.bits


@dataclass(frozen=True, config=_CONFIG)
class JobSpec(IndexOptions):
    """One job.

    Attributes:
        kind: what to do.
        target: archive folder or Parquet file.
        source: folder, file or address of the media; empty for ``reencode``.
        reading: how to read the source.
        embeddings: file or folder with the media's embeddings, see
            `bittern.service.ingest.precomputed`; no media are read then. Only for jobs of the
            command line: it is not on the wire.
        strict: whether the job has failed at its end if one item has.
        engine: whether the network runs in this process or in workers of Ray.
        workers: number of these workers.
        drop_old: for ``reencode``, remove the replaced models and their codes.
        allow_missing: for ``reencode``, switch although some media could not be coded again.

    Raises:
        InvalidInputError: an unusable value.
    """

    kind: JobKind
    target: str
    source: str = ""
    reading: SourceOptions = field(default_factory=SourceOptions)
    embeddings: str = ""
    strict: bool = False
    engine: Literal["local", "ray"] = "local"
    workers: Annotated[int, Field(strict=True, ge=1)] = 1
    drop_old: bool = False
    allow_missing: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> JobSpec:
        if self.workers != 1 and self.engine != "ray":
            raise InvalidInputError(
                "workers are processes of the engine ray; leave them out, or add --engine ray",
                field="workers",
            )
        if self.embeddings and (self.engine == "ray" or self.kind == "reencode"):
            raise InvalidInputError(
                "embeddings that exist are read, not computed: leave out --engine ray"
                if self.engine == "ray"
                else "a job reencode takes no embeddings: it uses those that the archive has",
                field="embeddings",
            )
        if not self.target or (self.kind != "reencode" and not self.source):
            raise InvalidInputError("a job needs a source and a target", field="source")
        return self

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        values: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobSpec:
        """The inverse of `to_json`.

        Raises:
            InvalidInputError: not a job.
        """
        return _ADAPTER.validate_python(value)


_ADAPTER = TypeAdapter(JobSpec)


def _invalid(error: ValidationError) -> InvalidInputError:
    """``on_duplicate must be 'error', 'skip' or 'overwrite', not 'never'``."""
    first = error.errors()[0]
    name = ".".join(str(one) for one in first["loc"] if one != "constrained-int") or "the job"
    wanted = first["msg"].replace("Input should be", "must be")
    return InvalidInputError(f"{name} {wanted}, not {first['input']!r:.200}", field=name)
