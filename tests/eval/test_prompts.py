from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bittern.benchmarks.eval.tasks import Classes, Items, Protocol, Relevance, Task
from bittern.benchmarks.eval.tasks.prompts import (
    IMAGE_PROMPTS,
    fallbacks,
    fill,
    prompts_note,
    text_queries,
    with_fallbacks,
)
from bittern.errors import InvalidInputError

IMAGE_CAPTIONS = (
    "a photo of {common}",
    "{scientific}",
    "{taxonomy}",
    "{scientific} with common name {common}",
)

OWL = {
    "kingdom": "Animalia",
    "class": "Aves",
    "genus": "Strix",
    "scientificName": "Strix aluco",
    "vernacularName": "Tawny Owl",
}
CLASSES = Classes(["Strix aluco", "Bubo bubo"], [OWL, {}])


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("a photo of {common}", "a photo of Tawny Owl"),
        ("{scientific}", "Strix aluco"),
        ("{taxonomy}", "Animalia Aves Strix aluco"),
        ("{scientific} with common name {common}", "Strix aluco with common name Tawny Owl"),
        ("{{{name}}}", "{owl-7}"),
    ],
)
def test_template_is_filled_with_the_names_of_the_class(template: str, filled: str) -> None:
    assert fill(template, OWL, "owl-7") == filled


@pytest.mark.parametrize("template", ["{common}", "{scientific}", "{taxonomy}", "{name}"])
def test_class_without_names_is_searched_by_its_label(template: str) -> None:
    assert fill(template, {}, "frog") == "frog"


def test_class_without_common_name_is_searched_by_its_scientific_one() -> None:
    assert fill("{common}", {"scientificName": "Bubo bubo"}, "label") == "Bubo bubo"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a photo of {species}", "'{species}'; known are {common}"),
        ("{common.__class__}", "unknown placeholder"),
        ("{common!r}", "'{common!r}'"),
        ("{common:>40}", "unknown placeholder"),
        ("{}", "unknown placeholder"),
        ("a photo of {common", "stray braces"),
        ("a photo of a bird", "names no class"),
        ("", "names no class"),
    ],
)
def test_template_that_cannot_be_filled_is_refused(template: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        fill(template, OWL, "owl")
    assert message in str(refused.value)


def test_prompt_that_is_too_long_to_be_embedded_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidInputError, match="2,009 characters"):
        fill("{name} is long", {}, "a" * 2001)


def test_one_prompt_makes_one_query_per_class_named_like_it() -> None:
    queries = text_queries(CLASSES, np.array([1, 0]), Protocol(), IMAGE_PROMPTS)
    assert list(queries.ids) == ["Bubo_bubo", "Strix_aluco"]
    assert list(queries.contents) == [("a photo of Bubo bubo",), ("a photo of Tawny Owl",)]
    assert queries.classes.tolist() == [1, 0]


def test_several_prompts_make_a_query_each() -> None:
    protocol = Protocol(prompts=("{common}", "{scientific}"))
    queries = text_queries(CLASSES, np.arange(2), protocol, IMAGE_PROMPTS)
    assert list(queries.ids) == ["Strix_aluco#0", "Strix_aluco#1", "Bubo_bubo#0", "Bubo_bubo#1"]
    assert list(queries.contents)[:2] == [("Tawny Owl",), ("Strix aluco",)]
    assert queries.classes.tolist() == [0, 0, 1, 1]


def test_averaged_prompts_make_one_query_with_each_text_once() -> None:
    protocol = Protocol(prompts=IMAGE_CAPTIONS, average_prompts=True)
    queries = text_queries(CLASSES, np.arange(2), protocol, IMAGE_PROMPTS)
    assert list(queries.ids) == ["Strix_aluco", "Bubo_bubo"]
    assert queries.contents[0] == tuple(fill(each, OWL, "Strix aluco") for each in IMAGE_CAPTIONS)
    assert queries.contents[1] == (
        "a photo of Bubo bubo",
        "Bubo bubo",
        "Bubo bubo with common name Bubo bubo",
    )


def test_classes_of_one_name_keep_ids_of_their_own() -> None:
    twins = Classes(["Oenanthe", "Oenanthe"])
    queries = text_queries(twins, np.arange(2), Protocol(), ("{name}",))
    assert list(queries.ids) == ["Oenanthe", "Oenanthe[1]"]


def test_classes_named_like_the_id_of_another_keep_ids_of_their_own() -> None:
    names = [
        "Oenanthe",
        "Oenanthe[2]",
        "Oenanthe",
        "Oenanthe",
        "Oenanthe_a",
        "Oenanthe a",
        "[7]",
        "",
    ]
    ids = text_queries(Classes([*names]), np.arange(8), Protocol(prompts=("a {name}",)), ()).ids
    assert len(set(ids)) == len(names)
    assert list(ids)[:4] == ["Oenanthe", "Oenanthe[2]", "Oenanthe[2][2]", "Oenanthe[3]"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "A query is the prompt 'a photo of {common}'"),
        ({"prompts": ("{name}",)}, "The label is embedded as it stands, without a prompt"),
        ({"prompts": ("a {name}", "{name}")}, "Each of 2 prompts is a query: 'a {name}', "),
        (
            {"prompts": ("a {name}", "{name}"), "average_prompts": True},
            "A query is the mean of 2 prompts' embeddings: 'a {name}', '{name}'",
        ),
        ({"prompts": [f"{n} {{name}}" for n in range(9)]}, "'4 {name}' and 4 more"),
    ],
)
def test_notes_show_the_prompts(options: dict[str, Any], message: str) -> None:
    assert message in prompts_note(Protocol(**options), IMAGE_PROMPTS)


def test_prompt_that_is_given_twice_is_refused() -> None:
    protocol = Protocol(prompts=("{name}", "{name}"))
    with pytest.raises(InvalidInputError, match="given twice"):
        text_queries(CLASSES, np.arange(2), protocol, IMAGE_PROMPTS)


def test_classes_without_the_name_of_the_prompt_are_counted() -> None:
    every = np.arange(2)
    sentences = fallbacks(CLASSES, every, Protocol(), IMAGE_PROMPTS)
    assert sentences == ["1 of 2 classes has no common name and is searched by its label"]
    assert fallbacks(CLASSES, every, Protocol(prompts=("{name}",)), IMAGE_PROMPTS) == []


def test_where_no_class_has_the_name_of_the_prompt_that_is_noted_first() -> None:
    classes = Classes(["a", "b"], [{"scientificName": "Strix aluco"}, {"scientificName": "Bubo"}])
    queries = text_queries(classes, np.arange(2), Protocol(), IMAGE_PROMPTS)
    items = Items(("x",), "image", ("x",), np.zeros(1, np.int32), "image")
    relevance = Relevance.by_class(queries.classes, items.classes)
    task = Task("text→image", queries, items, relevance, classes, left_out=("x is not there",))
    noted = with_fallbacks(task, Protocol(), IMAGE_PROMPTS)
    sentence = (
        "No class of the queries has a common name: {common} stands for the scientific name in "
        "all queries"
    )
    assert list(noted.left_out) == [sentence, "x is not there"]
    assert list(noted.notes) == [sentence]
    plain = with_fallbacks(task, Protocol(prompts=("{scientific}",)), IMAGE_PROMPTS)
    assert list(plain.left_out) == ["x is not there"]
