"""Re-encoding: a new model's codes are added beside the old ones, then the archive switches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bittern.cli.app import app
from bittern.errors import ArchiveVersionError, ModelNotFoundError, PreconditionError
from bittern.index import folder, writer
from bittern.index.archive import Archive
from bittern.index.store import Store
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import IndexOptions, JobSpec
from bittern.service.jobs.indexing import JobControl, index_source
from bittern.service.jobs.reencode import give_up, reencode
from bittern.service.local.archive import LocalArchive
from bittern.service.sources import read_source
from bittern.types import AddStatus
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder, picture
from tests.history.killing import KilledError, Killer
from tests.history.states import state


@pytest.fixture
def spec(local: LocalArchive, tmp_path: Path, encoder: ToyEncoder) -> JobSpec:
    """From 64 bits to 32."""
    toy_model(encoder, bits=32).save(tmp_path / "toy32")
    return JobSpec("reencode", str(local.archive.path), model=str(tmp_path / "toy32"))


def states(local: LocalArchive) -> list[tuple[str, str]]:
    return [(record.name, record.state) for record in local.archive.registered()]


def best(local: LocalArchive, **options: object) -> tuple[str, str]:
    found = local.search(text="blue", target="image", k=1, **options)  # type: ignore[arg-type]
    return found.model, found.hits[0].observation.id


def stopped_after(commits: int) -> Callable[[], bool]:
    calls = [0]

    def cancelled() -> bool:
        calls[0] += 1
        return calls[0] > commits

    return cancelled


def test_everything_is_coded_anew_and_the_new_model_answers(
    local: LocalArchive, spec: JobSpec
) -> None:
    before = [(o.row, o.id, o.metadata) for o in local.list()]
    report = reencode(spec, local=local)
    assert report.state == "done"
    assert report.items[AddStatus.ADDED] == report.total == 7
    assert states(local) == [("toy-32", "ready"), ("toy-64", "retired")]
    assert best(local) == ("toy-32", "blue.png")
    assert best(local, model="toy-64") == ("toy-64", "blue.png")
    assert [(o.row, o.id, o.metadata) for o in local.list()] == before
    assert local.archive.verify() == []


def test_codes_are_those_of_an_archive_made_with_the_new_model(
    local: LocalArchive, spec: JobSpec, media: Path, tmp_path: Path, encoder: ToyEncoder
) -> None:
    reencode(spec, local=local)
    with Archive.create(tmp_path / "fresh") as made:
        fresh = LocalArchive(made, load_encoder=lambda name: encoder)
        index_source(fresh, read_source(media).entries, IndexOptions(model=spec.model))
        digest = fresh.registry.find().digest
        for seen in fresh.list():
            assert np.array_equal(made.code(seen.id, digest), local.archive.code(seen.id, digest))


def test_searches_go_on_with_the_old_model_until_the_switch(
    local: LocalArchive, spec: JobSpec
) -> None:
    seen = []

    def look(report: JobReport) -> None:
        if report.commits and states(local)[0][1] == "ready":
            seen.append((best(local), [m.state for m in local.archive.stats().models]))

    reencode(replace(spec, commit_items=2), local, JobControl(look))
    assert (("toy-64", "blue.png"), ["ready", "pending"]) in seen


def test_a_job_that_was_stopped_goes_on_with_what_is_missing(
    local: LocalArchive, spec: JobSpec, encoder: ToyEncoder
) -> None:
    small = replace(spec, commit_items=1)
    stopped = reencode(small, local, JobControl(cancelled=stopped_after(4)))
    assert stopped.state == "stopped"
    assert states(local) == [("toy-64", "ready"), ("toy-32", "pending")]
    assert best(local)[0] == "toy-64"
    done = reencode(small, local=local)
    assert done.state == "done"
    assert stopped.done + done.done == 7
    again = reencode(small, local=local)
    assert (again.state, again.done) == ("done", 0)
    assert "already" in again.warnings[0]


def test_media_that_are_gone_or_changed_keep_the_old_model(
    local: LocalArchive, spec: JobSpec, media: Path
) -> None:
    (media / "red.png").unlink()
    (media / "green.png").write_bytes(picture("blue"))
    report = reencode(spec, local=local)
    assert report.state == "failed"
    assert report.error.startswith("2 media")
    reasons = {failure.occurrence_id: failure.reason for failure in report.failures}
    assert reasons == {"red.png": "SOURCE_NOT_FOUND", "green.png": "MEDIA_CHANGED"}
    assert best(local)[0] == "toy-64"
    allowed = reencode(replace(spec, allow_missing=True), local=local)
    assert allowed.state == "done"
    assert best(local)[0] == "toy-32"


def test_media_that_were_moved_are_found_where_they_are_now(
    local: LocalArchive, spec: JobSpec, media: Path, tmp_path: Path
) -> None:
    media.rename(tmp_path / "moved")
    moved = replace(spec.reading, media=str(tmp_path / "moved"))
    assert reencode(replace(spec, reading=moved), local=local).state == "done"


def test_stored_embeddings_spare_the_media(
    empty: LocalArchive, media: Path, options: IndexOptions, tmp_path: Path, encoder: ToyEncoder
) -> None:
    index_source(empty, read_source(media).entries, replace(options, keep_embeddings=True))
    toy_model(encoder, bits=32).save(tmp_path / "toy32")
    for path in media.rglob("*.*"):
        path.unlink()
    encoder.batches.clear()
    spec = JobSpec(
        "reencode", str(empty.archive.path), model=str(tmp_path / "toy32"), drop_old=True
    )
    assert reencode(spec, local=empty).state == "done"
    assert encoder.batches == []
    assert best(empty) == ("toy-32", "blue.png")
    back = replace(spec, model=str(options.model), drop_old=False)
    assert reencode(back, local=empty).state == "done"
    assert states(empty) == [("toy-64", "ready"), ("toy-32", "retired")]
    assert best(empty) == ("toy-64", "blue.png")


def test_the_old_model_is_dropped_with_its_codes_and_files(
    local: LocalArchive, spec: JobSpec
) -> None:
    old = local.registry.find()
    report = reencode(replace(spec, drop_old=True), local=local)
    assert report.state == "done"
    assert states(local) == [("toy-32", "ready")]
    assert not (local.archive.path / "models" / old.digest).exists()
    assert not [name for name in local.archive._store.columns if old.digest[:16] in name]
    with pytest.raises(ModelNotFoundError):
        local.registry.find("toy-64")
    assert local.archive.verify() == []


def saved(tmp_path: Path, encoder: ToyEncoder, bits: int) -> str:
    toy_model(encoder, bits=bits).save(tmp_path / f"toy{bits}")
    return str(tmp_path / f"toy{bits}")


def test_only_the_model_that_is_replaced_is_dropped_and_named_with_its_rows(
    local: LocalArchive, spec: JobSpec, media: Path, tmp_path: Path, encoder: ToyEncoder
) -> None:
    second = IndexOptions(model=saved(tmp_path, encoder, 128))
    index_source(local, read_source(media).entries, second)
    reencode(replace(spec, model=saved(tmp_path, encoder, 16)), local=local)
    assert states(local) == [("toy-16", "ready"), ("toy-64", "retired"), ("toy-128", "ready")]
    notes: list[str] = []
    drop = replace(spec, drop_old=True)
    reencode(drop, local, JobControl(lambda report: notes.extend(report.notes[len(notes) :])))
    left = [("toy-32", "ready"), ("toy-64", "retired"), ("toy-128", "ready")]
    assert states(local) == left
    rows = sum(local.stats().observations.values())
    assert notes == [
        f"to be dropped with its codes, once toy-32 has coded all: toy-16 ({rows} rows)",
        f"dropped with its codes: toy-16 ({rows} rows)",
    ]
    assert reencode(drop, local=local).notes == []
    assert states(local) == left


def test_what_a_model_has_replaced_can_be_dropped_later(local: LocalArchive, spec: JobSpec) -> None:
    reencode(spec, local=local)
    reencode(replace(spec, drop_old=True), local=local)
    assert states(local) == [("toy-32", "ready")]


def test_a_snapshot_keeps_the_model_that_was_dropped_and_brings_it_back(
    local: LocalArchive, spec: JobSpec
) -> None:
    local.archive.take_snapshot("before")
    reencode(replace(spec, drop_old=True), local=local)
    with Archive.open(local.archive.path, snapshot="before") as then:
        assert [record.name for record in then.model_records()] == ["toy-64"]
    local.archive.restore("before")
    assert states(local) == [("toy-64", "ready")]
    assert best(local) == ("toy-64", "blue.png")


class OtherWindows(ToyEncoder):
    """Windows of half a second."""

    windowing = replace(ToyEncoder.windowing, window_s=0.5, hop_s=0.5)  # type: ignore[type-var]


def test_windows_that_only_the_old_model_had_go_with_it(
    local: LocalArchive, tmp_path: Path
) -> None:
    halves = OtherWindows(name="halves", salt="h")
    saved = toy_model(halves, bits=32)
    saved.save(tmp_path / "halves")
    with Archive.open(local.archive.path) as reader:
        windows = len(reader.rows("modality = 'audio'"))
    local.close()
    spec = JobSpec("reencode", str(local.archive.path), model=str(tmp_path / "halves"))
    with Archive.open(local.archive.path, write=True) as archive:
        other = LocalArchive(archive, load_encoder=lambda name: halves)
        assert reencode(spec, local=other).state == "done"
        both = len(archive.rows("modality = 'audio'"))
        assert reencode(replace(spec, drop_old=True), local=other).state == "done"
        left = len(archive.rows("modality = 'audio'"))
        assert left == 2 * windows
        assert both == windows + left
        assert archive.verify() == []


def test_readers_notice_the_switch_without_being_opened_again(
    local: LocalArchive, spec: JobSpec, encoder: ToyEncoder
) -> None:
    with Archive.open(local.archive.path) as opened:
        served = LocalArchive(opened, load_encoder=lambda name: encoder)
        assert best(served)[0] == "toy-64"
        reencode(replace(spec, drop_old=True), local=local)
        assert best(served) == ("toy-32", "blue.png")


def test_earlier_versions_refuse_an_archive_only_while_a_model_is_pending(
    local: LocalArchive, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    reencode(replace(spec, commit_items=1), local, JobControl(cancelled=stopped_after(3)))
    with monkeypatch.context() as earlier:
        earlier.setattr(folder, "FORMAT_VERSION", 1)
        with pytest.raises(ArchiveVersionError):
            Archive.open(local.archive.path)
    reencode(spec, local=local)
    monkeypatch.setattr(folder, "FORMAT_VERSION", 1)
    with Archive.open(local.archive.path) as opened:
        assert len(opened.model_records()) == 2


def test_a_pending_model_is_not_indexed_with(
    local: LocalArchive, spec: JobSpec, media: Path
) -> None:
    reencode(replace(spec, commit_items=1), local, JobControl(cancelled=stopped_after(3)))
    with pytest.raises(PreconditionError, match="bittern reencode"):
        index_source(local, read_source(media).entries, IndexOptions(model=spec.model))


def test_a_kill_at_any_write_of_the_header_or_column_is_made_good_by_the_same_command(
    local: LocalArchive, spec: JobSpec, monkeypatch: pytest.MonkeyPatch, encoder: ToyEncoder
) -> None:
    path = local.archive.path
    local.close()
    spec = replace(spec, drop_old=True)
    for last in range(60):
        with monkeypatch.context() as patched:
            killer = Killer(patched, last)
            killer.watch(folder, "write_json")
            killer.watch(writer, "drop_files")
            killer.watch(Store, "append", "merge", "delete", "add_columns", "drop_columns")
            try:
                with Archive.open(path, write=True) as archive:
                    reencode(spec, local=LocalArchive(archive, load_encoder=lambda name: encoder))
                break
            except KilledError:
                pass
        with Archive.open(path) as reader:
            assert best(LocalArchive(reader, load_encoder=lambda name: encoder))[1] == "blue.png"
    assert last >= 4
    with Archive.open(path) as reader:
        assert [record.name for record in reader.registered()] == ["toy-32"]
        assert reader.verify() == []


# Giving up an interrupted re-encoding


def left_of(path: Path, digest: str) -> list[str]:
    """Columns, files and name of a model that an archive still has."""
    with Archive.open(path) as archive:
        assert archive.verify() == []
        columns = [name for name in archive._store.columns if digest[:16] in name]
    named = digest in (path / "archive.json").read_text()
    return [
        *columns,
        *(["files"] if (path / "models" / digest).exists() else []),
        *["name"] * named,
    ]


def test_giving_up_removes_the_model_and_what_it_has_coded(
    local: LocalArchive,
    spec: JobSpec,
) -> None:
    before, path = state(local.archive), local.archive.path
    reencode(replace(spec, commit_items=1), local, JobControl(cancelled=stopped_after(3)))
    [digest] = [one.digest for one in local.archive.registered() if one.state == "pending"]
    local.close()
    assert json.loads((path / "archive.json").read_text())["format_version"] == 2
    arguments = ["reencode", str(path), "--model", spec.model, "--give-up", "--json"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.output)["given_up"] == {"name": "toy-32", "digest": digest}
    assert json.loads((path / "archive.json").read_text())["format_version"] == 1
    assert left_of(path, digest) == []
    with Archive.open(path) as archive:
        assert state(archive) == before
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, ModelNotFoundError)


def test_a_model_that_is_in_use_is_not_given_up(local: LocalArchive) -> None:
    with pytest.raises(ModelNotFoundError, match="pending models: none"):
        give_up(local.archive, "toy-64")
    with pytest.raises(PreconditionError, match="ready, not pending"):
        local.archive.writer.give_up(local.registry.find().digest)
    assert states(local) == [("toy-64", "ready")]


def test_windows_that_only_the_given_up_model_had_go_with_it(
    local: LocalArchive, tmp_path: Path, media: Path
) -> None:
    halves = OtherWindows(name="halves", salt="h")
    toy_model(halves, bits=32).save(tmp_path / "halves")
    before, path = state(local.archive), local.archive.path
    local.close()
    job = JobSpec("reencode", str(path), model=str(tmp_path / "halves"), commit_items=1)
    with Archive.open(path, write=True) as archive:
        other = LocalArchive(archive, load_encoder=lambda name: halves)
        for path_of in (media / "red.png", media / "green.png"):
            path_of.unlink()  # so that there is no switch
        assert reencode(job, local=other).state == "failed"
        assert len(archive.rows()) > len(before["observations"])
        assert give_up(archive, job.model) is not None
        assert state(archive) == before
        assert archive.verify() == []


def test_a_kill_during_giving_up_is_repaired_by_the_same_command(
    local: LocalArchive,
    spec: JobSpec,
    monkeypatch: pytest.MonkeyPatch,
    encoder: ToyEncoder,
) -> None:
    reencode(replace(spec, commit_items=1), local, JobControl(cancelled=stopped_after(3)))
    [digest] = [one.digest for one in local.archive.registered() if one.state == "pending"]
    before, path = state(local.archive), local.archive.path
    local.close()
    for last in range(60):
        with monkeypatch.context() as patched:
            killer = Killer(patched, last)
            killer.watch(folder, "write_json")
            killer.watch(Store, "drop_columns")
            killer.watch(writer, "drop_files")
            try:
                with Archive.open(path, write=True) as archive:
                    give_up(archive, spec.model)
                break
            except KilledError:
                pass
        with Archive.open(path) as reader:
            assert state(reader) == before
            assert best(LocalArchive(reader, load_encoder=lambda name: encoder))[1] == "blue.png"
    assert last >= 3
    assert left_of(path, digest) == []
