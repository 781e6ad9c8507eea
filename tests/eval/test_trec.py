from __future__ import annotations

from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from bittern.benchmarks.eval.measures import measure
from bittern.benchmarks.eval.measures.ranks import Ranks
from bittern.benchmarks.eval.tasks import Relevance
from bittern.benchmarks.eval.tasks import qrels as qrels_lines
from bittern.benchmarks.eval.tasks.qrels import escaped, read_qrels, write_qrels
from bittern.benchmarks.eval.trec import write_run
from bittern.errors import (
    LimitExceededError,
    QrelsError,
    SourceNotFoundError,
)

QUERIES = ("q1", "q2", "q3")
THEIRS = {"map", "map_cut", "ndcg", "ndcg_cut", "P", "recall", "recip_rank", "Rprec"}
ITEMS = ("owl 1", "owl-2", "tern", "a%20b", "50%", "ü")
GRADED = Relevance(
    np.array([0, 2, 3, 6]), np.array([0, 4, 2, 1, 3, 5]), np.array([1, 3, 1, 2, 1, 1], np.int32)
)


def qrels(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "qrels.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def ranks_in_order(hits: np.ndarray, relevance: Relevance, items: int) -> Ranks:
    """Ranks of hits in the order given, without ties."""
    found = [np.flatnonzero(np.isin(row, relevance.of(q))) for q, row in enumerate(hits)]
    rank = np.concatenate(found) + 1
    return Ranks(
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in found])]),
        rank=rank,
        nearer=rank - 1,
        tied=np.ones_like(rank),
        grades=np.ones(len(rank), np.int32),
        relevant=relevance.counts,
        ideal=relevance.grades,
        ideal_offsets=relevance.offsets,
        ranked=np.full(len(relevance), items),
    )


def average_precisions(hits: np.ndarray, relevance: Relevance) -> list[float]:
    """By definition, hits in the order given."""
    found = []
    for query, row in enumerate(hits):
        right = set(relevance.of(query).tolist())
        got = np.array([item in right for item in row if item >= 0], bool)
        precision = np.cumsum(got) / np.arange(1, len(got) + 1)
        found.append(float((precision * got).sum() / len(right)))
    return found


# Judgements


def test_judgements_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_qrels(tmp_path / "q", QUERIES, ITEMS, GRADED)
    found, left_out = read_qrels(tmp_path / "q", QUERIES, ITEMS)
    assert left_out == []
    for name in ("offsets", "items", "grades"):
        assert getattr(found, name).tolist() == getattr(GRADED, name).tolist()
        assert getattr(found, name).dtype == getattr(GRADED, name).dtype


def test_an_id_that_looks_escaped_is_found_unescaped_too(tmp_path: Path) -> None:
    found, _ = read_qrels(qrels(tmp_path, "q1 0 a%20b 1\n"), QUERIES, ("x", "a%20b"))
    assert found.of(0).tolist() == [1]


@given(st.sets(st.text(" \t%20ab\x85\u2003é\ud800", min_size=1)))
def test_no_two_ids_are_written_alike_and_none_with_whitespace(names: set[str]) -> None:
    usable = [n for n in names if not any("\ud800" <= c <= "\udfff" for c in n)]
    written = [escaped(name) for name in usable]
    assert len(set(written)) == len(usable)
    assert all(name.split() == [name] for name in written)


@pytest.mark.parametrize("name", ["", "half \ud800 pair"])
def test_an_id_that_no_file_can_hold_is_refused(name: str) -> None:
    with pytest.raises(QrelsError, match="cannot be written"):
        escaped(name)


def test_unknown_ids_are_named_with_their_lines_and_the_remedy(tmp_path: Path) -> None:
    lines = [f"q1 0 gone-{n} 1" for n in range(7)] + ["q1 0 tern 1", "q9 0 tern 1"]
    path = qrels(tmp_path, "\n".join(lines))
    with pytest.raises(QrelsError) as raised:
        read_qrels(path, QUERIES, ITEMS)
    message = raised.value.message
    assert "1 line names an unknown query: 'q9' (line 9)" in message
    assert "7 lines name unknown items" in message
    assert "'gone-0' (line 1)" in message
    assert "and 2 more" in message
    assert "--unknown skip" in message


def test_unknown_ids_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = qrels(tmp_path, "q1 0 tern 1\nq1 0 gone 1\nq9 0 tern 1\nq8 0 tern 1\n")
    found, left_out = read_qrels(path, QUERIES, ITEMS, "skip")
    assert found.counts.tolist() == [1, 0, 0]
    assert left_out == [
        "qrels: 2 lines name unknown queries: 'q9' (line 3), 'q8' (line 4); left out",
        "qrels: 1 line names an unknown item: 'gone' (line 2); left out",
    ]


