"""Conditions with a name: each finds what plain Python says of the same rows."""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.errors import FilterError
from bittern.index import filter_functions, writer
from bittern.index.archive import Archive
from bittern.index.columns import DARWIN_CORE
from bittern.index.filters import compile_where
from tests.index.samples import OWL, ids, photo

Row = dict[str, Any]
Truth = bool | None
DATES = [
    "2024",
    "2023",
    "2024-05",
    "2024-12",
    "2023-02",
    "2024-05-01",
    "2024-05-31",
    "2024-02-29",
    "2023-12-31",
    "2024-01-01",
    "1900-03-01",
    "2024-05-17T08:30:00Z",
    "2024-05-17 23:59:59 UTC",
    "2024-05-17T08:30/10:00",
    "2024-05-17T08:30:00Z/2024-05-17T09:00:00Z",
    "2024-05-01/2024-05-03",
    "2024-05-30/2024-06-02",
    "2024-05-13/15",
    "2024-05-13/06-02",
    "2024-05/07",
    "2024/2025",
    "2024/2024-06",
    "2023-12-30/2024-01-02",
    "2024-05-17/2024-05-17",
    # no dates
    "2023-02-29",
    "1900-02-29",
    "2024-13",
    "2024-00-01",
    "2024-04-31",
    "2024-5-1",
    "17 May 2024",
    "2024-05-17/",
    "/2024-05-17",
    "2024-05-17/x",
    "20240517",
    "unknown",
    "",
]
NAMES: list[Row] = [
    {"family": "Strigidae", "genus": "Strix", "species": "Strix aluco"},
    {"scientificName": "Strix aluco", "vernacularName": "Tawny Owl"},
    {"scientificName": "Strix aluco Linnaeus, 1758"},
    {"scientificName": "STRIX ALUCO ALUCO"},
    {"scientificName": "Strix alucoides"},
    {"scientificName": "Strix aluco × Strix uralensis"},
    {"scientificName": "Strix aluco x uralensis"},
    {"vernacularName": "Long-eared owl", "order": "Strigiformes", "family": "strigidae"},
    {"vernacularName": "owlet moth", "class": "Insecta"},
    {"vernacularName": "d'Arnaud's barbet 100% x_y"},
    {"vernacularName": "Schleiereule, Eule", "subfamily": "Striginae"},
    {"vernacularName": "Éperviere"},
    {},
]


def rows() -> list[Row]:
    """Random rows, a third of their values missing."""
    chosen = np.random.default_rng(7)
    made = []
    for number in range(260):
        row = dict(NAMES[number % len(NAMES)])
        row["eventDate"] = DATES[number % len(DATES)] if number % 11 else None
        for name, limit in (("decimalLatitude", 90), ("decimalLongitude", 180)):
            values = [-limit, limit, 0.0, *np.round(chosen.uniform(-limit, limit, 4), 2)]
            row[name] = float(chosen.choice(values)) if chosen.random() > 1 / 4 else None
        made.append(row)
    return made


ROWS = rows()


@pytest.fixture(scope="module", params=["scanned", "indexed"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    with Archive.create(tmp_path_factory.mktemp("world") / request.param) as archive:
        archive.register_model(OWL, {})
        archive.add([photo(f"r{i}", row) for i, row in enumerate(ROWS)], model=OWL.digest)
        if request.param == "indexed":
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(writer, "LOOKUPS_FROM", 1)
                writer.make_lookups(archive._store)
            assert "eventDate" in archive._store.lookups()
        yield archive


def check(archive: Archive, where: str, truth: Callable[[Row], Truth]) -> None:
    """A condition finds the rows of which it is true, and its opposite those where it is false."""
    truths = {f"r{i}": truth(row) for i, row in enumerate(ROWS)}
    assert set(ids(archive, where)) == {name for name, value in truths.items() if value is True}
    assert set(ids(archive, f"NOT ({where})")) == {
        n for n, value in truths.items() if value is False
    }


# What the conditions mean, written without SQL


def days(text: str | None) -> tuple[date, date] | None:
    """First and last day of a date or an interval; None where there is none to be read."""
    if not text:
        return None
    begin, slash, end = text.partition("/")
    if slash and re.fullmatch(r"\d\d(-\d\d)?", end):
        end = begin[: len(begin) - len(end)] + end
    elif slash and re.match(r"T|\d\d:", end):
        end = begin
    first, last = one_date(begin), one_date(end if slash else begin)
    return (first[0], last[1]) if first and last else None


def one_date(text: str) -> tuple[date, date] | None:
    found = re.fullmatch(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ].*)?)?)?", text)
    if not found:
        return None
    year, month, day = (int(part) if part else None for part in found.groups())
    assert year is not None
    try:
        first = date(year, 1 if month is None else month, 1 if day is None else day)
        last_month = 12 if month is None else month
        last_day = monthrange(year, last_month)[1] if day is None else day
        return first, date(year, last_month, last_day)
    except ValueError:
        return None


