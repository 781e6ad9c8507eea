"""What a job is to do, as plain values: they survive a restart and can be sent elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from bittern.errors import InvalidInputError
from bittern.hashing.training_free import Kind
from bittern.service.sources import SourceOptions
from bittern.types import OnDuplicate

JobKind = Literal["index", "encode", "reencode"]
"""Into an archive; into a Parquet file; the media of an archive anew, with another model."""
EngineKind = Literal["local", "ray"]


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job.

    Attributes:
        kind: what is to be done.
        target: archive folder, or Parquet file.
        source: folder, file or address of what is to be coded; empty for ``reencode``.
        reading: how the source is to be read.
        model: see `bittern.service.jobs.model_choice.IndexOptions`; so are the next four.
        bits: code length, where a hasher is made.
        hasher: kind of hasher, where one is made.
        on_duplicate: what to do with items that the archive has already.
        keep_embeddings: store float16 embeddings beside the codes.
        commit_items: most items of one commit.
        commit_s: seconds after which what is coded is committed, however little that is.
        strict: whether one failed item makes the job fail, at its end.
        engine: what runs it.
        workers: processes of the network, for the engine ``ray``.
        drop_old: for ``reencode``, remove the models that the new one replaces, and their codes.
        allow_missing: for ``reencode``, switch although some media could not be coded anew.
    """

    kind: JobKind
    target: str
    source: str = ""
    reading: SourceOptions = field(default_factory=SourceOptions)
    model: str = ""
    bits: int | None = None
    hasher: Kind | None = None
    on_duplicate: OnDuplicate = "skip"
    keep_embeddings: bool = False
    commit_items: int = 64
    commit_s: float = 30.0
    strict: bool = False
    engine: EngineKind = "local"
    workers: int = 1
    drop_old: bool = False
    allow_missing: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "reading": self.reading.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobSpec:
        """The job behind `to_json`.

        Raises:
            InvalidInputError: it is not such a value.
        """
        try:
            known = {**value, "reading": SourceOptions.from_json(value["reading"])}
            return cls(**known).checked()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"this is not a job: {error}", field="job") from error

    def checked(self) -> JobSpec:
        """The job, if its values are usable.

        Raises:
            InvalidInputError: one of them is not.
        """
        choices = {
            "kind": get_args(JobKind),
            "on_duplicate": get_args(OnDuplicate),
            "engine": get_args(EngineKind),
            "hasher": (None, *get_args(Kind)),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                shown = ", ".join(str(one) for one in allowed if one is not None)
                raise InvalidInputError(
                    f"{name} must be one of {shown}, not {getattr(self, name)!r}", field=name
                )
        for name, low in (("commit_items", 1), ("commit_s", 0.01), ("workers", 1)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float) or number < low:
                raise InvalidInputError(f"{name} must be {low} or more, not {number!r}", field=name)
        if self.workers != 1 and self.engine != "ray":
            raise InvalidInputError(
                "workers are processes of the engine ray; leave them out, or add --engine ray",
                field="workers",
            )
        if not self.target or (self.kind != "reencode" and not self.source):
            raise InvalidInputError("a job needs a source and a target", field="source")
        return self
