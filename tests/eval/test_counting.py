from __future__ import annotations

from bittern.text import agreeing, counted, some_of


def test_one_of_a_kind_is_not_in_the_plural() -> None:
    assert counted(1, "item") == "1 item"
    assert counted(2000, "item") == "2,000 items"
    assert counted(0, "query", "queries") == "0 queries"
    assert some_of(1, 1, "query", "queries") == "1 of 1 query"
    assert some_of(1, 5, "query", "queries") == "1 of 5 queries"
    assert agreeing(1, "has", "have") == "has"
    assert agreeing(0, "has", "have") == "have"