def part(text: str | None, name: str) -> int | None:
    """Year, month or day of the year that all of a date lies in; None where that is not known."""
    lies = days(text)
    if lies is None or text is None:
        return None
    (first, last) = lies
    if name == "year":
        return first.year if first.year == last.year else None
    if name == "month":
        return first.month if (first.year, first.month) == (last.year, last.month) else None
    return first.timetuple().tm_yday if first == last else None


def words(text: str) -> set[str]:
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return set("".join(kept).lower().split())


RANKS = ("class", "order", "family", "subfamily", "genus", "species")


def belongs(row: Row, name: str) -> bool:
    wanted = name.lower()
    if any((row.get(rank) or "").lower() == wanted for rank in RANKS):
        return True
    given_name = (row.get("scientificName") or "").lower()
    hybrid = " " in wanted and re.match(re.escape(wanted) + " (×|x )", given_name)
    return given_name == wanted or (given_name.startswith(wanted + " ") and not hybrid)


@pytest.mark.parametrize("name", ["year", "month", "day_of_year"])
@given(numbers=st.lists(st.sampled_from([1, 2, 5, 6, 12, 60, 138, 2023, 2024]), min_size=1))
@settings(max_examples=6, deadline=None)
def test_parts_of_dates_are_numbers_where_they_are_known_and_else_null(
    world: Archive, name: str, numbers: list[int]
) -> None:
    def known_and(holds: Callable[[int], bool]) -> Callable[[Row], Truth]:
        def truth(row: Row) -> Truth:
            value = part(row["eventDate"], name)
            return None if value is None else holds(value)

        return truth

    listed = ", ".join(map(str, numbers))
    check(world, f"{name}(eventDate) IN ({listed})", known_and(lambda value: value in numbers))
    low, high = min(numbers), max(numbers)
    between = known_and(lambda value: low <= value <= high)
    check(world, f"{name}(eventDate) BETWEEN {low} AND {high}", between)
    check(world, f"{name}(eventDate) IS NULL", lambda row: part(row["eventDate"], name) is None)


@pytest.mark.parametrize("year", ["1600", "1900", "2000", "2023", "2024"])
def test_every_existing_day_can_be_read_and_no_other(year: str) -> None:
    pairs = [(f"{month:02}", f"{day:02}") for month in range(14) for day in range(33)]
    for text in (f"{year}-{month}-{day}" for month, day in pairs):
        readable = re.fullmatch(filter_functions._DAY, text) is not None
        assert readable == (one_date(text) is not None), text


_PERIOD_ENDS = st.dates(date(2022, 12, 1), date(2025, 2, 1)).flatmap(
    lambda day: st.sampled_from([day.isoformat(), day.isoformat()[:7], day.isoformat()[:4]])
) | st.sampled_from(
    ["2024", "2024-01-01", "2024-12-31", "2024-05-17", "2024-07-31", "0001", "9999"]
)


