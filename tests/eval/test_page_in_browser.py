"""`index.html` as a reader meets it: in chromium, on a desk and on a telephone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from bittern.benchmarks.eval.report import wording as w
from bittern.benchmarks.eval.report import write_report
from bittern.benchmarks.eval.results import Results, Row, Score, ShownHit, ShownQuery
from tests.eval.example_results import PICTURES, SAMPLE, example_results
from tests.eval.page_browser import CONTRASTS, SIZES, Seen, chromium, opened

HOSTILE = '<script>document.title="owned"</script><img src="http://192.0.2.1/x.png" onerror="1">'
RIGHT_TO_LEFT = "שלום \u202etxet desrever عالم"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def results() -> Results:
    return example_results()


@pytest.fixture(scope="module")
def index(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(results, tmp_path_factory.mktemp("report"))[0]


@pytest.fixture(scope="module")
def hostile_index(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    return write_report(_hostile(results, folder), folder / "report")[0]


@pytest.fixture(params=sorted(SIZES))
def seen(request: pytest.FixtureRequest, browser: Browser, index: Path) -> Iterator[Seen]:
    with opened(browser, index, request.param) as page:
        yield page


@pytest.fixture(params=sorted(SIZES))
def hostile(
    request: pytest.FixtureRequest, browser: Browser, hostile_index: Path
) -> Iterator[Seen]:
    with opened(browser, hostile_index, request.param) as page:
        yield page


def _hostile(results: Results, folder: Path) -> Results:
    """Every word of others is markup, endless, or runs from right to left."""
    broken = folder / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no picture")
    endless = "W" * 3000
    figures = {HOSTILE: Score(*[0.5] * 6), endless: Score(*[0.25] * 6)}
    rows = [
        Row(HOSTILE, group, name, name, endless, 32, 4.0, 0, 1, 3, 3, 0.1, figures)
        for group in ("all", "seen", "novel", endless)
        for name in (HOSTILE, endless, RIGHT_TO_LEFT)
    ]
    picture = str(SAMPLE / "images" / "alpaca-1.webp")
    hits = [
        ShownHit(
            n, HOSTILE, n % 2 == 0, n, modality, media, text, None, None, caption, caption + "©"
        )
        for n, (modality, media, text, caption) in enumerate(
            [
                ("image", str(broken), "", HOSTILE),
                ("image", str(folder / "gone.jpg"), "", endless),
                ("audio", picture, "", RIGHT_TO_LEFT),
                ("image", picture, "", '"><b>'),
                ("text", "", HOSTILE + endless, ""),
                (HOSTILE, picture, RIGHT_TO_LEFT, ""),
            ]
        )
    ]
    task = dataclasses.replace(
        results.tasks[0], name=HOSTILE, measures=list(figures), notes=[HOSTILE, endless]
    )
    return dataclasses.replace(
        results,
        suite=HOSTILE,
        about=RIGHT_TO_LEFT + endless,
        command=endless + HOSTILE,
        protocol={HOSTILE: {endless: [HOSTILE, {"a": endless}]}},
        measures=list(figures),
        models=[{HOSTILE: HOSTILE, "name": endless}],
        digests={endless: HOSTILE},
        tasks=[task],
        rows=rows,
        comparisons=[
            dataclasses.replace(
                results.comparisons[0], task=HOSTILE, measure=HOSTILE, a=endless, b=HOSTILE
            )
        ],
        classes=[dataclasses.replace(results.classes[0], task=HOSTILE, name=HOSTILE)],
        shown=[ShownQuery(HOSTILE, "q", HOSTILE, str(broken), endless, 0.5, 1, hits)],
        notes=[HOSTILE, endless],
    )


def test_nothing_is_requested_and_nothing_complained_of(seen: Seen) -> None:
    assert seen.said == []
    assert [url for url in seen.requested if not url.startswith("data:")] == [seen.page.url]


def test_the_page_is_as_wide_as_the_screen(seen: Seen) -> None:
    width = seen.page.viewport_size
    assert width is not None
    assert seen.run("document.documentElement.scrollWidth") <= width["width"]


def test_every_picture_is_there_with_words_for_it(seen: Seen, results: Results) -> None:
    pictures = seen.run(
        "Promise.all([...document.images].map(i => i.decode().then(() => [i.naturalWidth, i.alt])))"
    )

    with_media = [query for query in results.shown if query.media]
    shown = [hit for query in results.shown for hit in query.hits if hit.media]
    assert len(pictures) == len(with_media) + len(shown) > 20
    assert all(width > 0 and alt for width, alt in pictures)


def test_headings_are_in_order_and_the_contents_lead_to_them(seen: Seen) -> None:
    levels = seen.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    leads = seen.run(
        "[...document.querySelectorAll('nav a')].map("
        "a => !!document.getElementById(a.hash.slice(1)))"
    )

    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert len(leads) == 6
    assert all(leads)


def test_no_id_stands_twice(seen: Seen) -> None:
    ids = seen.run("[...document.querySelectorAll('[id]')].map(e => e.id)")

    assert len(ids) == len(set(ids))


def test_tables_say_the_numbers_of_the_results(seen: Seen, results: Results) -> None:
    tables = seen.run(
        "[...document.querySelectorAll('table.systems')].map(t => [...t.tBodies[0].rows].map("
        "r => [...r.cells].map(c => c.textContent)))"
    )

    parts = list(w.by_task_and_group(results.rows).values())
    assert len(tables) == len(parts) == 6
    for table, rows in zip(tables, parts, strict=True):
        assert table == [_cells(row, results.measures) for row in rows]


def _cells(row: Row, measures: Sequence[str]) -> list[str]:
    main, *others = (row.figures[name] for name in measures)
    cells = [
        row.system, str(row.bits or w.NONE), w.distance(row), f"{row.bytes_per_item:,.0f}",
        w.small(row.search_ms), f"{main.expected:.3f}", f"{main.low:.3f} to {main.high:.3f}",
        w.ties(main), w.deviations(main, row.draws, 1) or w.NONE,
    ]  # fmt: skip
    for figure in others:
        cells += [w.value(figure.expected), w.interval(figure.low, figure.high)]
    return cells


def test_the_page_begins_with_the_main_systems_of_each_task_and_group(
    seen: Seen, results: Results
) -> None:
    tables = seen.run(
        "[...document.querySelectorAll('.abstract table')].map(t => [t.caption.innerText, "
        "t.rows[0].innerText, [...t.tBodies[0].rows].map(r => [...r.cells].map("
        "c => c.innerText.split('\\n')[0].trim().split(' ')[0]))])"
    )

    assert len(tables) == 6
    caption, head, rows = tables[0]
    assert "60 queries, 24* independent; chance 0.031" in caption
    assert head.split("\t") == ["System", "64 bits", "256 bits"]
    floats = results.rows[0].figures[results.measures[0]]
    assert rows[0] == ["float32", f"{floats.expected:.3f}"]
    assert [row[0] for row in rows[1:4]] == ["Hashing-Baseline", "ITQ", "learned"]


def test_long_tables_are_folded_and_can_be_opened(seen: Seen) -> None:
    tables = seen.page.locator("table.systems")
    short = seen.run("document.documentElement.scrollHeight")
    assert not tables.first.is_visible()

    seen.page.locator("summary", has_text="All systems, all").first.click()

    assert tables.first.is_visible()
    seen.unfold()
    assert seen.run("document.documentElement.scrollHeight") > 1.8 * short


def test_hits_are_marked_by_words_and_signs(seen: Seen, results: Results) -> None:
    hits = seen.page.locator(".hit")
    wanted = [hit.relevant for query in results.shown for hit in query.hits]

    assert hits.count() == len(wanted)
    marks = seen.run("[...document.querySelectorAll('.hit .mark')].map(m => m.textContent)")
    assert marks == ["✓ right" if right else "✗ not right" for right in wanted]
    assert all(seen.page.locator(".hit .mark").nth(n).is_visible() for n in range(3))


def test_media_carry_rights_holder_and_licence(seen: Seen, results: Results) -> None:
    credits_ = seen.run("[...document.querySelectorAll('.hit .credit')].map(c => c.textContent)")

    assert credits_ == [
        " ".join(h.credit.split()) for q in results.shown for h in q.hits if h.media
    ]


def test_one_form_of_each_plot_is_seen_and_its_text_can_be_selected(seen: Seen) -> None:
    seen.unfold()
    plots = seen.run(
        "[...document.querySelectorAll('.plot')].map(p => [...p.querySelectorAll('svg')]"
        ".filter(s => s.checkVisibility()).map(s => {"
        " const text = s.querySelector('text'); getSelection().selectAllChildren(text);"
        " return [s.getBoundingClientRect().width > 300, getSelection().toString().length > 0,"
        " s.getAttribute('aria-label').length > 20]; }))"
    )

    assert plots == [[[True, True, True]]] * 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_text_stands_out(browser: Browser, index: Path, size: str, scheme: str) -> None:
    with opened(browser, index, size, scheme) as page:
        page.unfold()
        contrasts = page.run(CONTRASTS)
        paper = page.run("getComputedStyle(document.body).backgroundColor")

    assert len(contrasts) > 1000
    faint = [(round(ratio, 2), text) for ratio, text in contrasts if ratio < 4.5]
    assert faint == []
    assert paper == ("rgb(20, 25, 28)" if scheme == "dark" else "rgb(251, 251, 249)")


def test_hostile_names_stay_words(hostile: Seen) -> None:
    assert hostile.said == []
    assert [url for url in hostile.requested if not url.startswith("data:")] == [hostile.page.url]
    assert hostile.page.title().startswith("<script>")
    assert hostile.run("document.scripts.length") == 0
    assert hostile.run("document.querySelectorAll('[onerror], b').length") == 0


def test_endless_names_do_not_widen_the_page(hostile: Seen) -> None:
    width = hostile.page.viewport_size
    assert width is not None
    assert hostile.run("document.documentElement.scrollWidth") <= width["width"]


def test_media_that_cannot_be_shown_say_why(hostile: Seen) -> None:
    said = hostile.run("[...document.querySelectorAll('.missing')].map(m => m.innerText)")

    assert said[:4] == [
        "The file is damaged.", "The file is damaged.", "The file is not there.",
        "The file is of a format that is not read.",
    ]  # fmt: skip
    assert "of this kind" in said[4]
    assert hostile.run("document.images.length") == 1


def test_the_policy_of_the_page_forbids_scripts_and_requests(
    browser: Browser, index: Path, tmp_path: Path
) -> None:
    text = index.read_text(encoding="utf-8")
    spoilt = text.replace(
        "<main", '<script>document.title="owned"</script><img src="missing.png"><main'
    )
    (tmp_path / "index.html").write_text(spoilt, encoding="utf-8")
    (tmp_path / "missing.png").write_bytes(b"x")

    with opened(browser, tmp_path / "index.html", "desktop") as page:
        assert page.page.title() == "field: retrieval benchmark"
        assert sum("Content Security Policy" in said for said in page.said) >= 2


def test_without_a_browser_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"), chromium():
        pass


def test_the_page_prints(browser: Browser, index: Path) -> None:
    with opened(browser, index, "desktop") as page:
        page.page.emulate_media(media="print")
        box = page.page.locator("table.systems").first.bounding_box()
        assert box is not None
        assert box["height"] > 300  # what is folded on the screen is printed
        assert page.run(
            "[...document.querySelectorAll('.tall')].every(b => b.scrollHeight <= b.clientHeight)"
        )
        assert page.page.pdf(format="A4").startswith(b"%PDF")


def test_the_example_names_its_tasks(seen: Seen) -> None:
    assert PICTURES in seen.run("document.querySelector('#task-1').textContent")
