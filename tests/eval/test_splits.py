from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import (
    Classes,
    Items,
    Protocol,
    QuerySet,
    Relevance,
    Task,
    TrainingSplit,
)
from bittern.benchmarks.eval.tasks.prompts import IMAGE_PROMPTS, text_queries
from bittern.benchmarks.eval.tasks.splits import (
    at_level,
    by_protocol,
    leave_out_unanswerable,
    novel_classes,
    taxa_of,
    with_groups,
)
from bittern.errors import InvalidInputError, QrelsError
from bittern.types import MediaItem

NAMES = ["Capra hircus", "Capra nubiana", "Bos taurus", "Felis catus", "Panthera onca"]
FAMILIES = ["Bovidae", "Bovidae", "Bovidae", "Felidae", "Felidae"]


def classes() -> Classes:
    return Classes(
        NAMES,
        [
            {
                "kingdom": "Animalia",
                "family": family,
                "genus": name.split()[0],
                "scientificName": name,
                "vernacularName": name.upper(),
            }
            for name, family in zip(NAMES, FAMILIES, strict=True)
        ],
    )


def items(of: list[int]) -> Items:
    ids = [f"i{number}" for number in range(len(of))]
    media = [MediaItem(each, each, "image") for each in ids]
    return Items(ids, "image", media, np.array(of, np.int32), "image")


def words(of: list[int], task_classes: Classes) -> QuerySet:
    return text_queries(task_classes, np.array(of), Protocol(), IMAGE_PROMPTS)


def task(of: list[int], queries: QuerySet | None = None, kinds: Classes | None = None) -> Task:
    kinds = kinds or classes()
    queries = queries or words(list(range(len(kinds))), kinds)
    ranked = items(of)
    relevance = Relevance.by_class(queries.classes, ranked.classes)
    return Task("text→image", queries, ranked, relevance, kinds)


def of(task: Task) -> list[list[int]]:
    return [task.relevance.of(query).tolist() for query in range(len(task.queries))]


def many(genera: list[int]) -> Classes:
    """Classes of genera of the given sizes, two genera to a family."""
    taxa = [
        {"genus": f"g{genus}", "family": f"f{genus // 2}"}
        for genus, size in enumerate(genera)
        for _ in range(size)
    ]
    return Classes([f"c{number}" for number in range(len(taxa))], taxa)


def taxa_in(kinds: Classes, rank: str, chosen: NDArray[np.bool_]) -> set[str]:
    return {kinds.taxa[position][rank] for position in np.flatnonzero(chosen).tolist()}


def test_random_novel_classes_are_the_share_and_the_same_for_the_same_seed() -> None:
    kinds = many([1] * 50)
    novel = novel_classes(kinds, "random", 0.2, 7)
    assert novel.sum() == 10
    assert (novel == novel_classes(kinds, "random", 0.2, 7)).all()
    assert (novel != novel_classes(kinds, "random", 0.2, 8)).any()


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=12),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
)
def test_taxonomic_novel_classes_share_no_genus_with_seen_ones(
    genera: list[int], share: float, seed: int
) -> None:
    kinds = many(genera)
    novel = novel_classes(kinds, "taxonomy", share, seed)
    genera_of = [taxa_in(kinds, "genus", each) for each in (novel, ~novel)]
    assert genera_of[0]
    assert genera_of[1]
    assert not genera_of[0] & genera_of[1]
    sums = {0}
    for size in genera:
        sums |= {each + size for each in sums}
    nearest = min(abs(each - share * len(kinds)) for each in sums - {0, len(kinds)})
    assert abs(novel.sum() - share * len(kinds)) == pytest.approx(nearest)


def test_taxonomic_novel_genera_share_no_family_with_seen_ones() -> None:
    kinds = many([3, 2, 4, 1, 2, 2])
    novel = novel_classes(kinds, "taxonomy", 0.3, 0, "genus")
    families = [taxa_in(kinds, "family", each) for each in (novel, ~novel)]
    assert not families[0] & families[1]
    assert novel.sum() in (4, 5)


def test_other_seeds_hold_out_other_taxa() -> None:
    drawn = {novel_classes(many([2] * 20), "taxonomy", 0.3, s).tobytes() for s in range(5)}
    assert len(drawn) > 1


def test_classes_without_taxonomy_cannot_be_held_out_by_it() -> None:
    kinds = Classes(["a", "b", "c"], [{"genus": "g"}, {}, {}])
    with pytest.raises(InvalidInputError, match=r"2 of 3 classes have no genus.*first: b, c"):
        novel_classes(kinds, "taxonomy", 0.5, 0)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_share_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(InvalidInputError, match="novel share"):
        novel_classes(classes(), "random", share, 0)


def test_one_genus_cannot_be_parted() -> None:
    with pytest.raises(InvalidInputError, match="two groups"):
        novel_classes(many([7]), "taxonomy", 0.5, 0)


def test_groups_tell_queries_by_their_class() -> None:
    novel = np.array([True, False, False, False, True])
    grouped = with_groups(task([0, 1, 2, 3, 4]), novel)
    assert grouped.groups["novel"].tolist() == novel.tolist()
    assert grouped.groups["seen"].tolist() == (~novel).tolist()
    assert "2 of 5 classes are novel" in grouped.notes
    assert any("this run's own split" in note for note in grouped.notes)