@given(first=_PERIOD_ENDS, last=_PERIOD_ENDS)
@settings(max_examples=60, deadline=None)
def test_a_date_lies_in_a_period_if_all_of_it_does(world: Archive, first: str, last: str) -> None:
    begins, ends = one_date(first), one_date(last)
    assert begins
    assert ends
    where = f"during('{first}', '{last}')"
    if begins[0] > ends[1]:
        with pytest.raises(FilterError, match="ends before it begins"):
            ids(world, where)
        return

    def truth(row: Row) -> Truth:
        lies = days(row["eventDate"])
        if row["eventDate"] is None:
            return None
        return lies is not None and begins[0] <= lies[0] and lies[1] <= ends[1]

    check(world, where, truth)


@given(
    st.tuples(
        st.floats(-180, 180, width=16),
        st.floats(-90, 90, width=16),
        st.floats(-180, 180, width=16),
        st.floats(-90, 90, width=16),
    )
)
@settings(max_examples=60, deadline=None)
def test_a_box_holds_its_edges_and_goes_eastwards(
    world: Archive, box: tuple[float, float, float, float]
) -> None:
    west, south, east, north = box
    south, north = min(south, north), max(south, north)

    def truth(row: Row) -> Truth:
        latitude, longitude = row["decimalLatitude"], row["decimalLongitude"]
        across = west > east
        in_height = None if latitude is None else south <= latitude <= north
        in_width = None
        if longitude is not None:
            inside = (longitude >= west, longitude <= east)
            in_width = any(inside) if across else all(inside)
        if False in (in_height, in_width):
            return False
        return None if None in (in_height, in_width) else True

    check(world, f"within_box({west!r}, {south!r}, {east!r}, {north!r})", truth)


@pytest.mark.parametrize(
    "name",
    [
        "Strigidae",
        "STRIX",
        "strix aluco",
        "Strix  aluco",
        "Strigiformes",
        "Striginae",
        "Strix aluco aluco",
        "Owls",
        "owl",
        "aluco",
        "%",
        "Strix alu_o",
        "x",
        "Strix aluco ×",
        "o'wl",
        "Insecta",
    ],
)
def test_a_taxon_is_found_at_any_rank_and_nothing_is_guessed(world: Archive, name: str) -> None:
    quoted = name.replace("'", "''")
    check(world, f"taxon('{quoted}')", lambda row: belongs(row, " ".join(name.split())))


def test_a_taxon_holds_its_subspecies_and_not_its_hybrids() -> None:
    found = {str(row.get("scientificName")) for row in ROWS if belongs(row, "Strix aluco")}
    assert found == {"None", "Strix aluco", "Strix aluco Linnaeus, 1758", "STRIX ALUCO ALUCO"}


@pytest.mark.parametrize(
    "text",
    [
        "tawny owl",
        "OWL",
        "owl tawny",
        "long eared",
        "eared-owl",
        "100%",
        "x_y",
        "x y",
        "_",
        "owlet",
        "d'arnaud",
        "arnaud s",
        "eule",
        "éperviere",
        "(?i).*",
        "strix aluco",
        "insecta moth",
        "tawny moth",
    ],
)
def test_names_match_where_each_word_is_one_of_the_row(world: Archive, text: str) -> None:
    quoted = text.replace("'", "''")
    wanted = words(text)
    if not wanted:
        with pytest.raises(FilterError, match="no word"):
            ids(world, f"names_match('{quoted}')")
        return
    columns = ("scientificName", "vernacularName", *RANKS)

    def truth(row: Row) -> Truth:
        return wanted <= set().union(*(words(row.get(c) or "") for c in columns))

    check(world, f"names_match('{quoted}')", truth)