def test_a_judgement_that_is_repeated_counts_once(tmp_path: Path) -> None:
    path = qrels(tmp_path, "q1 0 tern 2\nq2 0 tern 1\nq1 Q0 tern 2\n")
    found, left_out = read_qrels(path, QUERIES, ITEMS)
    assert found.counts.tolist() == [1, 1, 0]
    assert left_out == ["qrels: 1 line repeats another; counted once"]


def test_judgements_that_contradict_each_other_are_refused_with_both_lines(tmp_path: Path) -> None:
    path = qrels(tmp_path, "q1 0 tern 1\nq1 0 owl-2 1\n\nq1 0 tern 0\n")
    with pytest.raises(QrelsError, match=r"lines 1 and 4 .* grades 1 and 0"):
        read_qrels(path, QUERIES, ITEMS, "skip")


def test_grades_of_zero_and_less_are_not_relevant(tmp_path: Path) -> None:
    path = qrels(tmp_path, "q1 0 tern 0\nq1 0 owl-2 -1\nq1 0 50% 3\n")
    found, left_out = read_qrels(path, QUERIES, ITEMS)
    assert (found.of(0).tolist(), found.grades.tolist()) == ([4], [3])
    assert left_out == ["qrels: 2 lines have grade 0 or less: not relevant"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 tern 1\nq1 tern 1\n", "line 2: 3 cells"),
        ("q1 0 owl 1 1\n", "line 1: 5 cells"),
        ("q1 0 tern yes\n", "line 1: the grade 'yes'"),
        ("q1 0 tern 1.5\n", "line 1: the grade '1.5'"),
        ("q1 0 tern -\n", "line 1: the grade '-'"),
        ("q1 0 tern 99999999999\n", "line 1: the grade"),
        ("q1 0 tern 4000000000\n", "line 1: the grade"),
        (b"q1 0 tern 1\nq1 0 \xff 1\n", "line 2 is not UTF-8"),
        ("", "no judgements"),
        (" \n\n", "no judgements"),
        ("q1 0 tern 0\n", "no judgement .1 line."),
    ],
)
def test_bad_judgements_are_refused_with_their_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(QrelsError, match=message):
        read_qrels(qrels(tmp_path, text), QUERIES, ITEMS)


def test_where_every_line_is_left_out_nothing_is_left_to_judge(tmp_path: Path) -> None:
    with pytest.raises(QrelsError, match=r"no judgement .1 line."):
        read_qrels(qrels(tmp_path, "q9 0 tern 1\n"), QUERIES, ITEMS, "skip")


def test_a_line_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = qrels(tmp_path, b"q1 0 tern 1\n" + b"x" * (qrels_lines.MAX_LINE_BYTES + 1))
    with pytest.raises(LimitExceededError, match="line 2"):
        read_qrels(path, QUERIES, ITEMS)


def test_too_many_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qrels_lines, "MAX_LINES", 2)
    with pytest.raises(LimitExceededError, match="more than 2 lines"):
        read_qrels(qrels(tmp_path, "q1 0 tern 1\n" * 3), QUERIES, ITEMS)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="does not exist"):
        read_qrels(tmp_path / "none", QUERIES, ITEMS)


def test_what_windows_editors_save_is_read(tmp_path: Path) -> None:
    found, _ = read_qrels(qrels(tmp_path, "\ufeffq1\t0\ttern\t1\r\n"), QUERIES, ITEMS)
    assert found.of(0).tolist() == [2]


def test_a_no_break_space_is_part_of_an_id(tmp_path: Path) -> None:
    found, _ = read_qrels(qrels(tmp_path, "q1 0 a\u00a0b 1\n"), QUERIES, ("x", "a\u00a0b"))
    assert found.of(0).tolist() == [1]


def test_two_things_cannot_have_one_id(tmp_path: Path) -> None:
    with pytest.raises(QrelsError, match="'tern' is used twice"):
        read_qrels(qrels(tmp_path, "q1 0 tern 1\n"), QUERIES, ("tern", "tern"))


