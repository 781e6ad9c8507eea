"""The map from rows to their positions in the store, against a plain dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bittern.index.row_map import RowMap

_POSITIONS = st.dictionaries(st.integers(0, 40), st.integers(0, 2**33), max_size=30)
_ROWS = st.sets(st.integers(0, 45), max_size=20)


def ints(values: object) -> np.ndarray:
    return np.array(list(values), dtype=np.int64)  # type: ignore[call-overload]


def unique_ids(positions: dict[int, int]) -> dict[int, int]:
    taken: dict[int, int] = {}
    for row, at in positions.items():
        while at in taken.values():
            at += 1
        taken[row] = at
    return taken


def map_of(positions: dict[int, int]) -> RowMap:
    return RowMap.of([(ints(positions), ints(positions.values()))])


def as_dictionary(rows: RowMap) -> dict[int, int]:
    numbers = rows.rows()
    ids, known = rows.ids_of(numbers)
    assert known.all()
    assert (np.diff(numbers) > 0).all()
    return dict(zip(numbers.tolist(), ids.tolist(), strict=True))


@given(_POSITIONS, _ROWS)
def test_a_map_knows_its_rows_and_no_others(positions: dict[int, int], rows: set[int]) -> None:
    positions = unique_ids(positions)
    made = map_of(positions)
    assert len(made) == len(positions)
    assert as_dictionary(made) == positions
    found, known = made.positions_of(ints(rows))
    assert known.tolist() == [row in positions for row in rows]
    ranks = sorted(positions)
    assert [ranks[at] for at in found[known]] == [row for row in rows if row in positions]
    assert made.last == max(positions, default=-1)


@given(_POSITIONS, _ROWS)
def test_rows_are_removed_whether_they_are_there_or_not(
    positions: dict[int, int], gone: set[int]
) -> None:
    positions = unique_ids(positions)
    left = map_of(positions).without(ints(sorted(gone)))
    assert as_dictionary(left) == {row: at for row, at in positions.items() if row not in gone}
    missing = map_of(positions).missing_from(left)
    assert missing.tolist() == sorted(gone & positions.keys())
    assert map_of(positions).same_rows(left) == (not gone & positions.keys())


@given(_POSITIONS, _POSITIONS)
def test_rows_are_added_and_moved(positions: dict[int, int], more: dict[int, int]) -> None:
    positions, more = unique_ids(positions), unique_ids(more)
    moved = map_of(positions).with_rows(ints(more), ints(more.values()))
    assert as_dictionary(moved) == {**positions, **more}


@given(_POSITIONS)
def test_rows_are_found_by_their_ids_and_an_unknown_id_is_noticed(
    positions: dict[int, int],
) -> None:
    positions = unique_ids(positions)
    made = map_of(positions)
    found = made.rows_of(ints(positions.values()))
    assert found is not None
    assert found.tolist() == sorted(positions)
    unknown = max(positions.values(), default=0) + 1
    assert made.rows_of(ints([*positions.values(), unknown])) is None


def test_rows_and_ids_that_count_up_together_are_one_run() -> None:
    rows = np.arange(1000, dtype=np.int64)
    assert len(RowMap.of([(rows, rows + 7)]).first) == 1
    assert len(RowMap.of([(rows[:500], rows[:500]), (rows[500:], rows[500:])]).first) == 1
    assert len(RowMap.of([(rows, rows)]).without(rows[500:501]).first) == 2


@given(_POSITIONS, st.data())
def test_neighbouring_rows_are_a_run_or_an_array(
    positions: dict[int, int], data: st.DataObject
) -> None:
    made = map_of(unique_ids(positions))
    if not len(made):
        return
    begin = data.draw(st.integers(0, len(made) - 1))
    end = data.draw(st.integers(begin + 1, len(made)))
    first, rows = made.run_between(begin, end)
    found = list(range(first, first + end - begin)) if rows is None else rows.tolist()
    assert found == sorted(positions)[begin:end]
    assert found[0] == first
