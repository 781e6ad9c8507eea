"""The `where` language: what is a filter, what is not, and what the refusal says."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.errors import FilterError
from bittern.index.archive import Archive
from bittern.index.columns import DARWIN_CORE, IDENTITY
from bittern.index.filter_functions import CONDITIONS, VALUES
from bittern.index.filters import compile_where
from tests.index.samples import OWL, ids, photo, recording

COLUMNS = {**IDENTITY, **DARWIN_CORE, "tally": "int64", "captive": "bool"}


@pytest.fixture(scope="module")
def marsh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    rows: list[tuple[str, dict[str, Any]]] = [
        ("a", {"scientificName": "Botaurus stellaris", "order": "Pelecaniformes", "tally": 1}),
        ("b", {"scientificName": "Ardea cinerea", "decimalLatitude": 48.5, "tally": 2}),
        ("c", {"scientificName": "Bubo bubo", "decimalLatitude": -3.0, "captive": True}),
        ("d", {"vernacularName": "d'Arnaud's barbet", "eventDate": "2024-05-17", "class": "Aves"}),
        ("e", {"scientificName": "100% owl_x", "captive": False, "references": "https://x"}),
    ]
    with Archive.create(tmp_path_factory.mktemp("filters") / "marsh") as archive:
        archive.register_model(OWL, {})
        items = [photo(name, metadata) for name, metadata in rows]
        archive.add([*items, recording("r", 2, {"tally": 9})], model=OWL.digest)
        yield archive


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("scientificName = 'Bubo bubo'", "c"),
        ("SCIENTIFICNAME = 'Bubo bubo'", "c"),
        ("\"scientificName\" = 'Bubo bubo'", "c"),
        ("`scientificname` == 'Bubo bubo'", "c"),
        ("scientificName LIKE 'B%'", "ac"),
        ("scientificName NOT LIKE 'B%'", "be"),
        ("scientificName ILIKE 'b%' AND NOT captive", ""),
        ("lower(scientificName) = 'bubo bubo'", "c"),
        ("UPPER(scientificName) LIKE 'BOT%'", "a"),
        ("scientificName LIKE '100\\%%'", "e"),
        ("vernacularName = 'd''Arnaud''s barbet'", "d"),
        ("order = 'Pelecaniformes'", "a"),
        ("class IN ('Aves', 'Mammalia')", "d"),
        ("references IS NOT NULL", "e"),
        ("eventDate >= '2024-05' AND eventDate < '2024-06'", "d"),
        ("decimalLatitude > 0", "b"),
        ("decimalLatitude <= -3", "c"),
        ("decimalLatitude < -2.9e0", "c"),
        ("decimalLatitude BETWEEN -5 AND 50.5", "bc"),
        ("decimalLatitude NOT BETWEEN -5 AND 0", "b"),
        ("decimalLatitude IN (48.5, 1)", "b"),
        ("-decimalLatitude > 0", "c"),
        ("tally > 1.5", "brr"),
        ("tally IN (1, 2.0)", "ab"),
        ("tally BETWEEN 1 AND 1.5", "a"),
        ("tally NOT IN (1, 2)", "rr"),
        ("tally < decimalLatitude", "b"),
        ("1 = tally", "a"),
        ("-tally = -1", "a"),
        ("tally > -9223372036854775807", "abrr"),
        ("tally <> 1", "brr"),
        ("tally != -1", "abrr"),
        ("CAST(tally AS double) > 1.5", "brr"),
        ("cast(tally as varchar) LIKE '9%'", "rr"),
        ("captive", "c"),
        ("NOT captive", "e"),
        ("captive = false", "e"),
        ("captive IS TRUE", "c"),
        ("captive IS NOT TRUE", "abderr"),
        ("tally IS NULL AND captive IS NULL", "d"),
        ("modality = 'audio'", "rr"),
        ("start_s >= 3", "r"),
        ("occurrenceID = 'r' OR id = 'a'", "arr"),
        ("media = 'a.jpg'", "a"),
        ("(((tally = 1)))", "a"),
        ("tally = 1 OR tally = 2 AND decimalLatitude < 0", "a"),
        ("(tally = 1 OR tally = 2) AND NOT (decimalLatitude > 0)", ""),
        ("true", "abcderr"),
        ("false", ""),
        ("scientificName = '-- no comment; ''quoted'''", ""),
        ("scientificName = '/* text */'", ""),
        ("scientificName = '鷺'", ""),
    ],
)
def test_a_filter_finds_what_it_says(marsh: Archive, where: str, found: str) -> None:
    assert "".join(name[0] for name in ids(marsh, where)) == found


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("scientificNam = 'x'", "did you mean 'scientificName'"),
        ("nosuch > 1", "columns: id, occurrenceID"),
        ("row = 1", "no column 'row'"),
        ("committed = 1", "no column 'committed'"),
        ("mediaRoot = '/'", "no column 'mediaRoot'"),
        (f"{OWL.code_column} IS NULL", "no column 'code_"),
        ("_rowid = 1", "no column '_rowid'"),
        ("t.tally = 1", "no column 't.tally'"),
        ("tally = 'abc'", "compares numbers with text"),
        ("decimalLatitude > 'abc'", "`decimalLatitude > 'abc'`"),
        ("scientificName = 1", "compares numbers with text"),
        ("scientificName IN ('a', 1)", "compares numbers with text"),
        ("captive = 'true'", "compares text with true/false"),
        ("scientificName", "`scientificName` is not a condition"),
        ("tally", "is not a condition"),
        ("1", "is not a condition"),
        ("'a'", "is not a condition"),
        ("lower(scientificName)", "is not a condition"),
        ("tally = NULL", "IS NULL"),
        ("tally + 1 = 2", "`tally + 1`"),
        ("length(scientificName) > 3", "LENGTH(scientificName)"),
        ("regexp_like(scientificName, 'x')", "is an unknown function"),
        ("scientificName || 'a' = 'b'", "||"),
        ("CASE WHEN captive THEN true ELSE false END", "CASE"),
        ("tally IN (SELECT 1)", "list of literals"),
        ("tally IN ()", "list of literals"),
        ("tally IN (decimalLatitude)", "is not a literal"),
        ("tally = (SELECT 1)", "SELECT 1"),
        ("EXISTS (SELECT 1)", "EXISTS"),
        ("SELECT 1", "SELECT"),
        ("DROP TABLE observations", "DROP"),
        ("tally = 1; DROP TABLE observations", "';'"),
        ("tally = 1;", "';'"),
        ("tally = 1 -- and more", "comments"),
        ("tally = 1 /* and more */", "comments"),
        ("/* first */ tally = 1", "comments"),
        ("-- only", "e"),
        ("tally = 1, captive", "cannot be read"),
        ("tally = ", "cannot be read"),
        ("(tally = 1", "cannot be read"),
        ("tally = 1)", "cannot be read"),
        ("scientificName = 'open", "cannot be read"),
        ("tally = 1 AS x", "is not a condition"),
        ("tally = ?", "not allowed"),
        ("tally = :x", "not allowed"),
        ("tally = $1", "no column"),
        ("*", "is not a condition"),
        ("scientificName LIKE lower('x')", "pattern"),
        ("tally LIKE '1'", "text column"),
        ("scientificName LIKE 'a' ESCAPE 'b'", "is not a condition"),
        ("scientificName SIMILAR TO 'a'", "is not a condition"),
        ("tally IS DISTINCT FROM 1", "is not a condition"),
        ("CAST(scientificName AS double) = 1", "turn text"),
        ("CAST(decimalLatitude AS int) = 1", "is not supported"),
        ("CAST(eventDate AS date) = '2024-01-01'", "dates are compared as text"),
        ("eventDate = date '2024-01-01'", "dates are compared as text"),
        ("TRY_CAST(tally AS text) = '1'", "not allowed"),
        ("tally = 99999999999999999999", "64 bits"),
        ("decimalLatitude < 1e999", "too large"),
        ("lower(scientificName, 'x') = 'a'", "e"),
        ("-scientificName = 'a'", "is not a number"),
        ("x" * 10_001, "limit is 10000"),
        ("(" * 200 + "captive" + ")" * 200, "nested"),
        ("NOT " * 2000 + "captive", "nested"),
        ("- " * 2000 + "1 = 1", "nested"),
        (" OR ".join(["tally=1"] * 501), "500"),
    ],
)
def test_whatever_else_is_refused_and_named(where: str, part: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_where(where, COLUMNS)
    assert part in caught.value.message
    assert caught.value.field == "where"


@pytest.mark.parametrize("where", [None, "", "  ", " \n\t"])
def test_a_blank_condition_is_no_condition(marsh: Archive, where: str | None) -> None:
    query = np.ones(64, dtype=np.float32)
    assert len(ids(marsh, where)) == 7
    assert len(marsh.search(query, model=OWL.digest, k=9, metric="hamming", where=where).hits) == 7
    assert marsh.rows(where).tolist() == list(range(7))
    assert sum(batch.num_rows for batch in marsh.iter_batches(where=where)) == 7
    token = marsh.list(page_size=3).next_token
    assert len(marsh.list(where=where, page_token=token).observations) == 4


def test_a_condition_that_is_no_text_is_refused() -> None:
    with pytest.raises(FilterError, match="int"):
        compile_where(1, COLUMNS)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["AND", "OR"])
def test_long_chains_are_answered(marsh: Archive, word: str) -> None:
    where = f" {word} ".join(["tally = 1"] * 500)
    assert ids(marsh, where) == ["a"]


def test_a_long_list_of_literals_is_answered(marsh: Archive) -> None:
    assert ids(marsh, f"tally IN ({', '.join(map(str, range(1500)))})") == [
        "a",
        "b",
        "r#t=0,3",
        "r#t=3,6",
    ]


_LITERALS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["%", "_", "\\", "(", "[a-", "2024-05", "2024-13", "2007-11-13/15", "'", "\x85"]
    ),
).map(lambda text: "'" + text.replace("'", "''") + "'")
_NUMBERS = st.one_of(
    st.sampled_from([column for column, kind in COLUMNS.items() if kind != "string"]),
    st.integers(-(2**63), 2**63).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
)
_TEXTS = st.recursive(
    st.one_of(
        st.sampled_from([column for column, kind in COLUMNS.items() if kind == "string"]), _LITERALS
    ),
    lambda text: st.one_of(
        st.tuples(
            st.sampled_from(["lower({})", "upper({})", "CAST({} AS text)", "({})"]), text
        ).map(lambda call: call[0].format(call[1])),
        _NUMBERS.map("CAST({} AS text)".format),
    ),
    max_leaves=3,
)
_DATES = st.tuples(st.sampled_from(["year", "month", "day_of_year"]), _TEXTS).map(
    "{0[0]}({0[1]})".format
)
_OPERATORS = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
_VALID = st.one_of(
    st.tuples(_TEXTS, _OPERATORS, _TEXTS).map(" ".join),
    st.tuples(_TEXTS, st.sampled_from(["LIKE", "NOT ILIKE"]), _LITERALS).map(" ".join),
    st.tuples(st.one_of(_NUMBERS, _DATES), _OPERATORS, st.one_of(_NUMBERS, _DATES)).map(" ".join),
    st.tuples(_NUMBERS, _NUMBERS, _DATES).map("{0[0]} BETWEEN {0[1]} AND {0[2]}".format),
    st.tuples(_TEXTS, st.lists(_LITERALS, min_size=1)).map(
        lambda pair: f"{pair[0]} NOT IN ({', '.join(pair[1])})"
    ),
    st.tuples(st.sampled_from(["taxon", "names_match"]), _LITERALS).map("{0[0]}({0[1]})".format),
    st.tuples(st.dates(), st.dates()).map(lambda two: f"during('{min(two)}', '{max(two)}')"),
    st.sampled_from(
        ["captive", "captive IS NOT TRUE", "tally IS NULL", "within_box(-9, -9, 9, 9)"]
    ),
)
_WRONG_VALUES = st.recursive(
    st.one_of(
        st.sampled_from(
            [*COLUMNS, '"order"', "nosuch", '"', "t.tally", "鷺", "*", "NULL", "?", ";"]
        ),
        st.sampled_from(
            ["INTERVAL '1' day", "1e999", "0x1F", "1_0", "٣", "1e", "9" * 400, "--", "->"]
        ),
        _TEXTS,
        _NUMBERS,
    ),
    lambda value: st.one_of(
        st.tuples(
            st.sampled_from(
                [*VALUES, *CONDITIONS, "length", "count", "sleep", "if", "trim", "date"]
            ),
            st.lists(value, max_size=4).map(", ".join),
        ).map("{0[0]}({0[1]})".format),
        st.tuples(
            value, st.sampled_from(["double", "int", "date", "decimal(99)", "array<int>"])
        ).map("CAST({0[0]} AS {0[1]})".format),
        st.tuples(
            value, st.sampled_from([*"+-*/%~,", "||", "::", "->", "IS", "=", "GLOB"]), value
        ).map(" ".join),
    ),
    max_leaves=4,
)
_WRONG = st.one_of(
    _WRONG_VALUES,
    st.tuples(_WRONG_VALUES, _OPERATORS, _WRONG_VALUES).map(" ".join),
    st.sampled_from(["DROP TABLE\nx", "SELECT 1", "SHOW\nx", "CALL x", "CASE WHEN 1 THEN 2 END"]),
)


def _joined(condition: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        condition,
        lambda part: st.one_of(
            st.tuples(part, st.sampled_from(["AND", "OR"]), part).map(" ".join),
            part.map("NOT ({})".format),
        ),
        max_leaves=5,
    )


_CONDITIONS = st.one_of(_joined(_VALID), _joined(_VALID | _WRONG))
_REPEATED = st.tuples(  # deep, and long
    st.sampled_from(
        ["(", "NOT ", "-", "lower(", "CAST(", "NOT (", "[", "{", "CASE WHEN ", "SELECT ("]
    ),
    st.sampled_from(["", ")", " AS text)", "]"]),
    _CONDITIONS,
    st.sampled_from([" AND ", " OR ", ", ", " ", " + ", ".", "\n", "''", " IS "]),
    st.integers(0, 60) | st.integers(0, 2_000),
    st.integers(1, 20) | st.integers(1, 600),
).map(lambda r: r[0] * r[4] + r[3].join([r[2]] * r[5]) + r[1] * r[4])
_BROKEN = st.tuples(_CONDITIONS, st.integers(0, 99), st.integers(0, 9), st.text(max_size=3)).map(
    lambda b: b[0][: b[1]] + b[3] + b[0][b[1] + b[2] :]  # nearly valid
)
_FILTERS = 20_000 if settings.get_current_profile_name() == "random" else 300


@given(st.one_of(_CONDITIONS, _CONDITIONS, _BROKEN, _REPEATED, st.text(max_size=60)))
@settings(max_examples=_FILTERS)
def test_any_condition_is_answered_or_refused_with_a_filter_error(
    marsh: Archive, where: str
) -> None:
    with contextlib.suppress(FilterError):
        marsh._current().matching(where)


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_text_literal_is_only_ever_text(marsh: Archive, text: str) -> None:
    quoted = text.replace("'", "''")
    try:
        assert ids(marsh, f"scientificName = '{quoted}' AND false") == []
    except FilterError:
        assert "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("tally = 1 AND", "it is incomplete after 'tally = 1 AND'"),
        ("tally = ", "it is incomplete after 'tally ='"),
        ("NOT", "it is incomplete after 'NOT'"),
        ("tally = 1 OR OR captive", "unexpected 'OR' after 'tally = 1 OR'"),
        ("tally 1", "unexpected '1' after 'tally'"),
        ("(tally = 1", "a ')' is missing after '(tally = 1'"),
        ("family = 'Strigidae", "a text has no closing quote"),
        ('family = "Strigidae"', "a text takes single quotes: 'Strigidae'"),
        ("family = `d'Arnaud`", "a text"),
    ],
)
def test_a_refusal_names_the_position_in_the_condition(where: str, message: str) -> None:
    with pytest.raises(FilterError) as refused:
        compile_where(where, COLUMNS)
    assert message in str(refused.value)
    assert "sqlglot" not in str(refused.value)


_FIRST_FILTERS = """
import sys, threading
from bittern.errors import FilterError
from bittern.index import filters

def compile(where):
    barrier.wait()
    try:
        filters.compile_where(where, {"tally": "int64"})
    except FilterError:
        pass
    except BaseException as error:
        print(repr(error))

for attempt in range(10):
    barrier = threading.Barrier(4)
    filters._made_dialect.cache_clear()
    for name in [name for name in sys.modules if name.startswith("sqlglot")]:
        del sys.modules[name]
    threads = [
        threading.Thread(target=compile, args=(where,))
        for where in ["tally = 1", "DROP TABLE\\nx", "CAST(tally AS text) = '1'", "tally ="]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_the_first_filters_may_come_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_FILTERS],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def test_no_text_of_a_condition_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for where in ["DROP TABLE\nx", "tally -> '[1.5' = 1", "SHOW\nx", "tally ="]:
        with pytest.raises(FilterError):
            compile_where(where, COLUMNS)
    assert caplog.text == ""
    logging.getLogger("sqlglot").warning("of others")
    assert "of others" in caplog.text
