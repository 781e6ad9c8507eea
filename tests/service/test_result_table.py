"""How a search result looks on a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import replace

from bittern.query import Query
from bittern.types import Encoded, Hit, MediaItem, SearchResult
from tests.service.fake_archive import heron, owl


def result(*hits: Hit) -> SearchResult:
    return SearchResult("fake-64", "image", "asymmetric", 12.4, list(hits))


def test_a_result_prints_as_a_table() -> None:
    lines = str(result(Hit(1, 3.25, heron(1)), Hit(2, 4.0, owl(3)))).splitlines()
    assert lines[0] == "2 hits (image) by fake-64, asymmetric distance, 12 ms"
    assert lines[1].split() == ["rank", "distance", "name", "media", "window", "licence"]
    assert lines[2].startswith("1     3.25      Grey Heron <i> (Ardea cinerea)  heron-1.jpg")
    assert lines[2].endswith("CC-BY-4.0")
    assert lines[3].split() == ["2", "4", "owl#t=3,6", "owl.wav", "3.0-6.0", "s"]


def test_no_hits_print_too() -> None:
    assert str(result()).startswith("0 hits")


def test_an_approximate_answer_and_a_cutoff_are_said() -> None:
    answer = replace(result(Hit(1, 3.25, heron(1))), engine="ivf", exact=False, cutoff=90.0)
    caption = str(answer).splitlines()[0]
    assert caption == (
        "1 hit (image) by fake-64, asymmetric distance of 90 at the most, 12 ms, approximate (ivf)"
    )
    assert caption in answer._repr_html_()


def test_where_nothing_is_near_enough_the_nearest_is_named_with_its_distance() -> None:
    answer = replace(result(), cutoff=90.5, nearest=Hit(1, 101.256, heron(1)))
    assert str(answer).splitlines() == [
        "0 hits (image) by fake-64, asymmetric distance of 90.50 at the most, 12 ms",
        "the nearest is Grey Heron <i> (Ardea cinerea) (heron-1.jpg) at 101.26, beyond 90.50",
    ]
    page = answer._repr_html_()
    assert "the nearest is Grey Heron &lt;i&gt;" in page
    assert "<i>" not in page


def test_the_nearest_window_of_a_recording_is_named_with_its_seconds() -> None:
    answer = replace(result(), cutoff=1.0, nearest=Hit(1, 3.0, owl(3)))
    assert "(owl.wav, 3.0-6.0 s) at 3, beyond 1" in str(answer)


def test_html_is_escaped() -> None:
    nasty = replace(heron(1), media="<script>alert(1)</script>", metadata={"license": '"&'})
    page = result(Hit(1, 1.0, nasty), Hit(2, 1.0, heron(2)))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "Grey Heron &lt;i&gt;" in page
    assert "&quot;&amp;" in page
    assert page.startswith("<table>")


def test_control_characters_do_not_reach_the_terminal() -> None:
    nasty = replace(heron(1), media="\x1b[2J\nheron", metadata={"license": "x" * 500})
    printed = str(result(Hit(1, 1.0, nasty)))
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 3
    assert max(len(line) for line in printed.splitlines()) < 250


def test_a_result_is_a_sequence_of_its_hits() -> None:
    hits = [Hit(1, 3.25, heron(1)), Hit(2, 4.0, owl(3))]
    answer = result(*hits)
    assert len(answer) == 2
    assert list(answer) == hits
    assert answer[0] == hits[0]
    assert answer[-1:] == hits[1:]
    assert hits[1] in answer
    assert (hits[1].id, hits[1].media) == ("owl#t=3,6", "owl.wav")
    assert hits[0].metadata["license"] == "CC-BY-4.0"


def test_the_path_of_a_file_is_absolute_or_unknown() -> None:
    def path(root: str, media: str) -> str:
        return str(Hit(1, 0.0, replace(heron(1), media_root=root, media=media)).path)

    assert path("/media/card", "DCIM/1.jpg") == "/media/card/DCIM/1.jpg"
    assert path("", "/media/card/1.jpg") == "/media/card/1.jpg"
    assert {path("", "1.jpg"), path("https://a.org/b", "1.jpg"), path("", "s3://b/1.jpg")} == {
        "None"
    }


def test_what_holds_files_or_logits_has_a_short_repr() -> None:
    answer = result(*(Hit(rank, 3.25, heron(rank)) for rank in range(1, 100)))
    assert repr(answer) == "<SearchResult: 99 hits (image) by fake-64, asymmetric distance, 12 ms>"
    item = MediaItem("a", "a.jpg", "image", data=bytes(10_000))
    query = Query(image=bytes(10_000), id="b", text="x" * 2_000)
    encoded = Encoded(b"12345678", (0.5,) * 64)
    assert max(len(repr(each)) for each in (answer[0], item, query, encoded)) < 500


def test_a_result_becomes_a_table_and_a_data_frame() -> None:
    table = result(Hit(1, 3.25, heron(1)), Hit(2, 4.0, owl(3))).to_arrow()
    names = ["rank", "distance", "id", "media", "path", "start_s", "end_s"]
    assert table.column_names[:7] == names
    assert table["start_s"].to_pylist() == [None, 3.0]
    assert table["vernacularName"].to_pylist() == ["Grey Heron <i>", None]
    assert result().to_arrow().num_rows == 0
    frame = result(Hit(1, 3.25, heron(1))).to_pandas()
    assert frame["distance"].tolist() == [3.25]
