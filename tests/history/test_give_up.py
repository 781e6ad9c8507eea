"""A re-encoding that was cut off can be given up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bittern.cli.app import app
from bittern.errors import ModelNotFoundError, PreconditionError
from bittern.index import folder, writer
from bittern.index.archive import Archive
from bittern.index.store import Store
from bittern.service.engine import Engine
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.indexing import JobControl
from bittern.service.jobs.reencode import give_up, reencode
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder
from tests.history.killing import KilledError, Killer
from tests.history.states import state
from tests.history.test_reencode import (
    OtherWindows,
    best,
    spec,  # noqa: F401 - fixture
    states,
    stopped_after,
)


def left_of(path: Path, digest: str) -> list[str]:
    """What an archive still has of a model."""
    with Archive.open(path) as archive:
        assert archive.verify() == []
        columns = [name for name in archive._store.columns if digest[:16] in name]
    named = digest in (path / "archive.json").read_text()
    return [
        *columns,
        *(["files"] if (path / "models" / digest).exists() else []),
        *["name"] * named,
    ]


def test_the_command_removes_the_model_and_what_it_has_coded(
    engine: Engine,
    spec: JobSpec,  # noqa: F811
) -> None:
    before, path = state(engine.archive), engine.archive.path
    reencode(replace(spec, commit_items=1), engine, JobControl(cancelled=stopped_after(3)))
    [digest] = [one.digest for one in engine.archive.registered() if one.state == "pending"]
    engine.close()
    assert json.loads((path / "archive.json").read_text())["format_version"] == 2
    arguments = ["reencode", str(path), "--model", spec.model, "--give-up", "--json"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["given_up"] == {"name": "toy-32", "digest": digest}
    assert json.loads((path / "archive.json").read_text())["format_version"] == 1
    assert left_of(path, digest) == []
    with Archive.open(path) as archive:
        assert state(archive) == before
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, ModelNotFoundError)


def test_a_model_that_is_in_use_is_not_given_up(engine: Engine) -> None:
    with pytest.raises(ModelNotFoundError, match="pending models: none"):
        give_up(engine.archive, "toy-64")
    with pytest.raises(PreconditionError, match="ready, not pending"):
        engine.archive.give_up(engine.model().digest)
    assert states(engine) == [("toy-64", "ready")]


def test_windows_that_only_the_given_up_model_had_go_with_it(
    engine: Engine, tmp_path: Path, media: Path
) -> None:
    halves = OtherWindows(name="halves", salt="h")
    toy_model(halves, bits=32).save(tmp_path / "halves")
    before, path = state(engine.archive), engine.archive.path
    engine.close()
    job = JobSpec("reencode", str(path), model=str(tmp_path / "halves"), commit_items=1)
    with Archive.open(path, write=True) as archive:
        other = Engine(archive, load_encoder=lambda name: halves)
        for path_of in (media / "red.png", media / "green.png"):
            path_of.unlink()  # so that there is no switch
        assert reencode(job, engine=other).state == "failed"
        assert len(archive.rows()) > len(before["observations"])
        assert give_up(archive, job.model) is not None
        assert state(archive) == before
        assert archive.verify() == []


def test_a_kill_anywhere_is_made_good_by_the_same_command(
    engine: Engine,
    spec: JobSpec,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    encoder: ToyEncoder,
) -> None:
    reencode(replace(spec, commit_items=1), engine, JobControl(cancelled=stopped_after(3)))
    [digest] = [one.digest for one in engine.archive.registered() if one.state == "pending"]
    before, path = state(engine.archive), engine.archive.path
    engine.close()
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
            assert best(Engine(reader, load_encoder=lambda name: encoder))[1] == "blue.png"
    assert last >= 3
    assert left_of(path, digest) == []
