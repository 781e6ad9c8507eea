"""Codes a source into a Parquet file; a running job stores Parquet parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from bittern.errors import InvalidInputError, SourceNotFoundError
from bittern.files import check_output_file
from bittern.service.ingest.commit import reject_unusable
from bittern.service.ingest.items import Embedded
from bittern.service.ingest.parquet_parts import ParquetParts, table_of
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import JobControl, fit_on_first
from bittern.service.jobs.model_choice import check_modalities, ready_model, with_encoder
from bittern.service.models.model import Embedders, Model, catalogue_encoder
from bittern.service.sources.base import Entry
from bittern.types import AddResult, AddStatus


def encode_source(
    entries: Iterable[Entry],
    to: Path,
    options: IndexOptions,
    control: JobControl | None = None,
    *,
    job: Mapping[str, Any] | None = None,
    embedders: Embedders | None = None,
) -> JobReport:
    """Code every entry into the Parquet file `to`; it appears when it is complete.

    The same call again continues a run that was stopped or killed.

    Args:
        entries: from `bittern.service.sources.read_source`; iterated lazily.
        to: a Parquet file.
        options: model, commits, and whether embeddings are stored too; the rest is ignored.
        control: progress and cancellation.
        job: the source, as JSON values; with the model they identify the job that may be resumed.
        embedders: encoders, perhaps loaded.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
        SourceNotFoundError: none of the entries could be coded.
        PreconditionError: the file has parts of another job.
    """
    control = control or JobControl()
    check_parquet(to)
    embedders, options = embedders or Embedders(catalogue_encoder), with_encoder(options)
    saved = ready_model(options, embedders.named)
    embedder = embedders.of(saved) if saved else embedders.named(options.model)
    embedder.encoder()
    if saved is not None:
        check_modalities(f"model '{saved.card.name}'", Model(saved, embedder).modalities, entries)
    about = {"model": options.model, "bits": options.wanted_bits, "hasher": options.hasher}
    about["digest"] = saved.card.digest if saved else None
    # Not named where they are not used: parts of earlier releases name neither.
    about |= {"keep_embeddings": True} if options.keep_embeddings else {}
    about |= {"embeddings": control.embeddings.digest} if control.embeddings else {}
    parts = ParquetParts.begin(to, {**(job or {}), **about})
    try:
        control.on_progress(control.report)
        saved = saved or parts.fitted_model()
        if saved is not None:
            model = Model(saved, embedder)
            supported = reject_unusable(model, entries)
            stream = control.embed(embedder, parts.without_coded(supported, model.digest), saved)
        else:
            saved, stream = fit_on_first(
                control.embed(embedder, entries), embedder, options, control
            )
            if saved is None:
                return _nothing(parts, control)
            parts.keep_model(saved)
            model = Model(saved, embedder)
        report = control.report
        report.model, report.digest = model.card.name, model.digest
        commit = partial(_commit, parts, model, report, keep_embeddings=options.keep_embeddings)
        control.store(stream, commit, options)
        if not parts.rows:
            return _nothing(parts, control)
        if not control.cancelled():
            parts.join()
        return control.finish()
    finally:
        parts.close()


def _nothing(parts: ParquetParts, control: JobControl) -> JobReport:
    """End a job without a row: an error, unless it was cancelled."""
    if control.cancelled():
        return control.finish()
    parts.remove()
    raise nothing_usable("the media", control.report)


def _commit(
    parts: ParquetParts,
    model: Model,
    report: JobReport,
    batch: Sequence[Embedded],
    *,
    keep_embeddings: bool,
) -> list[AddResult]:
    """Write one part with the entries that no earlier part covers."""
    fresh = parts.fresh(batch)
    if fresh:
        begun = perf_counter()
        table = table_of(fresh, model, keep_embeddings=keep_embeddings)
        hashed = perf_counter()
        failures = [e.result for e in fresh if e.result and e.result.status == AddStatus.FAILED]
        listed = [entry for e in fresh if (entry := e.item or e.result) is not None]
        size = parts.write(table, listed, failures)
        report.stages["hash"].add(table.num_rows, busy_s=hashed - begun)
        report.stages["commit"].add(table.num_rows, busy_s=perf_counter() - hashed, size=size)
    return [_result(embedded) for embedded in batch]


def _result(embedded: Embedded) -> AddResult:
    if embedded.result is not None:
        return embedded.result
    assert embedded.item is not None
    return AddResult(embedded.item.occurrence_id, AddStatus.ADDED, len(embedded.embeddings))


def nothing_usable(what: str, report: JobReport) -> SourceNotFoundError:
    """The error of a job without a single usable item; names the first failures."""
    shown = "; ".join(failure.message for failure in report.failures[:3])
    return SourceNotFoundError(f"none of {what} could be used: {shown}")


def check_parquet(to: Path) -> None:
    """Check that a Parquet file can be written at `to`.

    Raises:
        InvalidInputError: another suffix, or as `check_output_file`.
    """
    if to.suffix.lower() != ".parquet":
        raise InvalidInputError(f"codes are written as Parquet; name the file {to.stem}.parquet")
    check_output_file(to)