def test_conditions_with_a_name_join_others(world: Archive) -> None:
    where = "taxon('Strix') AND month(eventDate) = 5 AND NOT within_box(-180, 0, 180, 90)"

    def truth(row: Row) -> bool:
        may = part(row["eventDate"], "month") == 5
        latitude = row["decimalLatitude"]
        # The box goes round the world: only the latitude can be outside.
        return belongs(row, "Strix") and may and latitude is not None and latitude < 0

    assert set(ids(world, where)) == {f"r{i}" for i, row in enumerate(ROWS) if truth(row)}


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("taxon()", "taxon takes one quoted text, as in taxon('Strigidae')"),
        ("taxon('a', 'b')", "takes one quoted text"),
        ("taxon(1)", "takes one quoted text"),
        ("taxon(scientificName)", "is not a literal"),
        ("taxon(lower('X'))", "is not a literal"),
        ("taxon('')", "needs a name"),
        ("taxon('  ')", "needs a name"),
        (f"taxon('{'x' * 501}')", "limit is 500"),
        ("taxon(DISTINCT 'x')", "is not a literal"),
        ("taxon('x' ORDER BY 1)", "is not a literal"),
        ("taxon('x') OVER ()", "is not a condition"),
        ("x.taxon('x')", "is not a condition"),
        ("taxon('x') = true", "not allowed"),
        ("taxon('x') IS NULL", "not allowed"),
        ("tax('x')", "conditions are taxon, names_match, within_box, during"),
        ("names_match('%')", "no word"),
        (f"names_match('{' '.join(f'w{i}' for i in range(21))}')", "21 words"),
        ("within_box(1, 2, 3)", "takes 4 numbers: west, south, east, north"),
        ("within_box(1, 2, 3, 'x')", "takes 4 numbers"),
        ("within_box(1, 2, 3, decimalLatitude)", "is not a literal"),
        ("within_box(1, 2, 3, 1 + 1)", "is not a literal"),
        ("within_box(- -1, 2, 3, 4)", "is not a literal"),
        ("within_box(1, 91, 3, 92)", "from -90 to 90"),
        ("within_box(1, 5, 3, 4)", "south first"),
        ("within_box(181, 2, 3, 4)", "from -180 to 180"),
        ("within_box(1, 2, 1e999, 4)", "too large"),
        ("during('2024')", "during takes 2 quoted dates"),
        ("during('May', '2024')", "'May' is not a date"),
        ("during('2024-02-30', '2024')", "is not a date"),
        ("during('2024-13', '2025')", "is not a date"),
        ("during('0000', '2025')", "is not a date"),
        ("during('２０２４', '2025')", "is not a date"),
        ("during('2024-05-01T08:00', '2025')", "is not a date"),
        ("during('2025', '2024')", "ends before it begins"),
        ("during(2024, 2025)", "2 quoted dates"),
        ("year(decimalLatitude) = 2024", "one column of dates"),
        ("year() = 2024", "one column of dates"),
        ("year(eventDate, 'x') = 2024", "one column of dates"),
        ("year(eventDate => 'x') = 2024", "not allowed"),
        ("year(eventDate)", "is not a condition"),
        ("month(eventDate) = '5'", "compares numbers with text"),
        ("year(year(eventDate)) = 1", "one column of dates"),
        (" OR ".join(["taxon('x')"] * 51), "more than 50 functions"),
        ("month(eventDate) IN (month(eventDate))", "is not a literal"),
    ],
)
def test_what_a_function_cannot_take_is_refused_and_named(where: str, part: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_where(where, DARWIN_CORE)
    assert part in caught.value.message
    assert caught.value.field == "where"


@given(text=st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_whatever_text_is_looked_for_is_only_ever_text(world: Archive, text: str) -> None:
    quoted = text.replace("'", "''")
    for name in ("taxon", "names_match"):
        try:
            assert ids(world, f"{name}('{quoted}') AND false") == []
        except FilterError as error:
            no_word = not words(text) and ("no word" in error.message or "needs" in error.message)
            assert no_word or not text.strip() or "\0" in text


def test_fifty_functions_are_allowed() -> None:
    assert compile_where(" OR ".join(["month(eventDate) = 13"] * 50), DARWIN_CORE)


def test_columns_called_like_functions_are_columns_still(tmp_path: Any) -> None:
    with Archive.create(tmp_path / "a") as archive:
        archive.register_model(OWL, {})
        row = {"year": 2024, "month": "May", "taxon": "owls", "eventDate": "2023-06"}
        archive.add([photo("a", row)], model=OWL.digest)
        where = "year = 2024 AND month = 'May' AND taxon = 'owls'"
        assert ids(archive, where) == ["a"]
        assert ids(archive, f"{where} AND year(eventDate) = 2023 AND month(eventDate) = 6") == ["a"]
