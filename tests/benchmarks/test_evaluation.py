"""The benchmark of what an evaluation costs runs, and evaluates what it says."""

from __future__ import annotations

from bittern.benchmarks.speed.evaluation import Size, Species, measure_evaluation

SMALL = Size(queries=40, rows=1_000, bits=64, depth=20, rounds=2)


def test_both_distances_are_measured_in_every_round() -> None:
    report = measure_evaluation(SMALL)
    (measured,) = report.values["evaluation"]
    for metric in ("symmetric", "asymmetric"):
        found = measured[metric]
        seconds = found["seconds"].seconds
        assert {name: len(times) for name, times in seconds.items()} == {
            "search": 2,
            "evaluation": 2,
        }
        assert len(found["values"]) == 16
        assert found["values"]["P@10 worst"] <= found["values"]["P@10 best"]
        assert 0 < found["values"]["AP_minR@20 expected"] < 1
    assert [row[0] for row in report.tables[0].rows] == ["symmetric", "asymmetric"]


def test_ties_at_the_depth_are_of_the_right_and_the_wrong() -> None:
    """Else the hardest part of the work would not be timed."""
    (measured,) = measure_evaluation(SMALL).values["evaluation"]
    found = measured["symmetric"]["values"]
    assert found["AP_minR@20 worst"] < found["AP_minR@20 best"]


def test_every_query_has_its_species_among_the_codes() -> None:
    species = Species.drawn(SMALL)
    assert species.relevance.counts.min() >= 1