def test_a_judged_window_counts_for_its_item_with_its_highest_grade(tmp_path: Path) -> None:
    named = {"tern#t=0,3": [2], "tern#t=3,6": [2], "owls": [0, 1]}
    text = "q1 0 tern#t=0,3 1\nq1 0 tern#t=3,6 2\nq1 0 owls 1\nq2 0 tern 1\nq2 0 tern#t=0,3 0\n"
    found, _ = read_qrels(
        qrels(tmp_path, text), QUERIES, ITEMS, also=lambda name: named.get(name, ())
    )
    assert found.offsets.tolist() == [0, 3, 4, 4]
    assert found.items.tolist() == [0, 1, 2, 2]
    assert found.grades.tolist() == [1, 1, 2, 1]


# Runs


@pytest.fixture
def run_of_many() -> tuple[list[str], list[str], Relevance, np.ndarray]:
    """Forty items in random orders; ids that sort in another order, some with spaces."""
    rng = np.random.default_rng(7)
    queries, items = [f"q {n}" for n in range(20)], [f"item {37 * n % 40}" for n in range(40)]
    hits = np.stack([rng.permutation(40)[:30] for _ in queries])
    hits[3, 11:] = -1
    rows = [np.sort(rng.choice(40, 1 + n % 7, replace=False)) for n in range(20)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    entries = np.concatenate(rows)
    return queries, items, Relevance(offsets, entries, np.ones(len(entries), np.int32)), hits


def test_trec_eval_sees_the_hits_in_our_order(
    tmp_path: Path, run_of_many: tuple[list[str], list[str], Relevance, np.ndarray]
) -> None:
    queries, items, relevance, hits = run_of_many
    write_qrels(tmp_path / "qrels", queries, items, relevance)
    write_run(tmp_path / "run", "ITQ 64", queries, items, hits)
    expected = average_precisions(hits, relevance)
    with (tmp_path / "qrels").open() as judged, (tmp_path / "run").open() as found:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(judged), {"map"})
        measured = evaluator.evaluate(pytrec_eval.parse_run(found))
    assert [measured[escaped(q)]["map"] for q in queries] == pytest.approx(expected, abs=1e-9)


def test_ir_measures_sees_the_hits_in_our_order(
    tmp_path: Path, run_of_many: tuple[list[str], list[str], Relevance, np.ndarray]
) -> None:
    queries, items, relevance, hits = run_of_many
    write_qrels(tmp_path / "qrels", queries, items, relevance)
    write_run(tmp_path / "run", "ITQ 64", queries, items, hits)
    measured = ir_measures.calc_aggregate(
        [ir_measures.AP, ir_measures.P @ 5],
        ir_measures.read_trec_qrels(str(tmp_path / "qrels")),
        ir_measures.read_trec_run(str(tmp_path / "run")),
    )
    right = [np.isin(row[:5], relevance.of(q)).sum() / 5 for q, row in enumerate(hits)]
    assert measured[ir_measures.AP] == pytest.approx(
        np.mean(average_precisions(hits, relevance)), abs=1e-9
    )
    assert measured[ir_measures.P @ 5] == pytest.approx(np.mean(right), abs=1e-9)


def test_scores_fall_strictly_and_the_tag_is_one_word(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "ITQ 64 bits", ["q"], ITEMS, np.array([[5, 0, -1]]))
    assert (tmp_path / "run").read_text() == (
        "q Q0 ü 1 2 ITQ-64-bits\nq Q0 owl%201 2 1 ITQ-64-bits\n"
    )


def test_a_run_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("old")
    with pytest.raises(QrelsError):
        write_run(tmp_path / "run", "t", ["q", ""], ITEMS, np.zeros((2, 1), np.int64))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("run", "old")]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("AP", "map"),
        ("AP@10", "map_cut_10"),
        ("nDCG", "ndcg"),
        ("nDCG@10", "ndcg_cut_10"),
        ("P@5", "P_5"),
        ("Recall@10", "recall_10"),
        ("MRR", "recip_rank"),
        ("R-prec", "Rprec"),
    ],
)
def test_our_measures_of_a_run_are_those_of_trec_eval(
    tmp_path: Path,
    run_of_many: tuple[list[str], list[str], Relevance, np.ndarray],
    name: str,
    theirs: str,
) -> None:
    queries, items, relevance, hits = run_of_many
    write_qrels(tmp_path / "qrels", queries, items, relevance)
    write_run(tmp_path / "run", "t", queries, items, hits)
    with (tmp_path / "qrels").open() as judged, (tmp_path / "run").open() as run:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(judged), THEIRS)
        message = evaluator.evaluate(pytrec_eval.parse_run(run))
    ours = measure(name).of(ranks_in_order(hits, relevance, len(items)), "ranked")
    assert ours.tolist() == pytest.approx([message[escaped(q)][theirs] for q in queries], abs=1e-9)
