"""What `bittern search` and `bittern stats` print about an archive behind a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bittern.service.grpc.server import serve
from bittern.types import ArchiveStats
from tests.cli.conftest import Run
from tests.service.fake_archive import ENGINE, FakeArchive


@pytest.fixture
def address() -> Iterator[str]:
    """Of a server whose hits lie at the distances 1, 2, 3, 5..."""
    with serve({"herons": FakeArchive()}, listen=":0") as server:
        yield server.address


def test_nothing_relevant_is_an_answer_that_says_how_to_see_the_nearest(
    run: Run, address: str
) -> None:
    done = run("search", address, "a violin", "--relevance", "usual")
    assert (done.status, done.out) == (0, "")
    assert done.err.strip() == (
        "nothing is relevant: the nearest is Grey Heron <i> (Ardea cinerea) (heron-1.jpg) at 1, "
        "beyond 0.50. To see it instead: --max-distance 1"
    )


def test_nothing_relevant_is_an_empty_list_for_programs(run: Run, address: str) -> None:
    answer = json.loads(run("search", address, "a violin", "--relevance", "0.05", "--json").out)
    assert (answer["hits"], answer["cutoff"]) == ([], 0.5)
    assert (answer["nearest"]["id"], answer["nearest"]["distance"]) == ("obs-1", 1)


def test_an_approximate_answer_says_that_it_is_one(run: Run, address: str) -> None:
    done = run("search", address, "a heron", "-k", 2, "--recall", "0.9")
    assert "heron-1.jpg" in done.out
    assert "approximate (ivf)" in done.err
    assert "approximate" not in run("search", address, "a heron", "-k", 2).err


def test_hits_that_were_bounded_say_by_what(run: Run, address: str) -> None:
    done = run("search", address, "a heron", "--relevance", "0.3")
    assert done.err.startswith("3 hits by fake-64")
    assert "none beyond 3" in done.err


def test_stats_of_a_server_show_what_searches_why_and_what_is_being_built(
    run: Run, address: str
) -> None:
    done = run("stats", address)
    assert done.status == 0
    assert "15 image, 5 audio observations (1 recording), generation 7" in done.out
    for words in ("fake-64", "ivf, approximate", "1.0 TiB", ENGINE.reason, "being built: ivf over"):
        assert words in done.out
    shown = json.loads(run("stats", address, "--json").out)
    assert shown["models"][0]["engines"]["image"]["building"] == "ivf over 15 rows"


def test_an_answer_that_the_server_chose_to_approximate_says_so(run: Run) -> None:
    served = FakeArchive()
    served.names_itself = "ivf"
    with serve({"herons": served}, listen=":0") as server:
        assert "approximate (ivf)" in run("search", server.address, "a heron").err
        answer = json.loads(run("search", server.address, "a heron", "--json").out)
        assert (answer["engine"], answer["exact"]) == ("ivf", False)


def test_of_several_archives_one_is_to_be_named_by_option(run: Run) -> None:
    archives = {"herons": FakeArchive(), "owls": FakeArchive("owls")}
    with serve(archives, listen=":0") as server:
        done = run("search", server.address, "a heron")
        assert done.status == 1
        assert "name one of these with --archive: herons, owls" in done.err
        assert run("search", server.address, "a heron", "--archive", "owls").status == 0


def test_stats_of_an_earlier_server_say_that_engines_are_unknown(run: Run) -> None:
    class Earlier(FakeArchive):
        def stats(self) -> ArchiveStats:
            now = super().stats()
            return replace(now, models=[replace(model, engines={}) for model in now.models])

    with serve({"herons": Earlier()}, listen=":0") as server:
        assert "unknown: the server has an earlier" in run("stats", server.address).out


def test_stats_of_nothing_end_with_a_message(run: Run) -> None:
    done = run("stats", "nowhere")
    assert (done.status, done.out) == (1, "")
    assert "there is no archive at 'nowhere'" in done.err