def test_novel_classes_are_taken_out_of_what_is_fitted_on() -> None:
    whole = task([0, 1, 2, 3, 4])
    training = TrainingSplit(items([0, 4, 1, 4, -1]), whole.queries)
    grouped = with_groups(replace(whole, training=training), np.arange(5) == 4)
    assert grouped.training is not None
    assert list(grouped.training.items.ids) == ["i0", "i2"]
    assert grouped.training.items.classes.tolist() == [0, 1]
    assert list(grouped.training.queries.ids) == [name.replace(" ", "_") for name in NAMES[:4]]
    assert grouped.training.items.contents[1] == training.items.contents[2]


def test_genus_widens_what_is_relevant_and_has_one_query_for_each_genus() -> None:
    higher = at_level(task([0, 1, 2, 3, 1, -1]), "genus")
    assert list(higher.queries.ids) == ["Capra", "Bos", "Felis", "Panthera"]
    assert higher.queries.contents[0] == ("a photo of Capra",)
    assert of(higher) == [[0, 1, 4], [2], [3], []]
    assert higher.classes.taxa[0] == {
        "kingdom": "Animalia",
        "family": "Bovidae",
        "genus": "Capra",
        "scientificName": "Capra",
    }


def test_species_is_the_task_as_it_is() -> None:
    whole = task([0, 1])
    assert at_level(whole, "species") is whole


def test_queries_by_media_stay_and_more_is_right_for_them() -> None:
    media = [MediaItem(f"q{n}", f"q{n}", "audio") for n in range(2)]
    queries = QuerySet(["q0", "q1"], "audio", media, np.array([1, 3], np.int32), "audio")
    higher = at_level(task([0, 1, 2, 3, 4], queries), "family")
    assert list(higher.queries.contents) == media
    assert of(higher) == [[0, 1, 2], [3, 4]]


def test_items_without_the_rank_are_counted_and_right_for_nothing() -> None:
    kinds = classes()
    taxa = [dict(taxon) for taxon in kinds.taxa]
    del taxa[3]["family"]
    higher = at_level(task([0, 3, 3, 4], kinds=Classes(NAMES, taxa)), "family")
    assert of(higher) == [[0], [3]]
    assert "2 of 4 items have no family and are relevant for no query" in higher.left_out
    assert "1 of 5 queries has no family and was left out" in higher.left_out


def test_genus_of_one_name_in_two_kingdoms_is_two_genera() -> None:
    kinds = Classes(
        ["Oenanthe oenanthe", "Oenanthe crocata", "Oenanthe hispanica"],
        [
            {"kingdom": "Animalia", "genus": "Oenanthe"},
            {"kingdom": "Plantae", "genus": "Oenanthe"},
            {"kingdom": "Animalia", "genus": "Oenanthe"},
        ],
    )
    assert taxa_of(kinds, "genus").tolist() == [0, 1, 0]
    assert of(at_level(task([0, 1, 2], kinds=kinds), "genus")) == [[0, 2], [1]]


def test_rank_that_no_class_has_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"has the rank order"):
        at_level(task([0, 1]), "order")


def test_queries_of_no_class_have_no_level() -> None:
    queries = QuerySet(["q"], "text", [("a bird",)], np.array([-1], np.int32), "text")
    with pytest.raises(InvalidInputError, match="are not of classes"):
        at_level(task([0], queries), "genus")


def test_queries_that_nothing_answers_are_left_out_and_counted_with_empty_classes() -> None:
    candidates = Relevance.by_class(np.zeros(5, np.int32), np.zeros(4, np.int32))
    whole = replace(
        task([0, 0, 3, -1]),
        candidates=candidates,
        groups={"a": np.array([1, 1, 0, 0, 0], bool), "b": np.array([0, 0, 1, 0, 1], bool)},
    )
    left = leave_out_unanswerable(whole)
    assert list(left.queries.ids) == ["Capra_hircus", "Felis_catus"]
    assert of(left) == [[0, 1], [2]]
    assert left.candidates is not None
    assert len(left.candidates) == 2
    assert {name: each.tolist() for name, each in left.groups.items()} == {"a": [True, False]}
    assert list(left.left_out) == [
        "3 of 5 queries have no relevant item and were left out "
        "(Capra nubiana, Bos taurus, Panthera onca)",
    ]


def test_nothing_is_left_out_where_every_query_is_answered() -> None:
    whole = task([0, 1, 2, 3, 4])
    left = leave_out_unanswerable(whole)
    assert left.left_out == ()
    assert left.queries is whole.queries


@pytest.mark.parametrize("of_items", [[], [-1, -1]])
def test_task_that_nothing_answers_is_refused(of_items: list[int]) -> None:
    with pytest.raises(QrelsError, match="no query of text→image has a relevant item \\(5 queries"):
        leave_out_unanswerable(task(of_items))


def test_some_items_keep_ids_media_and_classes_together() -> None:
    whole = items([3, 1, 2])
    some = whole.only(np.array([2, 0]))
    assert list(some.ids) == ["i2", "i0"]
    assert some.classes.tolist() == [2, 3]
    assert some.contents[0] == whole.contents[2]
    assert some.ids[0:2] == ["i2", "i0"]


def test_protocol_sets_level_then_groups_then_leaves_out() -> None:
    protocol = Protocol(level="genus", novel="taxonomy", novel_share=0.5, prompts=("{name}",))
    made = by_protocol(task([0, 1, 2, 3]), protocol)
    assert list(made.queries.contents) == [("Capra",), ("Bos",), ("Felis",)]
    groups = sorted(each.tolist() for each in made.groups.values())
    assert groups == [[False, False, True], [True, True, False]]
