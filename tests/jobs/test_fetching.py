"""Jobs code media at addresses that the operator named, and fetch no other address."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

from bittern.errors import InvalidInputError
from bittern.index.archive import Archive
from bittern.service.ingest.report import new_stages
from bittern.service.jobs.description import IndexOptions, JobSpec
from bittern.service.jobs.indexing import JobControl, index_source
from bittern.service.jobs.ray import Worker, embedded_of, units_of
from bittern.service.limits import check_item
from bittern.service.local.archive import LocalArchive
from bittern.service.models.model import Embedders
from bittern.service.sources import SourceOptions, read_source
from bittern.types import AddStatus, MediaItem
from tests.engine.toy import ToyEncoder, picture
from tests.jobs.test_job_commands import bittern
from tests.jobs.toy_job import Counted, run, save_model, stored


class Photographs(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, lists it, and records the requested paths."""

    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path.endswith(".png"):
            self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a folder with three photographs, one of them in a folder with a space."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "site" / "photos"
    (folder / "Strix aluco").mkdir(parents=True)
    for name, colour in (("a", "red"), ("b", "blue"), ("Strix aluco/c", "green")):
        (folder / f"{name}.png").write_bytes(picture(colour))
    (folder / "m.csv").write_text("media\na.png\nb.png\n")
    Photographs.requests = []
    serve = functools.partial(Photographs, directory=str(tmp_path / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def names_of(spec: JobSpec) -> list[str]:
    return [row["observation"].media for row in stored(spec)]


def test_a_folder_at_an_address_is_coded_and_skipped_the_next_time(
    site: str, tmp_path: Path, model: Path
) -> None:
    spec = JobSpec("index", str(tmp_path / "a"), f"{site}/photos/", model=str(model))
    report = run(spec)
    assert (report.state, report.failed, report.items[AddStatus.ADDED]) == ("done", 0, 3)
    assert names_of(spec) == ["a.png", "b.png", "Strix aluco/c.png"]
    assert len({row["code"] for row in stored(spec)}) == 3
    encoder, before = Counted(), list(Photographs.requests)
    again = run(spec, encoder)
    assert (again.items[AddStatus.SKIPPED], encoder.coded) == (3, 0)
    assert Photographs.requests == before


def test_a_manifest_at_an_address_is_coded(site: str, tmp_path: Path, model: Path) -> None:
    spec = JobSpec("index", str(tmp_path / "a"), f"{site}/photos/m.csv", model=str(model))
    assert run(spec).items[AddStatus.ADDED] == 2
    assert names_of(spec) == ["a.png", "b.png"]


def addresses(site: str, tmp_path: Path) -> Path:
    manifest = tmp_path / "addresses.csv"
    rows = [f"{site}/photos/a.png", f"{site}/photos/b.png", f"{site}/photos-private/a.png"]
    manifest.write_text("\n".join(["media", *rows]))
    return manifest


def test_the_command_codes_addresses_that_may_be_fetched_and_names_the_others(
    site: str,
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [tmp_path / "a", addresses(site, tmp_path), "--model", model, "--json"]
    fetch = ["--fetch", f"{site}/photos/"]
    assert bittern(monkeypatch, "index", *arguments, *fetch) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["items"]["added"], reported["items"]["failed"]) == (2, 1)
    assert sorted(Photographs.requests) == ["/photos/a.png", "/photos/b.png"]
    with Archive.open(tmp_path / "a") as archive:
        assert len(archive.list().observations) == 2
    assert bittern(monkeypatch, "index", *arguments, *fetch) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["items"]["added"], reported["items"]["skipped"]) == (0, 2)
    out = tmp_path / "c.parquet"
    encode = [arguments[1], "--output", out, "--model", model, *fetch]
    assert bittern(monkeypatch, "encode", *encode) == 0
    assert pq.read_table(out).num_rows == 2


def test_nothing_is_requested_unless_it_may_be_fetched(
    site: str, tmp_path: Path, model: Path
) -> None:
    source = read_source(addresses(site, tmp_path), SourceOptions(fetch=(site,)))
    for fetch in ((), ("https://other.org/",)):
        with Archive.create(tmp_path / f"a{len(fetch)}") as archive:
            engine = LocalArchive(archive, embedders=Embedders(lambda name: ToyEncoder(name=name)))
            options = IndexOptions(model=str(model))
            report = index_source(engine, source, options, JobControl(fetch=fetch))
        assert report.failed == report.done == 3
        assert all("--fetch" in failure.message for failure in report.failures)
    assert Photographs.requests == []


def test_an_archive_is_coded_anew_from_allowed_addresses_only(
    site: str, tmp_path: Path, model: Path
) -> None:
    spec = JobSpec("index", str(tmp_path / "a"), f"{site}/photos/", model=str(model))
    run(spec)
    Photographs.requests = []
    reencode = JobSpec("reencode", spec.target, model=str(save_model(tmp_path / "other", bits=32)))
    refused = run(reencode)
    assert (refused.state, refused.failed) == ("failed", 3)
    assert all("is at" in f.message and "--fetch" in f.message for f in refused.failures)
    assert Photographs.requests == []
    allowed = SourceOptions(fetch=(f"{site}/photos",))
    report = run(replace(reencode, reading=allowed))
    assert (report.state, report.items[AddStatus.ADDED]) == ("done", 3)
    assert len(Photographs.requests) == 3


def test_a_worker_fetches_what_it_was_allowed_to_and_nothing_else(site: str) -> None:
    item = MediaItem("a", "a.png", "image", url=f"{site}/photos/a.png")
    [unit] = units_of([item])
    for fetch, fetched in (((), 0), (("https://other.org/",), 0), ((site,), 1)):
        worker = Worker("toy", None, fetch, lambda name: ToyEncoder(), 1)
        [done] = embedded_of(worker(unit), new_stages())
        assert len(done.embeddings) == len(Photographs.requests) == fetched


def test_an_address_alone_is_refused_outside_of_jobs(
    site: str, tmp_path: Path, model: Path
) -> None:
    run(JobSpec("index", str(tmp_path / "a"), str(tmp_path / "site"), model=str(model)))
    item = MediaItem("x", "x.png", "image", url=f"{site}/photos/a.png")
    with pytest.raises(InvalidInputError, match="neither a path nor data"):
        check_item(item)
    with Archive.open(tmp_path / "a", write=True) as archive:
        engine = LocalArchive(archive, embedders=Embedders(lambda name: ToyEncoder(name=name)))
        [[result]] = engine.add([item])
    assert (result.status, result.reason) == ("failed", "INVALID_INPUT")
    assert Photographs.requests == []
