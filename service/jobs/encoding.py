"""Codes of a source in a Parquet file, without an archive.

Codes are kept in parts while the job runs (`service.parts`); the file appears when all are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from bittern.errors import InvalidInputError, SourceNotFoundError
from bittern.service.ingest.commit import CommitPolicy, reject_unsupported, store_all
from bittern.service.ingest.items import Embedded, Entry
from bittern.service.ingest.parquet_parts import (
    BIT_ORDER,
    ParquetParts,
    about_codes,
    schema_of,
    table_of,
)
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.indexing import (
    Embedding,
    Watch,
    chained,
    close,
    embed_here,
    enough_to_fit,
    fitted_on_sample,
    warnings_of,
)
from bittern.service.jobs.model_choice import IndexOptions, check_modalities, ready_model
from bittern.service.models.loaded import Embedders, EncoderLoader, Model, catalogue_encoder
from bittern.types import AddResult, AddStatus

__all__ = [
    "BIT_ORDER",
    "about_codes",
    "check_folder",
    "check_parquet",
    "code_source",
    "schema_of",
]


def code_source(
    entries: Iterable[Entry],
    to: Path,
    options: IndexOptions,
    watch: Watch | None = None,
    *,
    job: Mapping[str, Any] | None = None,
    fetch: tuple[str, ...] = (),
    load_encoder: EncoderLoader = catalogue_encoder,
    embedders: Embedders | None = None,
    embed: Embedding | None = None,
) -> JobReport:
    """Code every entry into the Parquet file `to`; it appears when it is complete.

    A run that was stopped or killed is gone on with by the same call.

    Args:
        entries: what `bittern.service.sources.read_source` listed; gone through lazily.
        to: a Parquet file.
        options: which model, and when to commit; nothing else of them plays a part.
        watch: who looks on.
        job: JSON values that tell this job from others that might write the same file: its
            source. The model is among them anyway.
        fetch: beginnings of addresses that may be fetched.
        load_encoder: from a catalogue name to an encoder.
        embedders: encoders that may be loaded already, instead of `load_encoder`.
        embed: what embeds; this process by default.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
        SourceNotFoundError: none of the entries could be coded.
        PreconditionError: parts of another job are in the way.
    """
    watch = watch or Watch()
    check_parquet(to)
    check_folder(to)
    embedders, options = embedders or Embedders(load_encoder), options.named()
    saved = ready_model(options, embedders.named)
    embedder = embedders.of(saved) if saved else embedders.named(options.model)
    embedder.encoder()
    if saved is not None:
        check_modalities(f"model '{saved.card.name}'", Model(saved, embedder).modalities, entries)
    asked = {"model": options.model, "bits": options.wanted_bits, "hasher": options.hasher}
    asked["digest"] = saved.card.digest if saved else None
    parts = ParquetParts.begin(to, {**(job or {}), **asked})
    try:
        watch.on_progress(watch.report)
        saved = saved or parts.fitted_model()
        stream: Iterator[Embedded]
        begin = partial(
            embed or embed_here,
            embedder,
            stages=watch.report.stages,
            cancelled=watch.cancelled,
            fetch=fetch,
        )
        if saved is not None:
            model = Model(saved, embedder)
            taken = reject_unsupported(model, entries)
            stream = begin(parts.without_coded(taken, model.digest), saved=saved)
        else:
            stream = begin(entries, saved=None)
            first = enough_to_fit(watch.told(stream))
            if watch.cancelled():
                close(stream)
                return watch.finish()
            saved = fitted_on_sample(embedder, first, options)
            if saved is None:
                parts.remove()
                watch.report.count([e.result for e in first if e.result is not None])
                raise _nothing_usable(watch.report)
            watch.report.warnings += warnings_of(first)
            parts.keep_model(saved)
            model = Model(saved, embedder)
            stream = chained(first, stream)
        return _store(stream, parts, model, options, watch)
    finally:
        parts.close()


def _store(
    stream: Iterator[Embedded],
    parts: ParquetParts,
    model: Model,
    options: IndexOptions,
    watch: Watch,
) -> JobReport:
    report = watch.report
    report.model, report.digest = model.card.name, model.digest
    pace = CommitPolicy(options.commit_items, options.commit_s)
    commit = partial(_commit, parts, model, report)
    store_all(stream, commit, report, policy=pace, on_progress=watch.on_progress)
    if watch.cancelled():
        return watch.finish()
    if not parts.rows:
        parts.remove()
        raise _nothing_usable(report)
    parts.join()
    return watch.finish()


def _commit(
    parts: ParquetParts, model: Model, report: JobReport, batch: Sequence[Embedded]
) -> list[AddResult]:
    """Write one part; entries that older parts hold are no matter of it."""
    results = [_result(embedded) for embedded in batch]
    fresh = parts.fresh(batch)
    if fresh:
        begun = perf_counter()
        table = table_of(fresh, model)
        hashed = perf_counter()
        failures = [e.result for e in fresh if e.result and e.result.status == AddStatus.FAILED]
        size = parts.write(table, [_listed(e) for e in fresh], failures)
        report.stages["hash"].add(table.num_rows, busy_s=hashed - begun)
        report.stages["commit"].add(table.num_rows, busy_s=perf_counter() - hashed, size=size)
    return results


def _listed(embedded: Embedded) -> Entry:
    entry = embedded.item or embedded.result
    assert entry is not None
    return entry


def _nothing_usable(report: JobReport) -> SourceNotFoundError:
    shown = "; ".join(f.message for f in report.failures[:3])
    return SourceNotFoundError(f"none of the media could be used: {shown}")


def check_folder(to: Path) -> None:
    """Check that a file can be written at `to`, before any work is done for it.

    Raises:
        InvalidInputError: its folder is not there, or `to` is a folder itself.
    """
    if not to.absolute().parent.is_dir():
        raise InvalidInputError(f"there is no folder {to.parent} to write {to.name} into")
    if to.is_dir():
        raise InvalidInputError(f"{to} is a folder; name a file in it")


def check_parquet(to: Path) -> None:
    """Check that the name of a Parquet file says so.

    Raises:
        InvalidInputError: another suffix.
    """
    if to.suffix.lower() != ".parquet":
        raise InvalidInputError(f"codes are written as Parquet; name the file {to.stem}.parquet")


def _result(embedded: Embedded) -> AddResult:
    if embedded.result is not None:
        return embedded.result
    assert embedded.item is not None
    return AddResult(embedded.item.occurrence_id, AddStatus.ADDED, len(embedded.embeddings))
